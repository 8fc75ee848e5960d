"""Measure what training costs besides its steps.

    python benchmarks/overheads.py import       # `import dcgan_lib` over `import torch`
    python benchmarks/overheads.py start        # from the command to the end of the first step
    python benchmarks/overheads.py reporting    # logging, sample grids and checkpoints, as a share of training time
    python benchmarks/overheads.py store        # a million stored images against a thousand; needs 13 GB of disk

Each writes its part of benchmarks/results/overheads.json, from which ``tools/tables.py`` writes the README's table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from throughput import spread
from torch import Tensor
from training_runs import processor

from dcgan_lib import data, models, training
from dcgan_lib.acceleration import accelerated, keep_freed_memory
from dcgan_lib.config import RECIPES, TrainingConfig
from dcgan_lib.files import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "overheads.json"
IMAGE_SIZE, REPEATS = 64, 7
SMALL, LARGE, WIDTH = 1_000, 1_000_000, 32


def measure_import() -> dict[str, Any]:
    """Seconds of a fresh interpreter that imports, in turns."""
    statements = {"torch": "torch", "dcgan_lib": "torch, dcgan_lib", "dcgan_lib.training": "torch, dcgan_lib.training"}
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(REPEATS):
        for name, modules in statements.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
            times[name].append(time.perf_counter() - started)
    over = {
        name: spread([t - base for t, base in zip(times[name], times["torch"], strict=True)])
        for name in ("dcgan_lib", "dcgan_lib.training")
    }
    return {"seconds": times, "over_torch": over}


def measure_start() -> dict[str, Any]:
    """Seconds from the command ``dcgan train`` with its defaults to the record of its first step, also compiled."""
    times: dict[str, list[float]] = {"as it comes": [], "compiled, nothing cached": []}
    for name, options in (("as it comes", []), ("compiled, nothing cached", ["--compile", "yes"])):
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                run = Path(folder) / "run"
                command = [sys.executable, "-m", "dcgan_lib", "train", "--log-every", "1", "--steps", "1", *options]
                environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(Path(folder) / "cache")}
                started = time.perf_counter()
                process = subprocess.Popen([*command, "--output", str(run)], env=environment, stdout=subprocess.DEVNULL)
                while process.poll() is None and _is_empty(run):
                    time.sleep(0.01)
                times[name].append(time.perf_counter() - started)
                process.wait()
    return {"seconds": times, "to_first_step": {name: spread(each) for name, each in times.items()}}


def _is_empty(run: Path) -> bool:
    metrics = run / "metrics.jsonl"
    return not metrics.exists() or metrics.stat().st_size == 0


def timed(action: Callable[[], Any], repeats: int = REPEATS) -> list[float]:
    """Times of an action, in seconds."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        action()
        times.append(time.perf_counter() - started)
    return times


def measure_reporting() -> dict[str, Any]:
    """Each kind of report timed by itself, and how much of the time of training they take at the default intervals."""
    keep_freed_memory()
    config = TrainingConfig(batch_size=64, average_half_life=20_000, device="cpu")
    dataset = data.load_dataset("cats", IMAGE_SIZE, limit=1000)
    generator, discriminator = models.build_generator(), models.build_discriminator()
    with tempfile.TemporaryDirectory() as folder:
        run = training._Run(generator, discriminator, dataset, config, training.distributed.current())
        run.open_folder(Path(folder), resume=False, data_options={})
        run.players = generator, discriminator

        def log() -> None:
            run.since_log = run.since_log or 1
            run.sums = run.sums or {"d_loss": torch.ones(()), "g_loss": torch.ones(())}
            run._log()

        with accelerated(config, run.device, generator, discriminator):
            run._advance()
            steps = timed(run._advance)
            reports = {"log": timed(log), "sample": timed(run._save_grid), "checkpoint": timed(run.save)}
    seconds = {name: statistics.median(times) for name, times in reports.items()}
    step = statistics.median(steps)
    shares = {name: seconds[name] / (getattr(config, f"{name}_every") * step) for name in seconds}
    return {
        "step_seconds": steps,
        "report_seconds": reports,
        "shares": {name: float(f"{share:.3g}") for name, share in shares.items()},
        "share": float(f"{sum(shares.values()):.3g}"),
    }


def generated_images(count: int, batch: int = 5_000) -> Iterator[Tensor]:
    """Generated images, uint8: random blocks of colour, since only their number matters."""
    random = torch.Generator().manual_seed(0)
    for start in range(0, count, batch):
        shape = (min(batch, count - start), 3, IMAGE_SIZE // 8, IMAGE_SIZE // 8)
        blocks = torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
        yield blocks.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def train_from_store(folder: str) -> dict[str, Any]:
    """Train from a store in this process; the time of every step, and the most memory that was in use."""
    keep_freed_memory()
    dataset = data.load_dataset(f"store:{folder}", IMAGE_SIZE)
    recipe = RECIPES["r1"]
    networks = (
        models.build_generator(width=WIDTH),
        models.build_discriminator(width=WIDTH, batch_norm=recipe.batch_norm, minibatch_std=recipe.minibatch_std),
    )
    run = training._Run(*networks, dataset, recipe.training, training.distributed.current())
    run.players = networks
    with accelerated(recipe.training, run.device, *networks):
        for _ in range(8):
            run._advance()
        times = timed(run._advance, 24)
    run.batches.close()
    return {
        "images": len(dataset),
        "step_seconds": times,
        "peak_bytes": peak_bytes(),
    }


def peak_bytes() -> int:
    """The most memory that this process has used (Linux); getrusage would begin with what its parent has used."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure_store() -> dict[str, Any]:
    """Stores of a thousand and of a million images, trained from in turns as ``dcgan train`` does by default."""
    from dcgan_lib.store_writer import write_store

    measurements = []
    with tempfile.TemporaryDirectory() as folder:
        built = {}
        for count in (SMALL, LARGE):
            path = Path(folder) / str(count)
            (built[str(count)],) = timed(lambda path=path, count=count: write_store(path, generated_images(count)), 1)
        for number in range(REPEATS):
            for count in (SMALL, LARGE):
                command = [sys.executable, __file__, "steps", "--folder", str(Path(folder) / str(count))]
                finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                measurements.append({"round": number} | json.loads(finished.stdout.splitlines()[-1]))
                times = measurements[-1]["step_seconds"]
                print(number, count, statistics.median(times), measurements[-1]["peak_bytes"], flush=True)
        size = (Path(folder) / str(LARGE) / "images.u8").stat().st_size

    def of(count: int, name: str) -> list[Any]:
        return [measured[name] for measured in measurements if measured["images"] == count]

    few, many = ([statistics.median(times) for times in of(count, "step_seconds")] for count in (SMALL, LARGE))
    return {
        "images": [SMALL, LARGE],
        "bytes": size,
        "build_seconds": built,
        "speed_of_the_large_one": spread([a / b for a, b in zip(few, many, strict=True)]),
        "peak_bytes": {str(count): max(of(count, "peak_bytes")) for count in (SMALL, LARGE)},
        "measurements": measurements,
    }


MEASURES = {"import": measure_import, "start": measure_start, "reporting": measure_reporting, "store": measure_store}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*MEASURES, "steps"))
    parser.add_argument("--folder", help="of the store, for `steps`")
    options = parser.parse_args(arguments)
    if options.what == "steps":
        print(json.dumps(train_from_store(options.folder)))
        return 0
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    stored[options.what] = MEASURES[options.what]() | {
        "hardware": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }
    write_json(RESULTS, {name: stored[name] for name in MEASURES if name in stored})
    return 0


if __name__ == "__main__":
    sys.exit(main())
