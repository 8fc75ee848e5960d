"""The page's convolution explorer by mouse, touch and keyboard, and how it looks."""

import re
from itertools import pairwise

import convolution_pages
import pytest
from axe_playwright_python.sync_playwright import Axe
from convolution_pages import LISTEN, SLIDERS, WRITTEN, choose, lit, now, text
from pages import PHONES, SOURCES, assert_stands_still, swipe

from dcgan_lib.convolution import ConvolutionSetting
from dcgan_lib.convolution_examples import ConvolutionExample

# pytest finds fixtures by the names of the file that uses them.
address, html, show = convolution_pages.address, convolution_pages.html, convolution_pages.show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SCRIPTS = [
    "convolution-arithmetic.js",
    "convolution-matrix.js",
    "convolution-views.js",
    "convolution.js",
]

# --- mouse, keyboard, touch -------------------------------------------------------------------------------------------


def cell_centre(page, name: str, row: int, column: int) -> tuple[float, float]:
    """Where a cell of a grid is, found by asking the page's own drawing where its numbers went."""
    page.evaluate(LISTEN)
    choose(page, seed=2)
    choose(page, seed=1)
    size = int(page.locator(f".part-{name} .convolution-title span").inner_text().split()[0].rstrip(","))
    _, x, y = page.evaluate(WRITTEN, name)[row * size + column]
    box = page.locator(f".convolution-{name}").bounding_box()
    return box["x"] + x, box["y"] + y


def test_mouse_lights_and_pins_cells(show):
    page = show()
    page.locator(".convolution-board").scroll_into_view_if_needed()
    there, other = cell_centre(page, "input", 2, 3), cell_centre(page, "input", 0, 1)
    page.mouse.move(*there)
    assert lit(page) == "Input (2, 3)"
    page.mouse.move(*other)
    assert lit(page) == "Input (0, 1)"
    page.mouse.click(*there)
    assert lit(page) == "Input (2, 3)"
    page.mouse.move(*other)
    assert lit(page) == "Input (2, 3)"  # pinned
    page.mouse.click(*other)
    page.mouse.move(*there)
    assert lit(page) == "Input (0, 1)"  # pinned elsewhere
    page.mouse.click(*other)
    page.mouse.move(*there)
    assert lit(page) == "Input (2, 3)"  # free again
    output = cell_centre(page, "output", 5, 6)
    page.mouse.move(*output)
    assert lit(page) == "Output (5, 6)"
    assert page.get_by_label("Step through").input_value() == "output"
    assert text(page, "sentence") == ConvolutionExample(ConvolutionSetting(4, 4, 2, 1, transposed=True)).sentence(
        "output", (5, 6)
    )


def test_mouse_on_the_kernel_shows_the_product_of_a_place(show):
    page = show()
    page.locator(".convolution-board").scroll_into_view_if_needed()
    page.mouse.move(*cell_centre(page, "kernel", 1, 2))
    example = ConvolutionExample(ConvolutionSetting(4, 4, 2, 1, transposed=True))
    found = next(p for p in example.products("input", (1, 1)) if p.place == (1, 2))
    assert page.locator(".convolution-term").all_inner_texts() == [
        f"{found.value}·{found.weight} = {found.value * found.weight}"
    ]
    page.mouse.move(5, 5)
    assert page.locator(".convolution-term").count() == 0


def test_mouse_on_the_matrix_lights_row_or_column(show):
    page = show("line")
    matrix = page.locator(".convolution-matrix")
    matrix.scroll_into_view_if_needed()
    box = matrix.bounding_box()
    seen = set()
    for part in range(40):
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] * part / 40
        page.mouse.move(x, y)
        seen.add(lit(page))
    assert seen == {f"Output {row}" for row in range(4)}
    assert "row" in matrix.get_attribute("aria-label")


def test_keys_move_the_lit_cell(show):
    page = show()
    page.locator(".convolution-input").focus()
    places = []
    for key in (
        "ArrowRight",
        "ArrowDown",
        "ArrowLeft",
        "ArrowUp",
        "End",
        "PageDown",
        "Home",
        "PageUp",
        "ArrowUp",
        "ArrowLeft",
    ):
        page.keyboard.press(key)
        places.append(lit(page))
    wanted = [(1, 2), (2, 2), (2, 1), (1, 1), (1, 3), (3, 3), (3, 0), (0, 0), (0, 0), (0, 0)]
    assert places == [f"Input {cell}" for cell in wanted]
    page.locator(".convolution-output").focus()
    page.keyboard.press("ArrowRight")
    assert lit(page) == "Output (1, 1)"
    page.keyboard.press("ArrowRight")
    assert lit(page) == "Output (1, 2)"
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('.explorer-voice').textContent.endsWith('Pinned')")
    page.keyboard.press("Escape")
    page.wait_for_function("!document.querySelector('.explorer-voice').textContent.endsWith('Pinned')")


def test_keys_choose_a_place_in_the_kernel(show):
    page = show("line")
    page.locator(".convolution-kernel").focus()
    example = ConvolutionExample(ConvolutionSetting(7, 3, 2, 1), 1, 3)
    products = {p.place[0]: f"{p.value}·{p.weight}" for p in example.products("output", (1,))}
    for key, place in (("ArrowRight", 0), ("ArrowRight", 1), ("End", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert page.locator(".convolution-term").all_inner_texts() == [products[place]]
    page.keyboard.press("Escape")
    assert page.locator(".convolution-term").count() == 0


ORDER = [
    *("Transposed", "2-D", "Numbers", "Reset", "Input size", "Kernel", "Stride", "Padding", "Dilation"),
    *("Output padding", "Copy", "Kernel, 4 by 4 cells", "Input, 4 by 4 cells", "Output, 8 by 8 cells"),
    *(
        "One frame back",
        "Play",
        "One frame on",
        "Speed",
        "Input cell",
        "Step through",
        "Overlap map",
        "Only what is done so far",
    ),
]


def test_tab_reaches_every_control_in_order_and_shows_where_it_is(show):
    page = show()
    figure = page.locator("figure").bounding_box()
    plain = page.screenshot(clip=figure)
    page.locator("figure").evaluate("figure => { figure.tabIndex = -1; figure.focus(); }")
    seen = []
    for _ in ORDER:
        page.keyboard.press("Tab")
        name = page.evaluate(
            """() => { const at = document.activeElement, label = at.closest("label");
               const text = at.getAttribute("aria-label") || (label || at).textContent;
               return label && at.tagName === "SELECT" ? label.firstElementChild.textContent : text; }"""
        )
        seen.append(name.partition(". Arrow")[0])
        assert page.screenshot(clip=figure) != plain, f"nothing shows that {seen[-1]} has the focus"
    assert seen == ORDER


# What had the focus, one after the other, and where it is: a control with its label; all measured at one moment.
KEEP_FOCUSED = "() => { (window.stops ??= []).push(document.activeElement); }"
STOPS = """() => window.stops.splice(0).map(at => {
  const box = (at.closest("label") || at).getBoundingClientRect();
  const name = at.getAttribute("aria-label") || at.closest("label, button").textContent;
  return [name, box.left, box.top, box.right, box.bottom];
})"""
# What follows from a change of the width is done before the frame after the next.
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("transposed", [True, False], ids=["transposed", "convolution"])
def test_tab_goes_as_one_reads_at_every_width(show, transposed, axes):
    page = show()
    choose(page, transposed=transposed, axes=axes)
    grids = []
    for width in (1280, 768, 577, 576, 390, 320, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(f"innerWidth === {width}")
        page.evaluate(TWO_FRAMES)
        page.locator("figure").evaluate("figure => { figure.tabIndex = -1; figure.focus(); }")
        for _ in ORDER:
            page.keyboard.press("Tab")
            page.evaluate(KEEP_FOCUSED)
        stops = page.evaluate(STOPS)
        for (name, _, top, right, bottom), (following, *box) in pairwise(stops):
            after = box[1] >= bottom - 1 or (box[0] >= right - 1 and box[3] > top)
            assert after, f"{width} pixels wide, {following} comes after {name} and stands before it"
        grids.append([name.partition(",")[0] for name, *_ in stops if ". Arrow" in name])
    wide, phone = ["Kernel", "Input", "Output"], ["Input", "Kernel", "Output"]
    narrow = phone if not transposed and axes == 2 else wide
    assert grids == [wide] * 3 + [narrow] * 3 + [wide]


def test_a_turned_phone_keeps_the_focus(show):
    page = show(viewport=PHONES[0])
    choose(page, transposed=False)
    for name in ("Input", "Kernel"):
        grid = page.get_by_role("application", name=f"{name}, 4 by 4 cells")
        grid.focus()
        for width, height in ((844, 390), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            first = "Input" if width == 390 else "Kernel"
            page.get_by_role("application").first.and_(page.get_by_label(f"{first}, ")).wait_for()
            assert grid.evaluate("grid => grid === document.activeElement"), f"{name} loses the focus"


def test_keys_work_on_sliders_and_radio_buttons(show):
    page = show()
    page.locator(SLIDERS).nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert text(page, "numbers").endswith("= 10")
    page.keyboard.press("End")
    assert text(page, "numbers").endswith("= 32")
    page.get_by_role("radio", name="Transposed").focus()
    page.keyboard.press("ArrowLeft")
    assert text(page, "code").startswith("nn.Conv2d")


def test_finger_taps_and_drags(show):
    page = show(has_touch=True, is_mobile=True, viewport=PHONES[0], device_scale_factor=2)
    page.locator(".convolution-output").scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    start, end = cell_centre(page, "output", 3, 1), cell_centre(page, "output", 3, 6)
    page.touchscreen.tap(*start)
    assert lit(page) == "Output (3, 1)"
    page.touchscreen.tap(*start)  # free again
    swipe(page, start, end)
    assert lit(page) == "Output (3, 6)"


def test_finger_taps_boxes_and_buttons(show):
    page = show(has_touch=True, is_mobile=True, viewport=PHONES[0], device_scale_factor=2)
    page.get_by_text("Overlap").tap()
    assert page.get_by_label("Overlap").is_checked()
    page.get_by_role("button", name="One frame on").tap()
    assert lit(page) == "Input (1, 2)"
    page.get_by_text("1-D").tap()
    assert "Conv" in text(page, "code")
    assert "1d(" in text(page, "code")


# --- the timeline -----------------------------------------------------------------------------------------------------


def test_it_starts_paused_plays_and_stops_where_one_points(show):
    page = show()
    page.wait_for_timeout(400)
    assert now(page) == "Input (1, 1), 6 of 16"
    page.get_by_label("Speed").select_option("4")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("document.querySelector('.explorer-timeline input').valueAsNumber > 8")
    assert text(page, "sentence").startswith("Input (2, ")
    page.locator(SLIDERS).first.fill("5")
    assert page.get_by_role("button", name="Play").count() == 1  # a change of the setting stops it
    page.get_by_role("button", name="One frame back").click()
    before = page.locator(".explorer-timeline input").input_value()
    page.wait_for_timeout(400)
    assert page.locator(".explorer-timeline input").input_value() == before


def test_the_slider_goes_over_the_cells_of_a_side(show):
    page = show()
    timeline = page.locator(".explorer-timeline input")
    assert timeline.get_attribute("max") == "15"
    timeline.fill("15")
    assert now(page) == "Input (3, 3), 16 of 16"
    page.get_by_label("Step through").select_option("outputs")
    assert timeline.get_attribute("max") == "63"
    assert timeline.get_attribute("aria-label") == "Output cell"
    timeline.fill("63")
    assert lit(page) == "Output (7, 7)"
    choose(page, size=3)  # 6 x 6 outputs: the nearest there is
    assert lit(page) == "Output (5, 5)"
    assert timeline.input_value() == "35"


def test_with_reduced_motion_it_moves_once_a_second(show):
    page = show(reduced_motion="reduce")
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(1600)
    page.get_by_role("button", name="Pause").click()
    assert lit(page) in ("Input (1, 2)", "Input (1, 3)")
    transitions = page.locator(".explorer *").evaluate_all(
        "all => all.map(one => getComputedStyle(one)).filter(s => s.animationName !== 'none').length"
    )
    assert transitions == 0


# --- the line of PyTorch ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clipboard", [True, False])
def test_the_line_can_be_copied(show, clipboard):
    page = show(permissions=["clipboard-read", "clipboard-write"])
    if not clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    line = "nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)"
    assert text(page, "code") == line
    if clipboard:
        assert page.evaluate("navigator.clipboard.readText()") == line
    page.get_by_role("button", name="Copy", exact=True).wait_for()


# --- looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 1000}, PHONES[0]], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["index", "line"])
def test_it_is_accessible(show, scheme, size, name):
    page = show(name, color_scheme=scheme, viewport=size)
    page.locator(".convolution-kernel").focus()
    page.keyboard.press("ArrowRight")
    for problem in (False, True):
        if problem:
            choose(page, stride=0)
        page.wait_for_timeout(600)
        assert page.errors == []
        found = Axe().run(page, context="figure", options={"resultTypes": ["violations", "incomplete"]}).response
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        # What is pale because it is out of use need not stand out.
        unsure = [node for one in found["incomplete"] if one["id"] == "color-contrast" for node in one["nodes"]]
        assert problem or unsure == []
        page.errors.clear()  # axe asks for the theme's style sheets again, one of which does not exist


@pytest.mark.parametrize("size", PHONES, ids=lambda size: str(size["width"]))
@pytest.mark.parametrize("name", ["index", "line"])
def test_it_fits_a_phone(show, size, name):
    page = show(name, viewport=size, device_scale_factor=2)
    for values in (
        {},
        {"size": 16, "kernel": 7, "padding": 3},
        {"stride": 4},
        {"stride": 0},
        {"stride": 2, "transposed": False},
    ):
        choose(page, **values)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        inside = page.locator(".explorer").bounding_box()
        for one in page.locator(".explorer-stage *:visible").all():
            box = one.bounding_box()
            if box is None or box["width"] <= 1:
                continue
            assert box["x"] >= inside["x"] - 0.5, one.evaluate("one => one.outerHTML")
            assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 0.5, one.evaluate("one => one.outerHTML")
    heights = page.locator(f".explorer-button, {SLIDERS}, .explorer-choice label, select").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 40


def test_the_theme_can_be_changed_while_it_lives(show):
    page = show()
    pixel = (
        """() => [...document.querySelectorAll("canvas")].filter(one => one.clientWidth).map(one => one.toDataURL())"""
    )
    light = page.evaluate(pixel)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    dark = page.evaluate(pixel)
    assert all(before != after for before, after in zip(light, dark, strict=True))
    assert len(light) == 4
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_timeout(100)
    assert page.evaluate(pixel) == light


def test_it_works_from_the_disk(show, html):
    page = show(base=html.as_uri())
    choose(page, size=5)
    assert text(page, "numbers").endswith("= 10")


def test_print_and_pages_without_scripts_show_the_still_picture(show, opened):
    assert_stands_still(show(), opened, width=600)


def test_the_scripts_are_small_plain_and_our_own():
    texts = {name: (SOURCES / name).read_text(encoding="utf-8") for name in (*SCRIPTS, "controls.js")}
    assert sorted(path.name for path in SOURCES.glob("convolution*.js")) == SCRIPTS
    assert sum(len(script.encode()) for script in texts.values()) < 60_000
    for name, script in texts.items():
        assert '"use strict";' in script, name
        assert len(script.splitlines()) < 400, name
        assert not re.search(r"^\s*(import|export)\b|\bfetch\(|https?://", script, re.MULTILINE), name
