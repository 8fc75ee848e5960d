"""Every control of the four latent widgets, by mouse and by keyboard, in a real JupyterLab.

After each move z is worked out anew from what the page says (seeds in boxes, numbers beside sliders), and the picture
on the page is compared with the one that ``dcgan_lib.latent`` makes of it here.
"""

import re
from itertools import pairwise

import nbformat
import numpy as np
import pytest
import torch
from lab import in_kernel, lab_page, open_notebook, pixels, png, run_all, serve_lab, until
from nbformat import v4
from notebooks import KERNEL

from dcgan_lib import checkpoint, images, latent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STEPS = 20  # of a walk, from seed to seed
CELLS = {
    "start": """
import time
import ipywidgets
import torch
from dcgan_lib import checkpoint, widgets

torch.set_num_threads(1)
generator = checkpoint.load_pretrained("cats-64")
kept = ipywidgets.widgets.widget._instances
""",
    "explorer": """
explorer = widgets.latent_explorer(generator, 2 * torch.eye(100)[:2], ["first", "second"], seed=4, size=128)
explorer
""",
    "walk": "walk = widgets.latent_walk(generator, [0, 1, 2], size=128)\nwalk",
    "sums": "sums = widgets.latent_arithmetic(generator, size=268)\nsums",
    "wall": "wall = widgets.latent_grid(generator, count=4)\nwall",
    "other": "other = widgets.latent_explorer(generator, 2 * torch.eye(100)[:1], ['first'], size=64)\nother",
}
BY = ["mouse", "keyboard"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("views")


@pytest.fixture(scope="module")
def page(browser, folder):
    """The notebook with all views, run."""
    notebook = v4.new_notebook(cells=[v4.new_code_cell(code.strip()) for code in CELLS.values()])
    notebook.metadata = {"kernelspec": dict(KERNEL)}
    nbformat.write(notebook, folder / "views.ipynb")
    with serve_lab(folder, [folder / "views.ipynb"]) as address, lab_page(browser) as page:
        open_notebook(page, address, "views.ipynb")
        run_all(page)
        yield page


@pytest.fixture(scope="module")
def generator():
    return checkpoint.load_pretrained("cats-64")


class View:
    """What a cell of the notebook shows, and hands that move it."""

    def __init__(self, page, name: str) -> None:
        self.page, self.name = page, name
        cell = page.locator(".jp-CodeCell").nth(list(CELLS).index(name))
        self.box = cell.locator(".jp-OutputArea-output .jupyter-widgets").first
        self.box.scroll_into_view_if_needed()
        self.box.wait_for()

    def labelled(self, kind: str, name: str):
        label = self.page.get_by_text(name, exact=True)
        return self.box.locator(kind, has=label).last  # the wall's explorer stands behind the wall

    def typed(self, name: str) -> str:
        return self.labelled(".widget-inline-hbox", name).locator("input").input_value()

    def readout(self, name: str) -> float:
        text = self.labelled(".widget-slider", name).locator(".widget-readout").inner_text()
        return float(text.replace("\N{MINUS SIGN}", "-"))

    def press(self, name: str, by: str, which: int = -1) -> None:
        """Press a button."""
        button = self.box.get_by_role("button", name=ending(name)).nth(which)
        if by == "mouse":
            button.click()
        else:
            button.focus()
            self.page.keyboard.press("Enter")

    def slide(self, name: str, by: str) -> None:
        """Move a slider to the right, and see that the number beside it has followed."""
        before, slider = self.readout(name), self.labelled(".widget-slider", name)
        handle = slider.locator(".noUi-handle")
        if by == "mouse":
            at = handle.bounding_box()
            x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
            self.page.mouse.move(x, y)
            self.page.mouse.down()
            self.page.mouse.move(x + 25, y, steps=5)
            self.page.mouse.up()
        else:
            handle.focus()
            for _ in range(6):
                self.page.keyboard.press("ArrowRight")
        until(self.page, lambda: self.readout(name) > before, f"the slider {name} does not move by {by}")

    def write(self, name: str, text: str, by: str) -> None:
        """Fill in a box, and end with Enter or with a click elsewhere."""
        box = self.labelled(".widget-inline-hbox", name).locator("input")
        box.click()
        box.fill(text)
        if by == "mouse":
            self.labelled(".widget-inline-hbox", name).locator("label").click()
            box.blur()
        else:
            box.press("Enter")

    def count_up(self, name: str, by: str) -> None:
        """Put a box of one whole number to the next, with its arrow or the key."""
        box = self.labelled(".widget-inline-hbox", name).locator("input")
        before = int(box.input_value())
        if by == "mouse":
            at = box.bounding_box()
            box.hover()
            self.page.mouse.click(at["x"] + at["width"] - 10, at["y"] + at["height"] * 0.3)
        else:
            box.focus()
            self.page.keyboard.press("ArrowUp")
        until(self.page, lambda: int(box.input_value()) == before + 1, f"the box {name} does not count by {by}")

    def picture(self, which: int = -1) -> np.ndarray:
        return pixels(png(self.box.locator("img.widget-image").nth(which))).astype(int)

    def shows(self, wanted: np.ndarray, which: int = -1) -> None:
        """Wait for a picture, uint8 (H, W, 3), with pixels of it repeated; a grey level may be rounded otherwise."""

        def seen() -> bool:
            shown = self.picture(which)
            times = shown.shape[1] // wanted.shape[1]
            larger = wanted.repeat(times, axis=0).repeat(times, axis=1)
            return shown.shape == larger.shape and np.abs(shown - larger).max() <= 1

        until(self.page, seen, f"the {self.name} does not show the picture of its z")

    def says(self, text: str) -> None:
        self.box.locator(".widget-label").get_by_text(text).last.wait_for()


def ending(name: str) -> re.Pattern:
    """The name of a button, before which an icon may stand."""
    return re.compile(rf"(^|\W){name}$")


def drawn(generator, z: torch.Tensor) -> np.ndarray:
    """The pictures of z (N, D), uint8 (N, H, W, 3)."""
    return images.as_uint8(latent.generate(generator, z)).permute(0, 2, 3, 1).numpy().astype(int)


def sample(seed: int, row: int = 0) -> torch.Tensor:
    return latent.sample_latent(row + 1, 100, seed)[row]


def samples(text: str) -> torch.Tensor:
    """What a box of samples means."""
    return torch.stack([sample(*(int(part) for part in word.split(":"))) for word in text.replace(",", " ").split()])


@pytest.fixture
def view(request, page):
    return View(page, request.param)


def of(name: str):
    return pytest.mark.parametrize("view", [name], indirect=True)


# --- the explorer -----------------------------------------------------------------------------------------------------


class Explorer:
    """The picture an explorer should show, from what stands on the page."""

    def __init__(self, view: View, generator, directions=("first", "second")) -> None:
        self.view, self.generator, self.names = view, generator, directions
        self.changes = torch.zeros(100)
        self.reset("mouse")

    def reset(self, by: str) -> None:
        """Put everything back, and see that it is."""
        self.view.press("Reset", by)
        self.changes.zero_()
        sliders = ("A to B", *self.names, "its change")
        until(
            self.view.page,
            lambda: not any(self.view.readout(name) for name in sliders) and self.view.typed("coordinate") == "0",
            "Reset does not put everything back",
        )

    @property
    def z(self) -> torch.Tensor:
        ends = [sample(int(self.view.typed(f"seed {letter}"))) for letter in "AB"]
        z = latent.slerp(*ends, self.view.readout("A to B")) + self.changes
        for number, name in enumerate(self.names):
            z[number] += 2 * self.view.readout(name)
        return z

    def right(self, what: str) -> np.ndarray:
        """See that the picture is that of the controls, and not the one before."""
        wanted = drawn(self.generator, self.z[None])[0]
        self.view.shows(wanted)
        if hasattr(self, "before"):
            assert not np.array_equal(wanted, self.before), f"{what} leaves the picture as it was"
        self.before = wanted
        return wanted


@of("explorer")
@pytest.mark.parametrize("by", BY)
def test_every_control_of_the_explorer(view, generator, by):
    explorer = Explorer(view, generator)
    beginning = explorer.right("opening")
    for name in ("A to B", "first", "second"):
        view.slide(name, by)
        explorer.right(name)
    for name in ("seed A", "seed B"):
        view.count_up(name, by)
        explorer.right(name)
    view.write("seed A", "1234", by)
    explorer.right("a seed typed")
    readout = view.labelled(".widget-slider", "first").locator(".widget-readout")
    readout.fill("-3.5")
    readout.press("Enter")
    explorer.right("a number typed beside a slider")
    assert view.readout("first") == -3.5

    view.slide("its change", by)
    explorer.changes[0] = view.readout("its change")
    explorer.right("the change of coordinate 0")
    view.count_up("coordinate", by)
    until(view.page, lambda: view.readout("its change") == 0, "the slider keeps the change of another coordinate")
    view.slide("its change", by)
    explorer.changes[1] = view.readout("its change")
    explorer.right("the change of coordinate 1")

    seeds = [view.typed(f"seed {letter}") for letter in "AB"]
    view.press("Shuffle", by)
    until(view.page, lambda: seeds != [view.typed(f"seed {letter}") for letter in "AB"], "no other seeds")
    explorer.right("shuffle")
    explorer.reset(by)
    until(view.page, lambda: view.typed("seed A") == "4", "seed A is not reset")
    assert np.array_equal(explorer.right("reset"), beginning)


@of("explorer")
def test_two_explorers_of_a_page_are_two(view, page, generator):
    other = View(page, "other")
    still = Explorer(other, generator, ["first"]).right("opening")
    explorer = Explorer(view, generator)
    explorer.right("opening")
    view.slide("first", "keyboard")
    explorer.right("first")
    other.shows(still)


@of("explorer")
def test_a_dragged_slider_leaves_no_queue(view, generator):
    # Each picture takes a fifth of a second here, and each move of the mouse asks for one.
    explorer = Explorer(view, generator)
    explorer.right("opening")
    in_kernel(
        view.page,
        "setattr(generator, 'drawn', []) or setattr(generator, 'hook', generator.register_forward_pre_hook("
        "lambda *_: (generator.drawn.append(1), time.sleep(0.2))[2:] or None))",
    )
    at = view.labelled(".widget-slider", "first").locator(".noUi-handle").bounding_box()
    x, y = at["x"] + at["width"] / 2, at["y"] + at["height"] / 2
    view.page.mouse.move(x, y)
    view.page.mouse.down()
    for pixel in range(1, 61):
        view.page.mouse.move(x + pixel, y)
        view.page.wait_for_timeout(10)
    view.page.mouse.up()
    end = view.readout("first")
    assert end > 2
    began = view.page.evaluate("performance.now()")
    explorer.right("a drag")
    assert view.page.evaluate("performance.now()") - began < 5000
    asked = int(in_kernel(view.page, "len(generator.drawn)"))
    in_kernel(view.page, "generator.hook.remove()")
    assert 2 <= asked <= 20, f"{asked} pictures were drawn for about 60 moves"


# --- the walk ---------------------------------------------------------------------------------------------------------


class Walk:
    """The picture a walk should show, from what stands on the page."""

    def __init__(self, view: View, generator) -> None:
        self.view, self.generator = view, generator

    def z(self) -> torch.Tensor:
        method = self.view.box.locator(".widget-toggle-button.mod-active").inner_text().strip()
        return latent.walk(samples(self.view.typed("seeds")), STEPS, method)[int(self.view.readout("position"))]

    def right(self) -> np.ndarray:
        wanted = drawn(self.generator, self.z()[None])[0]
        self.view.shows(wanted)
        return wanted


@of("walk")
@pytest.mark.parametrize("by", BY)
def test_every_control_of_the_walk(view, generator, by):
    walk = Walk(view, generator)
    seen = [walk.right()]
    view.slide("position", by)
    seen.append(walk.right())
    other = "slerp" if view.box.locator(".mod-active").inner_text().strip() == "lerp" else "lerp"
    view.press(other, by)
    seen.append(walk.right())
    assert view.box.locator(".mod-active").inner_text().strip() == other
    view.write("seeds", "7, 4:17 3", by)
    seen.append(walk.right())
    assert all(not np.array_equal(a, b) for a, b in pairwise(seen))
    view.write("seeds", "seven", by)
    view.says("write 2 or more seeds")
    view.shows(seen[-1])
    view.write("seeds", "0, 1, 2", by)
    walk.right()
    view.says("length of z")


@of("walk")
@pytest.mark.parametrize("by", BY)
def test_the_buttons_that_play_the_walk(view, generator, by):
    walk, player = Walk(view, generator), view.box.locator(".widget-play button")

    def press(which: int) -> None:
        if by == "mouse":
            player.nth(which).click()
        else:
            player.nth(which).focus()
            view.page.keyboard.press("Enter")

    play, stop, repeat = 0, 1, 2
    press(stop)
    until(view.page, lambda: view.readout("position") == 0, "stop does not go back to the beginning")
    first = walk.right()
    press(play)
    until(view.page, lambda: view.readout("position") > 3, "play does not move the position")
    press(play)
    view.page.wait_for_timeout(300)
    held = view.readout("position")
    assert not np.array_equal(walk.right(), first)
    view.page.wait_for_timeout(500)
    assert view.readout("position") == held, "pause does not hold"
    press(repeat)
    press(play)
    until(view.page, lambda: view.readout("position") < held, "repeat does not begin again at the end")
    press(stop)
    press(repeat)
    until(view.page, lambda: view.readout("position") == 0, "stop does not go back to the beginning")
    assert np.array_equal(walk.right(), first)


# --- the arithmetic ---------------------------------------------------------------------------------------------------


def sum_picture(generator, texts: list[str]) -> np.ndarray:
    """Groups of three with their means, the result among its neighbours, and the pixels' own sum: 268 pixels across."""
    groups = [samples(text) for text in texts]
    whole = np.full((3 * (64 + 8) + 3 * 64 + 2 * 2, 268, 3), images.BACKGROUND)
    for number, group in enumerate(groups):
        for place, picture in enumerate(drawn(generator, torch.cat([group, group.mean(dim=0)[None]]))):
            whole[number * 72 : number * 72 + 64, place * 66 : place * 66 + 64] = picture
    a, b, c = (group.mean(dim=0) for group in groups)
    for number, picture in enumerate(drawn(generator, latent.neighbours(a - b + c))):
        top, left = 216 + number // 3 * 66, number % 3 * 66
        whole[top : top + 64, left : left + 64] = picture
    a, b, c = (latent.generate(generator, group).mean(dim=0) for group in groups)
    control = images.as_uint8((a - b + c)[None].clamp(-1, 1))[0].permute(1, 2, 0)
    whole[216:280, 204:268] = control
    return whole


@of("sums")
@pytest.mark.parametrize("by", BY)
def test_every_control_of_the_arithmetic(view, generator, by):
    texts = ["0, 1, 2", "3, 4, 5", "6, 7, 8"]
    view.shows(sum_picture(generator, texts))
    for number, (name, text) in enumerate(zip("ABC", ["9, 10, 11", "12 13 4:2", "4:1, 4:0, 14"], strict=True)):
        changed = [*texts[:number], text, *texts[number + 1 :]]
        view.write(name, text, by)
        view.shows(sum_picture(generator, changed))
        view.write(name, "nothing", by)
        view.says("write 1 or more seeds")
        view.shows(sum_picture(generator, changed))
        view.write(name, texts[number], by)
        view.shows(sum_picture(generator, texts))


# --- the wall ---------------------------------------------------------------------------------------------------------


@of("wall")
@pytest.mark.parametrize("by", BY)
def test_every_control_of_the_wall(view, generator, by):
    def wall(first: int) -> None:
        for place in range(4):
            view.shows(drawn(generator, sample(first + place)[None])[0], place)

    first = int(view.typed("first seed"))
    wall(first)
    view.count_up("first seed", by)
    wall(first + 1)
    view.write("first seed", "40", by)
    wall(40)
    for seed in (42, 40):
        view.press(str(seed), by)
        until(view.page, lambda seed=seed: view.typed("seed A") == str(seed), f"no explorer of seed {seed}")
        view.says(f"seed {seed}, explored below")
        wanted = drawn(generator, sample(seed)[None])[0]
        view.shows(wanted)
    assert view.box.get_by_role("button", name=ending("Reset")).count() == 1, "the explorer before is still there"
    view.count_up("seed A", by)
    view.shows(drawn(generator, sample(41)[None])[0])


# --- saving and closing -----------------------------------------------------------------------------------------------


def expected_z(view: View, generator) -> torch.Tensor:
    if view.name == "explorer":
        explorer = Explorer(view, generator)
        view.slide("first", "keyboard")
        explorer.right("first")
        return explorer.z
    if view.name == "walk":
        return Walk(view, generator).z()
    if view.name == "sums":
        return latent.arithmetic(*(samples(view.typed(name)) for name in "ABC"))
    first = int(view.typed("first seed"))
    return torch.stack([sample(seed) for seed in range(first, first + 4)])


@pytest.mark.parametrize("view", ["explorer", "walk", "sums", "wall"], indirect=True)
@pytest.mark.parametrize("by", BY)
def test_z_and_picture_are_saved_beside_the_notebook(view, generator, folder, by):
    z = expected_z(view, generator)
    for button, kind in (("Save z", "npy"), ("Save PNG", "png")):
        before = set((folder / "book").glob(f"latent-*.{kind}"))
        view.press(button, by, 0)  # the wall's own, before those of its explorer
        until(
            view.page,
            lambda kind=kind, before=before: set((folder / "book").glob(f"latent-*.{kind}")) - before,
            "no file",
        )
        (path,) = set((folder / "book").glob(f"latent-*.{kind}")) - before
        view.says(f"saved {path.name}")
        if kind == "npy":
            torch.testing.assert_close(torch.from_numpy(np.load(path)), z, rtol=0, atol=1e-5)
        elif view.name == "wall":
            row = np.concatenate(
                [np.pad(one, ((0, 0), (0, 2), (0, 0)), constant_values=255) for one in drawn(generator, z)], 1
            )
            assert np.abs(pixels(path.read_bytes()) - row[:, :-2]).max() <= 1
        else:
            assert np.array_equal(pixels(path.read_bytes()), view.picture())


@pytest.mark.parametrize("view", ["wall", "walk", "sums", "explorer"], indirect=True)
def test_closing_one_takes_it_off_the_page_and_leaves_the_others(view, page, generator):
    before = int(in_kernel(page, "len(kept)"))
    assert view.box.locator("img.widget-image").count() >= 1
    in_kernel(page, f"{view.name}.close()")
    cell = page.locator(".jp-CodeCell").nth(list(CELLS).index(view.name))
    until(page, lambda: cell.locator("img.widget-image, .widget-slider, input").count() == 0, "it is still on the page")
    assert int(in_kernel(page, "len(kept)")) < before - 10
    other = Explorer(View(page, "other"), generator, ["first"])
    other.right("reset")
    other.view.slide("first", "keyboard")
    other.right("first")
