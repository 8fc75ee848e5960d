"""What the figures of the ring show is what the frames hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.quiver import Quiver
from numpy.testing import assert_allclose

from dcgan_lib import plots
from dcgan_lib.errors import UserError
from dcgan_lib.plots.ring import SURFACE
from dcgan_lib.ring import Coverage, RingConfig, RingGAN, record


@pytest.fixture(scope="module")
def frames():
    game = RingGAN(config=RingConfig(batch_size=16, hidden=8, latent_dim=3))
    return record(game, steps=6, every=2, points=12, resolution=5)


def drawn(axis):
    """Points by label, and the arrows' (x, y, u, v) or None."""
    points = {
        scatter.get_label(): scatter.get_offsets() for scatter in axis.collections if scatter.get_label()[0] != "_"
    }
    quivers = [artist for artist in axis.collections if isinstance(artist, Quiver)]
    return points, (np.stack([quivers[0].X, quivers[0].Y, quivers[0].U, quivers[0].V], axis=1) if quivers else None)


def test_a_frame_is_drawn_as_it_is(frames):
    frame = frames[-1]
    axis = plots.ring_frame(frame).axes[0]
    (image,) = axis.images
    assert_allclose(image.get_array(), frame.surface.numpy())
    assert image.origin == "lower"
    # A grid of 5 points from -3 to 3 has cells of 1.5, and the outer points are the middles of cells.
    assert image.get_extent() == pytest.approx([-3.75, 3.75, -3.75, 3.75])
    assert (axis.get_xlim(), axis.get_ylim()) == ((-3, 3), (-3, 3))
    points, arrows = drawn(axis)
    assert_allclose(points["real"], frame.real.numpy())
    assert_allclose(points["generated"], frame.fake.numpy())
    assert_allclose(arrows[:, :2], frame.fake.numpy(), rtol=1e-6)
    true = frame.arrows[:, 2:].numpy()
    longest = np.linalg.norm(true, axis=1).max()
    assert_allclose(arrows[:, 2:], true * (0.22 * 3 / longest), rtol=1e-5)
    assert f"after 6 steps: {frame.coverage.modes} of 8 modes" == axis.get_title("center")


def test_the_colours_say_which_side_d_takes():
    low, middle, high = (np.array(SURFACE(value)[:3]) for value in (0.0, 0.5, 1.0))
    assert np.argmax(low) == 2
    assert np.argmax(high) == 1
    assert middle.min() > 0.98


def test_small_maps_have_fewer_arrows_and_all_points(frames):
    points, arrows = drawn(plots.ring_frames(dict.fromkeys("abcd", frames[-1]), columns=4).axes[0])
    assert len(points["generated"]) == len(points["real"]) == 12
    assert_allclose(arrows[:, :2], frames[-1].arrows[: len(arrows), :2].numpy(), rtol=1e-6)
    assert 3 < len(arrows) < 9


def test_layers_can_be_left_out(frames):
    points, arrows = drawn(plots.ring_frame(frames[-1], surface=False, arrows=False, real=False).axes[0])
    assert set(points) == {"generated"}
    assert arrows is None
    figure = plots.ring_frame(frames[-1], surface=False)
    assert len(figure.axes) == 1
    assert not figure.axes[0].images


def test_a_frame_goes_into_given_axes_and_without_gradients_draws_no_arrows(frames):
    figure, axis = plots.subplots()
    flat = replace(frames[-1], arrows=torch.zeros(4, 4), d_steps=9)
    assert plots.ring_frame(flat, axis) is figure
    assert drawn(axis)[1] is None
    assert axis.get_title("center").startswith("D 9, G 6 steps:")


def test_several_frames_share_a_colour_bar(frames):
    figure = plots.ring_frames({str(frame.g_steps): frame for frame in frames}, columns=3)
    titles = [axis.get_title("center") for axis in figure.axes]
    assert titles[:4] == ["0", "2", "4", "6"]
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert len(bars) == 1
    assert bars[0].get_title("left") == "D(x)"
    assert len(figure.axes) == 2 * 3 + 1


def test_history_draws_every_run(frames):
    # So few steps reach no mode: coverage is made up.
    frames = [replace(frame, coverage=Coverage(n, n / 10, ())) for n, frame in enumerate(frames)]
    figure = plots.ring_history({"one": frames, "two": frames[:2]})
    values = [
        [frame.coverage.modes for frame in frames],
        [100 * frame.coverage.good for frame in frames],
        [frame.d_loss for frame in frames],
        [frame.g_loss for frame in frames],
    ]
    for axis, expected in zip(figure.axes, values, strict=True):
        one, two = axis.lines
        assert_allclose(one.get_xdata(), [0, 2, 4, 6])
        assert_allclose(one.get_ydata(), expected)
        assert_allclose(two.get_ydata(), expected[:2])
        assert one.get_linestyle() != two.get_linestyle()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda frames: plots.ring_frames({}), "frames"),
        (lambda frames: plots.ring_frames({"a": frames[0]}, columns=0), "columns .* got 0"),
        (lambda frames: plots.ring_frames({"a": frames[0]}, columns=1.5), "columns .* got 1.5"),
        (lambda frames: plots.ring_frames(frames[:1]), "frames must map titles to frames"),
        (lambda frames: plots.ring_frames({"a": 3}), "frames.'a'. must be a Frame, got 3"),
        (lambda frames: plots.ring_frame("first"), "frame must be a Frame, got 'first'"),
        (lambda frames: plots.ring_frame(frames[0], "left"), "axis must be an Axes, .* got str"),
        (lambda frames: plots.ring_history(frames), "runs must map names to frames"),
        (lambda frames: plots.ring_history({"a": [1]}), "runs.'a'..0. must be a Frame, got 1"),
        (lambda frames: plots.ring_history({}), "runs .* got 0"),
        (lambda frames: plots.ring_history({str(n): frames for n in range(6)}), "runs .* got 6"),
        (lambda frames: plots.ring_history({"a": []}), "runs must have frames; 'a' is .."),
    ],
)
def test_mistakes_are_named(frames, call, message):
    with pytest.raises(UserError, match=message):
        call(frames)
