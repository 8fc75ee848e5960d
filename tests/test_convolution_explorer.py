"""The convolution explorer of the page: its numbers against PyTorch, and all its controls in a real browser."""

import random
import re
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from itertools import product

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from conftest import ROOT
from test_book import QuietHandler
from test_explorers import build, middle, opened, swipe, write_book  # noqa: F401 - a fixture among them
from torch import nn
from torch.nn import functional

from dcgan_lib.convolution import RULES, ConvolutionSetting, explain_impossible
from dcgan_lib.convolution_examples import FORMULAS, LIMITS, ConvolutionExample, example_values

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCES = ROOT / "book" / "explorers"
SCRIPTS = [
    "convolution-arithmetic.js",
    "convolution-controls.js",
    "convolution-matrix.js",
    "convolution-views.js",
    "convolution.js",
]
PHONES = [{"width": 390, "height": 844}, {"width": 320, "height": 640}]
NAMES = ("size", "kernel", "stride", "padding", "dilation", "output_padding")


def use(name: str, *options: str) -> str:
    lines = [":::{explorer} convolution", f":name: fig-{name}", ":alt: Three grids and a matrix.", *options]
    return "\n".join([*lines, "", "A caption.", ":::", ""])


PAGES = {
    "index": "# Small\n\n```{toctree}\nline\ntwo\n```\n\n" + use("a"),
    "line": "# Line\n\n" + use("b", ":direction: convolution", ":axes: 1", ":size: 7", ":kernel: 3", ":seed: 3"),
    "two": "# Two\n\n" + use("c") + "\n" + use("d", ":direction: convolution", ":show: overlap"),
}
WRONG = {
    "low": (use("x", ":size: 0"), "it must be between 1 and 16, got 0"),
    "high": (use("x", ":kernel: 8"), "it must be between 1 and 7, got 8"),
    "number": (use("x", ":stride: two"), "invalid literal for int"),
    "word": (use("x", ":direction: back"), 'choose from "transposed", or "convolution"'),
    "impossible": (use("x", ":stride: 0"), "explorer: stride=0 must be at least 1"),
    "foreign": (use("x", ":data: runs").replace("convolution\n", "scrubber\n", 1), "the data 'runs' would be"),
}


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = write_book(tmp_path_factory.mktemp("small") / "book", PAGES, {})
    finished = build(folder, "html", "-W", "--keep-going", "-n")
    assert finished.returncode == 0, finished.stderr
    return folder / "_build" / "html"


@pytest.fixture(scope="module")
def address(html):
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=html)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def show(opened, address):  # noqa: F811
    """Open a page of the small book when its explorers live; afterwards nothing may have gone wrong on any."""
    pages = []

    def show(name="index", base=address, **options):
        page = opened(f"{base}/{name}.html", live=False, **options)
        for box in page.locator(".explorer").all():
            box.scroll_into_view_if_needed()
        page.wait_for_function("!document.querySelector('.explorer:not(.explorer-live)')")
        page.wait_for_timeout(100)
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.errors == []
        assert page.foreign == []


def test_wrong_use_is_a_warning_that_says_why(tmp_path):
    pages = {name: f"---\norphan: true\n---\n\n# Wrong\n\n{text}" for name, (text, _) in WRONG.items()}
    folder = write_book(tmp_path / "book", pages | {"index": "# Wrong uses\n"}, {})
    messages = build(folder).stderr
    for name, (_, message) in WRONG.items():
        about = messages[messages.index(f"/{name}.md:") :]
        assert message in about[: about.index(".md:", 20) if ".md:" in about[20:] else None], (name, about)


# --- the arithmetic against PyTorch -----------------------------------------------------------------------------------


def random_settings(count: int, seed: int) -> list[dict]:
    """Settings from the sliders' ranges, and one in eight with a number that no slider has."""
    source = random.Random(seed)
    settings = []
    for _ in range(count):
        setting = {name: source.randint(*LIMITS[name]) for name in NAMES}
        setting["transposed"] = source.random() < 0.5
        if not setting["transposed"] and source.random() < 0.8:
            setting["output_padding"] = 0
        if source.random() < 0.8:  # so that most are possible
            setting["stride"], setting["dilation"] = max(setting["stride"], 1), max(setting["dilation"], 1)
            setting["output_padding"] %= max(setting["stride"], setting["dilation"])
        if source.random() < 0.125:
            setting[source.choice(NAMES)] = source.choice([-1, -3, 0, 2.5, 0.5])
        settings.append(setting)
    return settings


EVALUATE = """settings => settings.map(([setting, axes, seed, cells]) => {
  const { explainImpossible, Setting, Example, pytorchLine } = explorers.convolution;
  const problem = explainImpossible(setting);
  let thrown = null;
  try { new Setting(setting); } catch (error) { thrown = error.message; }
  if (problem) return { problem, thrown };
  const example = new Example(setting, axes, seed), entries = { input: [], output: [] }, sentences = [];
  for (const side of ["input", "output"]) {
    for (const share of cells) {
      const index = Math.floor(share * example.count(side));
      for (const { cell, place, value, weight } of example.products(side, index)) {
        entries[side].push([index, cell, place, value, weight]);
      }
      const { before, terms, between, after } = example.sentence(side, index);
      sentences.push([side, index, before + terms.map(([, text]) => text).join(between) + after]);
    }
  }
  const { input, kernel, output, overlaps } = example;
  return { problem, thrown, input, kernel, output, overlaps, entries, sentences, size: example.setting.outputSize,
    formula: example.setting.sizeFormula, line: pytorchLine(setting, axes) };
})"""


def pytorch(setting: dict, axes: int, x: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """What PyTorch makes of a batch (N, *size), in float64."""
    names = ["stride", "padding", "dilation"] + ["output_padding"] * setting["transposed"]
    operation = getattr(functional, f"conv{'_transpose' if setting['transposed'] else ''}{axes}d")
    y = operation(x[:, None].double(), kernel[None, None].double(), **{name: setting[name] for name in names})
    return y[:, 0]


@pytest.mark.parametrize(("axes", "count"), [(1, 400), (2, 400)])
def test_sizes_touched_cells_and_values_are_those_of_pytorch(show, axes, count):
    settings = random_settings(count, seed=axes)
    source = random.Random(5)
    jobs = [
        [setting, axes, source.randint(0, 9), [source.random() for _ in range(4)] + [0, 0.9999]] for setting in settings
    ]
    results = show().evaluate(EVALUATE, jobs)
    possible = 0
    for (setting, _, seed, cells), result in zip(jobs, results, strict=True):
        problem = explain_impossible(**setting)
        assert result["problem"] == result["thrown"] == problem, setting
        if problem:
            continue
        possible += 1
        shape = (setting["size"],) * axes
        x = torch.tensor(result["input"]).reshape(shape)
        kernel = torch.tensor(result["kernel"]).reshape((setting["kernel"],) * axes)
        assert torch.equal(x, example_values(setting["size"], axes, seed))
        assert torch.equal(kernel, example_values(setting["kernel"], axes, seed, kernel=True))
        y = pytorch(setting, axes, x[None], kernel)[0]
        assert result["size"] == y.shape[0]
        assert result["output"] == y.flatten().tolist()
        ones = pytorch(setting, axes, torch.ones_like(x)[None], torch.ones_like(kernel))[0]
        assert result["overlaps"] == ones.flatten().tolist()
        check_cells(setting, axes, cells, result, kernel, y.shape)
        check_words(setting, axes, seed, result)
    assert 250 < possible < count - 50


def check_cells(setting, axes, cells, result, kernel, shape):
    """Compare the cells that meet with the rows and columns of the matrix that PyTorch's own operation has."""
    inputs, outputs = setting["size"] ** axes, shape.numel()
    basis = torch.eye(inputs).reshape(inputs, *(setting["size"],) * axes)
    # Each place in the kernel by a number of its own, so that an entry tells which place meets there.
    numbers = torch.arange(1, kernel.numel() + 1).reshape(kernel.shape)
    matrix = pytorch(setting, axes, basis, numbers).reshape(inputs, outputs).round().long().T
    weights, x = kernel.flatten(), torch.tensor(result["input"])
    for side, rows in (("output", matrix), ("input", matrix.T)):
        expected = []
        for index in (int(share * len(rows)) for share in cells):
            for cell in rows[index].nonzero().flatten().tolist():
                place = int(rows[index, cell]) - 1
                value = int(x[cell if side == "output" else index])
                expected.append([index, cell, place, value, int(weights[place])])
        assert sorted(result["entries"][side]) == sorted(expected), (setting, side)


def check_words(setting, axes, seed, result):
    """Compare formula, sentences and the line of PyTorch with Python's, and run that line."""
    example = ConvolutionExample(ConvolutionSetting(**setting), axes, seed)
    assert result["formula"] == example.setting.size_formula
    for side, index, text in result["sentences"]:
        cell = (index,) if axes == 1 else divmod(index, example.size_of(side))
        assert text == example.sentence(side, cell)
        if side == "output" and "·" in text:
            sum_, total = text.split(" = ")[1:]
            assert eval(sum_.replace("·", "*")) == int(total) == int(example.output[cell])
    assert result["line"] == example.pytorch()
    layer = eval(result["line"], {"nn": nn}).double()
    layer.weight.data[0, 0] = example.kernel.double()
    with torch.no_grad():
        assert torch.equal(layer(example.input[None, None].double())[0, 0], example.output.double())


def test_sums_so_far_are_those_of_python(show):
    setting = {"size": 3, "kernel": 4, "stride": 2, "padding": 1, "transposed": True}
    sums = show().evaluate(
        """setting => { const example = new explorers.convolution.Example(setting, 2, 1);
           return example.input.map((_, index) => example.sumUpTo(index)); }""",
        setting,
    )
    example = ConvolutionExample(ConvolutionSetting(**setting))
    for index, cell in enumerate(product(range(3), repeat=2)):
        assert sums[index] == example.output_up_to("input", cell).flatten().tolist()
    assert sums[-1] == example.output.flatten().tolist() != sums[-2]


def test_rules_limits_and_formulas_are_those_of_python(show):
    rules, limits, formulas = show().evaluate(
        "() => { const { RULES, LIMITS, FORMULAS } = explorers.convolution; return [RULES, LIMITS, FORMULAS]; }"
    )
    assert rules == {name: RULES[name] for name in rules}
    assert set(RULES) - set(rules) == {"between", "groups"}  # rules of functions that the page does not have
    assert {name: tuple(limit) for name, limit in limits.items()} == LIMITS
    assert formulas == {str(key).lower(): list(pair) for key, pair in FORMULAS.items()}


# --- the same on the page ---------------------------------------------------------------------------------------------

# Keep what was last written on each canvas: [text, x, y] of each number and note in a cell.
LISTEN = """() => {
  if (window.written) return;
  window.written = new WeakMap();
  const pen = CanvasRenderingContext2D.prototype, { fillText, clearRect } = pen;
  pen.clearRect = function (...box) {
    written.set(this.canvas, []);
    return clearRect.apply(this, box);
  };
  pen.fillText = function (text, x, y, ...rest) {
    if (this.textBaseline === "middle") (written.get(this.canvas) || []).push([String(text), x, y]);
    return fillText.call(this, text, x, y, ...rest);
  };
}"""
WRITTEN = "name => written.get(document.querySelector(`.convolution-${name}`))"
SLIDERS = ".convolution-slider input"


def written(page, name: str) -> list[str]:
    """Numbers and notes in the cells of a canvas."""
    return [found[0] for found in page.evaluate(WRITTEN, name)]


def choose(page, **values) -> None:
    """Put sliders, radio buttons and boxes to values, as a reader does, one after the other."""
    for name, value in values.items():
        if name in NAMES:
            page.locator(SLIDERS).nth(NAMES.index(name)).fill(str(value))
        elif name == "transposed":
            page.get_by_role("radio", name="Transposed" if value else "Convolution").check(force=True)
        elif name == "axes":
            page.get_by_role("radio", name=f"{value}-D").check(force=True)
        elif name == "seed":
            page.get_by_label("Numbers").select_option(str(value))


def text(page, name: str) -> str:
    return page.locator(f".convolution-{name}").inner_text().replace("\u00a0", " ")


def now(page) -> str:
    return page.locator(".explorer-now").inner_text().replace("\n", " ")


def lit_cell(page) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", lit(page)))


def lit(page) -> str:
    """The active cell, as the timeline names it."""
    return now(page).rpartition(",")[0]


def test_the_page_shows_what_pytorch_computes(show):
    page = show()
    page.evaluate(LISTEN)
    source = random.Random(11)
    shown = explained = 0
    for setting in random_settings(70, seed=9):
        if any(not LIMITS[name][0] <= setting[name] <= LIMITS[name][1] or setting[name] % 1 for name in NAMES):
            continue
        axes, seed = source.choice([1, 2]), source.randint(0, 9)
        choose(page, axes=axes, seed=seed, **setting)
        problem = explain_impossible(**setting)
        assert text(page, "problem") == (f"Impossible: {problem}." if problem else "")
        assert text(page, "code") == pytorch_line_of(setting, axes)
        if problem:
            explained += 1
            continue
        shown += 1
        example = ConvolutionExample(ConvolutionSetting(**setting), axes, seed)
        assert text(page, "numbers") == example.setting.size_formula
        check_titles(page, example)
        side, index = re.match(r"(\w+) \(?([\d, ]+)\)?,", now(page)).groups()
        cell = tuple(int(part) for part in index.split(", "))
        assert text(page, "sentence") == example.sentence(side.lower(), cell)
        assert now(page).endswith(f" of {example.size_of(side.lower()) ** axes}")
    assert shown > 20
    assert explained > 8


def pytorch_line_of(setting, axes):
    from dcgan_lib.convolution_examples import pytorch_line

    return pytorch_line(*(setting[name] for name in (*NAMES[1:], "transposed")), axes)


def check_titles(page, example):
    for name, size in (
        ("input", example.setting.size),
        ("kernel", example.setting.kernel),
        ("output", len(example.output)),
    ):
        wanted = f"{size} × {size}" if example.axes == 2 else f"{size}"
        assert page.locator(f".part-{name} .convolution-title span").inner_text().split(",")[0] == wanted
        cells = f"{size} by {size} cells" if example.axes == 2 else f"{size} cells"
        assert page.locator(f".convolution-{name}").get_attribute("aria-label").split(", ")[1].startswith(cells)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("transposed", [True, False])
def test_every_number_is_drawn(show, axes, transposed):
    page = show()
    choose(page, transposed=transposed, axes=axes, size=3, kernel=3, seed=2, padding=0)
    page.wait_for_timeout(100)
    page.evaluate(LISTEN)
    choose(page, padding=1)
    setting = ConvolutionSetting(3, 3, 2, 1, transposed=transposed)
    example = ConvolutionExample(setting, axes, 2)
    side = "input" if transposed else "output"
    for name, values in (("kernel", example.kernel), ("input", example.input), ("output", example.output)):
        drawn = written(page, name)
        numbers = [str(value) for value in values.flatten().tolist()]
        # After the numbers of all cells those of the padding, and again those of the lit cells, with their notes.
        assert drawn[: len(numbers)] == numbers, name
        notes = [note for note in drawn if note[:1] in "+×"]
        products = example.products(side, lit_cell(page))
        marks = {"kernel": [], side: []}.get(
            name, [f"+{p.value * p.weight}" if transposed else f"×{p.weight}" for p in products]
        )
        assert notes == marks, name
    entries = written(page, "matrix") if axes == 1 else []
    if axes == 1:
        matrix = pytorch(vars(setting), 1, torch.eye(3), example.kernel).T.long()
        assert entries[: matrix.numel()] == [str(value) for value in matrix.flatten().tolist()]
        assert sorted(entries[matrix.numel() :]) == sorted(str(p.weight) for p in products)


def test_overlap_and_what_is_done_so_far_change_the_numbers(show):
    page = show()
    example = ConvolutionExample(ConvolutionSetting(4, 4, 2, 1, transposed=True))
    page.evaluate(LISTEN)
    page.get_by_label("Overlap").check()
    assert written(page, "output")[:64] == [str(value) for value in example.overlaps.flatten().tolist()]
    page.get_by_label("Overlap").uncheck()
    page.get_by_label("Only what is done so far").check()
    sums = example.output_up_to("input", (1, 1)).long().flatten().tolist()
    assert written(page, "output")[:64] == [str(value) for value in sums]
    page.get_by_role("button", name="One frame on").click()
    sums = example.output_up_to("input", (1, 2)).long().flatten().tolist()
    assert written(page, "output")[:64] == [str(value) for value in sums]
    page.get_by_label("Step through").select_option("outputs")
    done = written(page, "output")[:10]  # up to (1, 1)
    assert done == [str(value) for value in example.output.flatten().tolist()[:10]]


def test_the_directive_sets_where_it_begins(show):
    page = show("line")
    setting = ConvolutionSetting(7, 3, 2, 1)
    assert text(page, "numbers") == setting.size_formula
    assert text(page, "code") == "nn.Conv1d(1, 1, 3, stride=2, padding=1, bias=False)"
    assert text(page, "sentence") == ConvolutionExample(setting, 1, 3).sentence("output", (1,))
    assert page.get_by_label("Numbers").input_value() == "3"
    choose(page, size=9, kernel=5, transposed=True)
    page.get_by_role("button", name="Reset").click()
    assert text(page, "numbers") == setting.size_formula
    assert page.get_by_role("radio", name="Convolution").is_checked()
    assert page.locator(SLIDERS).first.input_value() == "7"


def test_two_on_a_page_do_not_meddle_with_each_other(show):
    page = show("two")
    first, second = page.locator(".explorer").all()
    assert first.get_by_role("radio", name="Transposed").is_checked()
    assert second.get_by_role("radio", name="Convolution").is_checked()
    assert second.get_by_label("Overlap").is_checked()
    first.get_by_role("radio", name="1-D").check(force=True)
    assert second.get_by_role("radio", name="2-D").is_checked()
    assert "Conv2d" in second.locator(".convolution-code").inner_text()


def test_an_impossible_setting_explains_itself_and_can_be_left(show):
    page = show()
    choose(page, output_padding=2)
    assert text(page, "problem") == "Impossible: output_padding=2 must be smaller than stride=2 or dilation=1."
    assert not page.locator(".convolution-numbers").is_visible()
    for part in (".convolution-board", ".part-matrix", ".explorer-timeline"):
        assert page.locator(part).evaluate("part => Boolean(part.closest('[inert]'))")
    page.wait_for_function(
        "document.querySelector('.explorer-voice').textContent.startsWith('Impossible: output_padding=2')"
    )
    choose(page, stride=3)
    assert not page.locator(".convolution-problem").is_visible()
    assert page.locator("[inert]").count() == 0
    assert text(page, "numbers").endswith("= 13")


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
        "Overlap",
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
    for values in ({}, {"size": 16, "kernel": 7, "padding": 3}, {"stride": 4}, {"stride": 0}):
        choose(page, **values)
        assert page.evaluate("document.documentElement.scrollWidth") == size["width"]
        inside = page.locator(".explorer").bounding_box()
        for one in page.locator(".explorer-stage *:visible").all():
            box = one.bounding_box()
            if box is None or box["width"] <= 1:
                continue
            assert box["x"] >= inside["x"] - 0.5, one.evaluate("one => one.outerHTML")
            assert box["x"] + box["width"] <= inside["x"] + inside["width"] + 0.5, one.evaluate("one => one.outerHTML")
    heights = page.locator(f".explorer-button, {SLIDERS}, .convolution-choice label, select").evaluate_all(
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


def test_print_and_pages_without_scripts_show_the_still_picture(show, opened, address):  # noqa: F811
    page = show()
    assert not page.locator(".explorer-still").is_visible()
    page.emulate_media(media="print")
    assert page.locator(".explorer-still").is_visible()
    assert not page.locator(".explorer-stage").is_visible()
    bare = opened(f"{address}/index.html", live=False, java_script_enabled=False)
    assert bare.locator(".explorer-still").is_visible()
    assert bare.locator(".explorer-still").evaluate("image => image.naturalWidth") > 600


def test_the_scripts_are_small_plain_and_our_own():
    texts = {name: (SOURCES / name).read_text(encoding="utf-8") for name in SCRIPTS}
    assert sorted(path.name for path in SOURCES.glob("convolution*.js")) == SCRIPTS
    assert sum(len(script.encode()) for script in texts.values()) < 60_000
    for name, script in texts.items():
        assert '"use strict";' in script, name
        assert len(script.splitlines()) < 400, name
        assert not re.search(r"^\s*(import|export)\b|\bfetch\(|https?://", script, re.MULTILINE), name
