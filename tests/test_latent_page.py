"""The latent explorer in a real browser: its pictures against PyTorch, and every control by mouse, keys and touch."""

import base64
import json
import pickle
import re
import zlib
from pathlib import Path

import latent_pages
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from latent_pages import SUM, assert_shows, document, images, pixels, sample, settle, tiny, trained, use
from pages import PHONES, SOURCES, assert_stands_still, build, swipe, write_book

from dcgan_lib import checkpoint, latent
from dcgan_lib.data import to_uint8
from dcgan_lib.page_description import choose_sum, first_rows
from dcgan_lib.page_generator import unpack

# pytest finds fixtures by the names of the file that uses them.
address, html, show = latent_pages.address, latent_pages.html, latent_pages.show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LARGE = ".latent-large"
VIEWS = {"index": "explore", "walk": "walk", "sum": "arithmetic", "wall": "grid"}


# --- the page against PyTorch -----------------------------------------------------------------------------------------


def wall(page, seed: int) -> np.ndarray:
    """The 32 pictures of a wall, for the first rows of a seed: uint8 (32, S, S, 3)."""
    page.get_by_role("spinbutton", name="Seed").first.fill(str(seed))
    settle(page)
    return np.stack([pixels(canvas) for canvas in page.locator(".latent-tile canvas").all()])


def expected_wall(generator, seed: int) -> np.ndarray:
    made = to_uint8(latent.sample(generator, 32, seed)).permute(0, 2, 3, 1)
    return made.expand(-1, -1, -1, 3).numpy()


@pytest.mark.parametrize("served", [True, False], ids=["served", "from the disk"])
@pytest.mark.parametrize(("precision", "mean", "worst"), [("", 1, 6), ("-fine", 0.1, 1)], ids=["8 bits", "16 bits"])
@pytest.mark.parametrize(("page_name", "name"), [("cats", "cats-64"), ("fashion", "fashion-mnist-32")])
def test_256_pictures_of_released_weights_are_those_of_pytorch(
    show, html, served, page_name, name, precision, mean, worst
):
    page_name += precision
    page = show(page_name) if served else show(page_name, base=html.as_uri())
    generator = checkpoint.load_pretrained(name)
    seeds = np.random.default_rng(0).integers(0, 2**32, 8)
    differences = np.stack(
        [np.abs(wall(page, int(seed)).astype(int) - expected_wall(generator, int(seed))) for seed in seeds]
    )
    assert differences.shape[:2] == (8, 32)
    assert differences.mean() <= mean
    assert differences.max() <= worst
    other = np.abs(wall(page, 1).astype(int) - expected_wall(generator, 2))
    assert other.mean() > 20  # pictures of other vectors are further apart


@pytest.mark.parametrize("name", ["five", "resized", "large"])
def test_other_ways_to_double_and_sizes_too(show, name):
    ways = {"five": ("transposed-5", 32), "resized": ("resize", 32), "large": ("transposed", 128)}
    page, generator = show(name), trained(*ways[name])
    difference = np.abs(wall(page, 5).astype(int) - expected_wall(generator, 5))
    assert difference.mean() <= 1
    assert difference.max() <= 6


BROKEN_WORKER = """window.Worker = class {
  constructor() { setTimeout(() => this.onerror(new Event("error")), 50); }
  postMessage() {}
};"""


@pytest.mark.parametrize("script", ["delete window.Worker", BROKEN_WORKER], ids=["none", "broken"])
def test_without_workers_the_page_computes_itself(show, script):
    page = show("wall", script=script)
    for row in (0, 31):
        assert_shows(page, ".latent-tile canvas", sample(0, row), row)
    page.get_by_role("button", name="Next").click()
    assert_shows(page, ".latent-tile canvas", sample(0, 40), 8)


def test_z_is_that_of_pytorch(show):
    page = show()
    made = "([seed, row, count]) => [...explorers.latent.sampleLatent(seed, row, count)]"
    for seed, row in [(0, 0), (1, 7), (123456789, 31), (2**32 - 1, 9999)]:
        found = torch.tensor(page.evaluate(made, [seed, row, 20_000]))
        stream = np.random.Generator(np.random.Philox(key=np.array([seed, row], dtype=np.uint64)))
        expected = torch.from_numpy(stream.standard_normal(20_000, dtype=np.float32))
        # So many that all ways of the ziggurat are taken; the logarithm of its tail may be rounded otherwise.
        assert expected.abs().max() > 3.66
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)
        assert torch.equal(found[:6], latent.sample_latent(row + 1, 6, seed)[row])


def test_ways_between_vectors_are_those_of_pytorch(show):
    page = show()
    a, b = latent.sample_latent(2, 6, 3)
    for t in (0.0, 0.3, 1.0):
        for name, method in (("lerp", latent.lerp), ("slerp", latent.slerp)):
            call = f"([a, b, t]) => [...explorers.latent.{name}(Float32Array.from(a), Float32Array.from(b), t)]"
            found = torch.tensor(page.evaluate(call, [a.tolist(), b.tolist(), t]))
            torch.testing.assert_close(found, method(a, b, t), rtol=1e-5, atol=1e-6)
    call = "z => explorers.latent.neighbours(Float32Array.from(z), 9, 0.25).map(one => [...one])"
    torch.testing.assert_close(torch.tensor(page.evaluate(call, a.tolist())), latent.neighbours(a))


# --- explore ----------------------------------------------------------------------------------------------------------


def named() -> list[int]:
    return [i for i, direction in enumerate(tiny().description.directions) if direction.factor]


def direction(i: int) -> torch.Tensor:
    return tiny().description.directions[i].vector


def first_of(factor: str) -> int:
    return next(i for i in named() if tiny().description.directions[i].factor == factor)


def sliders(page):
    return page.locator(".latent-panel:not([hidden]) input[type=range]")


def test_it_opens_with_sample_0_of_seed_0(show):
    page = show()
    assert_shows(page, LARGE, sample(0, 0))
    assert_shows(page, ".latent-start", sample(0, 0))
    assert page.locator(".latent-recipe").inner_text() == "z = sample 0 of seed 0"
    length = sample(0, 0).norm().item()
    assert page.locator(".latent-length").inner_text() == f"Length of z: {length:.1f}. Samples: 2.3 ± 0.7."
    assert page.get_by_role("img", name="Generated picture. z = sample 0 of seed 0").count() == 1


def test_named_sliders_move_z_along_their_directions(show):
    page = show()
    left, right = first_of("left"), first_of("right")
    sliders(page).nth(0).fill("2.5")
    assert_shows(page, LARGE, sample(0, 0) + 2.5 * direction(left))
    sliders(page).nth(1).fill("-1")
    assert_shows(page, LARGE, sample(0, 0) + 2.5 * direction(left) - direction(right))
    assert_shows(page, ".latent-start", sample(0, 0))
    about = [tiny().description.directions[i] for i in (left, right)]
    words = f"z = sample 0 of seed 0 + 2.5 {about[0].value} − 1.0 {about[1].value}"
    assert page.locator(".latent-recipe").inner_text() == words
    effects = page.locator(".latent-effect").all_inner_texts()
    assert effects == [f"{one.before} % → {one.after} % at +3" for one in about]
    page.get_by_role("button", name="Reset").click()
    assert_shows(page, LARGE, sample(0, 0))
    assert sliders(page).nth(0).input_value() == "0"


def test_another_value_can_be_chosen_and_keeps_its_own_amount(show):
    page = show()
    own = [i for i in named() if tiny().description.directions[i].factor == "left"]
    assert len(own) == 2
    sliders(page).nth(0).fill("2")
    page.get_by_role("combobox", name="Left").select_option(str(own[1]))
    assert sliders(page).nth(0).input_value() == "0"
    sliders(page).nth(0).fill("1")
    assert_shows(page, LARGE, sample(0, 0) + 2 * direction(own[0]) + direction(own[1]))
    page.get_by_role("combobox", name="Left").select_option(str(own[0]))
    assert sliders(page).nth(0).input_value() == "2"


def test_principal_sliders(show):
    page = show()
    page.get_by_text("Principal", exact=True).click()
    assert sliders(page).count() == 6
    first = len(named())
    sliders(page).nth(2).fill("-3")
    assert_shows(page, LARGE, sample(0, 0) - 3 * direction(first + 2))
    assert page.locator(".latent-recipe").inner_text().endswith("− 3.0 principal 3")


def test_the_numbers_of_z_by_field_slider_and_bars(show):
    page = show()
    page.get_by_text("Numbers", exact=True).click()
    page.get_by_role("spinbutton", name="Number of z").fill("4")
    assert float(sliders(page).input_value()) == pytest.approx(sample(0, 0)[4].item(), abs=0.026)
    sliders(page).fill("1.5")
    z = sample(0, 0).clone()
    z[4] = 1.5
    assert_shows(page, LARGE, z)
    assert page.locator(".latent-recipe").inner_text().endswith(", 1 of its numbers set by hand")
    box = page.locator(".latent-bars").bounding_box()
    page.mouse.click(box["x"] + 2.5 / 6 * box["width"], box["y"] + 0.25 * box["height"])
    assert page.get_by_role("spinbutton", name="Number of z").input_value() == "2"
    z[2] = 2 * float(sliders(page).input_value()) / 2
    assert z[2].item() == pytest.approx(2, abs=0.1)
    settle(page)
    found = pixels(page.locator(LARGE)).astype(int)
    assert np.abs(found - images(z[None])[0].astype(int)).mean() < 4  # a pixel's worth of z


def test_seed_sample_and_shuffle(show):
    page = show()
    page.get_by_role("spinbutton", name="Seed").fill("12")
    page.get_by_role("spinbutton", name="Sample").fill("3")
    assert_shows(page, LARGE, sample(12, 3))
    assert_shows(page, ".latent-start", sample(12, 3))
    sliders(page).nth(0).fill("2")
    page.get_by_role("spinbutton", name="Sample").fill("4")
    assert_shows(page, LARGE, sample(12, 4) + 2 * direction(first_of("left")))
    page.get_by_role("button", name="Shuffle").click()
    seed = int(page.get_by_role("spinbutton", name="Seed").input_value())
    assert_shows(page, ".latent-start", sample(seed, 0))


@pytest.mark.parametrize(("typed", "becomes"), [("-3", 0), ("2.6", 3), ("99999999999", 2**32 - 1), ("", 0)])
def test_what_is_no_seed_becomes_one(show, typed, becomes):
    page = show()
    page.get_by_role("spinbutton", name="Seed").fill(typed)
    page.keyboard.press("Tab")
    assert page.get_by_role("spinbutton", name="Seed").input_value() == str(becomes)
    assert_shows(page, LARGE, sample(becomes, 0))


def test_keys_drive_explore(show):
    page = show()
    sliders(page).nth(0).focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert_shows(page, LARGE, sample(0, 0) + 0.3 * direction(first_of("left")))
    page.keyboard.press("End")
    assert_shows(page, LARGE, sample(0, 0) + 5 * direction(first_of("left")))
    page.get_by_role("button", name="Reset").focus()
    page.keyboard.press("Enter")
    assert_shows(page, LARGE, sample(0, 0))
    page.get_by_role("spinbutton", name="Seed").focus()
    page.keyboard.press("ArrowUp")
    assert_shows(page, LARGE, sample(1, 0))
    page.get_by_role("radio", name="Named").focus()
    page.keyboard.press("ArrowRight")
    assert sliders(page).count() == 6
    page.keyboard.press("ArrowRight")
    assert page.locator(".latent-bars").is_visible()


def test_a_dragged_slider_ends_at_its_last_place_and_queues_nothing(show):
    page = show()
    page.evaluate(
        """() => { window.sent = 0; const { postMessage } = Worker.prototype;
           Worker.prototype.postMessage = function (...rest) { sent += 1; return postMessage.apply(this, rest); }; }"""
    )
    page.evaluate(
        """() => { const range = document.querySelector(".latent-panel input[type=range]");
           for (let i = 1; i <= 200; i += 1) { range.value = i / 50; range.dispatchEvent(new Event("input")); } }"""
    )
    assert_shows(page, LARGE, sample(0, 0) + 4 * direction(first_of("left")))
    assert page.evaluate("sent") <= 3


REQUESTS = """async document => {
  const maker = await explorers.latent.makerOf(document), made = [];
  for (let i = 1; i <= 100; i += 1) {
    maker.request("one", Float32Array.from({ length: 6 }, () => i / 100), image => made.push([i, [...image]]));
  }
  await maker.make(new Float32Array(6));
  while (maker.waiting.size || maker.current) await new Promise(resolve => setTimeout(resolve, 5));
  return [made.map(([i]) => i), made.at(-1)[1]];
}"""


@pytest.mark.parametrize("script", ["", "delete window.Worker"], ids=["worker", "no worker"])
def test_the_latest_request_wins(show, script):
    page = show(script=script)
    made, image = page.evaluate(REQUESTS, document("tiny"))
    assert made[-1] == 100
    assert len(made) <= 2  # and perhaps the one that was begun at once
    expected = latent.generate(tiny(), torch.ones(1, 6)).flatten()
    torch.testing.assert_close(torch.tensor(image), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("clipboard", [True, False])
def test_a_copied_link_leads_to_the_same_z(show, address, clipboard):
    page = show(permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("spinbutton", name="Seed").fill("7")
    sliders(page).nth(0).fill("2.5")
    page.get_by_text("Principal", exact=True).click()
    sliders(page).nth(1).fill("-1")
    page.get_by_text("Numbers", exact=True).click()
    page.get_by_role("spinbutton", name="Number of z").fill("5")
    sliders(page).fill("0.5")
    settle(page)
    before = pixels(page.locator(LARGE))
    if not clipboard:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_role("button", name="Copied").wait_for()
    link = page.locator(".latent-link").text_content()
    if clipboard:
        assert page.evaluate("navigator.clipboard.readText()") == link
    assert link.startswith(f"{address}/index.html?figure=fig-explore&z=7.0&move=")
    assert link.endswith("#fig-explore")
    again = show(query=link.partition("index.html")[2])
    np.testing.assert_array_equal(pixels(again.locator(LARGE)), before)
    assert again.locator(".latent-recipe").inner_text() == page.locator(".latent-recipe").inner_text()
    assert again.evaluate("scrollY") >= 0


@pytest.mark.parametrize(
    "query", ["?figure=fig-explore&z=x.y&move=nothing:1,:,a&set=99:1,x:2", "?figure=other&z=3.3", "?z=3.3"]
)
def test_a_link_that_makes_no_sense_is_passed_over(show, query):
    assert_shows(show(query=query), LARGE, sample(0, 0))


def test_without_a_reader_there_are_principal_directions(show):
    page = show("bare")
    assert page.get_by_role("radio").count() == 2
    before = pixels(page.locator(LARGE))
    sliders(page).first.fill("3")
    settle(page)
    assert (pixels(page.locator(LARGE)) != before).any()
    assert (before[..., 0] == before[..., 1]).all()  # grey


# --- walk -------------------------------------------------------------------------------------------------------------

STEPS = 60
PLACE = ".explorer-timeline input"


def on_the_walk(step: int, seeds=(0, 1, 2), method="slerp") -> torch.Tensor:
    return latent.walk(torch.stack([sample(seed, 0) for seed in seeds]), STEPS, method)[step]


def step(page) -> int:
    return int(page.locator(PLACE).input_value())


def now(page) -> str:
    return page.locator(".explorer-now").inner_text().replace("\n", " ")


def test_a_walk_goes_through_its_seeds(show):
    page = show("walk")
    assert page.locator(PLACE).get_attribute("max") == "120"
    for place, text in [
        (0, "Seed 0"),
        (15, "Seed 0 to 1, 25 %"),
        (60, "Seed 1"),
        (90, "Seed 1 to 2, 50 %"),
        (120, "Seed 2"),
    ]:
        page.locator(PLACE).fill(str(place))
        assert_shows(page, LARGE, on_the_walk(place))
        assert now(page) == text
    length = on_the_walk(120).norm().item()
    assert page.locator(".latent-length").inner_text() == f"Length of z: {length:.1f}"
    for i in range(9):
        assert_shows(page, ".latent-strip canvas", on_the_walk(15 * i), i)
    for seed in range(3):
        assert_shows(page, ".latent-stop canvas", sample(seed, 0), seed)


def test_a_straight_line_is_another_way(show):
    page = show("walk")
    page.locator(PLACE).fill("30")
    page.get_by_text("lerp", exact=True).click()
    assert_shows(page, LARGE, on_the_walk(30, method="lerp"))
    assert_shows(page, ".latent-strip canvas", on_the_walk(105, method="lerp"), 7)
    page.get_by_role("radio", name="lerp", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert_shows(page, LARGE, on_the_walk(30))


def test_seeds_can_be_changed_added_and_removed(show):
    page = show("walk")
    page.get_by_role("spinbutton", name="Seed 2 of 3").fill("9")
    page.locator(PLACE).fill("45")
    assert_shows(page, LARGE, on_the_walk(45, (0, 9, 2)))
    page.get_by_role("button", name="Add a seed").click()
    assert page.locator(PLACE).get_attribute("max") == "180"
    page.locator(PLACE).fill("150")
    assert_shows(page, LARGE, on_the_walk(150, (0, 9, 2, 3)))
    for _ in range(2):
        page.get_by_role("button", name="Remove the last").click()
    assert step(page) == 60
    assert_shows(page, LARGE, sample(9, 0))
    assert page.get_by_role("button", name="Remove the last").is_disabled()
    for _ in range(3):
        page.get_by_role("button", name="Add a seed").click()
    assert page.get_by_role("button", name="Add a seed").is_disabled()
    page.get_by_role("button", name="Shuffle").click()
    seeds = [int(box.input_value()) for box in page.locator(".latent-stop input").all()]
    page.locator(PLACE).fill("0")
    assert_shows(page, LARGE, sample(seeds[0], 0))


@pytest.mark.parametrize("selector", [".latent-strip", ".latent-chart"])
def test_mouse_drags_on_strip_and_chart(show, selector):
    page = show("walk")
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 4, box["y"] + 10)
    page.mouse.down()
    assert step(page) == pytest.approx(30, abs=2)
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 10, steps=4)
    page.mouse.up()
    assert step(page) == pytest.approx(90, abs=2)
    assert_shows(page, LARGE, on_the_walk(step(page)))


def test_keys_and_buttons_drive_the_walk(show):
    page = show("walk")
    page.locator(PLACE).focus()
    for key, place in [("ArrowRight", 1), ("End", 120), ("ArrowLeft", 119), ("Home", 0)]:
        page.keyboard.press(key)
        assert step(page) == place
        assert_shows(page, LARGE, on_the_walk(place))
    page.keyboard.press("Space")
    page.wait_for_function(f"document.querySelector('{PLACE}').valueAsNumber > 5")
    page.keyboard.press("Space")
    stopped = step(page)
    assert_shows(page, LARGE, on_the_walk(stopped))
    page.wait_for_timeout(200)
    assert step(page) == stopped
    page.get_by_role("button", name="One frame on").click()
    assert_shows(page, LARGE, on_the_walk(stopped + 1))


def test_a_link_to_a_walk(show):
    page = show("walk", query="?figure=fig-walk&seeds=4.5&way=lerp&step=20")
    assert_shows(page, LARGE, on_the_walk(20, (4, 5), "lerp"))
    page.get_by_role("button", name="Copy link").click()
    link = page.locator(".latent-link").text_content()
    assert "seeds=4.5&way=lerp&step=20" in link


# --- arithmetic -------------------------------------------------------------------------------------------------------


def groups(what=("right", "light"), one=None, other=None, turn=0) -> list[torch.Tensor]:
    """The vectors of A, B and C, three of each."""
    description = tiny().description
    words = choose_sum(description, ["light"]).words
    one, other = one or words[1], other or words[2]
    brought = dict([what])
    rows = [
        first_rows(description, {"left": one} | brought),
        first_rows(description, {"left": one}, brought),
        first_rows(description, {"left": other}, brought),
    ]
    z = latent.sample_latent(300, 6, 0)
    return [z[[own[(3 * turn + i) % len(own)] for i in range(3)]] for own in rows]


def assert_sum(page, vectors: list[torch.Tensor]) -> None:
    """Nine samples, three means, nine results and the control are as computed here."""
    settle(page)
    for g, own in enumerate(vectors):
        for i in range(3):
            assert_shows(page, ".latent-three canvas", own[i], 3 * g + i)
        assert_shows(page, ".latent-mean", own.mean(dim=0), g)
    result = latent.arithmetic(*vectors)
    for i, near in enumerate(latent.neighbours(result)):
        assert_shows(page, ".latent-nine canvas", near, i)
    a, b, c = (latent.generate(tiny(), own).mean(dim=0) for own in vectors)
    control = to_uint8((a - b + c)[None])[0].permute(1, 2, 0).numpy().astype(int)
    np.testing.assert_allclose(pixels(page.locator(".latent-control canvas")).astype(int), control, atol=1)


def test_the_sum_is_that_of_the_paper(show):
    page = show("sum")
    assert_sum(page, groups())
    length = latent.arithmetic(*groups()).norm().item()
    words = f"Length of z: {length:.1f}. Of 300 samples that a reader has read, the first three of each kind."
    assert page.locator(".latent-method").inner_text() == words
    titles = page.locator(".latent-title").all_inner_texts()
    one, other = choose_sum(tiny().description, ["light"]).words[1:]
    assert titles[:3] == [f"{one}, light", f"{one}, without", f"{other}, without"]


def test_other_samples_of_the_same_kinds(show):
    page = show("sum")
    page.get_by_role("button", name="Other samples").click()
    assert_sum(page, groups(turn=1))
    page.get_by_role("button", name="Other samples").focus()
    page.keyboard.press("Enter")
    assert_sum(page, groups(turn=2))


def test_what_is_brought_from_whom_and_to_whom_can_be_chosen(show):
    page = show("sum")
    one, other = choose_sum(tiny().description, ["light"]).words[1:]
    page.get_by_role("combobox", name="Bring").select_option(label="dark")
    assert_sum(page, groups(("right", "dark")))
    page.get_by_role("combobox", name="From").select_option(label=other)
    assert_sum(page, groups(("right", "dark"), one=other))
    page.get_by_role("combobox", name="To").select_option(label=one)
    assert_sum(page, groups(("right", "dark"), one=other, other=one))
    page.get_by_role("combobox", name="Bring").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    chosen = page.get_by_role("combobox", name="Bring").evaluate("box => box.selectedOptions[0].textContent")
    assert_sum(page, groups(("right", chosen), one=other, other=one))


def test_a_sum_without_enough_samples_says_so(show):
    page = show("sum")
    one = choose_sum(tiny().description, ["light"]).words[1]
    # One that the reader has never found.
    page.get_by_role("combobox", name="From").evaluate("box => box.append(new Option('purple', 7))")
    page.get_by_role("combobox", name="From").select_option(label="purple")
    problem = page.locator(".latent-problem").inner_text()
    assert problem.startswith("Among the first 300 samples of seed 0 there are fewer than 3 for: ")
    assert page.locator(".latent-impossible").count() == 1
    page.get_by_role("combobox", name="From").select_option(label=one)
    assert_sum(page, groups())
    assert page.locator(".latent-problem").inner_text() == ""
    assert page.locator(".latent-impossible").count() == 0


def test_a_link_to_a_sum(show):
    one, other = choose_sum(tiny().description, ["light"]).words[1:]
    page = show("sum", query=f"?figure=fig-sum&sum=dark|{other}|{one}&turn=1")
    assert_sum(page, groups(("right", "dark"), one=other, other=one, turn=1))
    assert page.get_by_role("combobox", name="From").evaluate("box => box.selectedOptions[0].textContent") == other
    page.get_by_role("button", name="Copy link").click()
    assert f"sum=dark%7C{other}%7C{one}&turn=1" in page.locator(".latent-link").text_content()


# --- grid -------------------------------------------------------------------------------------------------------------

TILE = ".latent-tile canvas"


def test_a_wall_is_the_samples_of_a_seed_in_order(show):
    page = show("wall")
    for row in (0, 13, 31):
        assert_shows(page, TILE, sample(0, row), row)
    assert page.locator(".latent-range").inner_text() == "Samples 0 to 31"
    page.get_by_role("button", name="Next").click()
    assert_shows(page, TILE, sample(0, 35), 3)
    assert page.locator(".latent-range").inner_text() == "Samples 32 to 63"
    page.get_by_role("button", name="Previous").click()
    assert_shows(page, TILE, sample(0, 3), 3)
    assert page.get_by_role("button", name="Previous").is_disabled()
    page.get_by_role("spinbutton", name="Seed").first.fill("8")
    assert_shows(page, TILE, sample(8, 2), 2)
    page.get_by_role("button", name="Shuffle").first.click()
    assert_shows(page, TILE, sample(int(page.get_by_role("spinbutton", name="Seed").first.input_value()), 2), 2)


def test_a_click_explores_a_sample(show):
    page = show("wall")
    assert not page.locator(LARGE).is_visible()
    page.get_by_role("button", name="Sample 9 of seed 0").click()
    assert_shows(page, LARGE, sample(0, 9))
    sliders(page).nth(0).fill("2")
    assert_shows(page, LARGE, sample(0, 9) + 2 * direction(first_of("left")))
    page.get_by_role("button", name="Sample 10 of seed 0").click()
    assert_shows(page, LARGE, sample(0, 10) + 2 * direction(first_of("left")))
    pressed = page.locator(".latent-tile[aria-pressed=true]")
    assert pressed.count() == 1
    assert pressed.get_attribute("aria-label") == "Sample 10 of seed 0"


def test_keys_go_over_the_wall(show):
    page = show("wall")
    page.locator(".latent-tile").first.focus()
    seen = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "End", "ArrowRight", "Home"):
        page.keyboard.press(key)
        seen.append(page.evaluate("document.activeElement.getAttribute('aria-label')"))
    assert seen == [f"Sample {row} of seed 0" for row in (1, 9, 8, 0, 0, 31, 31, 0)]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert_shows(page, LARGE, sample(0, 1))
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Sample 1 of seed 0"


def test_a_link_to_a_wall(show):
    page = show("wall", query="?figure=fig-wall&seed=6&from=32")
    assert_shows(page, TILE, sample(6, 33), 1)
    page.get_by_role("button", name="Copy link").first.click()
    assert "seed=6&from=32" in page.locator(".latent-link").first.text_content()


# --- touch, looks, labels ---------------------------------------------------------------------------------------------

TOUCH = {"has_touch": True, "is_mobile": True, "viewport": PHONES[0], "device_scale_factor": 2}


def test_finger_drags_a_slider_and_taps(show):
    page = show(**TOUCH)
    slider = sliders(page).first
    slider.scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    swipe(page, (box["x"] + box["width"] / 2, y), (box["x"] + box["width"] * 0.9, y))
    amount = float(slider.input_value())
    assert amount > 2
    assert_shows(page, LARGE, sample(0, 0) + amount * direction(first_of("left")))
    page.get_by_role("button", name="Reset").tap()
    assert_shows(page, LARGE, sample(0, 0))


def test_finger_drags_the_strip_and_taps_a_sample(show):
    page = show("walk", **TOUCH)
    page.locator(".latent-strip").scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    box = page.locator(".latent-strip").bounding_box()
    y = box["y"] + box["height"] / 2
    swipe(page, (box["x"] + 20, y), (box["x"] + box["width"] / 2, y))
    assert step(page) == pytest.approx(60, abs=4)
    assert_shows(page, LARGE, on_the_walk(step(page)))
    page = show("wall", **TOUCH)
    page.get_by_role("button", name="Sample 5 of seed 0").tap()
    assert_shows(page, LARGE, sample(0, 5))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 1000}, PHONES[0]], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", VIEWS)
def test_it_is_accessible(show, scheme, size, name):
    page = show(name, color_scheme=scheme, viewport=size)
    if name == "wall":
        page.locator(".latent-tile").nth(3).click()
    for tab in ("Principal", "Numbers", "Named") if name in ("index", "wall") else ("",):
        if tab:
            page.get_by_role("radio", name=tab).check(force=True)
        page.wait_for_timeout(600)
        assert page.errors == []
        found = Axe().run(page, context="figure", options={"resultTypes": ["violations", "incomplete"]}).response
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []
        unsure = [node for one in found["incomplete"] if one["id"] == "color-contrast" for node in one["nodes"]]
        # A sign such as "=" is no text to axe; it has the colour of the words beside it.
        unsure = [node["html"] for node in unsure if node["any"][0]["data"].get("messageKey") != "nonBmp"]
        assert unsure == []
        page.errors.clear()  # axe asks for the theme's style sheets again, one of which does not exist


@pytest.mark.parametrize("size", PHONES, ids=lambda size: str(size["width"]))
@pytest.mark.parametrize("name", VIEWS)
def test_it_fits_a_phone(show, size, name):
    page = show(name, viewport=size, device_scale_factor=2)
    if name == "wall":
        page.locator(".latent-tile").nth(3).click()
    for tab in ("Principal", "Numbers", "Named") if name in ("index", "wall") else ("",):
        if tab:
            page.get_by_role("radio", name=tab).check(force=True)
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        inside = page.locator(".explorer").bounding_box()
        for one in page.locator(".explorer-stage *:visible").all():
            box = one.bounding_box()
            if box is None or box["width"] <= 1 or one.get_attribute("class") == "latent-sign":
                continue
            assert box["x"] >= inside["x"] - 0.5, one.evaluate("one => one.outerHTML")
            assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 0.5, one.evaluate("one => one.outerHTML")
        heights = page.locator(".explorer-button:visible, input[type=range]:visible, select:visible").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().height)"
        )
        assert min(heights) >= 40


def test_on_a_phone_the_picture_stays_in_sight_beside_its_sliders(show):
    page = show(viewport=PHONES[1], device_scale_factor=2)
    sliders(page).last.scroll_into_view_if_needed()
    box = page.locator(LARGE).bounding_box()
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= PHONES[1]["height"]


def test_on_a_phone_what_has_the_focus_is_not_beneath_the_picture(show):
    page = show(viewport=PHONES[1], device_scale_factor=2)
    page.get_by_role("button", name="Copy link").focus()
    page.mouse.wheel(0, 200)
    page.wait_for_timeout(200)
    for _ in range(9):
        page.keyboard.press("Shift+Tab")
        at = page.evaluate("document.activeElement.getBoundingClientRect().top")
        shown = page.locator(".latent-shown").bounding_box()
        assert at >= shown["y"] + shown["height"] - 1


def focus_name(page) -> str:
    return page.evaluate(
        """() => { const at = document.activeElement, label = at.closest("label");
           return at.getAttribute("aria-label") || (label || at).firstElementChild?.textContent || at.textContent
             || label?.textContent; }"""
    )


@pytest.mark.parametrize("name", VIEWS)
def test_tab_reaches_every_control_and_shows_where_it_is(show, name):
    page = show(name)
    figure = page.locator("figure").bounding_box()
    plain = page.screenshot(clip=figure)
    controls = page.locator(
        "figure :is(button:not([disabled]):not([tabindex='-1']), input, select):visible"
    ).evaluate_all("""all => all.filter(one => one.type !== "radio" || one.checked).length""")
    page.locator("figure").evaluate("figure => { figure.tabIndex = -1; figure.focus(); }")
    for _ in range(controls):
        page.keyboard.press("Tab")
        assert page.evaluate("!!document.activeElement.closest('.explorer')")
        assert focus_name(page)
        assert page.screenshot(clip=figure) != plain, f"nothing shows that {focus_name(page)} has the focus"
    page.keyboard.press("Tab")
    assert not page.evaluate("!!document.activeElement.closest('.explorer')")


def test_changes_are_told_once_they_settle(show):
    page = show()
    for amount in ("1", "2", "3"):
        sliders(page).first.fill(amount)
    value = tiny().description.directions[first_of("left")].value
    page.wait_for_function(f"document.querySelector('.explorer-voice').textContent.includes('+ 3.0 {value}')")
    assert page.locator(".explorer-voice").get_attribute("aria-live") == "polite"


def test_the_theme_can_be_changed_while_it_lives(show):
    page = show("walk")
    light = pixels(page.locator(".latent-chart"))
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    assert (pixels(page.locator(".latent-chart")) != light).any()
    assert_shows(page, LARGE, sample(0, 0))


# --- what may go wrong ------------------------------------------------------------------------------------------------


def served_with(page, text: str):
    page.route("**/*.data.js*", lambda route: route.fulfill(body=text, content_type="text/javascript"))


def damaged(how: str) -> dict:
    changed = json.loads(json.dumps(document("tiny")))
    if how == "truncated":
        changed["numbers"] = changed["numbers"][:4000]
    elif how == "a flipped bit":
        payload = bytearray(zlib.decompress(base64.b64decode(changed["numbers"])))
        payload[500] ^= 4
        changed["numbers"] = base64.b64encode(zlib.compress(payload)).decode()
    elif how == "another header":
        changed["layers"][0]["size"] = 8
    elif how == "no numbers":
        changed["numbers"] = "?"
    elif how == "another version":
        changed["version"] = 2
    elif how == "another format":
        changed["format"] = "something"
    return changed


DAMAGED = "The generator of this figure is damaged or incomplete, so only the still picture can be shown."
SAID = {
    "truncated": DAMAGED,
    "a flipped bit": DAMAGED,
    "another header": DAMAGED,
    "no numbers": DAMAGED,
    "another version": "The generator of this figure belongs to another version of this page.",
    "another format": "What this figure loads is not a generator.",
}


@pytest.mark.parametrize("how", SAID)
def test_a_damaged_generator_is_a_sentence_beneath_the_still_picture(opened, address, how):
    page = opened("about:blank", live=False)
    served_with(page, f'explorers.receive("tiny",{json.dumps(damaged(how))});')
    page.goto(f"{address}/index.html")
    page.get_by_text(SAID[how], exact=True).wait_for(state="visible")
    assert page.locator(".explorer-still").is_visible()
    assert page.locator(".explorer-stage").count() == 0
    assert page.errors == []


NO_CANVAS = "HTMLCanvasElement.prototype.getContext = () => null;"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (NO_CANVAS, "This browser cannot draw, so only the still picture can be shown."),
        ("delete window.DecompressionStream", "This browser is too old for the interactive version of this figure."),
    ],
)
@pytest.mark.parametrize("name", VIEWS)
def test_a_browser_that_cannot_is_told_so(opened, address, name, script, text):
    page = opened("about:blank", live=False)
    page.add_init_script(script)
    page.goto(f"{address}/{name}.html")
    page.get_by_text(text, exact=True).wait_for(state="visible")
    assert page.locator(".explorer-still").is_visible()


@pytest.mark.parametrize("name", VIEWS)
def test_print_and_pages_without_scripts_show_the_still_picture(show, opened, name):
    assert_stands_still(show(name), opened)


def test_the_generator_is_asked_for_once_and_only_when_one_comes_near(opened, address, show):
    page = opened(f"{address}/far.html", live=False)
    page.wait_for_timeout(500)
    assert not any(".data.js" in url for url in page.asked)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(".explorer-live")
    assert sum(".data.js" in url for url in page.asked) == 1
    both = show("both")
    assert sum(".data.js" in url for url in both.asked) == 1
    assert sum(url.startswith("blob:") for url in both.asked) <= 1  # and one worker for both


ALT, DATA = ":alt: What it shows.", ":data: tiny"
WRONG = {
    "name": (
        (ALT, ":data: dogs-64"),
        "there is no such file, and no released weights have that name; there are cats-64",
    ),
    "view": ((ALT, DATA, ":view: fly"), '"fly" unknown; choose from "explore", "walk", "arithmetic", or "grid"'),
    "no-data": ((ALT,), "this latent needs the option :data:"),
    "sum-elsewhere": ((ALT, DATA, ":view: walk", SUM), "the option :sum: goes with :view: arithmetic, not with walk"),
    "unknown-sum": ((ALT, DATA, ":view: arithmetic", ":sum: wig"), "there is no right 'wig'; known are dark, light"),
    "no-reader": ((ALT, ":data: bare", ":view: arithmetic"), "there is nothing to add and subtract"),
    "no-generator": ((ALT, ":data: other"), "does not hold what a latent shows: this is no generator for a page"),
    "damaged": ((ALT, ":data: damaged"), "does not hold what a latent shows: this generator is damaged or truncated"),
    "old": ((ALT, ":data: old"), "has version 2 of the format, and 1 is read here; export it again"),
}


@pytest.fixture(scope="module")
def warnings(tmp_path_factory):
    """What a build says about pages that each use the explorer in another wrong way."""
    pages = {
        name: "---\norphan: true\n---\n\n# Wrong\n\n:::{explorer} latent\n"
        + "\n".join(options)
        + "\n\nA caption.\n:::\n"
        for name, (options, _) in WRONG.items()
    }
    data = {"tiny": document("tiny"), "bare": document("bare"), "other": {"format": 1}}
    data |= {"damaged": damaged("a flipped bit"), "old": damaged("another version")}
    pages["index"] = "# Wrong uses\n"
    files = {name: json.dumps(value) for name, value in data.items()}
    folder = write_book(tmp_path_factory.mktemp("wrong") / "book", pages, files)
    finished = build(folder)
    return folder, [line for line in finished.stderr.splitlines() if "WARNING" in line or "ERROR" in line]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_one_warning_that_names_page_and_line(warnings, name):
    folder, lines = warnings
    about = [line for line in lines if f"/{name}.md:" in line]
    assert len(about) == 1, lines
    place, _, message = about[0].partition(" WARNING: ")
    assert place == f"{folder / name}.md:7:"
    assert WRONG[name][1] in message


def test_released_weights_are_exported_by_the_build_and_again_when_they_change(tmp_path):
    page = "# One\n\n" + use("one", "grid", "fashion-mnist-32")
    folder = write_book(tmp_path / "book", {"index": page}, {})
    assert build(folder, "html", "-W").returncode == 0
    made = list((folder / "_build").rglob("fashion-mnist-32-*.json"))
    assert len(made) == 1
    stored = unpack(json.loads(made[0].read_text(encoding="utf-8")))
    assert (stored.name, stored.dataset, stored.image_size) == ("fashion-mnist-32", "fashion-mnist", 32)
    assert list(stored.description.factors) == ["class"]
    about = (folder / "_build" / "html" / "_static" / "explorers" / "fashion-mnist-32.data.js").read_text()
    assert about.startswith('explorers.receive("fashion-mnist-32",{"format":"dcgan_lib generator"')
    weights = checkpoint.PRETRAINED / "fashion-mnist-32.safetensors"
    before = made[0].stat().st_mtime_ns
    finished = build(folder, "html", "-W")
    assert finished.returncode == 0
    assert made[0].stat().st_mtime_ns == before  # it is kept
    environment = pickle.loads((folder / "_build" / "html" / ".doctrees" / "environment.pickle").read_bytes())
    assert any(Path(name).name == weights.name for name in environment.dependencies["index"])


# --- the scripts ------------------------------------------------------------------------------------------------------


def test_the_scripts_are_small_plain_and_our_own(html):
    names = [path.name for path in SOURCES.glob("latent*.js")]
    assert len(names) == 9
    built = [html / "_static" / "explorers" / name for name in (*names, "explorers.js", "controls.js")]
    assert sum(path.stat().st_size for path in built) < 60_000
    for name in names:
        script = (SOURCES / name).read_text(encoding="utf-8")
        assert '"use strict";' in script, name
        assert len(script.splitlines()) < 300, name
        assert not re.search(r"^\s*(import|export)\b|\bfetch\(|https?://", script, re.MULTILINE), name


def test_what_is_loaded_is_the_script_without_its_comments(html):
    for name in ("latent-engine.js", "explorers.js"):
        built = (html / "_static" / "explorers" / name).read_text(encoding="utf-8").splitlines()
        source = (SOURCES / name).read_text(encoding="utf-8")
        assert built[0] == '"use strict";'
        assert not [line for line in built if line.startswith(("//", "/*", "*"))]
        assert all(line in source for line in built)


# --- the chapter's own ------------------------------------------------------------------------------------------------


def test_the_chapter_shows_the_four_views_of_the_released_cats(opened, built_book):
    page = opened((built_book / "latent_space.html").as_uri(), live=False)
    generator = checkpoint.load_pretrained("cats-64")
    views = page.locator(".explorer").evaluate_all("all => all.map(one => JSON.parse(one.dataset.settings).view)")
    assert sorted(views) == ["arithmetic", "explore", "grid", "walk"]
    for box in page.locator(".explorer").all():
        box.scroll_into_view_if_needed()
        page.wait_for_function("box => box.classList.contains('explorer-live')", arg=box.element_handle())
    settle(page)
    figure = page.locator("#fig-latent-move")
    found = pixels(figure.locator(LARGE)).astype(int)
    expected = to_uint8(latent.sample(generator, 1, 0))[0].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(found - expected).mean() < 1
    assert page.locator("#fig-latent-sum .latent-title").first.inner_text().endswith(", glasses")
    assert figure.locator(".latent-direction").count() == 2 * 5 + 8 - 5  # five factors, eight principal directions
    assert page.errors == page.foreign == []
