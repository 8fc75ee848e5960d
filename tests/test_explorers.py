"""The in-page explorers: the directive, and the scrubber in a real browser by mouse, touch and keyboard."""

import base64
import json
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from pages import PHONES, SOURCES, assert_stands_still, build, serve, swipe, write_book

from dcgan_lib.ring_recording import unpack_runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


# --- made-up runs, known before they are packed -----------------------------------------------------------------------

FRAMES, POINTS, RESOLUTION, ARROWS, EXTENT = 41, 25, 16, 9, 3.0


def picture(run: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points (F, n, 2), surface (F, R, R) and arrows (F, k, 4) of a run, as the bytes that a page must show.

    Points keep apart, so that each can be seen; the surface is smooth, tilted differently in x and y, and moves.
    """
    time = np.arange(FRAMES)
    x, y = np.meshgrid(np.linspace(30, 200, 5), np.linspace(40, 220, 5))
    points = np.stack([x.ravel(), y.ravel()], -1)[None] + np.stack([time, -time * (run + 1) / 2], -1)[:, None] / 2
    column, row = np.meshgrid(np.linspace(0, 1, RESOLUTION), np.linspace(0, 1, RESOLUTION))
    slope = time[:, None, None] / FRAMES
    surface = (column * (1 - slope) + row**2 * slope + run * (1 - row) / 2) / (1 + run / 2) * 255
    points, surface = points.round().astype(np.uint8), surface.round().astype(np.uint8)
    heads = np.array([[127, 0], [0, 127], [-127, 0], [0, -127], [90, 90], [-90, 90], [0, 0], [40, 0], [127, 0]]) + 128
    arrows = np.concatenate([points[:, :ARROWS], np.broadcast_to(heads, (FRAMES, ARROWS, 2))], -1).astype(np.uint8)
    return points, surface, arrows


def packed(run: int) -> str:
    """The frames of a run as the file holds them."""
    whole = np.concatenate([part.reshape(FRAMES, -1) for part in picture(run)], axis=1)
    differences = np.diff(whole.astype(int), axis=0, prepend=0) % 256
    return base64.b64encode(zlib.compress(differences.astype(np.uint8).tobytes())).decode()


def made_up_runs() -> dict:
    random = np.random.default_rng(0)
    runs = [
        {
            "name": name,
            "title": title,
            "summary": f"What the {name} run is.",
            "steps": [50 * frame for frame in range(FRAMES)],
            "d_loss": random.uniform(0.1, 2, FRAMES).round(4).tolist(),
            "g_loss": random.uniform(0.1, 9, FRAMES).round(4).tolist(),
            "modes": random.integers(0, 9, FRAMES).tolist(),
            "good": random.uniform(0, 1, FRAMES).round(4).tolist(),
            "frames": packed(run),
        }
        for run, (name, title) in enumerate([("failing", "Failing"), ("working", "Working")])
    ]
    angles = np.arange(8) * np.pi / 4
    return {
        "format": 1,
        "extent": EXTENT,
        "points": POINTS,
        "resolution": RESOLUTION,
        "arrows": ARROWS,
        "real": base64.b64encode(np.full((4, 2), 240, np.uint8).tobytes()).decode(),
        "centres": (2 * np.stack([np.cos(angles), np.sin(angles)], -1)).tolist(),
        "radius_of_good": 0.3,
        "runs": runs,
    }


RUNS = made_up_runs()

# --- a small book -----------------------------------------------------------------------------------------------------

USE = """:::{explorer} scrubber
:name: NAME
:alt: Two squares with points.
:data: made-up

Two runs and *one* timeline.
:::
"""
PAGES = {
    "index": f"# Small\n\n```{{toctree}}\nplain\nfar\ndeep/page\n```\n\nSee {{numref}}`fig-a`.\n\n{USE}".replace(
        "NAME", "fig-a"
    ),
    "plain": "# Plain\n\nNothing to play with.\n",
    "far": "# Far\n\n" + "A line.\n\n" * 200 + USE.replace("NAME", "fig-far"),
    "deep/page": "# Deep\n\n" + USE.replace("NAME", "fig-deep"),
}


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The sources of a small book, built once."""
    folder = write_book(tmp_path_factory.mktemp("small") / "book", PAGES, {"made-up": json.dumps(RUNS)})
    finished = build(folder, "html", "-W", "--keep-going", "-n")
    assert finished.returncode == 0, finished.stderr
    return folder


@pytest.fixture(scope="module")
def html(book) -> Path:
    return book / "_build" / "html"


# --- the directive ----------------------------------------------------------------------------------------------------


def test_an_explorer_is_a_numbered_figure_with_a_caption(html):
    page = (html / "index.html").read_text(encoding="utf-8")
    figure = re.search(r'<figure class="[^"]*" id="fig-a">.*?</figure>', page, re.DOTALL).group(0)
    number = re.search(
        r'<span class="caption-number">(Fig. \d) </span><span class="caption-text">Two runs and <em>one', figure
    )
    link = r'<a class="reference internal" href="#fig-a"><span class="std std-numref">(Fig. \d)</span></a>'
    assert re.search(link, page).group(1) == number.group(1)
    still = re.search(r'<img alt="Two squares with points." class="explorer-still[^"]*" src="([^"]+)"', figure)
    assert (html / still.group(1)).read_bytes().startswith(b"\x89PNG")
    assert "<a" not in figure.partition("<figcaption>")[0]  # a picture is no link to itself


@pytest.mark.parametrize("name", ["index", "far", "deep/page"])
def test_a_page_with_an_explorer_loads_its_files_from_where_they_are(html, name):
    page = html / f"{name}.html"
    found = re.findall(r'(?:src|href)="([^"?]*/explorers/[^"?]*)', page.read_text(encoding="utf-8"))
    assert [Path(path).name for path in found] == ["explorers.css", "scrubber.css", "explorers.js", "scrubber.js"]
    assert all((page.parent / path).is_file() for path in found)


@pytest.mark.parametrize("name", ["plain", "search", "genindex"])
def test_a_page_without_one_loads_nothing_of_it(html, name):
    assert "explorer" not in (html / f"{name}.html").read_text(encoding="utf-8")


def test_the_data_become_a_script(html):
    text = (html / "_static" / "explorers" / "made-up.data.js").read_text(encoding="utf-8")
    name, value = re.fullmatch(r'explorers\.receive\("([^"]*)",(.*)\);\n', text).groups()
    assert name == "made-up"
    assert json.loads(value) == RUNS


@pytest.mark.parametrize(("builder", "file"), [("text", "index.txt"), ("latex", "small.tex")])
def test_other_builders_show_the_still_picture(book, builder, file):
    finished = build(book, builder, "-W")
    assert finished.returncode == 0, finished.stderr
    text = (book / "_build" / builder / file).read_text(encoding="utf-8")
    assert {"text": "[image: Two squares with points.]", "latex": r"\sphinxincludegraphics"}[builder] in text
    assert "Two runs and" in text


def use(first: str = "scrubber", *options: str, body: str = "A caption.") -> str:
    lines = [f":::{{explorer}} {first}", *options, "", *([body, ""] if body else []), ":::"]
    return "\n".join(lines) + "\n"


ALT, DATA = ":alt: What it shows.", ":data: made-up"
BROKEN = {
    "unlike": "{}",
    "no-json": "{",
    "wrong-format": json.dumps(RUNS | {"format": 2}),
    "no-runs": json.dumps(RUNS | {"runs": []}),
    "other-steps": json.dumps(RUNS | {"runs": [RUNS["runs"][0], RUNS["runs"][1] | {"steps": [0] * FRAMES}]}),
    "few-numbers": json.dumps(RUNS | {"runs": [RUNS["runs"][0] | {"good": [0.5]}]}),
    "few-bytes": json.dumps(RUNS | {"points": POINTS + 1}),
}
WRONG = {
    "kind": (use("scruber", ALT, DATA), "there is no kind 'scruber'; known are convolution, latent, scrubber"),
    "alt": (use("scrubber", DATA), "this scrubber needs the option :alt:, a sentence that says what"),
    "empty-alt": (use("scrubber", ":alt:", DATA), "this scrubber needs the option :alt:"),
    "data": (use("scrubber", ALT), "this scrubber needs the option :data:, a JSON file of explorers"),
    "no-file": (
        use("scrubber", ALT, ":data: absent"),
        "the data 'absent' would be {explorers}/absent.json, and there is no",
    ),
    "caption": (use("scrubber", ALT, DATA, body=""), "the body must begin with a paragraph, which is the caption"),
    "unlike": (
        use("scrubber", ALT, ":data: unlike"),
        "unlike.json does not hold what a scrubber shows: packed must be a dictionary as from "
        "dcgan_lib.ring_recording.pack_runs, got one without format",
    ),
    "no-json": (
        use("scrubber", ALT, ":data: no-json"),
        "no-json.json does not hold what a scrubber shows: Expecting property name",
    ),
    "wrong-format": (use("scrubber", ALT, ":data: wrong-format"), "format must be 1, got 2"),
    "no-runs": (use("scrubber", ALT, ":data: no-runs"), "there is no run"),
    "other-steps": (use("scrubber", ALT, ":data: other-steps"), "run 'working' was recorded at other steps"),
    "few-numbers": (
        use("scrubber", ALT, ":data: few-numbers"),
        "run 'failing' does not have as many numbers as frames",
    ),
    "few-bytes": (
        use("scrubber", ALT, ":data: few-bytes"),
        f"frames of 'failing' must have {344 * FRAMES} bytes, got {342 * FRAMES}",
    ),
    "foreign-option": (use("scrubber", ALT, DATA, ":stride: 2"), "a scrubber has no option 'stride'; it has alt, data"),
    "data-for-none": (use("convolution", ALT, DATA), "a convolution takes no :data:"),
    "option": (use("scrubber", ALT, DATA, ":speed: 2"), "Unknown option keys: ['speed']"),
}


@pytest.fixture(scope="module")
def warnings(tmp_path_factory) -> tuple[Path, list[str]]:
    """What a build says about pages that each use the directive in another wrong way."""
    pages = {name: f"---\norphan: true\n---\n\n# Wrong\n\n{text}" for name, (text, _) in WRONG.items()}
    pages["index"] = "# Wrong uses\n"
    folder = write_book(tmp_path_factory.mktemp("wrong") / "book", pages, BROKEN | {"made-up": json.dumps(RUNS)})
    finished = build(folder)
    return folder, [line for line in finished.stderr.splitlines() if "WARNING" in line]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_use_is_one_warning_that_names_page_and_line(warnings, name):
    folder, lines = warnings
    about = [line for line in lines if f"/{name}.md:" in line]
    assert len(about) == 1, about
    place, message = about[0].split(" WARNING: ")
    assert place == f"{folder / name}.md:7:"
    assert WRONG[name][1].format(explorers=folder / "explorers") in message


def test_a_poster_stands_for_the_drawn_picture(tmp_path):
    pages = {"index": "# One\n\n" + use("scrubber", ALT, DATA, ":poster: mine.png")}
    folder = write_book(tmp_path / "book", pages, {"made-up": json.dumps(RUNS)})
    shutil.copy(next((ROOT / "dcgan_lib" / "recorded").glob("*.png")), folder / "mine.png")
    finished = build(folder, "html", "-W")
    assert finished.returncode == 0, finished.stderr
    assert [path.name for path in (folder / "_build" / "html" / "_images").iterdir()] == ["mine.png"]


def test_a_page_is_built_again_when_its_data_change(tmp_path):
    folder = write_book(
        tmp_path / "book", {"index": "# One\n\n" + use("scrubber", ALT, DATA)}, {"made-up": json.dumps(RUNS)}
    )
    assert build(folder, "html", "-W").returncode == 0
    before = (folder / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    (folder / "explorers" / "made-up.json").write_text(json.dumps(RUNS | {"extent": 4.0}), encoding="utf-8")
    assert build(folder, "html", "-W").returncode == 0
    version = r'data-version="(\w+)"'
    after = (folder / "_build" / "html" / "index.html").read_text(encoding="utf-8")
    assert re.search(version, after).group(1) != re.search(version, before).group(1)
    assert '"extent":4.0' in (folder / "_build" / "html" / "_static" / "explorers" / "made-up.data.js").read_text()


# --- in the browser ---------------------------------------------------------------------------------------------------

RANGE = ".explorer input[type=range]"
CHART = ".scrubber-chart"
LAST = FRAMES - 1


@pytest.fixture(scope="module")
def address(html):
    """Where the small book is served."""
    with serve(html) as address:
        yield address


def index(page) -> int:
    return int(page.locator(RANGE).input_value())


def go(page, frame: int) -> None:
    page.locator(RANGE).fill(str(frame))


def pixels(page, number: int) -> np.ndarray:
    """The bitmap of a square canvas, uint8 (H, W, 3), row 0 on top."""
    packed = (
        page.locator(".explorer-square")
        .nth(number)
        .evaluate(
            """canvas => { const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
           let text = "";
           for (let i = 0; i < data.length; i += 4096) text += String.fromCharCode(...data.subarray(i, i + 4096));
           return [canvas.width, canvas.height, btoa(text)]; }"""
        )
    )
    return np.frombuffer(base64.b64decode(packed[2]), np.uint8).reshape(packed[1], packed[0], 4)[..., :3]


def shown(page) -> list[list[str]]:
    """The numbers beneath each picture."""
    return [pane.locator("dd").all_inner_texts() for pane in page.locator(".scrubber-pane").all()]


def expected(frame: int) -> list[list[str]]:
    return [
        [
            f"{run['modes'][frame]} of 8",
            f"{np.floor(100 * run['good'][frame] + 0.5):.0f} %",
            *(f"{run[loss][frame]:.2f}" for loss in ("d_loss", "g_loss")),
        ]
        for run in RUNS["runs"]
    ]


def colour(page, name: str) -> np.ndarray:
    """A colour of the style sheet, as it is in the page's theme."""
    value = page.locator(".explorer-stage").evaluate(
        """(stage, name) => { const probe = document.createElement("i"); probe.style.color = `var(--explorer-${name})`;
           stage.append(probe); const value = getComputedStyle(probe).color; probe.remove(); return value; }""",
        name,
    )
    return np.array([int(part) for part in re.findall(r"\d+", value)[:3]])


def place(image: np.ndarray, byte_x: float, byte_y: float) -> tuple[int, int]:
    """Row and column of the pixel at a packed place."""
    side = image.shape[0]
    return min(int((255 - byte_y) / 255 * side), side - 1), min(int(byte_x / 255 * side), side - 1)


def layer(page, text: str):
    return page.get_by_role("checkbox", name=text)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ratio", [1, 2])
def test_the_pictures_are_what_was_recorded(opened, address, scheme, ratio):
    page = opened(f"{address}/index.html", color_scheme=scheme, device_scale_factor=ratio)
    low, middle, high = (colour(page, name) for name in ("surface-low", "canvas", "surface-high"))
    assert (middle.mean() > 200) == (scheme == "light")
    pink = colour(page, "fake")
    np.testing.assert_array_equal(pink, [0xCC, 0x79, 0xA7])
    for frame in (0, 17, LAST):
        go(page, frame)
        for run in (0, 1):
            points, surface, _ = (part[frame] for part in picture(run))
            image = pixels(page, run)
            for x, y in points:
                np.testing.assert_allclose(image[place(image, x, y)], pink, atol=2)
            layer(page, "Generated").uncheck()
            layer(page, "gradients").uncheck()
            bare = pixels(page, run).astype(int)
            for row in range(1, RESOLUTION - 1, 3):
                for column in range(1, RESOLUTION - 1, 3):
                    d = surface[row, column] / 255
                    end, share = (low, 1 - 2 * d) if d < 0.5 else (high, 2 * d - 1)
                    at = place(bare, column / (RESOLUTION - 1) * 255, row / (RESOLUTION - 1) * 255)
                    np.testing.assert_allclose(bare[at], middle + share * (end - middle), atol=6)
            layer(page, "Generated").check()
            layer(page, "gradients").check()
    assert page.errors == []


def test_arrows_start_at_points_and_lead_where_the_recording_says(opened, address):
    page = opened(f"{address}/index.html", device_scale_factor=2)
    for name in ("Generated", "surface", "Real"):
        layer(page, name).uncheck()
    go(page, 9)
    for run in (0, 1):
        image, arrows = pixels(page, run).astype(int), picture(run)[2][9].astype(int)
        background, ink = colour(page, "canvas"), colour(page, "arrow")
        for x, y, dx, dy in arrows:
            side = image.shape[0]
            row, column = place(image, x, y)
            down, right = -(dy - 128) / 127 * side * 0.055, (dx - 128) / 127 * side * 0.055  # half way to the tip
            if (dx, dy) == (128, 128):
                assert (image[row - 3 : row + 4, column - 3 : column + 4] == background).all()
                continue
            row, column = round(row + down), round(column + right)
            darkest = image[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3)
            assert np.abs(darkest - ink).sum(-1).min() < 60, (run, x, y, dx, dy)
            row, column = round(row - 3 * down), round(column - 3 * right)  # as far on the other side there is none
            assert (image[row - 2 : row + 3, column - 2 : column + 3] == background).all(), (run, x, y, dx, dy)


def test_numbers_are_the_recorded_ones_at_every_frame(opened, address):
    page = opened(f"{address}/index.html")
    for frame in range(FRAMES):
        go(page, frame)
        assert shown(page) == expected(frame)
        assert page.locator(".explorer-now").inner_text() == f"Step {50 * frame:,} of 2,000"
        assert page.locator(RANGE).get_attribute("aria-valuetext") == f"Step {50 * frame:,} of 2,000"
    assert page.locator(".scrubber-title").all_inner_texts() == ["Failing", "Working"]


@pytest.mark.parametrize("name", ["index", "deep/page"])
@pytest.mark.parametrize("served", [True, False])
def test_it_works_served_and_from_the_disk(opened, address, html, name, served):
    page = opened(f"{address}/{name}.html" if served else (html / f"{name}.html").as_uri())
    go(page, 12)
    assert shown(page) == expected(12)
    assert page.errors == page.foreign == []


def middle(page, selector: str, share: float) -> tuple[float, float]:
    """The point in the window at a share of an element's width, half way down."""
    page.locator(selector).scroll_into_view_if_needed()
    box = page.locator(selector).bounding_box()
    return box["x"] + share * box["width"], box["y"] + box["height"] / 2


def test_mouse_drags_the_slider(opened, address):
    page = opened(f"{address}/index.html")
    before = [pixels(page, run) for run in (0, 1)]
    page.mouse.move(*middle(page, RANGE, 0.015))
    page.mouse.down()
    seen = []
    for share in (0.2, 0.5, 0.75):
        page.mouse.move(*middle(page, RANGE, share), steps=4)
        seen.append(index(page))
    page.mouse.up()
    assert seen == pytest.approx([0.2 * LAST, 0.5 * LAST, 0.75 * LAST], abs=1)
    assert all((pixels(page, run) != old).any() for run, old in enumerate(before))
    assert shown(page) == expected(seen[-1])


def test_mouse_drags_on_the_chart(opened, address):
    page = opened(f"{address}/index.html")
    page.mouse.move(*middle(page, CHART, 0.5))
    assert index(page) == 0
    page.mouse.down()
    assert index(page) == LAST // 2
    page.mouse.move(*middle(page, CHART, 0.25), steps=3)
    assert index(page) == pytest.approx(LAST / 4, abs=1)
    page.mouse.move(*middle(page, CHART, 1.5), steps=3)  # past the edge
    assert index(page) == LAST
    page.mouse.up()
    page.mouse.move(*middle(page, CHART, 0.5), steps=3)
    assert index(page) == LAST
    assert shown(page) == expected(LAST)


def test_buttons_step_and_play(opened, address):
    page = opened(f"{address}/index.html")
    forward, back = (page.get_by_role("button", name=name) for name in ("One frame on", "One frame back"))
    back.click()
    assert index(page) == 0
    forward.click()
    forward.click()
    assert index(page) == 2
    back.click()
    assert (index(page), shown(page)) == (1, expected(1))
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("Number(document.querySelector('.explorer input[type=range]').value) > 4")
    page.get_by_role("button", name="Pause").click()
    stopped = index(page)
    page.wait_for_timeout(300)
    assert index(page) == stopped < LAST
    assert shown(page) == expected(stopped)


def test_playing_ends_at_the_end_and_begins_again(opened, address):
    page = opened(f"{address}/index.html")
    page.get_by_label("Speed").select_option("4")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"document.querySelector('.explorer input[type=range]').value == {LAST}")
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(f"document.querySelector('.explorer input[type=range]').value < {LAST}")
    forward = page.get_by_role("button", name="One frame on")
    forward.click()  # asking for a frame stops it
    stopped = index(page)
    page.wait_for_timeout(200)
    assert index(page) == stopped


# Play for a while; every frame that was shown, and its milliseconds since the button was pressed.
PLAY = """duration => new Promise(resolve => {
  const range = document.querySelector(".explorer input[type=range]"), seen = [];
  const button = document.querySelectorAll(".explorer-button")[1];
  const watch = new MutationObserver(() => seen.push([range.valueAsNumber, performance.now() - start]));
  watch.observe(range, { attributes: true, attributeFilter: ["aria-valuetext"] });
  const start = performance.now();
  button.click();
  setTimeout(() => { button.click(); watch.disconnect(); resolve(seen); }, duration);
})"""


@pytest.mark.parametrize(("speed", "rate"), [("0.5", 10), ("2", 40)])
def test_speed_is_kept(opened, address, speed, rate):
    page = opened(f"{address}/index.html")
    page.get_by_label("Speed").select_option(speed)
    frame, milliseconds = page.evaluate(PLAY, 900)[-1]
    assert frame / milliseconds * 1000 == pytest.approx(rate, rel=0.25)


def test_it_never_plays_by_itself_and_stops_out_of_sight(opened, address):
    page = opened(f"{address}/far.html", live=False)
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(".explorer-live")
    page.wait_for_timeout(400)
    assert index(page) == 0
    page.get_by_label("Speed").select_option("0.5")
    page.get_by_role("button", name="Play").click()
    page.wait_for_timeout(200)
    page.evaluate("window.scrollTo(0, 0)")
    page.wait_for_function("document.querySelector('.explorer-button[aria-label=Play]')")
    assert 0 < index(page) < LAST


# The browser says of a frame when it began, which may be before the button was pressed: here always.
EARLY_FRAMES = """const { requestAnimationFrame: ask } = window;
window.requestAnimationFrame = (tick) => ask.call(window, (now) => tick(now - 30));"""


@pytest.mark.parametrize("script", ["", EARLY_FRAMES], ids=["", "early-frames"])
def test_with_reduced_motion_playing_is_a_row_of_stills(opened, address, script):
    page = opened(f"{address}/index.html", live=False, reduced_motion="reduce")
    page.evaluate(script)
    page.locator(".explorer").scroll_into_view_if_needed()
    page.wait_for_selector(".explorer-live")
    page.get_by_label("Speed").select_option("2")
    seen = page.evaluate(PLAY, 1800)
    stride = -(-FRAMES // 20)
    assert all(frame % stride == 0 for frame, _ in seen)
    assert 2 <= len(seen) <= 4  # two a second at this speed
    # Two clocks are compared, each of which is rounded.
    early = {frame: milliseconds for frame, milliseconds in seen if milliseconds < 500 * frame / stride - 1}
    assert early == {}


# --- touch ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def phone(opened, address):
    page = opened(f"{address}/index.html", has_touch=True, is_mobile=True, viewport=PHONES[0], device_scale_factor=2)
    page.locator(CHART).scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    return page


def test_finger_drags_the_slider(phone):
    swipe(phone, middle(phone, RANGE, 0.03), middle(phone, RANGE, 0.5))
    assert index(phone) == pytest.approx(LAST / 2, abs=1.5)
    assert shown(phone) == expected(index(phone))


def test_finger_taps_and_drags_on_the_chart(phone):
    phone.touchscreen.tap(*middle(phone, CHART, 0.25))
    assert index(phone) == pytest.approx(LAST / 4, abs=1)
    swipe(phone, middle(phone, CHART, 0.3), middle(phone, CHART, 0.8))
    assert index(phone) == pytest.approx(0.8 * LAST, abs=1)
    assert shown(phone) == expected(index(phone))


def test_finger_taps_buttons_and_layers(phone):
    phone.get_by_role("button", name="One frame on").tap()
    assert index(phone) == 1
    before = pixels(phone, 0)
    phone.get_by_text("Generated", exact=True).tap()
    assert (pixels(phone, 0) != before).any()
    phone.get_by_role("button", name="Play").tap()
    phone.wait_for_function("document.querySelector('.explorer input[type=range]').value > 3")


# --- keyboard ---------------------------------------------------------------------------------------------------------

ORDER = [
    *("Generated", "Real", "G’s gradients", "Where a point is good", "D’s surface:"),
    *("One frame back", "Play", "One frame on", "Speed", "Training step"),
]


def focused(page) -> str:
    return page.evaluate(
        """() => { const at = document.activeElement;
           return at.closest(".explorer") ? at.getAttribute("aria-label") || at.closest("label").firstElementChild
             && [...at.closest("label").childNodes].filter(n => n !== at).map(n => n.textContent).join("") : ""; }"""
    )


def test_tab_reaches_every_control_in_order_and_shows_where_it_is(opened, address):
    page = opened(f"{address}/index.html")
    page.locator("figure").evaluate("figure => { figure.tabIndex = -1; figure.focus(); }")
    seen = []
    for _ in ORDER:
        page.keyboard.press("Tab")
        seen.append(focused(page))
        figure = page.locator("figure").bounding_box()
        with_focus = page.screenshot(clip=figure)
        page.evaluate("document.activeElement.blur()")  # the next Tab goes on from here all the same
        assert page.screenshot(clip=figure) != with_focus, f"nothing shows that {seen[-1]} has the focus"
    assert seen == ORDER
    page.keyboard.press("Tab")
    assert focused(page) == ""


def test_keys_move_the_slider(opened, address):
    page = opened(f"{address}/index.html")
    page.locator(RANGE).focus()
    places = {}
    for key in (
        "ArrowRight",
        "ArrowUp",
        "ArrowLeft",
        "PageUp",
        "PageUp",
        "PageDown",
        "End",
        "ArrowRight",
        "Home",
        "ArrowLeft",
    ):
        page.keyboard.press(key)
        places.setdefault(key, []).append(index(page))
        assert shown(page) == expected(index(page))
    assert places["ArrowRight"] == [1, LAST]
    assert (places["ArrowUp"], places["ArrowLeft"]) == ([2], [1, 0])
    first, second = places["PageUp"]
    assert second - first == first - 1 > 1  # a page is more than a step
    assert places["PageDown"] == [first]
    assert (places["End"], places["Home"]) == ([LAST], [0])


@pytest.mark.parametrize("key", ["Space", "Enter"])
def test_keys_press_buttons_and_switch_layers(opened, address, key):
    page = opened(f"{address}/index.html")
    page.get_by_role("button", name="One frame on").focus()
    page.keyboard.press(key)
    assert index(page) == 1
    page.get_by_role("button", name="Play").focus()
    page.keyboard.press(key)
    page.get_by_role("button", name="Pause").wait_for()
    page.wait_for_function("document.querySelector('.explorer input[type=range]').value > 3")
    page.keyboard.press(key)
    page.get_by_role("button", name="Play").wait_for()
    assert index(page) < LAST


def test_space_on_the_slider_plays_and_on_a_box_switches(opened, address):
    page = opened(f"{address}/index.html")
    page.locator(RANGE).focus()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Pause").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()
    before = pixels(page, 0)
    layer(page, "surface").focus()
    page.keyboard.press("Space")
    assert not layer(page, "surface").is_checked()
    assert (pixels(page, 0) != before).any()


# --- looks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Generated", "Real", "gradients", "Where a point is good", "surface"])
def test_each_layer_can_be_switched_off_and_on(opened, address, text):
    page = opened(f"{address}/index.html")
    go(page, 5)
    before = [pixels(page, run) for run in (0, 1)]
    box = layer(page, text)
    box.click()
    assert all((pixels(page, run) != old).any() for run, old in enumerate(before))
    box.click()
    assert all((pixels(page, run) == old).all() for run, old in enumerate(before))


def test_the_theme_can_be_changed_while_it_lives(opened, address):
    page = opened(f"{address}/index.html")
    go(page, 5)
    light = [pixels(page, run) for run in (0, 1)]
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_timeout(100)
    dark = [pixels(page, run) for run in (0, 1)]
    assert all(new.mean() < old.mean() - 60 for old, new in zip(light, dark, strict=True))
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.wait_for_timeout(100)
    assert all((pixels(page, run) == old).all() for run, old in enumerate(light))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [{"width": 1280, "height": 1000}, PHONES[0]], ids=["desktop", "phone"])
def test_it_is_accessible(opened, address, scheme, size):
    page = opened(f"{address}/index.html", color_scheme=scheme, viewport=size)
    go(page, 7)
    page.wait_for_timeout(700)
    results = (
        Axe().run(page, context="figure", options={"resultTypes": ["violations", "incomplete", "passes"]}).response
    )
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in results["violations"]] == []
    judged = {kind: {found["id"]: len(found["nodes"]) for found in results[kind]} for kind in ("incomplete", "passes")}
    assert "color-contrast" not in judged["incomplete"]
    assert judged["passes"]["color-contrast"] > 25  # texts


def test_pictures_have_labels_and_changes_are_told_once_they_settle(opened, address):
    page = opened(f"{address}/index.html")
    voice = page.locator(".explorer-voice")
    assert voice.get_attribute("aria-live") == "polite"
    texts = page.evaluate(
        """() => new Promise(resolve => {
           const range = document.querySelector(".explorer input[type=range]"), texts = [];
           const voice = document.querySelector(".explorer-voice");
           new MutationObserver(() => texts.push(voice.textContent)).observe(voice, { childList: true });
           const next = () => {
             range.value = range.valueAsNumber + 1;
             range.dispatchEvent(new Event("input"));
             if (range.valueAsNumber < 8) setTimeout(next, 50); else setTimeout(() => resolve(texts), 1000);
           };
           next(); })"""
    )
    told = [
        f"{run['title']}: {n[0]} modes covered, {n[1]} good" for run, n in zip(RUNS["runs"], expected(8), strict=True)
    ]
    assert texts == [f"Step 400 of 2,000. {told[0]}. {told[1]}"]
    assert [page.get_by_role("img", name=text).count() for text in told] == [1, 1]


@pytest.mark.parametrize("size", PHONES, ids=lambda size: str(size["width"]))
def test_it_fits_a_phone(opened, address, size):
    page = opened(f"{address}/index.html", viewport=size, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
    inside = page.locator(".explorer").bounding_box()
    boxes = {
        name: page.locator(name).evaluate_all("all => all.map(one => one.getBoundingClientRect().toJSON())")
        for name in (
            *(
                ".explorer-square",
                ".explorer-button",
                ".explorer-select",
                ".explorer-toggle",
                RANGE,
                CHART,
                ".scrubber-pane dd",
            ),
        )
    }
    for name, found in boxes.items():
        assert found, name
        for box in found:
            assert box["left"] >= inside["x"] - 0.5, name
            assert box["right"] <= inside["x"] + inside["width"] + 0.5, name
    first, second = boxes[".explorer-square"]
    assert first["left"] == second["left"]
    assert second["top"] > first["bottom"]
    assert first["width"] > 180
    for name in (".explorer-button", ".explorer-select", ".explorer-toggle", RANGE):
        assert all(box["height"] >= 40 for box in boxes[name]), name


def test_runs_stand_side_by_side_on_a_desk_and_bitmaps_follow_the_size(opened, address):
    page = opened(f"{address}/index.html", device_scale_factor=2)
    for width in (1280, 900, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        boxes = [square.bounding_box() for square in page.locator(".explorer-square").all()]
        assert (boxes[0]["y"] == boxes[1]["y"]) == (width > 390)
        sizes = page.locator(".explorer-square, .scrubber-chart").evaluate_all(
            "all => all.map(one => [one.width, one.height, 2 * one.clientWidth, 2 * one.clientHeight])"
        )
        assert all(size[:2] == size[2:] for size in sizes)


def test_the_data_are_asked_for_only_when_one_comes_near(opened, address):
    page = opened(f"{address}/far.html", live=False)
    page.wait_for_timeout(500)
    assert not any(".data.js" in url for url in page.asked)
    assert page.locator(".explorer-still").count() == 1
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_selector(".explorer-live")
    assert sum(".data.js" in url for url in page.asked) == 1


# --- the still picture ------------------------------------------------------------------------------------------------


def test_print_and_pages_without_scripts_show_the_still_picture(opened, address):
    page = opened(f"{address}/index.html")
    assert page.locator(".explorer-still").get_attribute("alt") == "Two squares with points."
    assert_stands_still(page, opened)


MISSING = "delete window.DecompressionStream"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("an old browser", "This browser is too old for the interactive version of this figure."),
        ("no data", "The data of this figure could not be loaded."),
        ("damaged data", "The data of this figure are damaged."),
    ],
)
def test_where_it_cannot_work_the_still_picture_stands_with_a_line(browser, address, what, text):
    context = browser.new_context()
    page = context.new_page()
    if what == "an old browser":
        page.add_init_script(MISSING)
    elif what == "no data":
        page.route("**/*.data.js*", lambda route: route.abort())
    else:
        short = RUNS | {
            "runs": [run | {"frames": base64.b64encode(zlib.compress(b"short")).decode()} for run in RUNS["runs"]]
        }
        body = f'explorers.receive("made-up",{json.dumps(short)});'
        page.route("**/*.data.js*", lambda route: route.fulfill(body=body, content_type="text/javascript"))
    page.goto(f"{address}/index.html")
    page.get_by_text(text).wait_for(state="visible")
    assert page.locator(".explorer-still").is_visible()
    assert page.locator(".explorer-stage").count() == 0
    context.close()


# --- the scripts ------------------------------------------------------------------------------------------------------


def test_the_scripts_are_small_plain_and_our_own():
    scripts = {name: (SOURCES / name).read_text(encoding="utf-8") for name in ("explorers.js", "scrubber.js")}
    assert sum(len(text.encode()) for text in scripts.values()) < 30_000
    for name, text in scripts.items():
        assert '"use strict";' in text, name
        assert not re.search(
            r"^\s*(import|export)\b|\bfetch\(|https?://(?!www\.w3\.org/2000/svg)", text, re.MULTILINE
        ), name


def test_they_leave_one_name_behind(opened, address):
    page = opened(f"{address}/plain.html", live=False)
    names = "Object.getOwnPropertyNames(window)"
    before = set(page.evaluate(names))
    for name in ("explorers.js", "scrubber.js"):
        page.add_script_tag(url=f"{address}/_static/explorers/{name}")
    assert set(page.evaluate(names)) - before - {"0"} == {"explorers"}


# --- the chapter's own ------------------------------------------------------------------------------------------------

CHAPTER = "training_dynamics.html"


def test_the_recorded_runs_are_small_and_as_long_as_promised():
    data = json.loads((SOURCES / "ring-runs.json").read_text(encoding="utf-8"))
    assert (SOURCES / "ring-runs.json").stat().st_size <= 330_000
    assert len(data["runs"]) == 2
    assert all(len(run["steps"]) >= 200 for run in data["runs"])
    assert data["points"] == 256


def test_the_chapter_shows_the_recorded_runs(opened, built_book):
    data = json.loads((SOURCES / "ring-runs.json").read_text(encoding="utf-8"))
    runs = unpack_runs(data)
    page = opened((built_book / CHAPTER).as_uri(), live=False, device_scale_factor=2)
    page.locator(".explorer").scroll_into_view_if_needed()
    page.wait_for_selector(".explorer-live")
    low, middle, high = (colour(page, name) for name in ("surface-low", "canvas", "surface-high"))
    for name in ("gradients", "Real"):
        layer(page, name).uncheck()
    extent, last = data["extent"], len(runs[0].steps) - 1
    for frame in (0, last // 3, last):
        go(page, frame)
        for number, (run, texts) in enumerate(zip(runs, shown(page), strict=True)):
            good = f"{np.floor(100 * run.good[frame] + 0.5):.0f} %"
            losses = [f"{loss[frame]:.2f}" for loss in (run.d_loss, run.g_loss)]
            assert texts == [f"{run.modes[frame]} of 8", good, *losses]
            image = pixels(page, number).astype(int)
            # A point may be covered by the edge of another: the last one drawn is not.
            at = place(image, *((run.fake[frame, -1] + extent) / (2 * extent) * 255))
            np.testing.assert_allclose(image[at], colour(page, "fake"), atol=2)
            layer(page, "Generated").uncheck()
            image = pixels(page, number).astype(int)
            layer(page, "Generated").check()
            count = data["resolution"]
            d = run.surface[frame][1:-1, 1:-1, None]
            truth = middle + np.where(d < 0.5, (1 - 2 * d) * (low - middle), (2 * d - 1) * (high - middle))
            grid = np.arange(1, count - 1) / (count - 1) * 255
            seen = np.array([[image[place(image, x, y)] for x in grid] for y in grid])
            # A pixel's middle lies up to half a pixel from the grid's point: where D is steep, a few colours off.
            assert np.abs(seen - truth).mean() < 1.5
            assert np.quantile(np.abs(seen - truth), 0.95) < 10
    assert page.errors == page.foreign == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_chapters_figure_is_accessible(opened, built_book, scheme):
    page = opened((built_book / CHAPTER).as_uri(), live=False, color_scheme=scheme)
    page.locator(".explorer").scroll_into_view_if_needed()
    page.wait_for_selector(".explorer-live")
    results = Axe().run(page, context="figure.explorer-figure").response
    assert [(found["id"], [node["html"] for node in found["nodes"]]) for found in results["violations"]] == []


def test_only_pages_that_use_an_explorer_load_it(built_book):
    pages = {path.name: path.read_text(encoding="utf-8") for path in built_book.glob("*.html")}
    loading = {name for name, text in pages.items() if "explorers/explorers.js" in text}
    assert loading == {name for name, text in pages.items() if 'class="explorer"' in text}
    assert CHAPTER in loading < set(pages)
