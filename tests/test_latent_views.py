"""The walk, the arithmetic and the grid, driven through the events their controls send; and what all views save."""

import base64
import copy
import io
import json
import re

import ipywidgets
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import vivid_generator
from torch.testing import assert_close

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets import LatentArithmetic, LatentGrid, LatentWalk, latent_arithmetic, latent_explorer, latent_grid
from dcgan_lib.widgets import latent_walk as make_walk

LATENT_DIM = 6


@pytest.fixture(scope="module")
def generator():
    return vivid_generator(LATENT_DIM)


@pytest.fixture
def walk(generator):
    made = make_walk(generator, [3, 8], size=32)
    yield made
    made.close()


def start(seed):
    return latent.sample_latent(1, LATENT_DIM, seed)[0]


def pixels(png):
    with Image.open(io.BytesIO(png)) as shown:
        return torch.from_numpy(np.array(shown.convert("RGB"))).permute(2, 0, 1)


def drawn(generator, z):
    return images.as_uint8(latent.generate(generator, z[None]))[0]


def send(control, **state):
    """What the browser sends."""
    control.set_state(state)


# --- walk -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["slerp", "lerp"])
def test_a_walk_shows_every_step_of_its_path(walk, generator, method):
    send(walk.method, index=["slerp", "lerp"].index(method))
    path = latent.walk(torch.stack([start(3), start(8)]), 20, method)
    assert walk.position.max == walk.play.max == 20
    for position in (0, 7, 20):
        send(walk.position, value=position)
        assert_close(walk.z, path[position])
        assert torch.equal(pixels(walk.picture.value), drawn(generator, path[position]))


def test_more_seeds_make_a_longer_walk_and_fewer_do_not_lose_the_picture(walk, generator):
    send(walk.seeds, value="3, 8 11")
    assert walk.position.max == walk.play.max == 40
    send(walk.position, value=40)
    assert torch.equal(pixels(walk.picture.value), drawn(generator, start(11)))
    send(walk.seeds, value="3,8")
    assert walk.position.value == 20
    assert torch.equal(pixels(walk.picture.value), drawn(generator, start(8)))


def test_a_sample_may_be_another_row_of_its_seed(generator):
    rows = latent.sample_latent(18, LATENT_DIM, 4)
    walk = make_walk(generator, [(4, 17), 3], size=32)
    assert walk.seeds.value == "4:17, 3"
    assert_close(walk.z, rows[17])
    send(walk.seeds, value="4:0 4:5")
    send(walk.position, value=20)
    assert_close(walk.z, rows[5])
    walk.close()
    view = latent_arithmetic(generator, [(4, 1), (4, 2)], [3], [(4, 7)], size=100)
    assert_close(view.z, (rows[1] + rows[2]) / 2 - start(3) + rows[7])
    view.close()


@pytest.mark.parametrize(
    "text", ["", "3", "3, x", "3, -1", "3, 1000000", "3, 1.5", "3, ²", "3, 4:", "3, :4", "3, 4:10000", "3, 4:1:1"]
)
def test_what_is_no_list_of_seeds_is_said_and_changes_nothing(walk, text):
    before = walk.picture.value
    send(walk.seeds, value=text)
    assert walk.picture.value == before
    assert "2 or more seeds from 0 to 999999" in walk.status.value
    send(walk.seeds, value="8, 3")
    assert walk.status.value.startswith("length of z")
    assert_close(walk.z, start(8))


def test_playing_moves_the_position_without_the_kernel(walk):
    assert walk._link.source == (walk.play, "value")
    assert walk._link.target == (walk.position, "value")


# --- arithmetic -------------------------------------------------------------------------------------------------------


def test_arithmetic_shows_groups_means_result_and_control(generator):
    a, b, c = [0, 1, 2], [3, 4, 5], [6, 7, 8]
    view = latent_arithmetic(generator, a, b, c, size=200)
    z = [torch.stack([start(seed) for seed in group]) for group in (a, b, c)]
    assert_close(view.z, latent.arithmetic(*z))
    whole = view._drawn(view.groups)
    row, gap = 32, 8
    for index, group in enumerate(z):
        top = index * (row + gap)
        expected = torch.cat([group, latent.mean_latent(group)[None]])
        for place, vector in enumerate(expected):
            left = place * (32 + 2)
            assert torch.equal(whole[:, top : top + 32, left : left + 32], drawn(generator, vector))
    top, block = 3 * (row + gap), 3 * 32 + 2 * 2
    around = latent.generate(generator, latent.neighbours(view.z))
    assert torch.equal(whole[:, top : top + block, :block], images.make_grid(around, 3))
    means = [latent.generate(generator, group).mean(dim=0) for group in z]
    control = images.as_uint8((means[0] - means[1] + means[2])[None].clamp(-1, 1))[0]
    left = block + gap
    assert torch.equal(whole[:, top : top + 32, left : left + 32], control)
    view.close()


def test_other_seeds_give_another_result(generator):
    view = latent_arithmetic(generator, [0], [1], [2], names=["glasses", "none", "hat"], size=100)
    before = view.picture.value
    send(view.boxes[2], value="9 10")
    assert view.picture.value != before
    assert_close(view.z, start(0) - start(1) + (start(9) + start(10)) / 2)
    after = view.picture.value
    send(view.boxes[0], value="nothing")
    assert view.picture.value == after
    assert "1 or more seeds" in view.status.value
    assert [box.description for box in view.boxes] == ["glasses", "none", "hat"]
    view.close()


# --- grid -------------------------------------------------------------------------------------------------------------


def test_a_wall_shows_consecutive_seeds_and_opens_one(generator):
    grid = latent_grid(generator, seed=10, count=5, size=32)
    assert [button.description for button in grid.buttons] == ["10", "11", "12", "13", "14"]
    for seed, sample in zip(range(10, 15), grid.samples, strict=True):
        assert torch.equal(pixels(sample.value), drawn(generator, start(seed)))
    assert torch.equal(pixels(grid.picture.value)[:, :32, 34:66], drawn(generator, start(11)))
    grid.buttons[3].click()
    assert_close(grid.explorer.z, start(13))
    first = grid.explorer
    send(grid.first, value=40)
    assert torch.equal(pixels(grid.samples[1].value), drawn(generator, start(41)))
    grid.buttons[1].click()
    assert_close(grid.explorer.z, start(41))
    assert first._closed
    assert grid._place.children == (grid.explorer.view,)
    grid.close()


# --- all of them ------------------------------------------------------------------------------------------------------

MAKERS = {
    "explorer": lambda generator: latent_explorer(generator, torch.eye(LATENT_DIM)[:2], size=32),
    "walk": lambda generator: make_walk(generator, [0, 1], size=32),
    "arithmetic": lambda generator: latent_arithmetic(generator, size=100),
    "grid": lambda generator: latent_grid(generator, count=4, size=32),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_view_saves_its_vectors_and_its_picture(name, generator, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    view = MAKERS[name](generator)
    for number in (1, 2):
        view.save_z.click()
        assert view.status.value == f"saved latent-{number}.npy"
        view.save_png.click()
        assert view.status.value == f"saved latent-{number}.png"
    assert_close(torch.from_numpy(np.load("latent-2.npy", allow_pickle=False)), view.z)
    assert (tmp_path / "latent-1.png").read_bytes() == view.picture.value
    view.save("mine.npy")
    assert np.load("mine.npy").dtype == np.float32
    view.close()


def test_a_folder_that_takes_no_file_is_said_in_the_status(generator, tmp_path, monkeypatch):
    view = MAKERS["walk"](generator)
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    view.save_z.click()
    assert "latent-1.npy" in view.status.value
    assert "saved" not in view.status.value
    view.close()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", MAKERS)
def test_a_generator_on_a_gpu_draws_there(name, generator):
    moved = copy.deepcopy(generator).cuda()
    ours, theirs = MAKERS[name](generator), MAKERS[name](moved)
    assert next(moved.parameters()).is_cuda
    assert_close(theirs.z, ours.z)
    shown, expected = (pixels(view.picture.value).int() for view in (theirs, ours))
    assert (shown - expected).abs().max() <= 2
    for view in (ours, theirs):
        view.close()


@pytest.mark.parametrize("name", MAKERS)
def test_closing_frees_every_widget(name, generator):
    before = set(ipywidgets.widgets.widget._instances)
    view = MAKERS[name](generator)
    if name == "grid":
        view.buttons[0].click()
    assert len(set(ipywidgets.widgets.widget._instances) - before) > 10
    view.close()
    view.close()
    assert set(ipywidgets.widgets.widget._instances) == before


@pytest.mark.parametrize("name", MAKERS)
def test_stored_output_is_a_view_a_still_and_a_stable_text(name, generator):
    view = MAKERS[name](generator)
    bundle = view._repr_mimebundle_()
    assert json.loads(json.dumps(bundle)) == bundle
    shown, still = pixels(view.picture.value).float(), pixels(base64.b64decode(bundle["image/png"])).float()
    assert max(still.shape) <= 256
    smaller = torch.nn.functional.adaptive_avg_pool2d(shown, still.shape[1:])
    assert (smaller - still).abs().mean() < 6  # few colours
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == view.view.model_id
    assert not re.search("0x|object", bundle["text/plain"])
    view.close()
    assert set(view._repr_mimebundle_()) == {"text/plain", "image/png"}


def test_a_coordinate_of_ones_own_adds_up_with_all_others(generator):
    explorer = MAKERS["explorer"](generator)
    send(explorer.coordinate, value=2)
    send(explorer.change, value=1.5)
    send(explorer.coordinate, value=5)
    assert explorer.change.value == 0
    send(explorer.change, value=-2.0)
    expected = start(0) + torch.tensor([0, 0, 1.5, 0, 0, -2.0])
    assert_close(explorer.z, expected)
    assert torch.equal(pixels(explorer.picture.value), drawn(generator, explorer.z))
    send(explorer.coordinate, value=2)
    assert explorer.change.value == 1.5
    assert_close(explorer.z, expected)
    explorer.reset.click()
    assert_close(explorer.z, start(0))
    assert explorer.change.value == explorer.coordinate.value == 0
    explorer.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda g: LatentWalk(g, [1]), "2 or more seeds"),
        (lambda g: LatentWalk(g, [1, -2]), "2 or more seeds"),
        (lambda g: LatentWalk(g, [1, 2], size=0), "size"),
        (lambda g: LatentArithmetic(g, [], [1], [2]), "1 or more seeds"),
        (lambda g: LatentArithmetic(g, [1], [1], [2], names=["one"]), "three names"),
        (lambda g: LatentGrid(g, seed=999_999, count=2), "seeds go from 0"),
        (lambda g: LatentGrid(g, count=0), "1 to 100 samples"),
    ],
)
def test_bad_arguments_are_one_line_and_leave_no_widgets(generator, make, message):
    before = set(ipywidgets.widgets.widget._instances)
    with pytest.raises(UserError, match=message) as caught:
        make(generator)
    assert "\n" not in str(caught.value)
    assert set(ipywidgets.widgets.widget._instances) == before
