"""What several test files share: the data beside the checkout, the built book and a real browser."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent

# No sandbox, since continuous integration runs as root; and no background traffic, since a test that looks for
# requests to other hosts must see the page's own alone.
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
INSTALLED_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MACOS_BROWSERS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def pytest_collection_modifyitems(items):
    """Put files with slow tests first, so that no worker is alone with one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome."""
    for name in (os.environ.get("DCGAN_BROWSER", ""), *INSTALLED_BROWSERS, *MACOS_BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    return None


def install_browser() -> str | None:
    """Install a browser; return its path, or None for Playwright's own, which Playwright finds by itself.

    Playwright's own is tried first; where it cannot be downloaded and we are root on Debian, Debian's package is next.
    """
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    if subprocess.run(command, capture_output=True, timeout=300).returncode == 0:
        return None
    if shutil.which("apt-get") and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, timeout=300)
        subprocess.run(["apt-get", "install", "-y", "-qq", "chromium"], capture_output=True, timeout=600)
    return find_browser()


def launch(playwright):
    """Start a headless browser: an installed one, or else one that is installed now; never skip."""
    path = find_browser()
    try:
        return playwright.chromium.launch(executable_path=path or install_browser(), args=BROWSER_ARGUMENTS)
    except Exception as error:
        pytest.fail(
            "no browser could be started. Install Chromium or Google Chrome, or name one in the environment variable "
            f"DCGAN_BROWSER, or run `python -m playwright install --with-deps chromium`. {error}",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium or Chrome for the whole session."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser):
    """Open pages in contexts of their own; each keeps what console and network report."""
    from pages import watched_page

    contexts = []

    def open_page(url: str, live: bool = True, **options):
        context = browser.new_context(
            **{"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"} | options
        )
        contexts.append(context)
        page = watched_page(context)
        page.goto(url, wait_until="load")
        if live:
            page.wait_for_selector(".explorer-live")
            page.locator(".explorer input[type=range]").scroll_into_view_if_needed()
            page.wait_for_timeout(100)
        return page

    yield open_page
    for context in contexts:
        context.close()


def build_book(root: Path, output: Path) -> subprocess.CompletedProcess:
    """Build the book of a checkout with the options of `make book`, into ``output``/_build.

    An empty ``output`` makes it a build from scratch: Sphinx repeats no warning for a page that it has built before.
    """
    command = [Path(sys.executable).with_name("jupyter-book"), "build", "book", "-W", "-n", "--keep-going"]
    return subprocess.run([*command, "--path-output", output], cwd=root, capture_output=True, text=True, timeout=1100)


def copy_checkout(target: Path) -> Path:
    """Copy what the book is made of, without its outputs and without `.git`, to ``target``."""
    for name in ("book", "dcgan_lib", "tools"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_config.yml", "_toc.yml", "README.md", "CONTRIBUTING.md", "CITATION.cff"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.fixture(scope="session")
def built_book(tmp_path_factory) -> Path:
    """The folder of the built pages; the workers of one run share it, and the first that asks builds it."""
    base = tmp_path_factory.getbasetemp()
    output = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "book"
    html = output / "_build" / "html"
    with FileLock(f"{output}.lock"):
        if not (output / "done").exists():
            finished = build_book(ROOT, output)
            assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-8000:]
            assert (html / "index.html").is_file()
            (output / "done").touch()
    return html


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The original archives and photographs beside the checkout, in `../shared/data`; never written to."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder ../shared/data beside this checkout (original MNIST and Fashion-MNIST, clothing64)")
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """A folder of sixty small pictures; read only."""
    from stores import make_pictures

    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def built_store(pictures, tmp_path_factory) -> Path:
    """Their store; read only."""
    from stores import build

    path = tmp_path_factory.mktemp("stores") / "built"
    build(pictures, path)
    return path
