import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from dcgan_lib import models
from dcgan_lib.convolution import (
    RULES,
    ConvolutionSetting,
    ConvolutionShape,
    conv_output_size,
    conv_transpose_output_size,
    count_multiplications,
    count_weights,
    explain_impossible,
    receptive_field,
)
from dcgan_lib.errors import UserError

SMALL = settings(max_examples=150, deadline=None)
POSSIBLE = st.fixed_dictionaries(
    {
        "size": st.integers(1, 9),
        "kernel": st.integers(1, 5),
        "stride": st.integers(1, 4),
        "padding": st.integers(0, 4),
        "dilation": st.integers(1, 3),
        "output_padding": st.integers(0, 3),
        "transposed": st.booleans(),
    }
).filter(lambda numbers: explain_impossible(**numbers) is None)


@SMALL
@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_convolution_size_is_that_of_torch(size, kernel, stride, padding, dilation):
    x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    try:
        expected = F.conv1d(x, weight, stride=stride, padding=padding, dilation=dilation).shape[-1]
    except RuntimeError:  # torch refuses kernels larger than the padded input, and so must we
        with pytest.raises(UserError, match="must not span more than the padded input"):
            conv_output_size(size, kernel, stride, padding, dilation)
    else:
        assert conv_output_size(size, kernel, stride, padding, dilation) == expected


@SMALL
@given(
    st.integers(1, 12), st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4), st.integers(1, 3)
)
def test_transposed_convolution_size_is_that_of_torch(size, kernel, stride, padding, output_padding, dilation):
    x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    arguments = (stride, padding, output_padding)
    try:
        expected = F.conv_transpose1d(x, weight, None, *arguments, 1, dilation).shape[-1]
    except RuntimeError:
        with pytest.raises(UserError):
            conv_transpose_output_size(size, kernel, *arguments, dilation)
    else:
        if expected == 0:  # torch has gone back and forth about empty outputs; a network has no use for them
            with pytest.raises(UserError, match="it must leave at least 1"):
                conv_transpose_output_size(size, kernel, *arguments, dilation)
        else:
            assert conv_transpose_output_size(size, kernel, *arguments, dilation) == expected


def torch_matrix(setting: ConvolutionSetting, weight: torch.Tensor) -> torch.Tensor:
    """The operation's matrix, (outputs, inputs), from what torch makes of every unit vector."""
    units = torch.eye(setting.size, dtype=weight.dtype)[:, None]
    numbers = {"stride": setting.stride, "padding": setting.padding, "dilation": setting.dilation}
    if setting.transposed:
        rows = F.conv_transpose1d(units, weight[None, None], output_padding=setting.output_padding, **numbers)
    else:
        rows = F.conv1d(units, weight[None, None], **numbers)
    return rows[:, 0].T


@SMALL
@given(POSSIBLE)
def test_touched_cells_are_the_entries_of_torchs_matrix(numbers):
    setting = ConvolutionSetting(**numbers)
    # Weight k is 2 ** k, so that an entry says which places of the kernel met there: exactly one, or none.
    matrix = torch_matrix(setting, 2.0 ** torch.arange(setting.kernel, dtype=torch.float64))
    assert matrix.shape == (setting.output_size, setting.size)
    by_rows, by_columns = torch.zeros_like(matrix), torch.zeros_like(matrix)
    for output in range(setting.output_size):
        taps = setting.touched_inputs(output)
        assert [tap.kernel for tap in taps] == sorted({tap.kernel for tap in taps})
        for cell, place in taps:
            by_rows[output, cell] += 2.0**place
    for cell in range(setting.size):
        taps = setting.touched_outputs(cell)
        assert [tap.kernel for tap in taps] == sorted({tap.kernel for tap in taps})
        for output, place in taps:
            by_columns[output, cell] += 2.0**place
    torch.testing.assert_close(by_rows, matrix)
    torch.testing.assert_close(by_columns, matrix)


@SMALL
@given(POSSIBLE)
def test_size_formula_says_what_it_says(numbers):
    setting = ConvolutionSetting(**numbers)
    text = setting.size_formula.replace("⌊", "(").replace("⌋", ")").replace("·", "*").replace("−", "-")
    left, right = text.replace("/", "//").split(" = ")
    assert eval(left) == int(right) == setting.output_size
    size, kernel, stride, padding, dilation, output_padding, transposed = vars(setting).values()
    grown = [size, 1, stride, 2, padding, dilation, kernel, 1, output_padding, 1]
    shrunk = [size, 2, padding, dilation, kernel, 1, 1, stride, 1]
    assert [int(digits) for digits in re.findall(r"\d+", left)] == (grown if transposed else shrunk)


@SMALL
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3)), min_size=0, max_size=4
    )
)
def test_receptive_field_is_what_brute_force_finds(layers):
    """Every output's window is found by following which input pixels each layer reads, as sets of positions."""

    def window(output: int) -> set[int]:
        positions = {output}
        for kernel, stride, padding, dilation in reversed(layers):
            positions = {p * stride - padding + k * dilation for p in positions for k in range(kernel)}
        return positions

    field, first, second = receptive_field(layers), window(0), window(1)
    assert field.start == min(first)
    assert field.start + field.size - 1 == max(first)
    assert field.jump == min(second) - min(first)


def test_receptive_field_of_two_dcgan_layers_by_hand():
    # Layer 1 sees pixels -1..2; layer 2 sees outputs -1..2 of layer 1, two pixels apart: pixels -3..6.
    assert receptive_field([ConvolutionShape(4, 2, 1)] * 2) == (10, 4, -3)


def test_dilation_is_1_where_a_layer_does_not_say():
    assert receptive_field([(4, 2, 1), (3, 1, 1)]) == receptive_field([(4, 2, 1, 1), ConvolutionShape(3, 1, 1)])
    assert receptive_field([ConvolutionShape(3, dilation=4)]) == (9, 1, 0)


@SMALL
@given(POSSIBLE, st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_costs_are_those_of_torchs_layers_and_counter(numbers, groups, in_each, out_each, axes, bias):
    setting = ConvolutionSetting(**numbers)
    channels = (groups * in_each, groups * out_each)
    kinds = {(1, False): nn.Conv1d, (2, False): nn.Conv2d, (1, True): nn.ConvTranspose1d, (2, True): nn.ConvTranspose2d}
    names = ("stride", "padding", "dilation", *(["output_padding"] if setting.transposed else []))
    layer = kinds[axes, setting.transposed](
        *channels, setting.kernel, groups=groups, bias=bias, **{name: numbers[name] for name in names}
    )
    assert count_weights(*channels, setting.kernel, groups, bias, axes) == sum(p.numel() for p in layer.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.zeros(1, channels[0], *[setting.size] * axes))
    # The counter takes a multiplication and its addition for two operations.
    assert 2 * count_multiplications(setting, *channels, groups, axes) == counter.get_total_flops()


def test_costs_of_the_discriminator_by_hand():
    layers = [block[0] for block in models.build_discriminator(image_size=64, width=64).layers]
    sizes = [64, 32, 16, 8, 4]
    weights = [count_weights(layer.in_channels, layer.out_channels, 4) for layer in layers]
    assert weights == [3 * 64 * 16, 64 * 128 * 16, 128 * 256 * 16, 256 * 512 * 16, 512 * 16]
    settings_ = [
        ConvolutionSetting(n, 4, layer.stride[0], layer.padding[0]) for n, layer in zip(sizes, layers, strict=True)
    ]
    counts = [
        count_multiplications(s, layer.in_channels, layer.out_channels)
        for s, layer in zip(settings_, layers, strict=True)
    ]
    assert counts == [w * n * n for w, n in zip(weights, [32, 16, 8, 4, 1], strict=True)]


IMPOSSIBLE = [
    ({"size": 0, "kernel": 3}, "size=0 must be at least 1"),
    ({"size": 8, "kernel": 0}, "kernel=0 must be at least 1"),
    ({"size": 8, "kernel": 3, "stride": 0}, "stride=0 must be at least 1"),
    ({"size": 8, "kernel": 3, "dilation": 0}, "dilation=0 must be at least 1"),
    ({"size": 8, "kernel": 3, "padding": -1}, "padding=-1 must not be negative"),
    ({"size": 8, "kernel": 3, "output_padding": -2}, "output_padding=-2 must not be negative"),
    ({"size": 8, "kernel": 2.5}, "kernel=2.5 must be a whole number"),
    ({"size": 8, "kernel": "3"}, "kernel='3' must be a whole number"),
    ({"size": True, "kernel": 3}, "size=True must be a whole number"),
    (
        {"size": 2, "kernel": 3, "dilation": 3, "padding": 2},
        "kernel=3 with dilation=3 spans 7 pixels; it must not span more than the padded input, 6 pixels "
        "(size=2, padding=2)",
    ),
    (
        {"size": 8, "kernel": 3, "stride": 2, "output_padding": 1},
        "output_padding=1 must be 0: only a transposed convolution has one",
    ),
    (
        {"size": 4, "kernel": 4, "stride": 2, "output_padding": 2, "transposed": True},
        "output_padding=2 must be smaller than stride=2 or dilation=1",
    ),
    (
        {"size": 2, "kernel": 1, "stride": 2, "padding": 2, "transposed": True},
        "padding=2 cuts 4 pixels from an output of 3; it must leave at least 1",
    ),
]


@pytest.mark.parametrize(("numbers", "sentence"), IMPOSSIBLE)
def test_an_impossible_setting_names_argument_value_and_rule(numbers, sentence):
    assert explain_impossible(**numbers) == sentence
    with pytest.raises(UserError) as caught:
        ConvolutionSetting(**numbers)
    assert str(caught.value) == sentence


def test_every_rule_about_a_setting_is_shown_to_be_broken_above():
    sentences = [sentence for _, sentence in IMPOSSIBLE]
    for name, rule in RULES.items():
        pattern = re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(rule)))
        assert any(map(pattern.fullmatch, sentences)) == (name not in ("between", "groups")), name


def test_the_limits_of_a_rule_are_possible():
    assert ConvolutionSetting(3, 3, dilation=3, padding=2).output_size == 1  # spans 7 of 7
    assert ConvolutionSetting(4, 4, 2, output_padding=1, transposed=True).output_size == 11
    assert ConvolutionSetting(2, 1, 2, padding=1, transposed=True).output_size == 1  # cuts 2 of 3
    assert ConvolutionSetting(np.int64(8), 3).output_size == 6


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_output_size(8, 3, stride=0), "stride=0 must be at least 1"),
        (lambda: conv_transpose_output_size(4, 4, 2, 1, 2), "output_padding=2 must be smaller than stride=2"),
        (lambda: receptive_field([(0, 1, 0)]), "kernel=0 must be at least 1"),
        (lambda: receptive_field([(3, 1, -2)]), "padding=-2 must not be negative"),
        (lambda: receptive_field([(3, 1, 2, 0)]), "dilation=0 must be at least 1"),
        (lambda: ConvolutionSetting(8, 3).touched_inputs(6), "output=6 must be between 0 and 5"),
        (lambda: ConvolutionSetting(8, 3).touched_inputs(-1), "output=-1 must not be negative"),
        (lambda: ConvolutionSetting(8, 3).touched_outputs(8), "cell=8 must be between 0 and 7"),
        (lambda: count_weights(4, 6, 3, groups=4), "groups=4 must divide in_channels=4 and out_channels=6"),
        (lambda: count_weights(4, 6, 3, groups=0), "groups=0 must be at least 1"),
        (lambda: count_weights(0, 6, 3), "in_channels=0 must be at least 1"),
        (lambda: count_multiplications(ConvolutionSetting(8, 3), 3, 4, groups=2), "must divide in_channels=3"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
