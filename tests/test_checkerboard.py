import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from dcgan_lib import checkerboard
from dcgan_lib.convolution import explain_impossible
from dcgan_lib.errors import UserError
from dcgan_lib.models import ResizeConv2d

SMALL = settings(max_examples=80, deadline=None)


def grid(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.arange(size, dtype=torch.float64)
    return rows[:, None].expand(size, size), rows[None, :].expand(size, size)


@SMALL
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 3))
def test_overlaps_are_a_transposed_convolution_of_ones_with_ones(size, kernel, stride, padding, output_padding):
    numbers = (size, kernel, stride, padding, output_padding)
    if explain_impossible(size, kernel, stride, padding, 1, output_padding, transposed=True):
        with pytest.raises(UserError):
            checkerboard.overlap_map(*numbers)
        return
    for axes, function in ((1, F.conv_transpose1d), (2, F.conv_transpose2d)):
        ones, weight = torch.ones(1, 1, *[size] * axes), torch.ones(1, 1, *[kernel] * axes)
        expected = function(ones, weight, None, stride, padding, output_padding)[0, 0]
        counts = checkerboard.overlap_map(*numbers, axes)
        assert counts.dtype == torch.int64
        assert_close(counts, expected.long(), rtol=0, atol=0)


def test_overlaps_by_hand():
    assert checkerboard.overlap_map(4, 4, 2, 1, axes=1).tolist() == [1, 2, 2, 2, 2, 2, 2, 1]
    assert checkerboard.overlap_map(4, 5, 2, 2, 1, axes=1).tolist() == [2, 2, 3, 2, 3, 2, 2, 1]
    inner = checkerboard.overlap_map(4, 3, 2)[2:4, 2:4]
    assert inner.tolist() == [[4, 2], [2, 1]]


@SMALL
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.integers(0, 10**6))
def test_phase_sums_are_what_a_constant_becomes(kernel, stride, padding, seed):
    weight = torch.randn(2, 3, kernel, kernel, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    sums = checkerboard.phase_sums(weight, stride, padding)
    size = 2 * (kernel + padding) + 5
    for channel in range(2):
        ones = torch.zeros(1, 2, size, size, dtype=torch.float64)
        ones[:, channel] = 1
        y = F.conv_transpose2d(ones, weight, stride=stride, padding=padding)[0]
        start = (kernel // stride + 1) * stride  # inside, and of phase 0
        tile = y[:, start : start + stride, start : start + stride]
        assert_close(sums[channel], tile)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_a_resize_convolution_is_a_transposed_convolution_without_a_pattern(kernel):
    layer = ResizeConv2d(2, 3, kernel, padding=kernel // 2, bias=False).double()
    weight = checkerboard.as_transposed_weight(layer.weight.detach())
    assert weight.shape == (2, 3, kernel + 1, kernel + 1)
    x = torch.randn(2, 2, 5, 4, dtype=torch.float64)
    y = layer(x).detach()
    assert y.shape == (2, 3, 10, 8)
    assert_close(F.conv_transpose2d(x, weight, stride=2, padding=kernel // 2), y)
    sums = checkerboard.phase_sums(weight, 2, kernel // 2)
    whole = layer.weight.detach().sum(dim=(2, 3)).T
    assert_close(sums, whole[..., None, None].expand(2, 3, 2, 2))


def test_the_spectrum_adds_up_to_the_variance():
    images = 3 * torch.randn(2, 3, 6, 8, dtype=torch.float64) + 5
    power = checkerboard.power_spectrum(images)
    assert power.shape == images.shape
    assert_close(power[..., 0, 0], torch.zeros(2, 3, dtype=torch.float64))
    assert_close(power.sum(dim=(2, 3)), images.var(dim=(2, 3), unbiased=False))


@pytest.mark.parametrize(("down", "right"), [(0, 1), (3, 0), (4, 4), (0, 8), (8, 0), (8, 8), (4, 12), (6, 8)])
def test_a_wave_counts_if_its_frequencies_are_multiples_of_one_over_the_period(down, right):
    i, j = grid(16)
    wave = torch.cos(2 * math.pi * (down * i + right * j) / 16 + 0.3)[None, None]
    for period in (2, 4, 8):
        step = 16 // period
        expected = float(down % step == 0 and right % step == 0)
        assert checkerboard.checkerboard_score(wave, period) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("amplitude", [0.01, 0.5, 2.0])
def test_a_checkerboard_of_known_amplitude_on_a_known_wave(amplitude):
    i, j = grid(32)
    signs = (-1.0) ** (i + j)
    wave = 3 * torch.sin(2 * math.pi * 2 * j / 32) + 7  # variance 9 / 2
    image = (wave + amplitude * signs)[None, None]
    expected = amplitude**2 / (amplitude**2 + 4.5)
    assert checkerboard.checkerboard_score(image) == pytest.approx(expected, rel=1e-10)
    tile = checkerboard.average_tile(image)[0, 0]
    assert_close(tile, amplitude * torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64))
    # Grey level and brightness change nothing.
    assert checkerboard.checkerboard_score(-4 * image + 1) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("value", [0.0, 0.1, -1.0, 255.0])
def test_a_constant_image_has_none(value):
    assert checkerboard.checkerboard_score(torch.full((2, 3, 16, 16), value)) == 0
    assert checkerboard.checkerboard_score(torch.full((2, 3, 16, 16), value, dtype=torch.float64), 4) == 0


@pytest.mark.parametrize("period", [1, 2, 3, 4, 6])
def test_the_score_is_the_variance_between_phases_as_in_an_analysis_of_variance(period):
    images = torch.randn(3, 2, 12, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(period))
    images += torch.randn(12, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    shares = []
    for image in images.flatten(0, 1):
        phases = {(i, j): image[i::period, j::period] for i in range(period) for j in range(period)}
        between = sum((phase.mean() - image.mean()) ** 2 for phase in phases.values()) / period**2
        shares.append(between / image.var(unbiased=False))
    assert checkerboard.checkerboard_score(images, period) == pytest.approx(torch.stack(shares).mean().item())
    tile = checkerboard.average_tile(images, period)
    variances = images.var(dim=(2, 3), unbiased=False)
    assert_close((tile.square().mean(dim=(2, 3)) / variances).flatten(), torch.stack(shares))


def test_white_noise_has_its_expected_share():
    noise = torch.randn(2000, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    # The standard error of the mean is about expected / sqrt(1.5 * 2000), 2 per cent.
    assert checkerboard.checkerboard_score(noise) == pytest.approx(3 / 255, rel=0.08)


def test_the_mean_is_over_images_and_channels_and_bytes_count_like_floats():
    i, j = grid(8)
    board, ramp = 100 + 50 * (-1.0) ** (i + j), 100 + 50 * torch.cos(2 * math.pi * i / 8)
    images = torch.stack([torch.stack([board, ramp]), torch.stack([ramp, torch.full_like(ramp, 9)])])
    assert checkerboard.checkerboard_score(images) == pytest.approx(1 / 4)
    assert checkerboard.checkerboard_score(board[None, None].to(torch.uint8)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: checkerboard.overlap_map(4, 4, 0), "stride=0 must be at least 1"),
        (lambda: checkerboard.overlap_map(4, 4, 2, axes=3), "axes=3 must be 1 or 2"),
        (lambda: checkerboard.phase_sums(torch.ones(3, 3), 2), r"weight has shape \(3, 3\)"),
        (lambda: checkerboard.phase_sums(torch.ones(1, 1, 3, 3), 0), "stride=0 must be at least 1"),
        (lambda: checkerboard.phase_sums(torch.ones(1, 1, 3, 3), 2, -1), "padding=-1 must not be negative"),
        (lambda: checkerboard.power_spectrum(torch.ones(4, 4)), r"images have shape \(4, 4\)"),
        (lambda: checkerboard.checkerboard_score(torch.ones(4, 4)), r"images have shape \(4, 4\)"),
        (lambda: checkerboard.checkerboard_score(torch.ones(1, 1, 9, 8)), "period=2 must divide .* 9x8"),
        (lambda: checkerboard.checkerboard_score(torch.ones(1, 1, 8, 8), 0), "period=0 must divide"),
        (lambda: checkerboard.average_tile(torch.ones(1, 1, 8, 9), 4), "period=4 must divide .* 8x9"),
        (lambda: checkerboard.as_transposed_weight(torch.ones(1, 1, 4, 4)), "with odd k"),
        (lambda: checkerboard.as_transposed_weight(torch.ones(3)), "with odd k"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
