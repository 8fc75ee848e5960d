"""The chapters in a real JupyterLab: every cell runs, and the widgets' controls change what they show."""

import ast
import hashlib
import html
import re

import nbformat
import numpy as np
import pytest
from chapter_rules import code_cells
from lab import in_kernel, lab_page, open_notebook, pixels, png, run_all, serve_lab, until
from notebooks import chapters

from dcgan_lib.widgets import convolution_explorer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

CHAPTERS = chapters()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over copies of the chapters."""
    with serve_lab(tmp_path_factory.mktemp("lab"), CHAPTERS) as address:
        yield address


@pytest.fixture
def page(browser):
    with lab_page(browser) as page:
        yield page


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter_runs_from_top_to_bottom(page, lab, path):
    cells = code_cells(nbformat.read(path, as_version=4))
    open_notebook(page, lab, path.name)
    assert run_all(page) == [f"[{number}]:" for number in range(1, len(cells) + 1)]
    if any("latent_explorer(" in cell.source for cell in cells):
        move_sliders(page)
        see_the_views(page)
    if any("gan_player(" in cell.source for cell in cells):
        play_the_game(page)
    for cell in cells:
        if "convolution_explorer(" in cell.source:
            change_the_convolution(page, cell.source)


def drawn_by_kernel(page, image: str) -> str:
    """The SHA-256 of an image in the kernel."""
    return in_kernel(page, f"__import__('hashlib').sha256({image}.value).hexdigest()").strip("'")


def see_the_views(page) -> None:
    """Wall, walk and arithmetic show what the kernel has drawn; test_jupyterlab_latent.py moves their controls."""
    for image in ("wall.samples[3]", "walk.picture", "sums.picture"):
        wanted = drawn_by_kernel(page, image)
        shown = page.locator(".jp-OutputArea-output img.widget-image")
        until(
            page,
            lambda wanted=wanted, shown=shown: wanted in {hashlib.sha256(png(one)).hexdigest() for one in shown.all()},
            f"{image} is not on the page",
        )


def move_sliders(page) -> None:
    """Move the first sliders of the explorer, and the seed: each changes the picture to that of its new z."""
    explorer = page.locator(".jp-OutputArea-output", has=page.get_by_text("A to B")).first
    explorer.scroll_into_view_if_needed()
    picture = explorer.locator("img.widget-image").first
    picture.wait_for(state="visible")
    # Drawn anew from the controls' values: JupyterLab handles them in another thread of the kernel, so what the widget
    # itself holds may still be the picture before.
    drawn_anew = "__import__('dcgan_lib.images').images.png_bytes(explorer.image, int(explorer.picture.width))"

    def shown(control: str, value: float) -> np.ndarray:
        """The picture of a control's value, once the kernel knows it and the page shows it."""
        wanted = repr(value)
        value_now = f"round(float(explorer.{control}.value), 6)"
        until(page, lambda: in_kernel(page, value_now) == wanted, f"{control} does not become {wanted}")
        right = pixels(ast.literal_eval(in_kernel(page, drawn_anew))).astype(int)

        def seen() -> bool:  # a grey level may be rounded otherwise
            return np.abs(pixels(png(picture)) - right).max() <= 1

        until(page, seen, f"the page does not show the picture of {control} at {wanted}")
        assert hashlib.sha256(png(picture)).hexdigest() == drawn_by_kernel(page, "explorer.picture")
        return right

    pictures = [shown("interpolation", 0.0)]
    for number, (control, value) in enumerate({"interpolation": 0.12, "sliders[0]": 1.2, "sliders[1]": 1.2}.items()):
        explorer.locator(".noUi-handle").nth(number).focus()
        for _ in range(12):
            page.keyboard.press("ArrowRight")
        pictures.append(shown(control, value))
        assert np.abs(pictures[-1] - pictures[-2]).max() > 1, f"{control} leaves the picture as it was"
    seed = explorer.locator("input[type=number]").first
    seed.fill("4321")
    seed.press("Enter")
    changed = np.abs(shown("seed_a", 4321.0) - pictures[-1]).max()
    assert changed > 1, "the seed leaves the picture as it was"


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


@pytest.mark.parametrize(
    "widget",
    ["latent_explorer(", "latent_walk(", "latent_arithmetic(", "latent_grid(", "gan_player(", "convolution_explorer("],
)
def test_a_chapter_has_the_widget(widget):
    assert any(widget in path.read_text(encoding="utf-8") for path in CHAPTERS)
