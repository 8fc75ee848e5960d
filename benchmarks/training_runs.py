"""Record the training runs that the book shows: three that go ever better, and two with a mistake in them.

    OMP_NUM_THREADS=2 python benchmarks/training_runs.py               # all, some minutes each
    OMP_NUM_THREADS=2 python benchmarks/training_runs.py plain noise   # these again, the others stay

Writes dcgan_lib/recorded/training-runs.json and one PNG of samples for each run. The numbers follow
from the seeds, up to rounding that differs between processors. :mod:`dcgan_lib.recordings` reads the files.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from dcgan_lib import data, images, latent, models, training
from dcgan_lib.config import RECIPES
from dcgan_lib.files import write_json

FOLDER = Path(__file__).resolve().parent.parent / "dcgan_lib" / "recorded"
IMAGE_SIZE, WIDTH, COUNT = 32, 32, 12
STAGES = (100, 500, 2000)
"""Steps after which samples are kept; always of the same COUNT latent vectors, the first ones of seed 0."""

REPORTING = {"log_every": 20, "sample_every": 10_000, "checkpoint_every": 10_000, "device": "cpu"}
BASE = training.TrainingConfig(batch_size=64, **REPORTING)
RUNS: dict[str, tuple[str, training.TrainingConfig]] = {
    "plain": ("the paper's recipe", BASE),
    "noise": ("instance noise and weight averaging", replace(BASE, instance_noise=0.2, average_half_life=10_000)),
    # Without the minibatch standard deviation that dcgan train has besides.
    "r1": ("R1 penalty, no batch norm in D, weight averaging", replace(RECIPES["r1"].training, **REPORTING)),
    "fast": ("learning rate 25 times too high", replace(BASE, learning_rate=25 * BASE.learning_rate)),
    "range": ("generated images in [0, 1]", BASE),
}


def networks(name: str) -> tuple[models.Generator, models.Discriminator]:
    """Build both networks; those of "range" have the mistake built in."""
    generator = models.build_generator(IMAGE_SIZE, 3, width=WIDTH)
    if name == "range":
        generator.layers[-1][-1] = nn.Sigmoid()  # the mistake: an output in [0, 1] where the data is in [-1, 1]
    return generator, models.build_discriminator(IMAGE_SIZE, 3, WIDTH, batch_norm=name != "r1")


def record(name: str, dataset: data.ImageDataset) -> dict[str, object]:
    """Train one run, write its samples, and return its entry of the JSON file."""
    title, config = RUNS[name]
    generator, discriminator = networks(name)
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for stage in STAGES:
            stage_config = replace(config, steps=stage)
            resume = stage > STAGES[0]
            history = training.train(generator, discriminator, dataset, stage_config, folder, resume, progress=False)
            samples.append(latent.sample(history.generator, COUNT, seed=0))
            print(name, history.records[-1], flush=True)
    images.save_png(torch.cat(samples), FOLDER / f"training-{name}.png", columns=COUNT, padding=0)
    records = [{key: round(value, 4) for key, value in line.items() if "second" not in key} for line in history.records]
    return {
        "title": title,
        "training": asdict(replace(config, steps=STAGES[-1])),
        "records": records,
    }


def processor() -> str:
    """The processor's name and how many of its cores were used."""
    names = [line.split(":")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    cores = torch.get_num_threads()
    name = (names or [platform.processor() or platform.machine()])[0].strip()
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help=f"which of {', '.join(RUNS)}; without any, all of them")
    names = parser.parse_args(arguments).runs or list(RUNS)
    if unknown := set(names) - RUNS.keys():
        parser.error(f"unknown runs: {', '.join(sorted(unknown))}")
    path = FOLDER / "training-runs.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}}
    dataset = data.load_dataset("cats", IMAGE_SIZE)
    for name in names:
        stored["runs"][name] = record(name, dataset)
        stored |= {
            "data": {"name": dataset.name, "image_size": IMAGE_SIZE, "images": len(dataset)},
            "width": WIDTH,
            "stages": STAGES,
            "hardware": processor(),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
        }
        stored["runs"] = {key: stored["runs"][key] for key in RUNS if key in stored["runs"]}
        write_json(path, stored)
    return 0


if __name__ == "__main__":
    sys.exit(main())
