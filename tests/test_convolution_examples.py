"""The numbers and sentences that both convolution explorers show, and their picture, against PyTorch."""

from itertools import product

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import nn

from dcgan_lib.convolution import ConvolutionSetting, explain_impossible, stamp
from dcgan_lib.convolution_examples import LIMITS, ConvolutionExample, example_values, pytorch_line
from dcgan_lib.errors import UserError
from dcgan_lib.plots.convolution_example import draw_example

GENERATOR = ConvolutionExample(ConvolutionSetting(4, 4, 2, 1, transposed=True))


@st.composite
def examples(draw):
    setting = {name: draw(st.integers(low, min(high, 6))) for name, (low, high) in LIMITS.items()}
    setting["transposed"] = draw(st.booleans())
    assume(explain_impossible(**setting) is None)
    return ConvolutionExample(ConvolutionSetting(**setting), draw(st.sampled_from([1, 2])), draw(st.integers(0, 9)))


def every_cell(example, side):
    return product(range(example.size_of(side)), repeat=example.axes)


# Most settings drawn at random are impossible, and it is cheap to see that they are.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(examples())
def test_the_line_of_pytorch_computes_the_output_and_products_add_up_to_it(example):
    layer = eval(example.pytorch(), {"nn": nn}).double()
    with torch.no_grad():
        layer.weight[0, 0] = example.kernel.double()
        assert torch.equal(layer(example.input[None, None].double())[0, 0], example.output.double())
    inputs = 0
    for cell in every_cell(example, "output"):
        products = example.products("output", cell)
        assert sum(found.value * found.weight for found in products) == example.output[cell]
        assert len(products) == example.overlaps[cell]
        inputs += len(products)
    stamped = torch.zeros_like(example.output)
    for cell in every_cell(example, "input"):
        for found in example.products("input", cell):
            assert found.value == example.input[cell]
            stamped[found.cell] += found.value * found.weight
            inputs -= 1
        assert torch.equal(stamped.double(), example.output_up_to("input", cell))
    assert torch.equal(stamped, example.output)
    assert inputs == 0


def test_numbers_are_small_never_0_and_the_same_everywhere():
    assert example_values(5, axes=1).tolist() == [2, 3, 5, 2, 5]
    assert example_values(3, kernel=True).tolist() == [[3, 2, 3], [1, 3, 3], [1, 1, 3]]
    for seed in range(1, 10):
        assert set(example_values(16, seed=seed).flatten().tolist()) == {1, 2, 3, 4, 5}
        assert set(example_values(7, seed=seed, kernel=True).flatten().tolist()) == {1, 2, 3}
    assert len({tuple(example_values(4, seed=seed).flatten().tolist()) for seed in range(10)}) == 10
    assert example_values(4, seed=0).unique().tolist() == [1]
    # A larger input goes on where a smaller one ends.
    assert torch.equal(example_values(9)[:4, :4], example_values(4))


def test_with_ones_every_output_is_the_number_of_its_products():
    example = ConvolutionExample(ConvolutionSetting(5, 3, 2, transposed=True), seed=0)
    assert torch.equal(example.output, example.overlaps)
    assert example.overlaps[2].tolist() == [2, 2, 4, 2, 4, 2, 4, 2, 4, 2, 2]


def test_sentences():
    assert GENERATOR.sentence("output", (0, 0)) == "Output (0, 0) = 2·3 = 6"
    first = ConvolutionExample(ConvolutionSetting(3, 2), axes=1)
    assert (first.input.tolist(), first.kernel.tolist(), first.output.tolist()) == ([2, 3, 5], [3, 2], [12, 19])
    assert first.sentence("output", (1,)) == "Output 1 = 3·3 + 5·2 = 19"
    assert first.sentence("input", (1,)) == "Input 1 = 3 adds to 2 outputs: 3·3 = 9, 3·2 = 6"
    assert first.sentence("input", (0,)) == "Input 0 = 2 adds to 1 output: 2·3 = 6"
    gaps = ConvolutionExample(ConvolutionSetting(2, 1, 2, transposed=True), axes=1)
    assert gaps.sentence("output", (1,)) == "Output 1 = 0: no input reaches it."
    skipped = ConvolutionExample(ConvolutionSetting(3, 1, 2), axes=1)
    assert skipped.sentence("input", (1,)) == "Input 1 = 3 reaches no output."


def test_what_is_done_so_far_leaves_later_outputs_open():
    done = GENERATOR.output_up_to("output", (1, 0))
    assert done.isnan().sum() == 64 - 9
    assert torch.equal(done[0], GENERATOR.output[0].double())


def test_a_stamp_reaches_over_the_edge():
    assert stamp(GENERATOR.setting, 0) == [(-1, 0), (0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: example_values(3, axes=3), "axes=3 must be 1 or 2"),
        (lambda: example_values(3, seed=10), "seed=10 must be between 0 and 9"),
        (lambda: example_values(3, seed=True), "seed=True must be a whole number"),
        (lambda: ConvolutionExample(GENERATOR.setting, axes=0), "axes=0 must be 1 or 2"),
        (lambda: ConvolutionExample(GENERATOR.setting, seed=-1), "seed=-1 must be between 0 and 9"),
        (lambda: GENERATOR.products("inside", (0, 0)), "side='inside' must be 'input' or 'output'"),
        (lambda: GENERATOR.products("input", (0,)), "cell=(0,) must have one index for each of the 2 axes"),
        (lambda: GENERATOR.products("input", (0, 4)), "cell=4 must be between 0 and 3"),
        (lambda: draw_example(GENERATOR, "output", (8, 0)), "output=8 must be between 0 and 7"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert str(caught.value) == message


def test_the_line_names_what_differs_from_the_defaults():
    assert pytorch_line(3) == "nn.Conv2d(1, 1, 3, bias=False)"
    line = "nn.ConvTranspose1d(1, 1, 3, stride=2, padding=1, output_padding=1, dilation=2, bias=False)"
    assert pytorch_line(3, 2, 1, 2, 1, transposed=True, axes=1) == line


# --- the picture ------------------------------------------------------------------------------------------------------


def texts(figure) -> list[list[str]]:
    """The texts in each of the figure's axes: numbers first, then the title."""
    return [[text.get_text() for text in axis.texts] for axis in figure.axes]


@pytest.mark.parametrize("transposed", [True, False])
def test_the_picture_has_every_number_of_an_image(transposed):
    example = ConvolutionExample(ConvolutionSetting(4, 3, 2, 1, transposed=transposed), seed=3)
    kernel, inputs, outputs, matrix = texts(draw_example(example))
    assert kernel == [*map(str, example.kernel.flatten().tolist()), "kernel 3 × 3"]
    padding = 0 if transposed else 4 * 4 + 4
    assert [number for number in inputs if number != "0"][:-1] == list(map(str, example.input.flatten().tolist()))
    assert inputs.count("0") == padding
    size = example.setting.output_size
    assert [number for number in outputs if number][:-1] == list(map(str, example.output.flatten().tolist()))
    assert outputs[-1] == f"output {size} × {size}"
    assert matrix[-1] == f"matrix, {size**2} outputs × 16 inputs"


def test_the_picture_of_a_sequence_has_lines_and_the_matrix_in_numbers():
    example = ConvolutionExample(ConvolutionSetting(5, 3, 2, 1), axes=1)
    figure = draw_example(example, "input", (3,))
    _, _, lines, outputs, matrix = texts(figure)
    assert outputs == [*map(str, example.output.tolist()), "output 3"]
    assert lines == []
    drawn = figure.axes[2].get_lines()
    assert len(drawn) == int(example.overlaps.sum())
    strong = [line for line in drawn if line.get_alpha() == 1]
    assert sorted(tuple(line.get_xdata()) for line in strong) == [(3, 2), (3, 4)]
    basis = nn.functional.conv1d(torch.eye(5)[:, None], example.kernel[None, None].float(), stride=2, padding=1)
    assert matrix[:-1] == [str(int(value)) for value in basis[:, 0].T.flatten()]


def test_the_picture_can_show_overlaps_and_what_is_done():
    overlaps = texts(draw_example(GENERATOR, overlaps=True))[2]
    assert [number for number in overlaps if number][:64] == list(map(str, GENERATOR.overlaps.flatten().tolist()))
    assert overlaps[-1] == "products in each output, 8 × 8"
    done = texts(draw_example(GENERATOR, "output", (0, 2), partial=True))[2]
    assert [number for number in done if number][:-1] == list(map(str, GENERATOR.output[0, :3].tolist()))


def test_the_lit_cells_stand_out():
    figure = draw_example(GENERATOR, "input", (0, 0))
    pixels = figure.axes[2].get_images()[0].get_array()
    base = draw_example(GENERATOR, "input", (3, 3)).axes[2].get_images()[0].get_array()
    changed = {tuple(cell) for cell in torch.tensor((pixels != base).any(-1)).nonzero().tolist()}
    first = set(product(range(4), repeat=2))  # with the padding, 10 x 10 cells
    last = set(product(range(6, 10), repeat=2))
    assert changed == first | last


def test_the_largest_is_drawn_and_stays_small():
    example = ConvolutionExample(ConvolutionSetting(16, 7, 4, 0, 2, transposed=True))
    bundle, _ = draw_example(example)._repr_mimebundle_()
    assert len(bundle["image/png"]) < 60_000
