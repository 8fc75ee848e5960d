"""The built pages in a real browser: no error, no request to another host, and everything on them works."""

import re
from pathlib import Path

import nbformat
import pytest
import repository
import yaml
from axe_playwright_python.sync_playwright import Axe
from chapter_rules import code_cells
from conftest import ROOT, build_book, copy_checkout
from pages import serve, watched_page

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TOC = yaml.safe_load((ROOT / "_toc.yml").read_text())
PAGES = [TOC["root"], *(entry["file"] for part in TOC["parts"] for entry in part["chapters"])]
CHAPTERS = [page for page in PAGES if (ROOT / "book" / f"{page}.ipynb").exists()]
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}

# sphinx-book-theme puts its header's buttons and the skip link outside of any landmark; that is not ours to mend.
THEIR_VIOLATIONS = {"region"}


@pytest.fixture(scope="module")
def address(built_book):
    """Where the book is served."""
    with serve(built_book) as address:
        yield address


@pytest.fixture
def page(browser):
    """A fresh page that keeps what the console and the network report in `page.errors` and `page.foreign`."""
    context = browser.new_context(viewport=DESKTOP, color_scheme="light")
    page = watched_page(context)
    page.set_default_timeout(90_000)
    yield page
    context.close()


def settle(page, url):
    """Open a page and wait until its scripts, MathJax among them, are done."""
    page.goto(url, wait_until="load")
    page.wait_for_function("!window.MathJax || !MathJax.startup || MathJax.startup.promise")
    page.evaluate("window.MathJax && MathJax.startup ? MathJax.startup.promise.then(() => true) : true")
    page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("name", [*PAGES, "index", "search", "genindex"])
def test_page_has_no_console_error_and_asks_no_other_host(page, address, name):
    settle(page, f"{address}/{name}.html")
    assert page.errors == []
    assert page.foreign == []
    assert page.locator("h1").count() >= 1


@pytest.mark.parametrize("name", [*PAGES, "index"])
def test_page_from_the_disk_asks_no_other_host(page, built_book, name):
    settle(page, (built_book / f"{name}.html").as_uri())
    assert page.foreign == []
    assert page.errors == []


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible(page, address, name, scheme):
    page.emulate_media(color_scheme=scheme)
    settle(page, f"{address}/{name}.html")
    violations = Axe().run(page).response["violations"]
    ours = [found for found in violations if found["id"] not in THEIR_VIOLATIONS]
    assert [(found["id"], [node["html"][:200] for node in found["nodes"]][:5]) for found in ours] == []


@pytest.mark.parametrize("name", [*PAGES, "search", "genindex"])
def test_page_fits_a_phone(page, address, name):
    page.set_viewport_size(PHONE)
    settle(page, f"{address}/{name}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize("name", PAGES)
def test_every_image_and_link_inside_the_book_is_there(page, address, built_book, name):
    settle(page, f"{address}/{name}.html")
    images = page.locator("main img:not(.explorer-still)")  # those give way to what tests/test_explorers.py tests
    for image in images.all():
        image.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=image.element_handle())
        assert image.evaluate("image => image.naturalWidth") > 0
        assert image.get_attribute("alt")
    for target in page.locator("a[href]").evaluate_all("links => links.map(link => link.href)"):
        if target.startswith(address):
            path, _, anchor = target.removeprefix(address).partition("#")
            html = (built_book / path.split("?")[0].lstrip("/")).read_text(encoding="utf-8", errors="replace")
            assert not anchor or f'id="{anchor}"' in html or anchor == "main-content", target


@pytest.mark.parametrize("name", CHAPTERS)
def test_formulas_are_typeset(page, address, name):
    settle(page, f"{address}/{name}.html")
    written = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= written
    assert page.locator("mjx-merror").count() == 0


def test_search_finds_a_term(page, address):
    settle(page, f"{address}/search.html?q=checkerboard")
    page.wait_for_selector("#search-results li a")
    titles = page.locator("#search-results li a").all_inner_texts()
    assert any("Glossary" in title for title in titles), titles
    assert page.errors == []


def test_search_button_opens_the_search(page, address):
    settle(page, f"{address}/intro.html")
    page.locator("button.search-button__button:visible, button.search-button-field:visible").first.click()
    field = page.locator("#pst-search-dialog input[type=search]")
    field.fill("slerp")
    field.press("Enter")
    page.wait_for_selector("#search-results li a")
    assert "q=slerp" in page.url


def test_dark_mode_switch(page, address):
    settle(page, f"{address}/intro.html")

    def background():
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    seen = {background()}
    for _ in range(2):  # automatic, light, dark
        page.locator("button.theme-switch-button:visible").first.click()
        page.wait_for_timeout(300)
        seen.add(background())
    assert len(seen) == 2
    mode = page.evaluate("document.documentElement.dataset.mode")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.mode") == mode
    assert page.errors == []


def test_next_and_previous_lead_through_the_whole_book(page, address):
    settle(page, f"{address}/{PAGES[0]}.html")
    for name in PAGES[1:]:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/{name}.html")
    for name in reversed(PAGES[:-1]):
        page.locator("a.left-prev").click()
        page.wait_for_url(f"**/{name}.html")


@pytest.mark.parametrize("name", CHAPTERS)
def test_solutions_unfold(page, address, name):
    settle(page, f"{address}/{name}.html")
    solution = page.locator(".solution.dropdown, .solution details").first
    content = solution.locator(".section, .toggle-content, p").last
    assert not content.is_visible()
    solution.locator("button, summary").first.click()  # the title is a link to the exercise
    content.wait_for(state="visible")


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_page_hides_the_installing_cell(built_book, name):
    html = (built_book / f"{name}.html").read_text(encoding="utf-8")
    assert "find_spec" not in html
    assert "quick" in html


# --- the repository's address ---------------------------------------------------------------------------------------


def colab_pages(html: Path) -> list[str]:
    """The built pages that have a Colab link."""
    return [name for name in PAGES if "colab.research.google.com" in (html / f"{name}.html").read_text("utf-8")]


def installed_from(root: Path) -> set[str]:
    """Every address that the notebooks of a copy install from."""
    cells = [code_cells(nbformat.read(path, as_version=4))[0].source for path in repository.chapters(root)]
    return {re.search(r'^repository = "(.*)"', source, re.MULTILINE).group(1) for source in cells}


def test_notebooks_and_configuration_agree():
    url = repository.configured_url()
    assert installed_from(ROOT) == {url}
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation.get("repository-code", "") == url
    links = repository.README_BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert links is not None
    assert links.group(0).count("colab") == (len(CHAPTERS) if url else 0)


def test_setting_the_address_brings_the_colab_button_and_unsetting_leaves_no_trace(tmp_path):
    root = copy_checkout(tmp_path / "copy")
    repository.set_everywhere("", root)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    for url in ("https://github.com/someone/cats", "https://github.com/other/name.git"):
        repository.set_everywhere(repository.check_url(url), root)
        expected = url.removesuffix(".git")
        assert repository.configured_url(root) == expected
        assert installed_from(root) == {expected}
        assert yaml.safe_load((root / "CITATION.cff").read_text())["repository-code"] == expected
        assert repository.PLACEHOLDER not in (root / "README.md").read_text(encoding="utf-8")
    finished = build_book(root, root)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert colab_pages(root / "_build" / "html") == CHAPTERS
    html = (root / "_build" / "html" / f"{CHAPTERS[0]}.html").read_text(encoding="utf-8")
    assert f"colab.research.google.com/github/other/name/blob/main/book/{CHAPTERS[0]}.ipynb" in html

    repository.set_everywhere("", root)
    assert {path: path.read_bytes() for path in before} == before


def test_the_colab_button_is_there_if_and_only_if_the_address_is_set(built_book):
    assert colab_pages(built_book) == (CHAPTERS if repository.configured_url() else [])


@pytest.mark.parametrize(
    "url", ["github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "https://x; rm -r"]
)
def test_a_wrong_address_is_refused(url):
    with pytest.raises(SystemExit, match=r"is not of the form https://github\.com/owner/name"):
        repository.check_url(url)
