"""The search for a recipe: each trial trains, and what ships is what was measured."""

import json
import sys

import pytest
import torch
from conftest import ROOT
from PIL import Image
from torch.nn import functional

from dcgan_lib import data, losses, metrics, models, recordings
from dcgan_lib.config import DEFAULT_RECIPE, RECIPES

sys.path.insert(0, str(ROOT / "benchmarks"))

import recipe_search
from recipe_search import TASKS, TRIALS


@pytest.fixture(autouse=True)
def a_loss_of_the_search(monkeypatch):
    monkeypatch.setitem(losses.LOSSES, "relativistic", recipe_search.relativistic)


def test_what_ships_is_the_summary_of_the_results():
    results = recipe_search.load_results()
    rows = results["rows"]
    stored = json.loads(recipe_search.RECORDED.read_text(encoding="utf-8"))
    assert json.loads(json.dumps(recipe_search.summarise(results))) == stored
    search = recordings.load_recipe_search()
    assert len(search.runs) == len(rows) > 0
    for run in search.runs:
        (row,) = (r for r in rows if (r["task"], r["trial"], r["seed"]) == (run.task, run.trial, run.seed))
        assert run.images[-1] == row["measured"][-1]["images"]
        assert run.generator[-1] == pytest.approx(row["measured"][-1]["generator"]["frechet_distance"], abs=0.006)
        assert run in search.of(run.task, run.trial)


def test_every_run_saw_as_many_images_as_its_task_says():
    for run in recordings.load_recipe_search().runs:
        trial = TRIALS[run.trial]
        batch, images = trial.config().batch_size, int(TASKS[run.task].images * trial.share)
        assert run.images == [images // part // batch * batch for part in recipe_search.FRACTIONS]


def test_the_paper_was_tuned_with_as_much_effort():
    paper = [name for name, trial in TRIALS.items() if trial.recipe == "paper"]
    assert len(paper) >= 7
    assert TRIALS["paper"].config() == recipe_search.replace(RECIPES["paper"].training, average_half_life=20_000.0)
    assert all(TRIALS[name].config().average_half_life for name in paper)  # which gives the row without it as well


@pytest.mark.parametrize("name", TRIALS)
def test_every_trial_has_a_valid_configuration(name):
    assert TRIALS[name].config().steps is None
    assert TRIALS[name].why


def test_a_trial_changes_what_its_name_says():
    kinds = {(repr(trial.config()), trial.batch_norm, trial.minibatch_std, trial.upsampling, trial.share)
             for trial in TRIALS.values()}  # fmt: skip
    assert len(kinds) == len(TRIALS)  # no two are the same
    assert {name for name in TRIALS if "norm" in name} == {
        name for name, trial in TRIALS.items() if trial.batch_norm is not None
    }
    variety = {name for name, trial in TRIALS.items() if trial.minibatch_std}
    starts = ("variety", "half norm")
    assert {name for name in TRIALS if name.endswith("half as long")} == {
        name for name, trial in TRIALS.items() if trial.share != 1
    }
    assert variety == {name for name in TRIALS if name.startswith(starts) or name == "r1, variety"}


@pytest.mark.parametrize(("who", "recipe"), [("default", DEFAULT_RECIPE), ("r1", "r1")])
def test_recipes_are_the_trials_that_the_final_shows(who, recipe):
    (name,) = set(recipe_search.FINALISTS[who].values())
    trial = TRIALS[name]
    assert (trial.config(), *trial.switches().values()) == RECIPES[recipe]


def test_every_finalist_has_a_speed_from_the_same_machine():
    search, measured = recordings.load_recipe_search(), recipe_search.load_results()["speed"]
    assert measured["hardware"]
    for task in TASKS:
        finalists = {trials[task] for trials in recipe_search.FINALISTS.values()}
        assert set(search.speeds[task]) == finalists
        for name, rounds in measured["images_per_second"][task].items():
            assert min(rounds) <= search.speeds[task][name] <= max(rounds)
            assert len(rounds) >= 3


@pytest.mark.slow
def test_the_speed_of_finalists_is_measured_in_turns(monkeypatch):
    monkeypatch.setattr(recipe_search, "TASKS", {"cats-32": recipe_search.Task("cats", 32, 256, width=4)})
    speeds = recipe_search.measure_speed(rounds=2, steps=8)["images_per_second"]["cats-32"]
    assert set(speeds) == {trials["cats-32"] for trials in recipe_search.FINALISTS.values()}
    assert all(len(rounds) == 2 and min(rounds) > 0 for rounds in speeds.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["paper", "r1, relativistic", "variety, resize", "variety, batch norm", "half norm, rate x 2"]
)
def test_every_kind_of_trial_trains(name, monkeypatch, tmp_path):
    monkeypatch.setattr(recipe_search, "RESULTS", tmp_path / "results.json")
    small = recipe_search.Task("cats", 32, 256, width=4)
    monkeypatch.setattr(recipe_search, "TASKS", {"small": small})
    monkeypatch.setattr(recipe_search, "FRACTIONS", (2, 1))
    load = recipe_search.data.load_dataset
    monkeypatch.setattr(recipe_search.data, "load_dataset", lambda data, size: load(data, size, limit=800))
    row = recipe_search.run_trial("small", name, seed=1)
    assert [each["images"] for each in row["measured"]] == [128, 256]
    assert row["measured"][0]["generator"] != row["measured"][1]["generator"]
    with Image.open(recipe_search.samples_path("small", name, 1)) as grid:
        assert grid.size == (8 * 32, 2 * 32)  # two rows of eight, without gaps


def test_the_scores_are_those_of_an_evaluation():
    dataset = data.load_dataset("cats", 32, limit=400)
    generator = models.build_generator(32, 3, width=4).eval()
    judge, expected = recipe_search.Judge(dataset), metrics.evaluate(generator, dataset)
    found = judge.scores(generator)
    assert found["frechet_distance"] == pytest.approx(expected.frechet.value, rel=1e-6)
    assert judge.floor == pytest.approx(expected.frechet.floor, rel=1e-9)
    assert found["present"] == {name: factor.present for name, factor in expected.factors.factors.items()}


def test_the_relativistic_loss_depends_on_differences_alone():
    real, fake = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([0.0, 3.0, 0.5])
    found = recipe_search.relativistic(real, fake)
    shifted = recipe_search.relativistic(real + 7, fake + 7)
    torch.testing.assert_close(found, shifted)
    expected = -functional.logsigmoid(real - fake).mean()
    torch.testing.assert_close(found, losses.GANLosses(expected, -functional.logsigmoid(fake - real).mean()))
