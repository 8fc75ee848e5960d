"""The measurements of training: what they say must hold, what is shown is what was measured, and it can be repeated."""

import json
import math
import statistics
import sys

import pytest
import torch
from conftest import ROOT
from tables import TABLES, with_tables
from torch.nn import functional as F

from dcgan_lib import models, recordings
from dcgan_lib.errors import UserError

sys.path.insert(0, str(ROOT / "benchmarks"))

import latent_explorer
import overheads
import same_training
import throughput
import work


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


# --- what the results say ---------------------------------------------------------------------------------------------


def test_training_on_a_cpu_is_as_fast_as_promised():
    measured = recordings.load_throughput("cpu")
    assert measured.settings["image_size"] == measured.settings["width"] == measured.settings["batch_size"] == 64
    assert measured.settings["rounds"] >= 5
    assert measured["train"].times_plain.median >= 2.0
    assert measured.share_of_matrix_rate.median >= 0.85


def test_what_training_costs_besides_its_steps():
    stored = results("overheads")
    assert stored["import"]["over_torch"]["dcgan_lib"]["median"] <= 0.3
    assert stored["start"]["to_first_step"]["as it comes"]["largest"] <= 30
    assert stored["reporting"]["share"] < 0.05


def test_a_million_stored_images_train_like_a_thousand():
    store = results("overheads")["store"]
    assert store["images"] == [1_000, 1_000_000]
    assert store["bytes"] == 1_000_000 * 3 * 64 * 64
    assert store["speed_of_the_large_one"]["median"] >= 0.95
    few, many = (store["peak_bytes"][str(count)] for count in store["images"])
    assert many - few < 0.05 * store["bytes"]


def test_the_fast_path_trains_what_the_slow_one_trains():
    same = recordings.load_same_training()
    reference = {name: torch.tensor(values) for name, values in same.losses["plain, float32"].items()}
    assert all(len(values) == 50 for values in reference.values())
    for name, values in reference.items():
        own_error = (torch.tensor(same.losses["plain, bfloat16"][name]) - values).square().mean().sqrt()
        distance = (torch.tensor(same.losses["fast, bfloat16"][name]) - values).square().mean().sqrt()
        assert 0 < distance < 2 * own_error
    plain, fast = (same.frechet_distance[way] for way in ("plain", "fast"))
    assert len(plain) == len(fast) == 3
    within = max(max(each) - min(each) for each in (plain, fast))
    assert abs(statistics.mean(plain) - statistics.mean(fast)) < within


def test_the_latent_explorer_keeps_to_its_budgets():
    stored = results("latent-explorer")
    assert sum(stored["scripts"].values()) < 60_000
    budgets = {"cats-64": 33, "fashion-mnist-32": 10}
    assert len(stored["screens"]) == 3
    for times in stored["screens"].values():
        assert times.keys() == budgets.keys()
        for name, budget in budgets.items():
            assert times[name]["image"]["p95_ms"] < budget
            assert times[name]["drag"]["median_ms"] < 33
            assert times[name]["first_picture_ms"] < 1500
    for generator in stored["generators"].values():
        chosen = generator["precision"][-1]
        assert chosen["weights"] == "as chosen"
        assert chosen["mean_error"] <= 1
        assert chosen["worst_error"] <= 6
        half = next(row for row in generator["precision"] if row["weights"] == "float16")
        assert half["mean_error"] <= 0.1
        if set(generator["bits"]) == {8}:
            assert generator["file_bytes"] < 1_200_000
    for name in budgets:  # what tools/release.py does to weights
        assert set(stored["generators"][f"{name}-rounded"]["bits"]) == {8}


# --- what is shown is what was measured -------------------------------------------------------------------------------


def test_what_ships_is_the_summary_of_the_results():
    recorded = ROOT / "dcgan_lib" / "recorded"
    for path in sorted((ROOT / "benchmarks" / "results").glob("throughput-*.json")):
        stored = json.loads((recorded / path.name).read_text(encoding="utf-8"))
        assert throughput.summarise(results(path.stem)) == stored
    for program, name in ((same_training, "same-training"), (latent_explorer, "latent-explorer")):
        stored = json.loads((recorded / f"{name}.json").read_text(encoding="utf-8"))
        assert program.summarise(results(name)) == stored


def test_a_summary_is_medians_and_paired_ratios():
    full, measured = results("throughput-cpu"), recordings.load_throughput("cpu")
    speeds = {}
    for entry in full["measurements"]:
        speeds.setdefault(entry["way"], []).append(64 / statistics.median(entry["step_seconds"]))
    assert [way.name for way in measured.ways] == list(speeds)
    for way in measured.ways:
        assert way.images_per_second.median == pytest.approx(statistics.median(speeds[way.name]), rel=1e-3)
        ratios = [a / b for a, b in zip(speeds[way.name], speeds["plain"], strict=True)]
        assert way.times_plain.smallest == pytest.approx(min(ratios), rel=1e-3)
    assert [way.name for way in measured.ways if way.rejected] == ["compiled"]


def test_the_matrix_rate_is_that_of_one_size():
    lucky = {"machine": [{"matrix_products": {"8": 9.0, "16": 5.0}}]}
    usual = {"machine": [{"matrix_products": {"8": 1.0, "16": 6.0}}, {"matrix_products": {"8": 2.0, "16": 7.0}}]}
    assert throughput.fastest_size([lucky, usual]) == "16"


def test_the_readme_shows_the_results():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_tables(readme) == readme  # if not: python tools/tables.py
    measured = recordings.load_throughput("cpu")
    assert f"{measured['train'].times_plain.median:.2f} (" in readme
    assert measured.hardware in readme
    spoilt = readme.replace(f"{measured['train'].times_plain.median:.2f} (", "9.99 (")
    assert with_tables(spoilt) == readme
    for name in TABLES:
        with pytest.raises(SystemExit, match=f"no place for the table {name}"):
            with_tables(readme.replace(f"<!-- {name} -->", ""))


def test_what_was_not_measured_is_said_to_be_so():
    if (ROOT / "dcgan_lib" / "recorded" / "throughput-cuda.json").exists():
        assert recordings.load_throughput("cuda").settings["device"] == "cuda"
        return
    with pytest.raises(UserError, match=r"not been measured on cuda: run benchmarks/throughput.py there"):
        recordings.load_throughput("cuda")
    assert "| one GPU, batch 128 | not measured yet |" in TABLES["throughput"]()


# --- the measuring itself ---------------------------------------------------------------------------------------------


def test_operations_are_counted_as_by_hand():
    """2 K K in out operations at each place of the smaller map, forwards and for each of the two gradients."""
    batch = 2
    sizes = [
        (32, 3, 64),
        (16, 64, 128),
        (8, 128, 256),
        (4, 256, 512),
    ]  # side of the smaller map, channels on both sides
    halving = [2 * 16 * side**2 * a * b for side, a, b in sizes]
    last, first = 2 * 16 * 512, 2 * 16 * 100 * 512  # D's last layer, 4x4 -> 1x1; G's first, 1x1 -> 4x4
    d_forward, g_forward = sum(halving) + last, sum(halving) + first
    # D, twice: forwards, gradients of all weights, and of all maps but the image.
    d_step = 2 * (3 * d_forward - halving[0])
    # G: forwards; through D forwards and to every map; its own weights, and all maps but z.
    g_step = g_forward + 2 * d_forward + (2 * g_forward - first)
    counted = throughput.work_of_a_step("train", torch.device("cpu"), batch)
    assert counted["operations"] == batch * (d_step + g_step)
    plain = throughput.work_of_a_step("plain", torch.device("cpu"), batch)
    assert plain["operations"] == batch * (d_step + g_step + d_forward)
    stored = results("throughput-cpu")["work"]
    assert stored["train"]["operations"] == 64 * (d_step + g_step)


def test_bytes_are_those_of_inputs_and_outputs_and_views_move_nothing():
    a, b = torch.zeros(8, 16), torch.zeros(16, 4)
    counted = work.count_work(lambda: (a.t().t() @ b).relu_())
    assert counted["operations"] == 2 * 8 * 16 * 4
    assert counted["bytes"] == 4 * (8 * 16 + 16 * 4 + 8 * 4) + 4 * (8 * 4 + 8 * 4)


def test_a_roofline_takes_the_slower_of_arithmetic_and_memory():
    machine = {"matrix_products": {"8": 10.0, "16": 9.0}, "bytes_per_second": 4.0}
    kernels = [(100, 8), (5, 40)]
    found = throughput.with_roofline({"kernels": kernels, "operations": 105}, [{"machine": [machine]}])
    assert found == {"operations": 105, "roofline_seconds": 10 + 10}


@pytest.mark.slow
@pytest.mark.parametrize("way", [*throughput.ways(torch.device("cpu"))])
def test_every_way_takes_a_step(way, monkeypatch):
    monkeypatch.setattr(throughput, "IMAGES", 16)
    monkeypatch.setattr(throughput, "WIDTH", 4)
    trainer = throughput.Trainer(way, torch.device("cpu"), 4)
    before = [parameter.detach().clone() for parameter in trainer.generator.parameters()]
    with trainer.stack:
        trainer.step(0)
    for old, new in zip(before, trainer.generator.parameters(), strict=True):
        assert new.isfinite().all()
        assert not torch.equal(old, new)


@pytest.mark.slow
def test_the_plain_loop_and_the_package_take_the_same_first_steps(monkeypatch):
    """Fifty steps of both, in both arithmetics, on smaller networks than those of the stored results."""
    monkeypatch.setattr(same_training, "WIDTH", 8)
    monkeypatch.setattr(same_training, "CONFIG", same_training.replace(same_training.CONFIG, batch_size=16))
    original = same_training.data.load_dataset
    monkeypatch.setattr(same_training.data, "load_dataset", lambda name, size: original(name, size, limit=200))
    losses = {
        way: {name: torch.tensor(values) for name, values in each.items()}
        for way, each in same_training.compare_losses().items()
    }
    for name, reference in losses["plain, float32"].items():
        torch.testing.assert_close(losses["fast, float32"][name], reference, rtol=0, atol=0.02)
        own_error = (losses["plain, bfloat16"][name] - reference).square().mean().sqrt()
        distance = (losses["fast, bfloat16"][name] - reference).square().mean().sqrt()
        assert distance < 3 * own_error + 1e-3
        assert reference.max() - reference.min() > 10 * distance  # something was learnt meanwhile


def test_reports_are_timed_and_weighed_by_their_intervals():
    reporting = results("overheads")["reporting"]
    step = statistics.median(reporting["step_seconds"])
    for name, every in (("log", 50), ("sample", 1000), ("checkpoint", 1000)):
        share = statistics.median(reporting["report_seconds"][name]) / (every * step)
        assert reporting["shares"][name] == pytest.approx(share, rel=0.01)
    assert math.isclose(reporting["share"], sum(reporting["shares"].values()), rel_tol=0.01)


def test_generated_images_are_as_many_as_asked_for_and_differ():
    made = torch.cat(list(overheads.generated_images(25, batch=10)))
    assert made.shape == (25, 3, 64, 64)
    assert made.dtype == torch.uint8
    assert len(made.flatten(1).unique(dim=0)) == 25


def test_the_networks_of_the_comparison_are_the_books():
    generator, discriminator = same_training.networks(1)
    expected = models.init_weights(models.build_generator(32, 3, width=32), 2)
    assert torch.equal(generator.layers[0][0].weight, expected.layers[0][0].weight)
    assert discriminator.batch_norm
    loop = same_training.PlainLoop(generator, discriminator)
    logits = torch.tensor([0.3, -2.0])
    torch.testing.assert_close(loop.criterion(logits, torch.ones(2)), F.softplus(-logits).mean())
