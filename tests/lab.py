"""A real JupyterLab over notebooks of a test's own, driven in a headless browser."""

import base64
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

TOKEN = "for-this-test-only"
START = 120  # seconds JupyterLab may take to start, and a page to appear
RUN = 400  # seconds a chapter may take on a slow machine; each is written to take less than 60

# Every cell stays in the page, where a test can see it without scrolling; no dialog asks for a kernel or for news.
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none", "autoStartDefaultKernel": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for_server(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urlopen(f"{address}/api/status?token={TOKEN}", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-3000:]}", pytrace=False)


@contextmanager
def serve_lab(home: Path, notebooks: Iterable[Path]) -> Iterator[str]:
    """Start a JupyterLab over copies of notebooks in ``home``/book, with settings of its own; yield its address."""
    root = home / "book"
    root.mkdir()
    for notebook in notebooks:
        shutil.copy(notebook, root / notebook.name)
    for name, value in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(value))
    folders = {"SETTINGS": "settings", "WORKSPACES": "workspaces"}
    environment = os.environ | {f"JUPYTERLAB_{key}_DIR": str(home / value) for key, value in folders.items()}
    environment |= {"JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_RUNTIME_DIR": str(home / "runtime")}
    port, log = free_port(), home / "log.txt"
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.open_browser": False,
        "ServerApp.allow_root": True,
        "ServerApp.root_dir": root,
        "IdentityProvider.token": TOKEN,
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
        "LabApp.expose_app_in_browser": True,
        "LabApp.extension_manager": "readonly",
    }
    command = [sys.executable, "-m", "jupyterlab", *(f"--{key}={value}" for key, value in options.items())]
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        try:
            wait_for_server(address, process, log)
            yield address
        finally:
            process.terminate()
            process.wait(60)


@contextmanager
def lab_page(browser):
    """A page for one notebook; its kernel ends with it."""
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(START * 500)
    try:
        yield page
    finally:
        # A kernel that nobody uses any more would keep its memory, and one that still plays its processor too.
        page.evaluate("window.jupyterapp?.shell.currentWidget?.sessionContext?.shutdown()")
        context.close()


def command(page, name: str, timeout: int) -> None:
    """Execute a command of JupyterLab, as its menus do, and wait until it has ended, well or not."""
    page.evaluate(
        """name => {
            window.ended = null;
            const end = how => () => { window.ended = how; };
            jupyterapp.commands.execute(name).then(end("well"), error => end(`${name}: ${error}`)());
        }""",
        name,
    )
    page.wait_for_function("window.ended", timeout=timeout * 1000)


def open_notebook(page, lab: str, name: str) -> None:
    """Open a notebook in a fresh workspace and wait for its kernel."""
    page.goto(f"{lab}/lab/workspaces/{Path(name).stem}/tree/{name}?token={TOKEN}", wait_until="load")
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook .jp-CodeCell")
    page.wait_for_function(
        """() => {
            const context = jupyterapp.shell.currentWidget?.sessionContext, kernel = context?.session?.kernel;
            return context?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
        }"""
    )


def run_all(page) -> list[str]:
    """Clear the stored outputs, run every cell, and return the prompts, which count the cells that ran."""
    command(page, "notebook:clear-all-cell-outputs", START)
    page.wait_for_function("document.querySelectorAll('.jp-OutputArea-output').length === 0")
    command(page, "notebook:run-all-cells", RUN)
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]').all_inner_texts()
    assert errors == []
    assert page.evaluate("window.ended") == "well"
    return [text.strip() for text in page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()]


def until(page, holds: Callable[[], bool], otherwise: str) -> None:
    """Wait until something holds; fail with a sentence if it never does."""
    deadline = time.monotonic() + START
    while not holds():
        assert time.monotonic() < deadline, otherwise
        page.wait_for_timeout(100)


def png(picture) -> bytes:
    """The file that the picture of a widget shows."""
    encoded = picture.evaluate(
        """async image => {
            let bytes;
            while (!bytes) {
                try {
                    bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
                } catch (error) {  // a new picture has come, and the old one's address is gone
                    await new Promise(requestAnimationFrame);
                }
            }
            return btoa(Array.from(bytes, byte => String.fromCharCode(byte)).join(''));
        }"""
    )
    return base64.b64decode(encoded)


def pixels(data: bytes) -> np.ndarray:
    """What a PNG shows, (height, width, 3)."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def in_kernel(page, expression: str) -> str:
    """What an expression is in the notebook's kernel.

    It may run while a widget still answers what the page asked before: JupyterLab sends that to another thread
    (its setting ``commsOverSubshells``).
    """
    return page.evaluate(
        """async expression => {
            const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
            const content = { code: '', silent: true, user_expressions: { value: expression } };
            const reply = await kernel.requestExecute(content).done;
            return reply.content.user_expressions.value.data['text/plain'];
        }""",
        expression,
    )
