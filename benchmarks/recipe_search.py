"""Search for the recipe: train the networks in many ways on the same number of images, and measure what they draw.

    python benchmarks/recipe_search.py list
    python benchmarks/recipe_search.py run cats-32 paper --seed 0     # one row of the table, again
    python benchmarks/recipe_search.py all cats-32 --jobs 2           # every row of a task that is not there yet
    python benchmarks/recipe_search.py speed                          # what a step of each finalist takes

A *trial* is a recipe and what is changed in it; a *task* is a data set and a number of images to train on. Each run is
measured when it has seen 1/16, 1/8, 1/4, 1/2 and all of its images; what counts is the last one, never the best. Where
the weights are averaged, the generator of the last step is measured besides. Its seconds are those that the processor
spent on training, not those of a clock, which also counts what else the machine did. Rows come from several machines,
so what is shown against time comes from ``speed``, which trains the finalists in turns on one. Writes
benchmarks/results/recipe-search.json, and its summary for the chapter, which
:func:`dcgan_lib.recordings.load_recipe_search` reads.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from torch.nn import functional
from training_runs import processor

from dcgan_lib import checkpoint, data, features, images, latent, losses, metrics, models, recordings, training
from dcgan_lib.config import RECIPES, TrainingConfig
from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "recipe-search.json"
RECORDED = ROOT / "dcgan_lib" / "recorded" / "recipe-search.json"
FRACTIONS = (16, 8, 4, 2, 1)
SAMPLES = 5_000  # or half the number of real images


@dataclass(frozen=True)
class Task:
    """What to learn, and from how many images (with repetition)."""

    data: str
    image_size: int
    images: int
    width: int = 32


TASKS = {
    "cats-32": Task("cats", 32, 256_000),
    "fashion-mnist-32": Task("fashion-mnist", 32, 256_000),
    "cats-64": Task("cats", 64, 256_000),
}


@dataclass(frozen=True)
class Trial:
    """A recipe, and what is changed in it."""

    why: str
    recipe: str
    changes: dict[str, Any] = field(default_factory=dict)
    batch_norm: float | None = None
    minibatch_std: bool = False
    upsampling: models.Upsampling = "transposed"
    share: float = 1.0  # of the task's images

    def config(self) -> TrainingConfig:
        """The configuration, without a number of steps."""
        return replace(BASES[self.recipe].training, **self.changes)

    def switches(self) -> dict[str, Any]:
        """The discriminator's."""
        batch_norm = BASES[self.recipe].batch_norm if self.batch_norm is None else self.batch_norm
        return {"batch_norm": batch_norm, "minibatch_std": self.minibatch_std}


def relativistic(real_logits: Tensor, fake_logits: Tensor) -> losses.GANLosses:
    """Judge pairs, not images: which of the two is real (Jolicoeur-Martineau 2019; Huang et al. 2024)."""
    margin = real_logits - fake_logits
    return losses.GANLosses(functional.softplus(-margin).mean(), functional.softplus(margin).mean())


BASES = RECIPES | {"r1": RECIPES["r1"]._replace(minibatch_std=False)}  # as it was when the search began
QUIET = {"device": "cpu", "sample_every": 10**6, "checkpoint_every": 10**6}
FASTER = {"learning_rate": 2e-3}
FALLING = {"final_rate": 0.1}
BATCH_32 = {"batch_size": 32}
TWO_OF_G = {"generator_steps": 2}
AVERAGED = {"average_half_life": 20_000.0}
PAPER_32 = AVERAGED | BATCH_32 | {"learning_rate": 1.6e-3}
PAPERS_ADAM = {"learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999}
TRIALS = {
    # The paper's recipe and its tuning. Averaging does not act on training: one run gives both rows.
    "paper": Trial("as published", "paper", AVERAGED),
    "paper, batch 64": Trial("more steps for as many images", "paper", AVERAGED | {"batch_size": 64}),
    "paper, rate / 2": Trial("slower", "paper", AVERAGED | {"batch_size": 64, "learning_rate": 1e-4}),
    "paper, rate x 2": Trial("faster", "paper", AVERAGED | {"batch_size": 64, "learning_rate": 4e-4}),
    "paper, rate x 4": Trial("faster still", "paper", AVERAGED | {"batch_size": 64, "learning_rate": 8e-4}),
    "paper, rate x 8": Trial("as far as it goes", "paper", AVERAGED | {"batch_size": 64, "learning_rate": 1.6e-3}),
    "paper, batch 32, rate x 8": Trial("more steps still", "paper", PAPER_32),
    "paper, noise": Trial("instance noise", "paper", AVERAGED | {"batch_size": 64, "instance_noise": 0.1}),
    "paper, batch 32, noise": Trial("more steps with it", "paper", AVERAGED | BATCH_32 | {"instance_noise": 0.1}),
    "paper, smoothing": Trial("label smoothing", "paper", AVERAGED | {"batch_size": 64, "label_smoothing": 0.1}),
    # The paper's recipe with what r1-bn brought besides: no longer plain.
    "tuned paper, batch 32, falling": Trial("more steps, then slow", "paper", PAPER_32 | FALLING),
    "tuned paper, two steps of G": Trial("and two of G for one of D", "paper", PAPER_32 | FALLING | TWO_OF_G),
    # No batch norm in D, R1 instead.
    "r1": Trial("as it was the default", "r1"),
    "r1, variety": Trial("D sees how much a batch varies", "r1", minibatch_std=True),
    "r1, translation": Trial("D sees every image shifted", "r1", {"translation": 0.125}),
    "r1, relativistic": Trial("D compares pairs", "r1", {"loss": "relativistic"}),
    "r1, batch 32": Trial("more steps for as many images", "r1", {"batch_size": 32}),
    "variety, gamma / 4": Trial("a weaker penalty", "r1", {"r1_gamma": 0.125}, minibatch_std=True),
    "variety, gamma / 16": Trial("weaker still", "r1", {"r1_gamma": 0.03125}, minibatch_std=True),
    "variety, batch 32": Trial("more steps", "r1", {"batch_size": 32}, minibatch_std=True),
    "variety, relativistic": Trial("pairs, too", "r1", {"loss": "relativistic"}, minibatch_std=True),
    "variety, rate x 2": Trial("faster", "r1", FASTER, minibatch_std=True),
    "variety, resize": Trial("no transposed convolutions", "r1", minibatch_std=True, upsampling="resize"),
    # One ingredient at a time taken out again; "r1" is the one without variety.
    "variety, no penalty": Trial("no penalty on slopes", "r1", {"r1_gamma": 0.0}, minibatch_std=True),
    "variety, batch norm": Trial("batch norm in D", "r1", batch_norm=1.0, minibatch_std=True),
    "variety, paper's Adam": Trial("Adam as in the paper", "r1", PAPERS_ADAM, minibatch_std=True),
    # Batch norm in D again: of all its channels, or of half of them.
    "half norm, rate x 2": Trial("and faster", "r1", FASTER, batch_norm=0.5, minibatch_std=True),
    "half norm, rate x 2, falling": Trial(
        "fast, then slow", "r1", FASTER | FALLING, batch_norm=0.5, minibatch_std=True
    ),
    "half norm, falling rate": Trial("the rate of r1, falling", "r1", FALLING, batch_norm=0.5, minibatch_std=True),
    "half norm, batch 32, falling": Trial(
        "more steps, then slow", "r1", BATCH_32 | FALLING, batch_norm=0.5, minibatch_std=True
    ),
    "half norm, two steps of G": Trial(
        "and two of G for one of D", "r1", BATCH_32 | FALLING | TWO_OF_G, batch_norm=0.5, minibatch_std=True
    ),
    "variety, two steps of G": Trial(
        "the same without batch norm in D", "r1", BATCH_32 | FALLING | TWO_OF_G, minibatch_std=True
    ),
    # As long, by the clock, as the recipes with one step of G take for all images.
    "half norm, two steps of G, half as long": Trial(
        "half of the images", "r1", BATCH_32 | FALLING | TWO_OF_G, batch_norm=0.5, minibatch_std=True, share=0.5
    ),
}

FINALISTS = {
    "published": dict.fromkeys(TASKS, "paper"),
    "plain": {"cats-32": "paper, noise", "cats-64": "paper, noise", "fashion-mnist-32": "paper, batch 32, rate x 8"},
    "r1": dict.fromkeys(TASKS, "r1, variety"),
    "default": dict.fromkeys(TASKS, "half norm, two steps of G"),
}
"""By task: the paper's recipe, as published and as far as tuning brought it, ``dcgan train --recipe r1``, and the
default of ``dcgan train``."""


def networks(task: Task, trial: Trial, channels: int, seed: int) -> tuple[models.Generator, models.Discriminator]:
    """Build both networks of a trial, with the initial weights of a seed."""
    generator = models.build_generator(task.image_size, channels, width=task.width, upsampling=trial.upsampling)
    discriminator = models.build_discriminator(task.image_size, channels, task.width, **trial.switches())
    models.init_weights(generator, 2 * seed)
    models.init_weights(discriminator, 2 * seed + 1)
    return generator, discriminator


def run_trial(task_name: str, trial_name: str, seed: int) -> dict[str, Any]:
    """Train one run, measure it on the way, and return its row."""
    task, trial = TASKS[task_name], TRIALS[trial_name]
    config = replace(trial.config(), seed=seed, **QUIET)
    dataset = data.load_dataset(task.data, task.image_size)
    generator, discriminator = networks(task, trial, dataset.channels, seed)
    steps = int(task.images * trial.share) // config.batch_size
    with tempfile.TemporaryDirectory() as folder:
        judge, moments = Judge(dataset), {steps // part for part in FRACTIONS}
        name = f"{task_name}, {trial_name}, seed {seed}:"
        log = MeasuredRun(name, judge, Path(folder) / checkpoint.WEIGHTS_NAME, moments)
        config = replace(config, steps=steps, checkpoint_every=steps // max(FRACTIONS))
        history = training.train(
            generator, discriminator, dataset, config, folder, progress=False, on_checkpoint=log.measure
        )
    if history.step != steps:
        raise SystemExit(f"stopped after {history.step} of {steps} steps: no row is stored")
    # Without gaps, so that the chapter can cut it.
    images.save_png(latent.sample(history.generator, 16, seed=0), samples_path(task_name, trial_name, seed), padding=0)
    return {
        "task": task_name,
        "trial": trial_name,
        "seed": seed,
        "measured": log.measured,
        "floor": judge.floor,
        "setup": asdict(task)
        | {"training": asdict(config), "discriminator": trial.switches(), "upsampling": trial.upsampling},
        "statistics": "measured",
        "threads": torch.get_num_threads(),
        "hardware": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def samples_path(task: str, trial: str, seed: int) -> Path:
    """Where the first sixteen samples of a run are kept."""
    words = trial.replace("/", "over").replace(",", "").replace("'", "").split()
    return RESULTS.parent / "recipe-search" / f"{'-'.join([task, *words, str(seed)])}.png"


class Judge:
    """The scores that a row keeps, as :func:`metrics.evaluate` computes them, without its intervals and other scores.

    Attributes:
        floor: Frechet distance of real images to other real ones.
    """

    def __init__(self, dataset: data.ImageDataset) -> None:
        self.dataset, self.reader = dataset, features.load_reader(str(features.reader_for(dataset.name)))
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))
        count = min(SAMPLES, len(dataset) // 2)
        self.real, other = (self.reader.features(dataset.images[rows]) for rows in order[: 2 * count].split(count))
        self.floor = metrics.frechet_distance(other, self.real)

    def scores(self, generator: models.Generator) -> dict[str, Any]:
        """Frechet distance, and factor -> number of its values that are present."""
        made = images.as_uint8(latent.sample(generator, len(self.real), seed=0))
        drawn = self.reader.features(made)
        labels, _ = self.reader.classify(drawn)
        covered = metrics.coverage(labels, self.reader.label_names, self.dataset.labels)
        return {
            "frechet_distance": round(metrics.frechet_distance(drawn, self.real), 4),
            "present": {name: factor.present for name, factor in covered.factors.items()},
        }


def measure_speed(rounds: int = 3, steps: int = 16) -> dict[str, Any]:
    """Train the finalists in turns, on one thread: images per second, one number for each round."""
    torch.set_num_threads(1)
    speeds: dict[str, dict[str, list[float]]] = {}
    for name, task in TASKS.items():
        dataset = data.load_dataset(task.data, task.image_size, limit=4096)
        finalists = {FINALISTS[who][name] for who in FINALISTS}
        for _ in range(rounds):
            for trial_name in sorted(finalists):
                trial = TRIALS[trial_name]
                config = replace(trial.config(), steps=steps, log_every=steps // 4, **QUIET)
                pair = networks(task, trial, dataset.channels, seed=0)
                records = training.train(*pair, dataset, config, progress=False).records[1:]  # the first warms up
                speed = round(median(record["images_per_second"] for record in records), 2)
                speeds.setdefault(name, {}).setdefault(trial_name, []).append(speed)
        print(name, json.dumps(speeds[name]), flush=True)
    return {"images_per_second": speeds, "hardware": processor(), "torch": torch.__version__}


class MeasuredRun:
    """Scores of a run on its way, and the processor time that it took, without that of the scores.

    Args:
        name: Of the run, for what is printed.
        judge: Scores generators.
        weights: File of the run's weights.
        steps: When to measure.

    Attributes:
        measured: What a row keeps of each measurement.
    """

    def __init__(self, name: str, judge: Judge, weights: Path, steps: set[int]) -> None:
        self.name, self.judge, self.weights, self.steps = name, judge, weights, steps
        self.measured: list[dict[str, Any]] = []
        self.began = time.process_time()

    def measure(self, history: training.History) -> None:
        """Measure, if it is time."""
        now = time.process_time()
        if history.step in self.steps and history.step not in {each["step"] for each in self.measured}:
            entry = {"step": history.step, "images": int(history.records[-1]["images"])}
            entry |= {"seconds": round(now - self.began, 3)}
            for name in checkpoint.read_architectures(self.weights):
                if name in ("generator", "average"):
                    entry[name] = self.judge.scores(checkpoint.load_weights(self.weights, name))
            self.measured.append(entry)
            print(self.name, json.dumps(entry), flush=True)
        self.began += time.process_time() - now


def store(row: dict[str, Any]) -> None:
    """Put a row into the results, in the place of an earlier one; several processes may do so at a time."""
    key = ("task", "trial", "seed")
    with FileLock(RESULTS.with_suffix(".lock")):
        results = load_results()
        rows = [old for old in results["rows"] if any(old[name] != row[name] for name in key)] + [row]
        write_results(results | {"rows": sorted(rows, key=lambda each: [each[name] for name in key])})


def write_results(results: dict[str, Any]) -> None:
    """Write the results, and what the chapter shows of them."""
    write_json(RESULTS, results)
    record(results)


def record(results: dict[str, Any]) -> None:
    """Write what the chapter shows: the summary, and samples of finalists where these were trained here."""
    write_json(RECORDED, summarise(results))
    for task in TASKS:
        paths = [samples_path(task, FINALISTS[who][task], seed=0) for who in recordings.SHOWN_FINALISTS]
        if all(path.exists() for path in paths):
            samples = [recordings.cut(path, TASKS[task].image_size).flatten(0, 1) for path in paths]
            picture = RECORDED.with_name(f"recipe-{task}.png")
            images.save_png(torch.cat(samples), picture, columns=len(samples[0]), padding=0)


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """What the chapter shows: the curves of every run, in the order of ``TASKS`` and ``TRIALS``."""
    order = [list(TASKS), list(TRIALS)]
    rows = sorted(
        results["rows"], key=lambda row: (order[0].index(row["task"]), order[1].index(row["trial"]), row["seed"])
    )
    runs, tried = [], {row["trial"] for row in rows}
    for row in rows:
        measured = row["measured"]
        runs.append(
            {name: row[name] for name in ("task", "trial", "seed")}
            | {"images": [each["images"] for each in measured]}
            | {"seconds": [round(each["seconds"], 1) for each in measured]}
            | {
                name: [round(each[name]["frechet_distance"], 2) for each in measured]
                for name in ("generator", "average")
                if name in measured[0]
            }
            | {"present": measured[-1].get("average", measured[-1]["generator"]).get("present")}
            | {"statistics": row.get("statistics", "averaged")}  # of batch norm, in the averaged generator
        )
    return {
        "tasks": {row["task"]: asdict(TASKS[row["task"]]) | {"floor": round(row["floor"], 3)} for row in rows},
        "trials": {name: {"why": trial.why} for name, trial in TRIALS.items() if name in tried},
        "finalists": FINALISTS,
        "runs": runs,
        "hardware": sorted({row["hardware"] for row in rows}),
        "speeds": {
            task: {trial: median(speeds) for trial, speeds in trials.items()}
            for task, trials in results.get("speed", {}).get("images_per_second", {}).items()
        },
    }


def load_results() -> dict[str, Any]:
    """Load the ``rows`` that there are, and what ``speed`` measured."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"rows": []}


def run_all(task: str, trials: list[str], seeds: list[int], jobs: int) -> None:
    """Run what is missing, several at a time, each in a process with one thread of its own."""
    done = {(row["task"], row["trial"], row["seed"]) for row in load_results()["rows"]}
    missing = [(trial, seed) for seed in seeds for trial in trials if (task, trial, seed) not in done]

    def start(pair: tuple[str, int]) -> None:
        trial, seed = pair
        command = [sys.executable, __file__, "run", task, trial, "--seed", str(seed)]
        subprocess.run(command, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"})

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(start, missing))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name every trial, and say how many runs of it are stored")
    one = commands.add_parser("run", help="run one trial and store its row")
    one.add_argument("task", choices=TASKS)
    one.add_argument("trial", choices=TRIALS)
    one.add_argument("--seed", type=int, default=0)
    commands.add_parser("speed", help="measure how fast each finalist trains")
    every = commands.add_parser("all", help="run the trials whose rows are missing")
    every.add_argument("task", choices=TASKS)
    every.add_argument("--trials", nargs="+", default=list(TRIALS), choices=TRIALS, metavar="TRIAL")
    every.add_argument("--seeds", nargs="+", type=int, default=[0])
    every.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    losses.LOSSES["relativistic"] = relativistic  # in this process alone: the package does not offer it
    if options.command == "list":
        counts = Counter(row["trial"] for row in load_results()["rows"])
        for name, trial in TRIALS.items():
            print(f"{name:<40}{counts[name] or 'no'} run{'s' if counts[name] != 1 else ' '}  {trial.why}")
    elif options.command == "speed":
        write_results(load_results() | {"speed": measure_speed()})
    elif options.command == "run":
        store(run_trial(options.task, options.trial, options.seed))
    else:
        run_all(options.task, options.trials, options.seeds, options.jobs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
