"""Measure training, from the usual example loop to this package's, one change after the other.

    python benchmarks/throughput.py                    # on a GPU if there is one, else on the CPU
    python benchmarks/throughput.py --device cpu --rounds 7

Every measurement is a process of its own, and the ways take turns, so that what disturbs the machine meets all of them.
Each process also measures the machine: the rate of bfloat16 matrix products and of copies, just before and after.
Writes benchmarks/results/throughput-DEVICE.json with every single time, and its summary for the chapter, which
:func:`dcgan_lib.recordings.load_throughput` reads; ``tools/tables.py`` writes the README's table from the same numbers.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from plain_loop import PlainLoop, batches
from torch import Tensor
from training_runs import processor
from work import count_work

from dcgan_lib import models, seeds, training
from dcgan_lib.acceleration import accelerated, adam, keep_freed_memory
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import ImageDataset, to_model_range
from dcgan_lib.fast_convolution import fast_convolutions
from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS, RECORDED = ROOT / "benchmarks" / "results", ROOT / "dcgan_lib" / "recorded"
IMAGE_SIZE, WIDTH, IMAGES = 64, 64, 20_000

CHANGES = {
    "plain": "the usual example loop",
    "resident": "no DataLoader, losses read now and then",
    "gradients": "no gradients that nobody uses",
    "channels-last": "channels last",
    "bfloat16": "bfloat16 convolutions",
    "fused": "Adam in one kernel",
}
ON_CPU = CHANGES | {"convolutions": "the fastest form of each convolution", "memory": "freed memory kept"}
ON_GPU = CHANGES | {"compiled": "compiled networks"}
REJECTED = {"compiled": "compiled networks, instead of faster forms and kept memory"}
"""What was measured on the CPU, gains nothing there, and is left out."""


def ways(device: torch.device) -> dict[str, str]:
    """The ways to train that are measured on a device: each adds a change to the one before, and the last is ours."""
    return (ON_GPU if device.type == "cuda" else ON_CPU) | {"train": "dcgan_lib.training"}


class Trainer:
    """One way to train: the plain loop with the first changes up to one of them.

    Args:
        way: A key of :func:`ways`.
        device: Where.
        batch_size: Images in a batch.
    """

    def __init__(self, way: str, device: torch.device, batch_size: int) -> None:
        self.device, self.batch_size, self.stack = device, batch_size, ExitStack()
        order = list(ways(device))
        applied = set(order[: order.index(way) + 1]) if way != "compiled" else {*CHANGES, "compiled"}
        self.generator = models.build_generator(IMAGE_SIZE, 3, width=WIDTH).to(device).train()
        self.discriminator = models.build_discriminator(IMAGE_SIZE, 3, WIDTH).to(device).train()
        # Speed does not depend on what the images show.
        pixels = torch.randint(0, 256, (IMAGES, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=torch.uint8)
        self.dataset = ImageDataset(pixels, torch.empty(IMAGES, 0, dtype=torch.int64), {}, "random")
        self.random = torch.Generator(device).manual_seed(0)
        self.step = self._step_of(way, applied)

    def _step_of(self, way: str, applied: set[str]) -> Callable[[int], Any]:
        if way == "train":
            return self._package_step()
        if way == "plain":
            loop = PlainLoop(self.generator, self.discriminator)
            workers = 8 if self.device.type == "cuda" else 2
            loader = batches(self.dataset.images, self.batch_size, workers, self.device)
            return lambda _: loop.step(next(loader), self._z())
        pixels = self.dataset.images.to(self.device)
        if way == "resident":
            loop = PlainLoop(self.generator, self.discriminator)
            return lambda step: loop.step(self._real(pixels, step), self._z(), read=False)
        return self._changed_step(pixels, applied)

    def _changed_step(self, pixels: Tensor, applied: set[str]) -> Callable[[int], Any]:
        config = TrainingConfig(precision="bfloat16" if "bfloat16" in applied else "float32")
        layout = torch.channels_last if "channels-last" in applied else torch.contiguous_format
        networks = [network.to(memory_format=layout) for network in (self.generator, self.discriminator)]
        if "fused" in applied:
            g_optimizer, d_optimizer = (adam(network.parameters(), config) for network in networks)
        else:
            options = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2)}
            g_optimizer, d_optimizer = (torch.optim.Adam(network.parameters(), **options) for network in networks)
        if "compiled" in applied:
            self.stack.enter_context(accelerated(replace(config, compile="yes"), self.device, *networks))
        if "convolutions" in applied:
            self.stack.enter_context(fast_convolutions(*networks))
        if "memory" in applied:
            keep_freed_memory()

        def step(number: int) -> Any:
            real = self._real(pixels, number).contiguous(memory_format=layout)
            return training.train_step(*networks, d_optimizer, g_optimizer, real, self._z(), config)

        return step

    def _package_step(self) -> Callable[[int], Any]:
        """What the loop of ``training.train`` does in a step, with everything that the configuration chooses by itself.

        The paper's recipe, as in the plain loop, with weight averaging on top.
        """
        keep_freed_memory()  # as the command line does
        config = TrainingConfig(batch_size=self.batch_size, average_half_life=20_000, device=str(self.device))
        run = training._Run(self.generator, self.discriminator, self.dataset, config, training.distributed.current())
        run.players = self.generator, self.discriminator
        self.stack.enter_context(accelerated(config, self.device, self.generator, self.discriminator))
        return lambda _: run._advance()

    def _real(self, pixels: Tensor, step: int) -> Tensor:
        return to_model_range(pixels[seeds.batch_indices(IMAGES, self.batch_size, step, 0).to(self.device)])

    def _z(self) -> Tensor:
        return torch.randn(self.batch_size, 100, generator=self.random, device=self.device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(action: Callable[[], Any], device: torch.device, repeats: int) -> list[float]:
    """Times of an action, in seconds."""
    times = []
    for _ in range(repeats):
        synchronise(device)
        started = time.perf_counter()
        action()
        synchronise(device)
        times.append(time.perf_counter() - started)
    return times


def machine_rates(device: torch.device) -> dict[str, Any]:
    """Operations per second in bfloat16 products of square matrices, by their size; bytes per second in copies."""
    products = {}
    for size in (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192):
        a, b = torch.randn(2, size, size, device=device).bfloat16()
        seconds_of(lambda a=a, b=b: a @ b, device, 2)
        products[str(size)] = 2 * size**3 / statistics.median(seconds_of(lambda a=a, b=b: a @ b, device, 7))
    source = torch.zeros(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copies = seconds_of(lambda: target.copy_(source), device, 5)
    return {
        "matrix_products": products,
        "bytes_per_second": 2 * source.nbytes / statistics.median(copies),
    }


def measure(way: str, device: torch.device, batch_size: int, steps: int) -> dict[str, Any]:
    """Measure one way in this process."""
    before = machine_rates(device)
    trainer = Trainer(way, device, batch_size)
    started = time.perf_counter()
    with trainer.stack:
        trainer.step(0)
        synchronise(device)
        first = time.perf_counter() - started
        warm = 3
        for number in range(1, warm):
            trainer.step(number)
        synchronise(device)
        times = []
        # On a GPU the host runs ahead, so only many steps together can be timed.
        group = 1 if device.type == "cpu" else steps
        for number in range(0, steps, group):
            action = lambda n=number: [trainer.step(warm + n + i) for i in range(group)]  # noqa: E731
            times.append(seconds_of(action, device, 1)[0] / group)
    return {
        "way": way,
        "first_step_seconds": round(first, 3),
        "step_seconds": [round(value, 5) for value in times],
        "machine": [before, machine_rates(device)],
    }


def work_of_a_step(way: str, device: torch.device, batch_size: int) -> dict[str, Any]:
    """Operations and bytes of one step, kernel by kernel, as the ordinary layers need them."""
    trainer = Trainer("plain" if way == "plain" else "fused", device, batch_size)
    trainer.step(0)
    return count_work(lambda: trainer.step(1))


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """What the chapter and the README show: medians over the rounds, each round's ratios being of the same minutes."""
    batch_size, rounds = results["settings"]["batch_size"], {}
    for measured in results["measurements"]:
        rounds.setdefault(measured["way"], []).append(measured)
    speeds = {
        way: [batch_size / statistics.median(measured["step_seconds"]) for measured in each]
        for way, each in rounds.items()
    }
    size = fastest_size(results["measurements"])
    rates = [
        statistics.mean(machine["matrix_products"][size] for machine in measured["machine"])
        for measured in rounds["train"]
    ]
    operations = results["work"]["train"]["operations"] / batch_size
    shares = [operations * speed / rate for speed, rate in zip(speeds["train"], rates, strict=True)]
    return {
        **results["settings"],
        "ways": [
            {
                "name": way,
                "change": (results["ways"] | results["rejected"])[way],
                "rejected": way in results["rejected"],
                "images_per_second": spread(each),
                "times_plain": spread([fast / slow for fast, slow in zip(each, speeds["plain"], strict=True)]),
            }
            for way, each in speeds.items()
        ],
        "operations_per_image": {way: work["operations"] / batch_size for way, work in results["work"].items()},
        "matrix_size": int(size),
        "matrix_operations_per_second": spread(rates),
        "share_of_matrix_rate": spread(shares),
        "roofline_seconds": results["work"]["train"]["roofline_seconds"],
        "hardware": results["hardware"],
        "versions": results["versions"],
    }


def fastest_size(measurements: list[dict[str, Any]]) -> str:
    """The size of matrices whose products are fastest over the whole benchmark.

    One size for all: the fastest of each single process would be the luckiest, and no rate that the machine can keep.
    """
    machines = [machine["matrix_products"] for measured in measurements for machine in measured["machine"]]
    return max(machines[0], key=lambda size: statistics.median(products[size] for products in machines))


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest, to four digits."""
    digits = {"median": statistics.median(values), "smallest": min(values), "largest": max(values)}
    return {name: float(f"{value:.4g}") for name, value in digits.items()}


def with_roofline(work: dict[str, Any], measurements: list[dict[str, Any]]) -> dict[str, float]:
    """Work without its kernels; instead, the least time that the machine could need for them one after the other."""
    machines, size = (
        [machine for measured in measurements for machine in measured["machine"]],
        fastest_size(measurements),
    )
    rate = statistics.median(machine["matrix_products"][size] for machine in machines)
    bandwidth = statistics.median(machine["bytes_per_second"] for machine in machines)
    seconds = sum(max(operations / rate, traffic / bandwidth) for operations, traffic in work["kernels"])
    return {name: value for name, value in work.items() if name != "kernels"} | {"roofline_seconds": seconds}


def in_own_process(way: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one way in a process of its own."""
    command = [sys.executable, __file__, "--device", options.device, "--batch-size", str(options.batch_size)]
    command += ["--steps", str(options.steps), "--way", way]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout.splitlines()[-1])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, help="64 on a CPU, 128 on a GPU")
    parser.add_argument("--steps", type=int, help="timed steps of each measurement; 8 on a CPU, 200 on a GPU")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each way")
    parser.add_argument("--way", help="measure only this way, in this process, and print the result")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    options.batch_size = options.batch_size or (64 if device.type == "cpu" else 128)
    options.steps = options.steps or (8 if device.type == "cpu" else 200)
    if options.way:
        print(json.dumps(measure(options.way, device, options.batch_size, options.steps)))
        return 0

    rejected = REJECTED if device.type == "cpu" else {}
    everything = list(ways(device) | rejected)
    measurements = []
    for number in range(options.rounds):
        for way in everything:
            measurements.append({"round": number} | in_own_process(way, options))
            times = measurements[-1]["step_seconds"]
            print(number, f"{way:14}{options.batch_size / statistics.median(times):8.1f} images/s", flush=True)
    works = {way: work_of_a_step(way, device, options.batch_size) for way in ("plain", "train")}
    results = {
        "settings": {
            "device": device.type, "image_size": IMAGE_SIZE, "width": WIDTH, "batch_size": options.batch_size,
            "steps": options.steps, "rounds": options.rounds,
        },
        "ways": ways(device),
        "rejected": rejected,
        "work": {way: with_roofline(work, measurements) for way, work in works.items()},
        "measurements": measurements,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }  # fmt: skip
    write_json(RESULTS / f"throughput-{device.type}.json", results)
    write_json(RECORDED / f"throughput-{device.type}.json", summarise(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
