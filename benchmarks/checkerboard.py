"""Train generators that double their maps in three ways, and measure pattern, quality and cost of each.

    OMP_NUM_THREADS=1 python benchmarks/checkerboard.py train cats            # every way, every seed
    OMP_NUM_THREADS=1 python benchmarks/checkerboard.py train fashion-mnist --data-root FOLDER
    OMP_NUM_THREADS=1 python benchmarks/checkerboard.py early cats            # then, the first steps as D sees them
    OMP_NUM_THREADS=1 python benchmarks/checkerboard.py time                  # time ratios, on one core
    python benchmarks/checkerboard.py picture                                 # the chapter's first figure

Training goes on where it was stopped: runs are kept in --runs. Writes benchmarks/results/checkerboard.json after every
run, and from it what the chapter shows: dcgan_lib/recorded/checkerboard.json and a PNG of samples for each data set.
The networks see as many images in each run, in the same order for the same seed. Scores differ a little between
processors, since training is chaotic; :func:`dcgan_lib.recordings.load_upsampling_runs` reads the files.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from training_runs import processor

from dcgan_lib import checkerboard, checkpoint, data, images, latent, metrics, models, training
from dcgan_lib.config import RECIPES
from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "checkerboard.json"
RECORDED = ROOT / "dcgan_lib" / "recorded"
WAYS = get_args(models.Upsampling)
IMAGE_SIZE, WIDTH, SEEDS, PERIODS = 32, 32, (0, 1), (2, 4)
SCORED, SHOWN, SHOWN_NAME = 1000, 8, "shown.pt"
"""How many images are scored, and how many of them, the first ones of seed 0, are shown."""

STAGES = {"cats": (50, 100, 200, 500, 1000, 2000), "fashion-mnist": (50, 100, 200, 500, 1000)}
"""Steps after which the pattern is measured, the last being the end; before the first step it is measured, too."""

EARLY = (0, 50, 200)
"""Steps after which the pattern is measured as D sees it, in grey levels as well."""

RECIPE = "r1"
REPORTING = {"log_every": 50, "sample_every": 10_000, "checkpoint_every": 500, "device": "cpu"}
CONFIG = replace(RECIPES[RECIPE].training, **REPORTING)


def networks(way: str, seed: int, channels: int) -> tuple[models.Generator, models.Discriminator]:
    """Build a pair of networks with the initial weights of a seed."""
    generator = models.build_generator(IMAGE_SIZE, channels, width=WIDTH, upsampling=way)
    # Without the minibatch standard deviation that dcgan train has besides: it was found later.
    discriminator = models.build_discriminator(IMAGE_SIZE, channels, WIDTH, RECIPES[RECIPE].batch_norm)
    return models.init_weights(generator, 2 * seed), models.init_weights(discriminator, 2 * seed + 1)


def untrained_images(way: str, seed: int, channels: int) -> Tensor:
    """What D sees in the first step: batch norm in train mode, since it has no running statistics yet."""
    generator, _ = networks(way, seed, channels)
    with torch.no_grad():
        return generator.train()(latent.sample_latent(SCORED, generator.latent_dim, seed=0))


def scores(pictures: Tensor) -> dict[str, float]:
    """Checkerboard score by period."""
    return {str(period): checkerboard.checkerboard_score(pictures, period) for period in PERIODS}


def spectrum(pictures: Tensor) -> list[float]:
    """Power at each horizontal frequency, to three digits: the sum over the vertical ones, the mean over images."""
    power = checkerboard.power_spectrum(pictures).mean(dim=(0, 1)).sum(dim=0)
    return [float(f"{value:.3g}") for value in power.tolist()]


def train_one(name: str, way: str, seed: int, dataset: data.ImageDataset, folder: Path) -> dict[str, Any]:
    """Train one pair, or continue its training, and return its entry of the results."""
    pictures, last = {}, STAGES[name][-1]
    by_step = {"0": scores(untrained_images(way, seed, dataset.channels))}
    pattern = folder / "pattern.json"
    if pattern.exists():
        by_step = json.loads(pattern.read_text(encoding="utf-8"))
    for stage in STAGES[name]:
        if str(stage) in by_step and stage != last:
            continue
        generator, discriminator = networks(way, seed, dataset.channels)
        config = replace(CONFIG, steps=stage, seed=seed)
        resume = (folder / checkpoint.STATE_NAME).exists()
        history = training.train(generator, discriminator, dataset, config, folder, resume, progress=False)
        if history.interrupted:
            sys.exit(f"stopped in {folder}; run the same command to go on")
        pictures[stage] = latent.sample(history.generator, SCORED, seed=0)
        by_step[str(stage)] = scores(pictures[stage])
        write_json(pattern, by_step)
    evaluation = metrics.evaluate(history.generator, dataset)
    torch.save(pictures[last][:SHOWN].clone(), folder / SHOWN_NAME)
    return {
        "data": name,
        "upsampling": way,
        "seed": seed,
        "scores": by_step,
        "evaluation": evaluation.to_dict(),
        "spectrum": spectrum(pictures[last]),
        "last_record": history.records[-1],
    }


def train_all(stored: dict[str, Any], name: str, data_root: Path | None, runs: Path) -> None:
    """Train every way and seed on one data set, and store the results after each run."""
    dataset = data.load_dataset(name, IMAGE_SIZE, root=data_root)
    real = data.to_model_range(dataset.images[:SCORED])
    about = {"images": len(dataset), "channels": dataset.channels, "steps": STAGES[name][-1]}
    stored["data"][name] = about | {"real": scores(real), "spectrum": spectrum(real)}
    for seed in SEEDS:
        for way in WAYS:
            run = train_one(name, way, seed, dataset, runs / f"{name}-{way}-{seed}")
            others = [r for r in stored["runs"] if (r["data"], r["upsampling"], r["seed"]) != (name, way, seed)]
            stored["runs"] = sorted([*others, run], key=lambda r: (r["data"], r["seed"], WAYS.index(r["upsampling"])))
            stored |= {"training": asdict(CONFIG), "recipe": RECIPE, "width": WIDTH, "image_size": IMAGE_SIZE}
            stored |= {"scored": SCORED, "shown": SHOWN, "hardware": processor()}
            stored["versions"] = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
            write_json(RESULTS, stored)
            distance = run["evaluation"]["frechet"]["value"]
            print(name, way, seed, run["scores"], f"{distance:.3f}", run["last_record"], flush=True)
    folders = [runs / f"{name}-{way}-{SEEDS[0]}" for way in WAYS]
    shown = [torch.load(folder / SHOWN_NAME, weights_only=True) for folder in folders]
    images.save_png(torch.cat(shown), RECORDED / f"checkerboard-{name}.png", columns=SHOWN, padding=0)


def as_d_sees(generator: models.Generator) -> dict[str, float]:
    """Pattern and contrast of what D gets to see: weights not averaged, batch norm in train mode.

    ``pattern`` and ``contrast`` are root mean squares over images and channels, in grey levels of 0 to 255: of the
    average tile, and of what differs from the image's mean. Their squared ratio is a share of the variance like
    ``score``, which is the mean of such shares.
    """
    with torch.no_grad():
        pictures = generator.train()(latent.sample_latent(SCORED, generator.latent_dim, seed=0)).double()
    pattern = checkerboard.average_tile(pictures).square().mean().sqrt().item()
    contrast = pictures.var(dim=(2, 3), unbiased=False).mean().sqrt().item()
    score = checkerboard.checkerboard_score(pictures)
    return {"score": score, "pattern": 127.5 * pattern, "contrast": 127.5 * contrast}


def measure_early(stored: dict[str, Any], name: str, data_root: Path | None) -> None:
    """Add the first steps, as D sees them, to every stored run on a data set; training is short enough to repeat."""
    dataset = data.load_dataset(name, IMAGE_SIZE, root=data_root)
    for run in (run for run in stored["runs"] if run["data"] == name):
        run["early"] = {}
        for steps in EARLY:
            generator, discriminator = networks(run["upsampling"], run["seed"], dataset.channels)
            if steps:
                config = replace(CONFIG, steps=steps, seed=run["seed"])
                training.train(generator, discriminator, dataset, config, progress=False)
            run["early"][str(steps)] = as_d_sees(generator)
        print(name, run["upsampling"], run["seed"], run["early"], flush=True)


def median_seconds(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median processor time of each action, in seconds; they take turns, so that a busy moment meets all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds + 1):
        for name, action in actions.items():
            start = time.process_time()
            action()
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first warms up


def time_ways(rounds: int = 41) -> dict[str, Any]:
    """Processor time of sampling and of training, as multiples of the first way's."""
    batch = CONFIG.batch_size
    z = latent.sample_latent(batch, 100, seed=0)
    sampling, step = {}, {}
    for way in WAYS:
        generator, discriminator = (network.to(memory_format=torch.channels_last) for network in networks(way, 0, 3))
        optimizers = [torch.optim.Adam(network.parameters(), lr=1e-4) for network in (discriminator, generator)]
        real = torch.rand(batch, 3, IMAGE_SIZE, IMAGE_SIZE).contiguous(memory_format=torch.channels_last)
        sampling[way] = lambda g=generator: latent.generate(g, z)
        step[way] = lambda g=generator, d=discriminator, o=optimizers, r=real: training.train_step(
            g, d, *o, r, z, CONFIG, penalise=False
        )
    found = {}
    for name, actions in (("sampling", sampling), ("training step", step)):
        seconds = median_seconds(actions, rounds)
        found[name] = {way: round(value / seconds[WAYS[0]], 3) for way, value in seconds.items()}
        print(name, found[name], flush=True)
    return {"ratios": found, "rounds": rounds, "batch_size": batch, "hardware": processor()}


def draw_picture() -> None:
    """Corners of what untrained generators draw: the first sample of seed 0, and the mean of 64."""
    from dcgan_lib import plots
    from dcgan_lib.plots.look import show_image

    names = ("transposed, kernel 4", "transposed, kernel 5", "resized, kernel 3")
    figure, axes = plots.subplots(2, 3, width=6.4, height=4.5)
    for column, (way, name) in enumerate(zip(WAYS, names, strict=True)):
        green = untrained_images(way, 0, 3)[:64, 1, :12, :12]
        for row, corner in enumerate((green[0], green.mean(dim=0))):
            show_image(axes[row, column], (corner / green[0].abs().max()).clamp(-1, 1)[None])
        axes[0, column].set_title(name)
    for axis, label in zip(axes[:, 0], ("one image", "mean of 64 images"), strict=True):
        axis.set_ylabel(label)
    figure.savefig(ROOT / "book" / "images" / "checkerboard-seen.png", dpi=144)


def summary(stored: dict[str, Any]) -> dict[str, Any]:
    """The part of the results that the chapter shows."""
    runs = []
    for run in stored["runs"]:
        kept = {name: run[name] for name in ("data", "upsampling", "seed")}
        kept["scores"] = {step: {p: round(v, 5) for p, v in by.items()} for step, by in run["scores"].items()}
        kept["early"] = {step: {q: round(v, 5) for q, v in by.items()} for step, by in run.get("early", {}).items()}
        kept["frechet_distance"] = round(run["evaluation"]["frechet"]["value"], 3)
        kept["frechet_floor"] = round(run["evaluation"]["frechet"]["floor"], 3)
        if run["seed"] == SEEDS[0]:
            kept["spectrum"] = run["spectrum"]
        runs.append(kept)
    names = ("data", "recipe", "width", "image_size", "scored", "shown", "hardware", "time")
    short = {name: stored[name] for name in names if name in stored}
    return short | {"batch_size": stored["training"]["batch_size"], "runs": runs}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "early", "time", "picture"])
    parser.add_argument("data", nargs="*", help=f"data sets to train on: {', '.join(STAGES)}")
    parser.add_argument("--data-root", type=Path, help="where torchvision's data sets are")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "checkerboard", help="folder of the runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.data) - STAGES.keys():
        parser.error(f"unknown data sets: {', '.join(sorted(unknown))}")
    if options.what == "picture":
        draw_picture()
        return 0
    stored = {"data": {}, "runs": []}
    if RESULTS.exists():
        stored = json.loads(RESULTS.read_text(encoding="utf-8"))
    if options.what == "train":
        for name in options.data:
            train_all(stored, name, options.data_root, options.runs)
    elif options.what == "early":
        for name in options.data:
            measure_early(stored, name, options.data_root)
        write_json(RESULTS, stored)
    else:
        stored["time"] = time_ways()
        write_json(RESULTS, stored)
    write_json(RECORDED / "checkerboard.json", summary(stored))
    return 0


if __name__ == "__main__":
    sys.exit(main())
