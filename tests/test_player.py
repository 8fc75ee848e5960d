"""The player of a small GAN, driven through the events its controls send."""

import base64
import io
import json
import math

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib.errors import UserError
from dcgan_lib.plots.ring import ring_frame
from dcgan_lib.ring import Ring, RingConfig, RingGAN
from dcgan_lib.widgets import MOST_STEPS, GanPlayer, gan_player

CONFIG = RingConfig(batch_size=16, latent_dim=3, hidden=8, seed=2)


@pytest.fixture
def game():
    return RingGAN(Ring(), CONFIG)


@pytest.fixture
def player(game):
    made = gan_player(game)
    yield made
    made.close()


def stepped(d_and_g=0, d=0, g=0):
    """A game of its own, stepped without the player."""
    game = RingGAN(Ring(), CONFIG)
    for _ in range(d_and_g):
        game.step()
    for _ in range(d):
        game.step_discriminator()
    for _ in range(g):
        game.step_generator()
    return game


def parameters(game):
    return [*game.generator.state_dict().values(), *game.discriminator.state_dict().values()]


def assert_same(game, other):
    assert game.steps == other.steps
    assert all(torch.equal(a, b) for a, b in zip(parameters(game), parameters(other), strict=True))


def assert_shows(player, game, **layers):
    """The PNG in the browser is a drawing of the game's frame, and the status says it in words."""
    drawn = io.BytesIO()
    frame = game.frame()
    ring_frame(frame, **layers).savefig(drawn, format="png", dpi=90)
    with Image.open(io.BytesIO(player.picture.value)) as shown, Image.open(drawn) as expected:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(expected))
    assert f"Steps of D: {game.d_steps:,}, of G: {game.g_steps:,}." in player.status.value
    assert f"{frame.coverage.modes} of 8 modes covered" in player.status.value
    assert f"{100 * frame.coverage.good:.0f} % of the points good" in player.status.value
    assert f"Loss of D {frame.d_loss:.2f}, of G {frame.g_loss:.2f}." in player.status.value


def test_it_opens_on_the_game_as_it_is(player):
    assert_shows(player, stepped())
    trained = gan_player(stepped(5))
    assert_shows(trained, stepped(5))
    trained.close()


def test_the_buttons_step_one_network_or_both(player):
    player.d_step.click()
    assert_same(player.game, stepped(d=1))
    assert_shows(player, stepped(d=1))
    player.g_step.click()
    assert_same(player.game, stepped(1))
    player.both.click()
    assert_same(player.game, stepped(2))
    assert_shows(player, stepped(2))
    assert (player.history.value, player.history.max) == (3, 3)


def test_a_click_takes_as_many_steps_as_the_box_says(player):
    player.count.value = 4
    player.both.click()
    assert_same(player.game, stepped(4))
    player.g_step.click()
    assert_same(player.game, stepped(4, g=4))
    assert player.history.max == 2


def test_the_box_holds_only_what_a_click_may_take(player):
    player.count.value = 0
    assert player.count.value == 1
    player.count.value = 10**6
    assert player.count.value == MOST_STEPS == 500


def test_the_slider_goes_back_and_the_game_with_it(player):
    for _ in range(3):
        player.both.click()
    player.history.set_state({"value": 1})  # what the page sends when a reader drags the slider
    assert_same(player.game, stepped(1))
    assert_shows(player, stepped(1))
    assert player.frame.g_steps == 1
    player.history.value = 3
    assert_same(player.game, stepped(3))
    assert_shows(player, stepped(3))


def test_a_step_from_an_earlier_moment_forgets_the_later_ones_and_is_exact(player):
    for _ in range(4):
        player.both.click()
    player.history.value = 2
    player.d_step.click()
    assert (player.history.value, player.history.max) == (3, 3)
    assert_same(player.game, stepped(2, d=1))
    assert_shows(player, stepped(2, d=1))
    player.g_step.click()
    assert_same(player.game, stepped(3))


def test_play_steps_both_until_it_is_paused(player):
    player.count.value = 2
    player.play.set_state({"value": True})
    assert player._turns.playing
    assert player.play.description == "Pause"
    for turn in (1, 2):  # the browser counts the turns
        player._turns.set_state({"value": turn})
    assert_same(player.game, stepped(4))
    player._turns.set_state({"value": 7})  # turns that the browser held back while a picture was drawn are one
    assert_same(player.game, stepped(6))
    assert_shows(player, stepped(6))
    player.play.set_state({"value": False})
    assert not player._turns.playing
    assert player.play.description == "Play"
    player._turns.set_state({"value": 8})  # was on its way
    assert_same(player.game, stepped(6))


def test_reset_goes_back_to_the_first_moment_and_draws_once(player, monkeypatch):
    beginning = player.picture.value
    player.play.value = True
    for _ in range(3):
        player.both.click()
    drawn = []
    redraw = GanPlayer._redraw
    monkeypatch.setattr(GanPlayer, "_redraw", lambda self: drawn.append(1) or redraw(self))
    player.reset.click()
    assert player.picture.value == beginning
    assert len(drawn) == 1
    assert (player.history.value, player.history.max) == (0, 0)
    assert not player._turns.playing
    assert_same(player.game, stepped())
    player.both.click()
    assert_same(player.game, stepped(1))
    assert len(drawn) == 2


@pytest.mark.parametrize("layer", ["surface", "arrows", "real"])
def test_a_layer_can_be_left_out(player, layer):
    player.both.click()
    player.layers[layer].value = False
    assert_shows(player, stepped(1), **{layer: False})
    player.layers[layer].value = True
    assert_shows(player, stepped(1))


def test_the_history_is_bounded_and_spans_the_whole_game(game):
    player = gan_player(game, moments=4)
    for _ in range(12):
        player.both.click()
        assert player.history.max < 4
        assert player.history.value == player.history.max
    player.history.value = 0
    assert_same(game, stepped())
    kept = []
    for moment in range(player.history.max + 1):
        player.history.value = moment
        kept.append(game.g_steps)
        assert_same(game, stepped(game.g_steps))
    assert kept == sorted(set(kept))
    assert kept[-1] == 12
    player.close()


def test_an_interrupted_click_leaves_the_game_as_the_picture_shows_it(player, monkeypatch):
    player.both.click()
    player.count.value = 100

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(player.game, "step_generator", interrupted)
    with pytest.raises(KeyboardInterrupt):
        player._take(1, 1)
    monkeypatch.undo()
    assert_same(player.game, stepped(1))
    assert player.history.max == 1
    assert not player.both.disabled
    player.count.value = 1
    player.both.click()
    assert_same(player.game, stepped(2))


def test_the_buttons_are_off_while_many_steps_are_taken(player, monkeypatch):
    seen = []
    step = player.game.step_generator
    monkeypatch.setattr(player.game, "step_generator", lambda: seen.append(player.g_step.disabled) or step())
    player.g_step.click()
    player.count.value = 100
    player.g_step.click()
    assert seen == [False] + 100 * [True]
    assert not player.g_step.disabled


def test_a_game_that_diverges_says_so(player):
    with torch.no_grad():
        player.game.discriminator[0][0].weight.fill_(math.nan)
    player.g_step.click()
    assert "diverged" in player.status.value
    player.history.value = 0
    assert_shows(player, stepped())


def test_every_control_has_a_name(player):
    for control in (player.d_step, player.g_step, player.both, player.play, player.reset, player.count, player.history):
        assert control.description
        assert control.tooltip
    assert [box.description for box in player.layers.values()]
    # With a tooltip, ipywidgets 8.1 shows "Click to show javascript error" instead of the picture.
    assert player.picture.tooltip is None


def test_two_on_one_page_do_not_touch_each_other(player):
    other = gan_player(stepped())
    shown = other.picture.value
    player.both.click()
    assert other.picture.value == shown
    other.close()
    player.both.click()
    assert_shows(player, stepped(2))


def test_close_frees_every_widget_and_the_history(game):
    before = set(ipywidgets.widgets.widget._instances)
    player = gan_player(game)
    player.both.click()
    assert len(set(ipywidgets.widgets.widget._instances) - before) > 20
    still = player.picture.value
    player.close()
    player.close()
    assert set(ipywidgets.widgets.widget._instances) == before
    assert not player._moments
    for button in (player.d_step, player.g_step, player.both, player.reset):
        button.click()
    player.play.value = True
    player._turns.value, player.layers["real"].value = 5, False
    assert player.picture.value == still
    assert_same(game, stepped(1))


def test_output_is_a_view_a_still_and_a_stable_text(player):
    bundle = player._repr_mimebundle_(include=None, exclude=None)
    assert json.loads(json.dumps(bundle)) == bundle
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == player.view.model_id
    still = base64.b64decode(bundle["image/png"])
    assert len(still) < 0.6 * len(player.picture.value)
    with Image.open(io.BytesIO(still)) as stored, Image.open(io.BytesIO(player.picture.value)) as shown:
        difference = np.asarray(stored.convert("RGB"), float) - np.asarray(shown.convert("RGB"), float)
    assert np.abs(difference).mean() < 1.5  # of 255
    assert bundle["text/plain"] == "GanPlayer(8 modes, loss='non_saturating')"
    player.close()
    assert set(player._repr_mimebundle_()) == {"text/plain", "image/png"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("not a game",), "game .* got str"),
        ((None, 1), "game .* NoneType"),
        ((RingGAN(Ring(), CONFIG), 1), "moments .* got 1"),
        ((RingGAN(Ring(), CONFIG), 2.5), "moments .* got 2.5"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_and_leave_no_widgets(arguments, message):
    before = set(ipywidgets.widgets.widget._instances)
    with pytest.raises(UserError, match=message) as caught:
        gan_player(*arguments)
    assert "\n" not in str(caught.value)
    assert set(ipywidgets.widgets.widget._instances) == before
