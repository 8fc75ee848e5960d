"""Check that the fast path trains what the slow one trains.

    python benchmarks/same_training.py losses      # the first 50 steps, in several arithmetics; a minute
    python benchmarks/same_training.py quality     # whole runs of several seeds both ways; half an hour
    python benchmarks/same_training.py quality --jobs 2    # two at a time, one core each

Both ways get the same initial weights, images and latent vectors. "plain" is the loop of ``plain_loop.py`` in float32,
"fast" is ``training.train`` with the paper's recipe and everything that it chooses by itself. Training is chaotic, so
single losses agree for a while and then no longer; what must agree in the end is the quality of the samples, within
what different seeds give. Writes benchmarks/results/same-training.json, and its summary for the chapter.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plain_loop import PlainLoop
from training_runs import processor

from dcgan_lib import data, metrics, models, training
from dcgan_lib.config import TrainingConfig
from dcgan_lib.files import write_json
from dcgan_lib.seeds import batch_indices, mixed_seed

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "same-training.json"
RECORDED = ROOT / "dcgan_lib" / "recorded" / "same-training.json"
DATA, IMAGE_SIZE, WIDTH = "cats", 32, 32
CONFIG = TrainingConfig(batch_size=64, device="cpu", log_every=1, sample_every=10**6, checkpoint_every=10**6)
FIRST, STEPS, SEEDS, WAYS = 50, 1500, (0, 1, 2), ("plain", "fast")


def networks(seed: int) -> tuple[models.Generator, models.Discriminator]:
    """Build a pair with the initial weights of a seed."""
    generator = models.build_generator(IMAGE_SIZE, 3, width=WIDTH)
    discriminator = models.build_discriminator(IMAGE_SIZE, 3, WIDTH)
    return models.init_weights(generator, 2 * seed), models.init_weights(discriminator, 2 * seed + 1)


def plain(
    dataset: data.ImageDataset, seed: int, steps: int, dtype: torch.dtype = torch.float32
) -> tuple[models.Generator, list[dict[str, float]]]:
    """Train with the plain loop; return the generator and the losses of every step."""
    generator, discriminator = networks(seed)
    loop, records = PlainLoop(generator, discriminator, dtype), []
    for step in range(steps):
        indices = batch_indices(len(dataset), CONFIG.batch_size, step, seed)
        z = torch.randn(CONFIG.batch_size, 100, generator=torch.Generator().manual_seed(mixed_seed(seed, step)))
        records.append(loop.step(data.to_model_range(dataset.images[indices]), z))
    return generator, records


def fast(
    dataset: data.ImageDataset, seed: int, steps: int, **options: Any
) -> tuple[models.Generator, list[dict[str, float]]]:
    """Train with the package; return the generator and the losses of every step."""
    config = replace(CONFIG, steps=steps, seed=seed, **options)
    history = training.train(*networks(seed), dataset, config, progress=False)
    return history.generator, [{name: line[name] for name in ("d_loss", "g_loss")} for line in history.records]


def compare_losses() -> dict[str, Any]:
    """Losses of the first steps: the plain loop in both arithmetics, the package in both."""
    dataset = data.load_dataset(DATA, IMAGE_SIZE)
    runs = {
        "plain, float32": plain(dataset, 0, FIRST)[1],
        "plain, bfloat16": plain(dataset, 0, FIRST, torch.bfloat16)[1],
        "fast, float32": fast(dataset, 0, FIRST, precision="float32")[1],
        "fast, bfloat16": fast(dataset, 0, FIRST, precision="bfloat16")[1],
    }
    return {name: {k: [round(line[k], 6) for line in lines] for k in lines[0]} for name, lines in runs.items()}


def score(way: str, seed: int) -> dict[str, Any]:
    """Train one whole run and measure its generator."""
    dataset = data.load_dataset(DATA, IMAGE_SIZE)
    generator, records = {"plain": plain, "fast": fast}[way](dataset, seed, STEPS)
    scores = metrics.evaluate(generator.eval(), dataset).to_dict()
    return {"way": way, "seed": seed, "scores": scores, "last_losses": records[-1]}


def score_all(jobs: int) -> list[dict[str, Any]]:
    """Train and measure every way and seed, each in a process of its own."""
    wanted = [(way, seed) for seed in SEEDS for way in WAYS]
    results = []
    for start in range(0, len(wanted), jobs):
        commands = [
            [sys.executable, __file__, "one", "--way", w, "--seed", str(s)] for w, s in wanted[start : start + jobs]
        ]
        running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
        for process in running:
            output, _ = process.communicate()
            results.append(json.loads(output.splitlines()[-1]))
            print(results[-1]["way"], results[-1]["seed"], results[-1]["scores"]["frechet"]["value"], flush=True)
    return results


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """What the chapter shows."""
    distances: dict[str, list[float]] = {way: [] for way in WAYS}
    for run in results["runs"]:
        distances[run["way"]].append(round(run["scores"]["frechet"]["value"], 2))
    losses = {
        way: {name: [round(value, 4) for value in values] for name, values in each.items()}
        for way, each in results["losses"].items()
    }
    return {"losses": losses, "frechet_distance": distances, "settings": results["settings"]}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("losses", "quality", "one"))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--seed", type=int)
    options = parser.parse_args(arguments)
    if options.what == "one":
        print(json.dumps(score(options.way, options.seed)))
        return 0
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    stored |= {
        "settings": {"data": DATA, "image_size": IMAGE_SIZE, "width": WIDTH, "batch_size": CONFIG.batch_size,
                     "steps": STEPS, "seeds": SEEDS},
        "hardware": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }  # fmt: skip
    if options.what == "losses":
        stored["losses"] = compare_losses()
    else:
        stored["runs"] = score_all(options.jobs)
    write_json(RESULTS, stored)
    if {"losses", "runs"} <= stored.keys():
        write_json(RECORDED, summarise(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
