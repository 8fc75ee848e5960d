"""The arrows of a phase plane are the field's, to scale; the paths lie where they were."""

from __future__ import annotations

import numpy as np
import pytest

from dcgan_lib.errors import UserError
from dcgan_lib.games import BilinearGame
from dcgan_lib.plots.games import draw_phase_plane
from dcgan_lib.plots.look import subplots


def test_arrows_and_paths_are_those_of_the_game():
    game = BilinearGame()
    path = game.trajectory((1.0, 0.5), 20, 0.1)
    figure, axis = subplots()
    draw_phase_plane(axis, game.vector_field, {"alternating": path}, extent=2.0, arrows=5)
    (arrows,) = axis.collections
    field = game.vector_field(arrows.X, arrows.Y).reshape(-1, 2)
    drawn = np.stack([arrows.U, arrows.V], axis=-1).reshape(-1, 2)
    length = np.linalg.norm(drawn, axis=1, keepdims=True)
    # The direction is the field's, the length its root's, and the longest fills the space between two arrows.
    np.testing.assert_allclose(
        drawn * length, 2.0 / 3 * 2.0 / 3 * field / np.linalg.norm(field, axis=1).max(), atol=1e-12
    )
    assert arrows.X.size == 25
    assert np.abs(arrows.X).max() < 2.0
    np.testing.assert_allclose(axis.lines[0].get_xydata(), path)
    np.testing.assert_allclose(axis.lines[1].get_xydata(), path[:1])  # the start
    assert axis.get_aspect() == 1
    figure.canvas.draw()


def test_a_field_that_vanishes_everywhere_can_be_drawn():
    figure, axis = subplots()
    draw_phase_plane(axis, lambda theta, psi: np.zeros((*np.shape(theta), 2)))
    assert not axis.collections[0].U.any()
    figure.canvas.draw()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"extent": 0.0}, "extent must be a number above 0; got 0.0"),
        ({"extent": "wide"}, "extent must be a number above 0; got 'wide'"),
        ({"arrows": 1}, "arrows must be a whole number, at least 2 .*; got 1"),
        ({"arrows": 2.5}, "arrows must be a whole number.*; got 2.5"),
        ({"paths": [np.zeros((2, 2))]}, "paths must map labels to points; got list"),
        ({"paths": {"a": np.zeros((3, 3))}}, r"paths must have shape \(N, 2\) .*; 'a' has \(3, 3\)"),
        ({"paths": {"a": np.zeros((0, 2))}}, r"paths must have shape \(N, 2\) .*; 'a' has \(0, 2\)"),
        ({"axis": None}, "axis must be an Axes, .*; got NoneType"),
        ({"field": 3}, "field must be a function .*; got 3"),
        ({"field": lambda theta, psi: theta}, r"field must return shape \(11, 11, 2\); got \(11, 11\)"),
        ({"paths": {str(i): np.zeros((2, 2)) for i in range(6)}}, "paths must be at most 5; got 6"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    _, axis = subplots()
    with pytest.raises(UserError, match=message):
        draw_phase_plane(**{"axis": axis, "field": BilinearGame().vector_field} | arguments)
