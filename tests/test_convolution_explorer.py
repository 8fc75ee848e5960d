"""The arithmetic of the page's convolution explorer: its numbers and sentences against PyTorch and Python."""

import random
import re
from itertools import product

import convolution_pages
import pytest
import torch
from convolution_pages import LISTEN, NAMES, SLIDERS, choose, lit_cell, now, text, use, written
from pages import build, write_book
from torch import nn
from torch.nn import functional

from dcgan_lib.convolution import RULES, ConvolutionSetting, explain_impossible
from dcgan_lib.convolution_examples import FORMULAS, LIMITS, ConvolutionExample, example_values, pytorch_line

# pytest finds fixtures by the names of the file that uses them.
address, html, show = convolution_pages.address, convolution_pages.html, convolution_pages.show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

WRONG = {
    "low": (use("x", ":size: 0"), "it must be between 1 and 16, got 0"),
    "high": (use("x", ":kernel: 8"), "it must be between 1 and 7, got 8"),
    "number": (use("x", ":stride: two"), "invalid literal for int"),
    "word": (use("x", ":direction: back"), 'choose from "transposed", or "convolution"'),
    "impossible": (use("x", ":stride: 0"), "explorer: stride=0 must be at least 1"),
    "foreign": (use("x", ":data: runs").replace("convolution\n", "scrubber\n", 1), "the data 'runs' would be"),
}


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
    for side, index, sentence in result["sentences"]:
        cell = (index,) if axes == 1 else divmod(index, example.size_of(side))
        assert sentence == example.sentence(side, cell)
        if side == "output" and "·" in sentence:
            sum_, total = sentence.split(" = ")[1:]
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
