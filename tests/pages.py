"""What the tests of pages share: a server, a page that is watched, a small book of a test's own, a finger."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = ROOT / "book" / "explorers"
PHONES = [{"width": 390, "height": 844}, {"width": 320, "height": 640}]

CONFIGURATION = f"""
import sys
sys.path.insert(0, {str(ROOT / "book" / "_ext")!r})
project = "small"
extensions = ["myst_nb", "explorers"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
numfig = True
html_theme = "sphinx_book_theme"
html_theme_options = {{"navbar_persistent": []}}
html_context = {{"default_mode": "auto"}}
html_static_path = [{str(ROOT / "book" / "_static")!r}]
html_css_files = ["book.css"]
html_favicon = {str(ROOT / "book" / "images" / "favicon.svg")!r}
"""


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *arguments):
        pass


@contextmanager
def serve(folder: Path):
    """Serve a folder of pages; yield its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1:", "file://", "data:", "blob:"))


def watched_page(context):
    """A new page that keeps what console and network report in `page.errors`, `page.asked` and `page.foreign`."""
    page = context.new_page()
    page.errors, page.foreign, page.asked = [], [], []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("request", lambda request: None if is_local(request.url) else page.foreign.append(request.url))
    return page


def write_book(folder: Path, pages: dict[str, str], data: dict[str, str]) -> Path:
    shutil.copytree(SOURCES, folder / "explorers", ignore=shutil.ignore_patterns("*.json"))
    (folder / "conf.py").write_text(CONFIGURATION, encoding="utf-8")
    for name, text in pages.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / f"{name}.md").write_text(text, encoding="utf-8")
    for name, text in data.items():
        (folder / "explorers" / f"{name}.json").write_text(text, encoding="utf-8")
    return folder


def build(folder: Path, builder: str = "html", *options: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-b",
        builder,
        *options,
        str(folder),
        str(folder / "_build" / builder),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def small_book(pages: dict[str, str], documents: Callable[[], dict], settle: Callable) -> tuple:
    """Make the fixtures of a small book of explorers: `html`, `address` and `show`.

    Assign them to these names in the file of the tests: pytest finds fixtures by the names of the file that uses them.

    Args:
        pages: Name -> text; one is "index".
        documents: Makes what the explorers load, name -> what becomes JSON.
        settle: Waits until the pictures of a page are there.

    Returns:
        The folder of built pages, their address, and a function that opens a page when its explorers live.
    """

    @pytest.fixture(scope="module")
    def html(tmp_path_factory):
        data = {name: json.dumps(document) for name, document in documents().items()}
        folder = write_book(tmp_path_factory.mktemp("small") / "book", pages, data)
        finished = build(folder, "html", "-W", "--keep-going", "-n")
        assert finished.returncode == 0, finished.stderr
        return folder / "_build" / "html"

    @pytest.fixture(scope="module")
    def address(html):
        with serve(html) as address:
            yield address

    @pytest.fixture
    def show(opened, address):
        """Open a page; nothing may have gone wrong on it when the test ends."""
        shown = []

        def show(name="index", base=address, query="", script="", **options):
            page = opened("about:blank", live=False, **options)
            page.add_init_script(script)
            page.goto(f"{base}/{name}.html{query}", wait_until="load")
            for box in page.locator(".explorer").all():
                box.scroll_into_view_if_needed()
            page.wait_for_function("!document.querySelector('.explorer:not(.explorer-live)')")
            settle(page)
            shown.append(page)
            return page

        yield show
        for page in shown:
            assert page.errors == []
            assert page.foreign == []

    return html, address, show


def assert_stands_still(page, opened, width: int = 100) -> None:
    """In print, and where scripts are off, the still picture of a page's explorer takes its place, wide enough."""
    assert not page.locator(".explorer-still").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".explorer-still").is_visible()
    assert not page.locator(".explorer-stage").is_visible()
    bare = opened(page.url, live=False, java_script_enabled=False)
    assert bare.locator(".explorer-still").is_visible()
    assert bare.locator(".explorer-still").evaluate("image => image.naturalWidth") > width
    assert bare.locator(".explorer-note").is_visible()


def swipe(page, start: tuple[float, float], end: tuple[float, float], steps: int = 6) -> None:
    """A finger from one place to another, as the browser's own input."""
    session = page.context.new_cdp_session(page)
    (x, y), (to_x, to_y) = start, end
    points = [[{"x": x + (to_x - x) * i / steps, "y": y + (to_y - y) * i / steps}] for i in range(steps + 1)]
    for kind, touches in [("touchStart", points[0]), *(("touchMove", p) for p in points[1:]), ("touchEnd", [])]:
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
        page.wait_for_timeout(20)
