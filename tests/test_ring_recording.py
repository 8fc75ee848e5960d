"""Recorded games: packing loses no more than it says, and the page's file holds what the games did."""

import base64
import copy
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from dcgan_lib.errors import UserError
from dcgan_lib.ring import CONFIGS, Ring, RingConfig, RingGAN, record
from dcgan_lib.ring_recording import RecordedRun, pack_runs, unpack_real, unpack_runs

PAGE = Path(__file__).parent.parent / "book" / "explorers" / "ring-runs.json"
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results" / "ring-runs.json"
HALF_A_BYTE = 3.0 / 255 + 1e-6  # of a place between -3 and 3


@pytest.fixture(scope="module")
def frames():
    game = RingGAN(config=RingConfig(batch_size=16, hidden=8, latent_dim=3))
    return record(game, steps=9, every=3, points=12, resolution=5)


@pytest.fixture(scope="module")
def page():
    return json.loads(PAGE.read_text(encoding="utf-8"))


def run(frames, name="a"):
    return RecordedRun(name, "A title", "A summary.", frames)


def test_unpacking_gives_back_what_was_packed(frames):
    (unpacked,) = unpack_runs(json.loads(json.dumps(pack_runs([run(frames)]))))
    assert (unpacked.name, unpacked.title, unpacked.summary) == ("a", "A title", "A summary.")
    assert unpacked.steps.tolist() == [0, 3, 6, 9]
    assert unpacked.modes.tolist() == [frame.coverage.modes for frame in frames]
    assert_allclose(unpacked.good, [frame.coverage.good for frame in frames], atol=5e-5)
    assert_allclose(unpacked.d_loss, [frame.d_loss for frame in frames], atol=5.1e-4)
    assert_allclose(unpacked.g_loss, [frame.g_loss for frame in frames], atol=5.1e-4)
    for index, frame in enumerate(frames):
        assert_allclose(unpacked.fake[index], frame.fake.numpy(), atol=HALF_A_BYTE)
        assert_allclose(unpacked.surface[index], frame.surface.numpy(), atol=(4.5 if index else 0.5) / 255 + 1e-6)
        assert_allclose(unpacked.arrows[index][:, :2], frame.fake.numpy(), atol=HALF_A_BYTE)
        direction = frame.arrows[:, 2:].numpy()
        longest = np.linalg.norm(direction, axis=1).max()
        assert_allclose(unpacked.arrows[index][:, 2:], direction / longest, atol=0.51 / 127)


def test_the_bytes_are_those_of_the_format(frames):
    """Written out from the format's description, for one point, one cell and one arrow of the second frame."""
    packed = pack_runs([run(frames)])
    assert {name: packed[name] for name in ("format", "extent", "points", "resolution", "arrows")} == {
        "format": 1,
        "extent": 3.0,
        "points": 12,
        "resolution": 5,
        "arrows": 12,
    }
    data = list(zlib.decompress(base64.b64decode(packed["runs"][0]["frames"])))
    size = 2 * 12 + 25 + 4 * 12
    assert len(data) == 4 * size
    second = [(data[i] + data[size + i]) % 256 for i in range(size)]
    frame = frames[1]
    x, y = frame.fake[7].tolist()
    assert second[14:16] == [round((x + 3) / 6 * 255), round((y + 3) / 6 * 255)]
    assert abs(second[24 + 5 * 1 + 3] - 255 * float(frame.surface[1, 3])) <= 4.51
    direction = frame.arrows[:, 2:]
    dx, dy = (direction[2] / direction.norm(dim=1).max() * 127).tolist()
    assert second[49 + 8 + 2 : 49 + 8 + 4] == [round(dx) + 128, round(dy) + 128]
    assert packed["radius_of_good"] == 0.3
    assert_allclose(packed["centres"], Ring().centres.numpy(), atol=1e-4)
    assert_allclose(unpack_real(packed), frames[0].real.numpy(), atol=HALF_A_BYTE)


def test_points_outside_the_square_lie_on_its_border(frames):
    outside = torch.tensor([[9.0, 0.0], [-3.5, -99.0], [float("nan"), 0.0]]).repeat(4, 1)
    (unpacked,) = unpack_runs(pack_runs([run([replace(frames[0], fake=outside)])]))
    assert_allclose(unpacked.fake[0][:2], [[3, 0], [-3, -3]], atol=HALF_A_BYTE)


def test_without_gradients_arrows_have_no_length(frames):
    flat = torch.cat([frames[0].fake, torch.zeros(12, 2)], dim=1)
    (unpacked,) = unpack_runs(pack_runs([run([replace(frames[0], arrows=flat)])]))
    assert_allclose(unpacked.arrows[0][:, 2:], 0.0)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (lambda frames: [], "at least one frame, got ..$"),
        (lambda frames: [run([])], "each with at least one frame"),
        (lambda frames: frames, "must hold RecordedRuns"),
        (lambda frames: [run(frames), run(frames)], "different names, got (.*), "),
        (lambda frames: [run([frames[0], replace(frames[1], fake=frames[1].fake[:5])])], "2 kinds"),
        (lambda frames: [run(frames), run(frames[:2], "b")], "same steps"),
    ],
)
def test_runs_that_do_not_fit_together_are_refused(frames, runs, message):
    with pytest.raises(UserError, match=message):
        pack_runs(runs(frames))


def test_a_damaged_file_is_refused(frames):
    packed = pack_runs([run(frames)])
    with pytest.raises(UserError, match="format must be 1, got 2"):
        unpack_runs(packed | {"format": 2})
    shorter = copy.deepcopy(packed)
    shorter["runs"][0]["steps"].pop()
    with pytest.raises(UserError, match=r"must have 291 bytes, got 388"):
        unpack_runs(shorter)
    spoilt = copy.deepcopy(packed)
    for text, message in (("!!", "must be base64 of a zlib stream"), ("AAAA", "must be base64 of a zlib stream")):
        spoilt["runs"][0]["frames"] = text
        with pytest.raises(UserError, match=message):
            unpack_runs(spoilt)
    with pytest.raises(UserError, match=r"packed must be a dictionary as from .*\.pack_runs, got one without extent$"):
        unpack_runs({key: value for key, value in packed.items() if key != "extent"})
    with pytest.raises(UserError, match=r"got one without real, extent$"):
        unpack_real({})
    spoilt["runs"][0].pop("good")
    with pytest.raises(UserError, match=r"each of packed\['runs'\] must be .*, got one without good$"):
        unpack_runs(spoilt)
    with pytest.raises(UserError, match=r"packed must be a dictionary .*, got 'file'"):
        unpack_runs("file")


def test_the_pages_file_keeps_its_budget(page):
    assert 100_000 < PAGE.stat().st_size <= 330_000
    assert page["points"] == 256
    assert [stored["name"] for stored in page["runs"]] == ["collapsing", "repaired"]
    for stored in page["runs"]:
        assert len(stored["steps"]) >= 200
        assert stored["steps"] == page["runs"][0]["steps"] == sorted(set(stored["steps"]))
        assert stored["title"]
        assert stored["summary"].endswith(".")


def test_the_pages_numbers_follow_from_its_points(page):
    """Coverage counted anew, in NumPy, from the points that are drawn."""
    centres, radius = np.array(page["centres"]), page["radius_of_good"]
    for stored in unpack_runs(page):
        distance = np.linalg.norm(stored.fake[:, :, None] - centres, axis=-1)
        # A point moved by rounding may cross the circle; in whole frames few do.
        surely, perhaps = ((distance <= radius + sign * np.sqrt(2) * HALF_A_BYTE) for sign in (-1, 1))
        assert (surely.any(axis=2).mean(axis=1) <= stored.good + 5e-5).all()
        assert (perhaps.any(axis=2).mean(axis=1) >= stored.good - 5e-5).all()
        assert (surely.any(axis=1).sum(axis=1) <= stored.modes).all()
        assert (perhaps.any(axis=1).sum(axis=1) >= stored.modes).all()
        assert_allclose((distance <= radius).any(axis=2).mean(axis=1), stored.good, atol=0.04)


def test_the_pages_runs_tell_what_their_titles_promise(page):
    failing, repaired = unpack_runs(page)
    late = failing.steps >= 1000
    assert failing.modes[late].max() <= 5
    assert failing.modes[late].min() >= 1
    assert (repaired.modes[late] == 8).all()
    assert repaired.good[-1] > 0.6
    # The surface lies on the square whose border the first and last grid points are on: D knows the ring's outside.
    assert repaired.surface.shape[1:] == (28, 28)
    assert 0.3 < repaired.surface[-1].mean() < 0.6


def test_the_page_shows_the_games_of_this_package(page):
    """The first frames again: later ones differ between processors, which such a game amplifies."""
    for stored in unpack_runs(page):
        game = RingGAN(config=CONFIGS[stored.name])
        for index in range(4):
            while game.g_steps < stored.steps[index]:
                game.step()
            frame = game.frame(256, 28, 20)
            assert_allclose(stored.fake[index], frame.fake.numpy().clip(-3, 3), atol=HALF_A_BYTE + 2e-3)
            assert_allclose(stored.surface[index], frame.surface.numpy(), atol=4.5 / 255 + 2e-3)
        assert_allclose(unpack_real(page), frame.real.numpy().clip(-3, 3), atol=HALF_A_BYTE)


def test_the_results_over_seeds_belong_to_the_named_settings():
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert len(results["seeds"]) >= 10
    for name, stored in results["runs"].items():
        assert RingConfig(**stored["config"]) == CONFIGS[name]
        last = np.array(stored["modes"])[:, -1]
        assert len(last) == len(results["seeds"])
        good = np.array(stored["good"])[:, -1]
        if name == "collapsing":
            assert last.max() <= 4
            assert last.min() >= 1
        else:
            assert (last == 8).all()
            assert ((good > {"healthy": 0.9, "repaired": 0.7}[name]) & (good < 0.99)).all()
    assert set(results["runs"]) == set(CONFIGS)


def test_the_pages_runs_show_what_the_chapter_says_of_them(page):
    collapsing, repaired = unpack_runs(page)
    early = collapsing.steps <= 40
    assert collapsing.d_loss[early].min() < 0.05
    assert repaired.d_loss.min() > 0.15  # its border is never sharp: D is never that sure
    # At the end of the parting one cloud is below, the other all round.
    parted = int(np.searchsorted(collapsing.steps, 160))
    left, right = (np.degrees(np.arctan2(*run.fake[parted].T[::-1])) for run in (collapsing, repaired))
    assert (left < 0).mean() > 0.95
    assert min(np.histogram(right, np.arange(-180, 181, 90))[0]) > 15
    # At the last step: nearly all points on one mode and a few on two; five modes that D is sure of. On the other side
    # points on all, and a D in doubt at every centre.
    centres = np.array(page["centres"])
    cells = np.rint((centres + 3) / 6 * (page["resolution"] - 1)).astype(int)
    counts, certain = [], []
    for run in (collapsing, repaired):
        distance = np.linalg.norm(run.fake[-1][:, None] - centres, axis=-1)
        good = distance.min(axis=1) <= page["radius_of_good"]
        counts.append(np.bincount(distance.argmin(axis=1)[good], minlength=8))
        certain.append(run.surface[-1][cells[:, 1], cells[:, 0]])
    assert np.count_nonzero(counts[0]) == 3
    assert counts[0].max() > 0.9 * counts[0].sum()
    assert certain[0][counts[0] == 0].min() > 0.95
    assert counts[1].min() > 5
    assert np.abs(certain[1] - 0.5).max() < 0.15
