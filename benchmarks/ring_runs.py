"""Play the named games of :mod:`dcgan_lib.ring`: from many seeds to see that they behave alike, and two for the page.

    OMP_NUM_THREADS=1 python benchmarks/ring_runs.py            # both, some minutes
    OMP_NUM_THREADS=1 python benchmarks/ring_runs.py seeds      # benchmarks/results/ring-runs.json
    OMP_NUM_THREADS=1 python benchmarks/ring_runs.py page       # book/explorers/ring-runs.json

The numbers follow from the seeds, up to rounding that differs between processors, which these games amplify.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import torch
from training_runs import processor

from dcgan_lib.files import atomic_write, write_json
from dcgan_lib.ring import CONFIGS, Frame, Ring, RingConfig, RingGAN
from dcgan_lib.ring_recording import RecordedRun, pack_runs

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "ring-runs.json"
PAGE = ROOT / "book" / "explorers" / "ring-runs.json"

SEEDS = range(10)
STAGES = (250, 500, 1000, 1500, 2000, 2500)
"""Steps of D then G after which modes and good points are counted."""
COUNTED = 2000
"""Generated points that are counted, of one set of latent vectors."""

TITLES = {
    "collapsing": ("Without a penalty", "D learns 20 times as fast as G, and G’s points are held to a few modes."),
    "repaired": ("With the R1 penalty", "The same game with one change, the R1 penalty on D: G finds every mode."),
}
POINTS, RESOLUTION, ARROWS = 256, 28, 20


def frame_steps(count: int = 206, first: int = 2, last: int = 22) -> list[int]:
    """Steps with a frame: close together at the beginning, where most happens, and ever further apart."""
    gaps = [round(first + (last - first) * index / (count - 2)) for index in range(count - 1)]
    return [sum(gaps[:index]) for index in range(count)]


def play(config: RingConfig, steps: Sequence[int]) -> list[Frame]:
    """Play a game and keep a frame at the given steps, which ascend from 0."""
    game = RingGAN(Ring(), config)
    frames = [game.frame(POINTS, RESOLUTION, ARROWS)]
    for before, after in pairwise(steps):
        for _ in range(after - before):
            game.step()
        frames.append(game.frame(POINTS, RESOLUTION, ARROWS))
    return frames


def over_seeds(name: str) -> dict[str, object]:
    """Play one named game from every seed: modes and share of good points at each stage, one row a seed."""
    modes, good, start = [], [], time.perf_counter()
    for seed in SEEDS:
        game = RingGAN(Ring(), replace(CONFIGS[name], seed=seed))
        found = []
        for before, after in pairwise((0, *STAGES)):
            for _ in range(after - before):
                game.step()
            found.append(game.ring.coverage(game.sample(COUNTED, seed=1)))
        modes.append([coverage.modes for coverage in found])
        good.append([round(coverage.good, 3) for coverage in found])
        print(name, seed, modes[-1], good[-1], flush=True)
    seconds = round((time.perf_counter() - start) / len(SEEDS), 1)
    return {"config": asdict(CONFIGS[name]), "modes": modes, "good": good, "seconds_a_run": seconds}


def write_seeds() -> None:
    """Write the results over seeds."""
    results = {
        "ring": asdict(Ring()),
        "seeds": list(SEEDS),
        "stages": STAGES,
        "counted_points": COUNTED,
        "hardware": processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "runs": {name: over_seeds(name) for name in CONFIGS},
    }
    write_json(RESULTS, results)


def write_page() -> None:
    """Write the two runs that the page shows side by side."""
    steps = frame_steps()
    runs = [RecordedRun(name, *texts, play(CONFIGS[name], steps)) for name, texts in TITLES.items()]
    text = json.dumps(pack_runs(runs), separators=(",", ":"), ensure_ascii=False)
    with atomic_write(PAGE) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(f"{PAGE.name}: {PAGE.stat().st_size:,} bytes, {len(steps)} frames up to step {steps[-1]}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="seeds or page; without any, both")
    writers = {"seeds": write_seeds, "page": write_page}
    names = parser.parse_args(arguments).what or list(writers)
    if unknown := set(names) - writers.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    for name in names:
        writers[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
