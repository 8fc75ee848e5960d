"""The explorer, driven through the events its controls send."""

import base64
import io
import json

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import vivid_generator
from torch.testing import assert_close

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets import MAX_SEED, LatentExplorer, latent_explorer

LATENT_DIM = 6


@pytest.fixture(scope="module")
def generator():
    return vivid_generator(LATENT_DIM)


@pytest.fixture
def explorer(generator):
    directions = torch.eye(LATENT_DIM)[:3]
    made = latent_explorer(generator, directions, ["hat", "fur", "eyes"], seed=4, size=64)
    yield made
    made.close()


def start(seed):
    return latent.sample_latent(1, LATENT_DIM, seed)[0]


def assert_shows(explorer, generator, z):
    """The PNG in the browser is the image of ``z``, each pixel twice as wide and high."""
    expected = images.as_uint8(latent.generate(generator, z[None]))[0].permute(1, 2, 0).numpy()
    with Image.open(io.BytesIO(explorer.picture.value)) as shown:
        np.testing.assert_array_equal(np.asarray(shown), expected.repeat(2, axis=0).repeat(2, axis=1))


def test_it_opens_on_the_first_sample_of_the_seed(explorer, generator):
    assert_close(explorer.z, start(4))
    assert_shows(explorer, generator, start(4))
    assert_close(explorer.image, latent.sample(generator, 1, 4)[0])


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_slider_moves_along_its_direction(explorer, generator, index):
    before = explorer.picture.value
    explorer.sliders[index].value = 1.5
    assert explorer.picture.value != before
    expected = start(4)
    expected[index] += 1.5
    assert_shows(explorer, generator, expected)


def test_sliders_add_up_and_carry_their_names(explorer, generator):
    explorer.sliders[0].value, explorer.sliders[2].value = -2.0, 0.5
    assert_shows(explorer, generator, start(4) + torch.tensor([-2.0, 0, 0.5, 0, 0, 0]))
    assert [slider.description for slider in explorer.sliders] == ["hat", "fur", "eyes"]
    for control in (explorer.seed_a, explorer.seed_b, explorer.interpolation, *explorer.sliders):
        assert control.description
        assert control.tooltip


def test_a_browser_message_redraws(explorer, generator):
    # What the page sends when a reader drags the slider.
    explorer.sliders[1].set_state({"value": -3.0})
    assert_shows(explorer, generator, start(4) + torch.tensor([0, -3.0, 0, 0, 0, 0]))


def test_interpolation_is_slerp_between_the_two_seeds(explorer, generator):
    explorer.seed_b.value = 77
    assert_shows(explorer, generator, start(4))
    explorer.interpolation.value = 0.3
    assert_shows(explorer, generator, latent.slerp(start(4), start(77), 0.3))
    explorer.interpolation.value = 1.0
    assert_shows(explorer, generator, start(77))
    explorer.seed_b.value = 78
    assert_shows(explorer, generator, start(78))


def test_the_picture_has_no_tooltip(explorer):
    # With one, ipywidgets 8.1 shows "Click to show javascript error" instead of the picture (updateTooltip, ImageView).
    assert explorer.picture.tooltip is None


def test_status_gives_the_length_of_z(explorer):
    explorer.sliders[0].value = 4.0
    assert explorer.status.value == f"length of z: {explorer.z.norm():.1f} (typical: 2.4)"


def test_shuffle_draws_new_seeds_and_shows_them(explorer, generator):
    explorer.sliders[0].value = 1.0
    drawn = set()
    for _ in range(5):
        explorer.shuffle.click()
        drawn.add((explorer.seed_a.value, explorer.seed_b.value))
        assert_shows(explorer, generator, start(explorer.seed_a.value) + torch.eye(LATENT_DIM)[0])
    assert len(drawn) > 1


def test_reset_goes_back_to_the_beginning_and_draws_once(explorer, monkeypatch):
    beginning = explorer.picture.value
    explorer.shuffle.click()
    explorer.interpolation.value = 0.5
    for slider in explorer.sliders:
        slider.value = 2.0
    assert explorer.picture.value != beginning
    drawn = []
    make = latent.generate
    monkeypatch.setattr(latent, "generate", lambda *a: drawn.append(1) or make(*a))
    explorer.reset.click()
    assert explorer.picture.value == beginning
    assert len(drawn) == 1


def test_seed_boxes_hold_only_seeds(explorer):
    explorer.seed_a.value = -5
    assert explorer.seed_a.value == 0
    explorer.seed_a.value = 10**9
    assert explorer.seed_a.value == MAX_SEED


def test_two_on_one_page_do_not_touch_each_other(explorer, generator):
    other = latent_explorer(generator, torch.eye(LATENT_DIM)[:1], seed=4, size=64)
    shown = other.picture.value
    explorer.sliders[0].value = 2.0
    assert other.picture.value == shown
    other.close()
    explorer.sliders[0].value = 1.0
    assert_shows(explorer, generator, start(4) + torch.eye(LATENT_DIM)[0])


def test_close_frees_every_widget_and_stops_drawing(generator):
    before = set(ipywidgets.widgets.widget._instances)
    explorer = latent_explorer(generator, torch.eye(LATENT_DIM)[:2])
    assert len(set(ipywidgets.widgets.widget._instances) - before) > 10
    still = explorer.picture.value
    explorer.close()
    explorer.close()
    assert set(ipywidgets.widgets.widget._instances) == before
    explorer.sliders[0].value = 3.0
    assert explorer.picture.value == still


def test_output_is_a_view_a_still_and_a_stable_text(explorer):
    bundle = explorer._repr_mimebundle_(include=None, exclude=None)
    assert json.loads(json.dumps(bundle)) == bundle
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.view.model_id
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")  # test_latent_views.py looks at it
    assert bundle["text/plain"] == "LatentExplorer(3 directions, latent_dim=6)"
    explorer.close()
    assert set(explorer._repr_mimebundle_()) == {"text/plain", "image/png"}


def test_default_directions_are_the_principal_ones(generator):
    explorer = latent_explorer(generator)
    assert_close(explorer.directions, latent.principal_directions(generator, n=256, k=6))
    assert explorer.sliders[5].description == "direction 6"
    explorer.close()


def test_the_generator_stays_in_its_mode(generator):
    generator.train()
    explorer = latent_explorer(generator, torch.eye(LATENT_DIM)[:1], size=64)
    assert generator.training
    assert_shows(explorer, generator, start(0))
    generator.eval()
    explorer.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"directions": torch.zeros(2, 5)}, r"\(K, 6\)"),
        ({"directions": torch.zeros(6)}, r"\(K, 6\)"),
        ({"directions": torch.zeros(0, 6)}, r"\(K, 6\)"),
        ({"directions": torch.full((1, 6), float("inf"))}, "infinity"),
        ({"directions": torch.zeros(2, 6), "direction_names": ["one"]}, "2 names"),
        ({"seed": -1}, "seed"),
        ({"seed": 10**6}, "seeds from 0"),
        ({"size": 0}, "size"),
    ],
)
def test_bad_arguments_are_refused_in_one_line_and_leave_no_widgets(generator, arguments, message):
    before = set(ipywidgets.widgets.widget._instances)
    with pytest.raises(UserError, match=message) as caught:
        LatentExplorer(generator, **arguments)
    assert "\n" not in str(caught.value)
    assert set(ipywidgets.widgets.widget._instances) == before
