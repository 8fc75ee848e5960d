"""The recorded runs agree with their configurations, and their pictures are cut where one image ends."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import recordings
from dcgan_lib.checkerboard import checkerboard_score
from dcgan_lib.errors import UserError
from dcgan_lib.latent import sample_latent
from dcgan_lib.models import build_generator
from dcgan_lib.training import TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("plain", "noise", "r1", "fast", "range")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_whole(name):
    run = recordings.load_recording(name)
    config = TrainingConfig(**run.training)
    steps = range(config.log_every, config.steps + 1, config.log_every)
    assert [record["step"] for record in run.records] == list(steps)
    assert all(record["images"] == record["step"] * config.batch_size for record in run.records)
    assert list(run.samples)[-1] == config.steps
    assert {(tuple(images.shape), images.dtype) for images in run.samples.values()} == {((12, 3, 32, 32), torch.uint8)}


def test_samples_are_the_cells_of_the_picture():
    grid = np.array(Image.open(recordings.FOLDER / "training-plain.png"))
    samples = recordings.load_recording("plain").samples
    for row, images in enumerate(samples.values()):
        for column, image in enumerate(images):
            cell = grid[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), cell)


def test_at_end_is_the_mean_of_the_last_records():
    records = [{"d_loss": float(value)} for value in (100, 1, 2, 6)]
    run = recordings.Recording("", {}, records, {}, "")
    assert run.at_end("d_loss", 3) == 3.0


def test_an_unknown_name_is_one_line_with_the_choices():
    with pytest.raises(UserError, match="plain, noise"):
        recordings.load_recording("good")


def test_the_ways_to_double_were_measured_alike():
    found = recordings.load_upsampling_runs()
    ways, seeds = ["transposed", "transposed-5", "resize"], [0, 1]
    assert list(found.real) == list(found.steps) == list(found.samples) == ["cats", "fashion-mnist"]
    assert len(found.runs) == len(found.real) * len(ways) * len(seeds)
    for data, channels in (("cats", 3), ("fashion-mnist", 1)):
        stages = [0, 50, 100, 200, 500, 1000, 2000][: 7 if data == "cats" else 6]
        assert found.steps[data] == stages[-1]
        for way in ways:
            runs = found.of(data, way)
            assert [run.seed for run in runs] == seeds
            assert [list(run.scores) for run in runs] == [stages] * len(seeds)
            assert {tuple(scores) for run in runs for scores in run.scores.values()} == {(2, 4)}
            assert [list(run.early) for run in runs] == [[0, 50, 200]] * len(seeds)
            assert [run.spectrum is None for run in runs] == [False, True]
            assert {run.frechet_floor for run in runs} == {found.of(data, "resize")[0].frechet_floor}
            assert found.samples[data][way].shape == (8, channels, 32, 32)
            assert found.samples[data][way].dtype == torch.uint8
        assert found.real_spectrum[data].shape == (32,)
    for ratios in found.time_ratios.values():
        assert list(ratios) == ways
        assert ratios["transposed"] == 1.0


def test_what_ships_is_the_summary_of_the_results():
    results = json.loads((ROOT / "benchmarks" / "results" / "checkerboard.json").read_text(encoding="utf-8"))
    found = recordings.load_upsampling_runs()
    for run, full in zip(found.runs, results["runs"], strict=True):
        assert (run.data, run.upsampling, run.seed) == (full["data"], full["upsampling"], full["seed"])
        assert run.frechet_distance == round(full["evaluation"]["frechet"]["value"], 3)
        scores = {int(s): {int(p): round(v, 5) for p, v in by.items()} for s, by in full["scores"].items()}
        assert run.scores == scores
        assert run.early == {int(s): {q: round(v, 5) for q, v in by.items()} for s, by in full["early"].items()}
        seen = results["training"]["batch_size"] * found.steps[run.data]
        assert full["last_record"]["images"] == seen  # as many images for every way


@pytest.mark.parametrize("way", ["transposed", "transposed-5", "resize"])
def test_untrained_scores_follow_from_the_seed(way):
    run = recordings.load_upsampling_runs().of("cats", way)[0]
    generator = build_generator(32, 3, width=32, upsampling=way).train()
    with torch.no_grad():
        drawn = generator(sample_latent(1000, 100, seed=0))
    for period, score in run.scores[0].items():
        assert checkerboard_score(drawn, period) == pytest.approx(score, rel=0.02, abs=2e-5)


@pytest.mark.parametrize("way", ["transposed", "transposed-5", "resize"])
def test_the_first_measurement_in_grey_levels_follows_from_the_seed(way):
    run = recordings.load_upsampling_runs().of("cats", way)[0]
    with torch.no_grad():
        drawn = build_generator(32, 3, width=32, upsampling=way).train()(sample_latent(1000, 100, seed=0)).numpy()
    grey = 127.5 * (drawn - drawn.mean(axis=(2, 3), keepdims=True))
    phases = [grey[:, :, i::2, j::2].mean(axis=(2, 3)) for i in range(2) for j in range(2)]
    assert run.early[0]["contrast"] == pytest.approx(np.sqrt(np.mean(grey**2)), rel=0.01)
    assert run.early[0]["pattern"] == pytest.approx(np.sqrt(np.mean(np.square(phases))), rel=0.02)
    assert run.early[0]["score"] == pytest.approx(run.scores[0][2], abs=1e-5)


def test_recorded_spectra_are_those_of_real_numbers():
    found = recordings.load_upsampling_runs()
    spectra = [run.spectrum for run in found.runs if run.spectrum is not None]
    assert len(spectra) == 6
    for spectrum in (*spectra, *found.real_spectrum.values()):
        torch.testing.assert_close(spectrum[1:16], spectrum[17:].flip(0), rtol=0.02, atol=0)
        assert spectrum.min() > 0


def test_the_page_explorer_has_both_generators_and_no_other():
    cats, fashion = (recordings.load_page_explorer(name) for name in ("cats-64", "fashion-mnist-32"))
    assert cats.median_ms > fashion.median_ms
    assert cats.weights_bytes > fashion.weights_bytes
    with pytest.raises(UserError, match="choose from cats-64, fashion-mnist-32"):
        recordings.load_page_explorer("dogs")
