import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dcgan_lib.convolution import (
    ConvolutionShape,
    conv_output_size,
    conv_transpose_output_size,
    receptive_field,
)
from dcgan_lib.errors import UserError

SMALL = settings(max_examples=150, deadline=None)


@SMALL
@given(st.integers(1, 20), st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3))
def test_convolution_size_is_that_of_torch(size, kernel, stride, padding, dilation):
    x, weight = torch.zeros(1, 1, size), torch.zeros(1, 1, kernel)
    try:
        expected = F.conv1d(x, weight, stride=stride, padding=padding, dilation=dilation).shape[-1]
    except RuntimeError:  # torch refuses kernels larger than the padded input, and so must we
        with pytest.raises(UserError, match="more than the padded input"):
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
            with pytest.raises(UserError, match="at least 1"):
                conv_transpose_output_size(size, kernel, *arguments, dilation)
        else:
            assert conv_transpose_output_size(size, kernel, *arguments, dilation) == expected


@SMALL
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 3)), min_size=0, max_size=4))
def test_receptive_field_is_what_brute_force_finds(layers):
    """Every output's window is found by following which input pixels each layer reads, as sets of positions."""

    def window(output: int) -> set[int]:
        positions = {output}
        for kernel, stride, padding in reversed(layers):
            positions = {p * stride - padding + k for p in positions for k in range(kernel)}
        return positions

    field, first, second = receptive_field(layers), window(0), window(1)
    assert field.start == min(first)
    assert field.start + field.size - 1 == max(first)
    assert field.jump == min(second) - min(first)


def test_receptive_field_of_two_dcgan_layers_by_hand():
    # Layer 1 sees pixels -1..2; layer 2 sees outputs -1..2 of layer 1, two pixels apart: pixels -3..6.
    assert receptive_field([ConvolutionShape(4, 2, 1)] * 2) == (10, 4, -3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: conv_output_size(0, 3), "size=0 must be at least 1"),
        (lambda: conv_output_size(8, 0), "kernel=0 must be at least 1"),
        (lambda: conv_output_size(8, 3, stride=0), "stride=0 must be at least 1"),
        (lambda: conv_output_size(8, 3, padding=-1), "padding=-1 must not be negative"),
        (lambda: conv_output_size(8, 3, dilation=0), "dilation=0 must be at least 1"),
        (lambda: conv_output_size(2, 4), "spans 4 pixels, more than the padded input's 2"),
        (lambda: conv_transpose_output_size(4, 4, 2, 1, output_padding=2), "output_padding=2 must be smaller"),
        (lambda: conv_transpose_output_size(1, 1, padding=1), "output of -1 pixels"),
        (lambda: conv_transpose_output_size(-1, 4), "size=-1 must be at least 1"),
        (lambda: receptive_field([(0, 1, 0)]), "kernel=0 must be at least 1"),
        (lambda: receptive_field([(3, 1, -2)]), "padding=-2 must not be negative"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
