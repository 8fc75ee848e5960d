from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import signal
from torch.nn import functional as F
from torch.testing import assert_close

from dcgan_lib import convolution_views as views
from dcgan_lib.convolution import ConvolutionSetting, conv_output_size, explain_impossible
from dcgan_lib.errors import UserError

VIEWS = list(views.TRANSPOSED_VIEWS.values())
SMALL = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d}


@st.composite
def cases(draw: st.DrawFn, transposed: bool) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
    """An input, a weight and the arguments of a possible layer, on one or two axes of different sizes."""
    axes = draw(st.integers(1, 2))
    numbers = {
        "stride": draw(st.integers(1, 4)),
        "padding": draw(st.integers(0, 3)),
        "dilation": draw(st.integers(1, 3)),
    }
    if transposed:
        numbers["output_padding"] = draw(st.integers(0, max(numbers["stride"], numbers["dilation"]) - 1))
    pairs = st.tuples(st.integers(1, 6), st.integers(1, 4)).filter(
        lambda pair: explain_impossible(*pair, **numbers, transposed=transposed) is None
    )
    size, kernel = zip(*(draw(pairs) for _ in range(axes)), strict=True)
    groups, ins, outs = (draw(st.integers(1, 2)) for _ in range(3))
    channels = (groups * ins, outs) if transposed else (groups * outs, ins)
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.randn(groups * ins, *size, dtype=torch.float64, generator=random)
    weight = torch.randn(*channels, *kernel, dtype=torch.float64, generator=random)
    return x, weight, numbers | {"groups": groups}


def torchs(x: torch.Tensor, weight: torch.Tensor, numbers: dict[str, Any]) -> torch.Tensor:
    function = (TRANSPOSED if "output_padding" in numbers else CONVOLUTIONS)[x.ndim - 1]
    return function(x[None], weight, **numbers)[0]


@SMALL
@given(cases(transposed=False))
def test_the_sliding_window_is_torchs_convolution(case):
    x, weight, numbers = case
    assert_close(views.cross_correlate(x, weight, **numbers), torchs(x, weight, numbers))


@SMALL
@given(cases(transposed=False))
def test_the_matrix_times_the_input_is_torchs_convolution_and_its_transpose_torchs_gradient(case):
    x, weight, numbers = case
    matrix = views.convolution_matrix(x.shape[1:], weight, **numbers)
    x.requires_grad_()
    y = torchs(x, weight, numbers)
    assert matrix.shape == (y.numel(), x.numel())
    assert_close(matrix @ x.detach().flatten(), y.detach().flatten())
    wave = torch.cos(torch.arange(y.numel(), dtype=torch.float64))
    (gradient,) = torch.autograd.grad(y, x, wave.reshape(y.shape))
    assert_close(matrix.T @ wave, gradient.flatten())


@pytest.mark.parametrize("view", VIEWS)
@SMALL
@given(case=cases(transposed=True))
def test_every_view_is_torchs_transposed_convolution(view, case):
    x, weight, numbers = case
    assert_close(view(x, weight, **numbers), torchs(x, weight, numbers))


@pytest.mark.parametrize("view", VIEWS)
@SMALL
@given(case=cases(transposed=False))
def test_every_view_is_the_input_gradient_of_the_convolution(view, case):
    """With the output padding that leads back to the input's size; the weight is the convolution's, as it is."""
    x, weight, numbers = case
    x.requires_grad_()
    y = torchs(x, weight, numbers)
    wave = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    (gradient,) = torch.autograd.grad(y, x, wave)
    stride, padding, dilation = numbers["stride"], numbers["padding"], numbers["dilation"]
    smallest = [
        (n - 1) * stride - 2 * padding + dilation * (k - 1) + 1
        for n, k in zip(y.shape[1:], weight.shape[2:], strict=True)
    ]
    missing = [n - m for n, m in zip(x.shape[1:], smallest, strict=True)]
    assert all(0 <= m < stride for m in missing)
    if len(set(missing)) == 1 and min(smallest) > 0:  # one output padding holds for both axes
        assert_close(view(wave, weight, **numbers, output_padding=missing[0]), gradient)


@pytest.mark.parametrize("function", [views.cross_correlate, *VIEWS])
def test_autograd_passes_through(function):
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: function(a, b, 2, 1), (x, weight))


def test_convolution_is_that_of_numpy_and_scipy():
    x, w = np.random.default_rng(0).normal(size=(2, 9)), np.random.default_rng(1).normal(size=4)
    for row in x:
        mine = views.convolve(torch.tensor(row)[None], torch.tensor(w)[None, None], padding=3)
        assert_close(mine[0], torch.tensor(np.convolve(row, w)))
    image, kernel = np.random.default_rng(2).normal(size=(6, 7)), np.random.default_rng(3).normal(size=(2, 3))
    mine = views.convolve(torch.tensor(image)[None], torch.tensor(kernel)[None, None])
    assert_close(mine[0], torch.tensor(signal.convolve2d(image, kernel, mode="valid")))
    mine = views.cross_correlate(torch.tensor(image)[None], torch.tensor(kernel)[None, None])
    assert_close(mine[0], torch.tensor(signal.correlate2d(image, kernel, mode="valid")))


def test_matrix_by_hand():
    weight = torch.tensor([[[1.0, 2.0, 3.0]]])
    expected = torch.tensor([[2.0, 3, 0, 0, 0], [0, 1, 2, 3, 0], [0, 0, 0, 1, 2]])
    assert_close(views.convolution_matrix([5], weight, stride=2, padding=1), expected)


@SMALL
@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
def test_matrix_entries_are_the_touched_cells(size, kernel, stride, padding, dilation):
    if explain_impossible(size, kernel, stride, padding, dilation):
        return
    setting = ConvolutionSetting(size, kernel, stride, padding, dilation)
    places = torch.arange(1, kernel + 1)[None, None]
    matrix = views.convolution_matrix([size], places, stride, padding, dilation)
    for output, row in enumerate(matrix.tolist()):
        found = [(cell, place - 1) for cell, place in enumerate(row) if place]
        assert found == setting.touched_inputs(output)


def test_a_matrix_may_have_the_first_outputs_only():
    weight = torch.randn(2, 1, 3, 3)
    whole = views.convolution_matrix((5, 5), weight).reshape(2, 3, 3, 25)
    part = views.convolution_matrix((5, 5), weight, outputs=(2, 1)).reshape(2, 2, 1, 25)
    assert_close(part, whole[:, :2, :1])


def test_ungrouped_is_a_block_matrix_of_kernels():
    weight = torch.arange(1.0, 9.0).reshape(4, 1, 2)
    whole = views.ungrouped(weight, 2)
    assert whole.shape == (4, 2, 2)
    assert_close(whole[:, :, 0], torch.tensor([[1.0, 0], [3, 0], [0, 5], [0, 7]]))


def test_dtype_is_kept():
    x, weight = torch.ones(1, 4), torch.ones(1, 1, 3)
    assert views.cross_correlate(x, weight).dtype == torch.float32
    assert {view(x, weight).dtype for view in VIEWS} == {torch.float32}
    assert {view(x.double(), weight.double()).dtype for view in VIEWS} == {torch.float64}


LINE, KERNEL = torch.zeros(2, 5), torch.zeros(2, 2, 3)


@pytest.mark.parametrize("function", [views.cross_correlate, views.convolve, *VIEWS])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((LINE[0], KERNEL), r"x has shape \(5,\); it must be \(channels, length\)"),
        ((LINE[None, None], KERNEL), r"x has shape \(1, 1, 2, 5\); it must be"),
        ((LINE, KERNEL[0]), r"weight has shape \(2, 3\); for x of shape \(2, 5\) it must be"),
        ((LINE, torch.zeros(3, 3, 3)), r"weight has shape \(3, 3, 3\); with in_channels=2 and groups=1"),
        ((LINE, KERNEL, 0), "stride=0 must be at least 1"),
        ((LINE, KERNEL, 1, -1), "padding=-1 must not be negative"),
        ((LINE, torch.zeros(3, 3, 3), 1, 0, 1, 1, 2), "groups=2 must divide"),
        ((LINE, KERNEL.double()), "x is torch.float32 and weight is torch.float64; they must be of one type"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(function, arguments, message):
    if len(arguments) == 7 and function not in VIEWS:
        arguments = (*arguments[:4], 1, 2)  # a convolution has no output padding
    with pytest.raises(UserError, match=message) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("view", VIEWS)
def test_views_keep_the_rules_of_transposed_convolutions(view):
    with pytest.raises(UserError, match="output_padding=2 must be smaller than stride=2"):
        view(LINE, KERNEL, 2, 0, 2)
    with pytest.raises(UserError, match="padding=4 cuts 8 pixels from an output of 7"):
        view(LINE, KERNEL, 1, 4)


def test_other_rules_of_the_window_and_the_matrix():
    with pytest.raises(UserError, match="kernel=3 with dilation=3 spans 7 pixels"):
        views.cross_correlate(LINE, KERNEL, dilation=3)
    with pytest.raises(UserError, match=r"size=\(5, 5\) must have as many axes as the kernel, \(3,\)"):
        views.convolution_matrix((5, 5), KERNEL)
    with pytest.raises(UserError, match="kernel=3 with dilation=3 spans 7 pixels"):
        views.convolution_matrix([5], KERNEL, dilation=3)
    for outputs in ([4], [0], [3, 3]):
        with pytest.raises(UserError, match=r"outputs=\(.*\) must be at least 1 and at most \(3,\), which fits"):
            views.convolution_matrix([5], KERNEL, outputs=outputs)
    with pytest.raises(UserError, match="groups=3 must divide in_channels=6 and out_channels=2"):
        views.ungrouped(KERNEL, 3)
    with pytest.raises(UserError, match="groups=3 must divide in_channels=2 and out_channels=6"):
        views.ungrouped(KERNEL, 3, transposed=True)


def test_sizes_of_the_matrix_follow_the_formula():
    for stride in (1, 2, 3):
        matrix = views.convolution_matrix((7, 4), torch.ones(2, 3, 3, 2), stride, 1)
        rows = 2 * conv_output_size(7, 3, stride, 1) * conv_output_size(4, 2, stride, 1)
        assert matrix.shape == (rows, 3 * 7 * 4)
