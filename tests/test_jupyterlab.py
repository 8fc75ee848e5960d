"""The chapters in a real JupyterLab: every cell runs, and the widgets' controls change what they show."""

import ast
import base64
import hashlib
import html
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import nbformat
import numpy as np
import pytest
from chapter_rules import code_cells
from notebooks import chapters
from PIL import Image

from dcgan_lib.widgets import convolution_explorer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHAPTERS = chapters()
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


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over copies of the chapters, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    root = home / "book"
    root.mkdir()
    for chapter in CHAPTERS:
        shutil.copy(chapter, root / chapter.name)
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


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1400, "height": 1000})
    page = context.new_page()
    page.set_default_timeout(START * 500)
    yield page
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


def open_chapter(page, lab: str, name: str) -> None:
    """Open a chapter in a fresh workspace and wait for its kernel."""
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


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_from_top_to_bottom(page, lab, path):
    cells = code_cells(nbformat.read(path, as_version=4))
    open_chapter(page, lab, path.name)
    assert run_all(page) == [f"[{number}]:" for number in range(1, len(cells) + 1)]
    if any("latent_explorer(" in cell.source for cell in cells):
        move_sliders(page)
    if any("gan_player(" in cell.source for cell in cells):
        play_the_game(page)
    for cell in cells:
        if "convolution_explorer(" in cell.source:
            change_the_convolution(page, cell.source)


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
    """What an expression is in the chapter's kernel, once it has done what the page asked of it before."""
    return page.evaluate(
        """async expression => {
            const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session;
            const content = { code: '', silent: true, user_expressions: { value: expression } };
            const reply = await kernel.requestExecute(content).done;
            return reply.content.user_expressions.value.data['text/plain'];
        }""",
        expression,
    )


def move_sliders(page) -> None:
    """Move the first sliders of the explorer, and the seed: each changes the picture."""
    explorer = page.locator(".jp-OutputArea-output", has=page.locator(".widget-slider")).first
    explorer.scroll_into_view_if_needed()
    picture = explorer.locator("img.widget-image").first
    picture.wait_for(state="visible")

    def shown(control: str, value: float) -> bytes:
        """The picture, once the kernel knows a control's value and the page shows what the kernel has drawn."""
        wanted = repr(value)
        value_now = f"round(float(explorer.{control}.value), 6)"
        until(page, lambda: in_kernel(page, value_now) == wanted, f"{control} does not become {wanted}")
        drawn = in_kernel(page, "__import__('hashlib').sha256(explorer.picture.value).hexdigest()").strip("'")
        until(page, lambda: hashlib.sha256(png(picture)).hexdigest() == drawn, f"{control} sends no picture")
        return png(picture)

    pictures = [shown("interpolation", 0.0)]
    for number, (control, value) in enumerate({"interpolation": 0.12, "sliders[0]": 1.2, "sliders[1]": 1.2}.items()):
        explorer.locator(".noUi-handle").nth(number).focus()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        pictures.append(shown(control, value))
        assert pictures[-1] != pictures[-2], f"{control} leaves the picture as it was"
    seed = explorer.locator("input[type=number]").first
    seed.fill("4321")
    seed.press("Enter")
    assert shown("seed_a", 4321.0) != pictures[-1], "the seed leaves the picture as it was"


def play_the_game(page) -> None:
    """Step D and G of the player by clicks, wind back with the keyboard, and go on with Play."""
    player = page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="D step")).first
    player.scroll_into_view_if_needed()
    picture = player.locator("img.widget-image").first
    picture.wait_for(state="visible")

    def shown(says: str) -> np.ndarray:
        """The picture's pixels without its title, once the status says what is expected."""
        player.get_by_text(says, exact=False).first.wait_for()
        return pixels(png(picture))[30:]

    def click(name: str) -> None:
        player.get_by_role("button", name=name).click()

    beginning = shown("Steps of D: 0, of G: 0.")
    click("D step")
    assert not np.array_equal(shown("Steps of D: 1, of G: 0."), beginning), "D's step leaves its surface as it was"
    # With the other layers off, what is left are G's points: they stay where they are while D steps.
    for box in player.locator("input[type=checkbox]").all():
        box.click()
    count = player.locator("input[type=number]").first
    count.fill("50")
    count.press("Enter")
    click("D step")
    points = shown("Steps of D: 51, of G: 0.")
    click("D step")
    assert np.array_equal(shown("Steps of D: 101, of G: 0."), points), "D's step moves G's points"
    click("G step")
    moved = shown("Steps of D: 101, of G: 50.")
    assert not np.array_equal(moved, points), "G's step leaves its points where they were"
    handle = player.locator(".noUi-handle").first
    handle.focus()
    page.keyboard.press("ArrowLeft")
    assert np.array_equal(shown("Moment 3 of 4."), points), "winding back does not show the earlier moment"
    click("G step")
    assert np.array_equal(shown("Moment 4 of 4. Steps of D: 101, of G: 50."), moved), "going on is not exact"
    click("Play")
    player.get_by_text(re.compile(r"Moment (6|7|8|9|\d\d) of")).first.wait_for()
    click("Pause")
    player.get_by_role("button", name="Play").wait_for()
    click("Reset")
    shown("Moment 0 of 0. Steps of D: 0, of G: 0.")


def change_the_convolution(page, source: str) -> None:
    """Change the setting of the convolution explorer with the keyboard: words and picture follow, as they do in Python.

    Args:
        page: With the chapter that has run.
        source: The cell that shows the explorer; its arguments make the same one here, to be compared with.
    """
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    (call,) = [node for node in calls if ast.unparse(node.func) == "widgets.convolution_explorer"]
    same = convolution_explorer(**{given.arg: ast.literal_eval(given.value) for given in call.keywords})
    assert same.sliders["stride"].value == 2
    explorer = page.locator(".jp-OutputArea-output", has=page.get_by_role("button", name="transposed")).first
    explorer.scroll_into_view_if_needed()
    picture = explorer.locator("img.widget-image").first
    picture.wait_for(state="visible")
    words = explorer.locator(".widget-html-content", has_text="Output size =")

    def shown() -> tuple[str, np.ndarray]:
        """Words and picture, once they are those of the explorer here."""
        plain = html.unescape(re.sub("<[^>]*>", "", same.words.value.replace("<br>", " ")))
        drawn = pixels(same.picture.value)
        until(page, lambda: words.inner_text().split() == plain.split(), f"the words do not become: {plain}")
        until(page, lambda: np.array_equal(pixels(png(picture)), drawn), f"the picture is not that of: {plain}")
        return plain, drawn

    def press(slider: str, key: str) -> tuple[str, np.ndarray]:
        handle = explorer.locator(".widget-slider", has_text=slider).locator(".noUi-handle")
        handle.focus()
        page.keyboard.press(key)
        same.sliders[slider].value += {"ArrowLeft": -1, "ArrowRight": 1}[key]
        return shown()

    beginning = shown()
    finer = press("stride", "ArrowLeft")
    assert "stride=2" in beginning[0]
    assert "stride=2" not in finer[0]
    assert not np.array_equal(finer[1], beginning[1])
    impossible = press("stride", "ArrowLeft")
    assert "Impossible: stride=0 must be" in impossible[0]
    assert np.array_equal(impossible[1], finer[1])
    assert press("stride", "ArrowRight")[0] == finer[0]
    larger = press("kernel", "ArrowRight")
    assert larger[0] != finer[0]
    assert not np.array_equal(larger[1], finer[1])
    reset = explorer.get_by_role("button", name="Reset")
    reset.focus()
    page.keyboard.press("Enter")
    same.reset.click()
    assert shown()[0] == beginning[0]


@pytest.mark.parametrize("widget", ["latent_explorer(", "gan_player(", "convolution_explorer("])
def test_a_chapter_has_the_widget(widget):
    assert any(widget in path.read_text(encoding="utf-8") for path in CHAPTERS)
