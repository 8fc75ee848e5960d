"""Training runs recorded once by programs in ``benchmarks/``, so that a chapter can show what takes minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan_lib.errors import UserError

FOLDER = Path(__file__).parent / "recorded"
SHOWN_FINALISTS = ("plain", "default")
"""Whose samples of the search for a recipe are kept."""


@dataclass(frozen=True)
class Recording:
    """One recorded run.

    Attributes:
        title: What it shows, in a few words.
        training: The fields of its ``TrainingConfig``.
        records: As in ``History.records``, without the times: ``step``, ``images``, ``d_loss``, ``g_loss``,
            ``d_real``, ``d_fake``.
        samples: Step -> images of the first latent vectors of seed 0 at that step, uint8 (N, 3, S, S).
        hardware: Where it ran.

    Source: ``benchmarks/training_runs.py``.
    """

    title: str
    training: Mapping[str, Any]
    records: list[dict[str, float]]
    samples: dict[int, Tensor]
    hardware: str

    def at_end(self, name: str, count: int = 10) -> float:
        """Mean of one quantity of ``records``, such as ``"d_loss"``, over the last ``count`` of them."""
        return sum(record[name] for record in self.records[-count:]) / count


def load_recording(name: str) -> Recording:
    """Load a recorded run by name: "plain", "noise", "r1", "fast" or "range".

    Raises:
        UserError: If there is no such run.
    """
    stored = json.loads((FOLDER / "training-runs.json").read_text(encoding="utf-8"))
    if name not in stored["runs"]:
        raise UserError(f"there is no recorded run {name!r}; choose from {', '.join(stored['runs'])}")
    run, size = stored["runs"][name], stored["data"]["image_size"]
    # A row for each stage, a column for each latent vector.
    samples = dict(zip(stored["stages"], cut(FOLDER / f"training-{name}.png", size), strict=True))
    return Recording(run["title"], run["training"], run["records"], samples, stored["hardware"])


@dataclass(frozen=True)
class UpsamplingRun:
    """One generator that was trained with one way to double its maps.

    Attributes:
        data: Name of the real images.
        upsampling: As in ``models.build_generator``.
        seed: Seed of the run.
        scores: Step -> period -> checkerboard score of generated images: before the first step as D sees them, later of
            the averaged generator.
        early: Step -> the first steps as D sees them, weights not averaged and batch norm in train mode: ``score`` with
            period 2, and the root mean squares ``pattern`` and ``contrast`` in grey levels of 0 to 255.
        frechet_distance: At the end, as from ``metrics.evaluate``.
        frechet_floor: Real images against other real images.
        spectrum: Power of the images at the end at each horizontal frequency, (S,): ``checkerboard.power_spectrum``,
            added up over the vertical frequencies; seed 0 only.
    """

    data: str
    upsampling: str
    seed: int
    scores: dict[int, dict[int, float]]
    early: dict[int, dict[str, float]]
    frechet_distance: float
    frechet_floor: float
    spectrum: Tensor | None


@dataclass(frozen=True)
class UpsamplingRuns:
    """The comparison of ways to double a map by ``benchmarks/checkerboard.py``.

    Attributes:
        runs: All runs.
        real: Data set -> period -> checkerboard score of real images.
        real_spectrum: Data set -> their power at each horizontal frequency, (S,).
        steps: Data set -> steps of each run.
        samples: Data set -> way -> images of the first latent vectors of seed 0 at the end of the run of seed 0, uint8
            (N, C, S, S).
        time_ratios: "sampling" or "training step" -> way -> time, as a multiple of the first way's.
        settings: The other numbers: ``recipe``, ``width``, ``image_size``, ``batch_size``, ``scored`` (images in each
            score), and ``hardware`` of the time ratios.
    """

    runs: list[UpsamplingRun]
    real: dict[str, dict[int, float]]
    real_spectrum: dict[str, Tensor]
    steps: dict[str, int]
    samples: dict[str, dict[str, Tensor]]
    time_ratios: dict[str, dict[str, float]]
    settings: Mapping[str, Any]

    def of(self, data: str, upsampling: str) -> list[UpsamplingRun]:
        """The runs on a data set with one way to double, by seed."""
        return [run for run in self.runs if (run.data, run.upsampling) == (data, upsampling)]


def load_upsampling_runs() -> UpsamplingRuns:
    """Load what ``benchmarks/checkerboard.py`` measured."""
    stored = json.loads((FOLDER / "checkerboard.json").read_text(encoding="utf-8"))
    runs = []
    for run in stored["runs"]:
        run["scores"] = {int(step): _by_period(scores) for step, scores in run["scores"].items()}
        run["early"] = {int(step): measured for step, measured in run["early"].items()}
        spectrum = run.pop("spectrum", None)
        runs.append(UpsamplingRun(**run, spectrum=None if spectrum is None else torch.tensor(spectrum)))
    ways = list(dict.fromkeys(run.upsampling for run in runs))
    about, size, time = stored["data"], stored["image_size"], stored["time"]
    pictures = {name: cut(FOLDER / f"checkerboard-{name}.png", size) for name in about}
    names = ("recipe", "width", "image_size", "batch_size", "scored")
    return UpsamplingRuns(
        runs=runs,
        real={name: _by_period(entry["real"]) for name, entry in about.items()},
        real_spectrum={name: torch.tensor(entry["spectrum"]) for name, entry in about.items()},
        steps={name: entry["steps"] for name, entry in about.items()},
        samples={name: dict(zip(ways, rows, strict=True)) for name, rows in pictures.items()},
        time_ratios=time["ratios"],
        settings={name: stored[name] for name in names} | {"hardware": time["hardware"]},
    )


def _by_period(scores: Mapping[str, float]) -> dict[int, float]:
    return {int(period): score for period, score in scores.items()}


def cut(path: Path, size: int) -> Tensor:
    """Cut a picture, a grid of images without gaps, into uint8 (rows, columns, channels, size, size)."""
    with Image.open(path) as picture:
        grid = torch.from_numpy(np.array(picture))
    grid = grid[..., None] if grid.ndim == 2 else grid
    return grid.unflatten(0, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3)


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several measurements."""

    median: float
    smallest: float
    largest: float

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.smallest:.3g} to {self.largest:.3g})"


@dataclass(frozen=True)
class TrainingWay:
    """One way to train, as ``benchmarks/throughput.py`` measured it.

    Attributes:
        name: A short name, such as "bfloat16".
        change: What was changed against the way before.
        rejected: Whether the change was tried and left out.
        images_per_second: Over all rounds.
        times_plain: Its speed as a multiple of the usual example loop's in the same round.
    """

    name: str
    change: str
    rejected: bool
    images_per_second: Spread
    times_plain: Spread


@dataclass(frozen=True)
class Throughput:
    """How fast training is on one device, from the usual example loop to this package's, one change after the other.

    Attributes:
        ways: From the slowest, "plain", to this package's, "train"; then what was rejected.
        operations_per_image: Operations of convolutions and matrix products in a step, for "plain" and "train".
        matrix_operations_per_second: The machine's own rate of products of square bfloat16 matrices, in the rounds of
            "train" and of the size that is fastest over the whole benchmark.
        share_of_matrix_rate: What of that rate this package reaches, counting only operations that a step needs.
        roofline_seconds: The least time for one step's kernels, each at the rate of matrix products or of memory.
        settings: ``device``, ``image_size``, ``width``, ``batch_size``, ``steps``, ``rounds``.
        hardware: Where it was measured.
    """

    ways: list[TrainingWay]
    operations_per_image: Mapping[str, float]
    matrix_operations_per_second: Spread
    share_of_matrix_rate: Spread
    roofline_seconds: float
    settings: Mapping[str, Any]
    hardware: str

    def __getitem__(self, name: str) -> TrainingWay:
        return next(way for way in self.ways if way.name == name)


def load_throughput(device: str = "cpu") -> Throughput:
    """Load what ``benchmarks/throughput.py`` measured on a kind of device: "cpu" or "cuda".

    Raises:
        UserError: If it has not been measured there.
    """
    path = FOLDER / f"throughput-{device}.json"
    if not path.exists():
        raise UserError(f"training has not been measured on {device}: run benchmarks/throughput.py there")
    stored = json.loads(path.read_text(encoding="utf-8"))
    ways = [
        TrainingWay(
            **{name: way[name] for name in ("name", "change", "rejected")},
            images_per_second=Spread(**way["images_per_second"]),
            times_plain=Spread(**way["times_plain"]),
        )
        for way in stored["ways"]
    ]
    names = ("device", "image_size", "width", "batch_size", "steps", "rounds")
    return Throughput(
        ways=ways,
        operations_per_image=stored["operations_per_image"],
        matrix_operations_per_second=Spread(**stored["matrix_operations_per_second"]),
        share_of_matrix_rate=Spread(**stored["share_of_matrix_rate"]),
        roofline_seconds=stored["roofline_seconds"],
        settings={name: stored[name] for name in names},
        hardware=stored["hardware"],
    )


@dataclass(frozen=True)
class SameTraining:
    """The usual loop in float32 against this package's in bfloat16, by ``benchmarks/same_training.py``.

    Attributes:
        losses: "plain, float32", "plain, bfloat16", "fast, float32" or "fast, bfloat16" -> ``d_loss`` or ``g_loss`` ->
            its values in the first steps, from the same weights, images and latent vectors.
        frechet_distance: "plain" or "fast" -> one value for each seed, at the end of whole runs.
        settings: ``data``, ``image_size``, ``width``, ``batch_size``, ``steps``, ``seeds``.
    """

    losses: Mapping[str, Mapping[str, list[float]]]
    frechet_distance: Mapping[str, list[float]]
    settings: Mapping[str, Any]


def load_same_training() -> SameTraining:
    """Load what ``benchmarks/same_training.py`` measured."""
    return SameTraining(**json.loads((FOLDER / "same-training.json").read_text(encoding="utf-8")))


@dataclass(frozen=True)
class PageExplorer:
    """What a latent explorer on a page weighs, and how fast it is on the slowest of the screens it was measured on.

    Attributes:
        weights_bytes: What its generator takes, as chosen by :func:`dcgan_lib.page_generator.pack`.
        rounded_bytes: The same, had the weights been rounded to 8 bits before their release.
        mean_error: Distance from PyTorch's images in grey levels of 255, over all pixels of 256 images.
        worst_error: The largest of any pixel.
        fine: Mean and worst error with weights of 16 bits.
        half: Mean and worst error with weights of 16-bit floats, for comparison; no page has them.
        median_ms: Milliseconds from asking for one picture until it is drawn.
        p95_ms: What 95 of 100 pictures stay below.
        first_picture_ms: From opening the page until the first picture is there.
        script_bytes: The page's own JavaScript, all views together.
        hardware: Where it was measured.
    """

    weights_bytes: int
    rounded_bytes: int
    mean_error: float
    worst_error: float
    fine: tuple[float, float]
    half: tuple[float, float]
    median_ms: float
    p95_ms: float
    first_picture_ms: float
    script_bytes: int
    hardware: str


def load_page_explorer(name: str) -> PageExplorer:
    """Load what ``benchmarks/latent_explorer.py`` measured for a generator: "cats-64" or "fashion-mnist-32".

    Raises:
        UserError: If it has not been measured.
    """
    stored = json.loads((FOLDER / "latent-explorer.json").read_text(encoding="utf-8"))
    if name not in stored:
        raise UserError(f"no explorer of {name!r} has been measured; choose from {', '.join(stored)}")
    pairs = {each: tuple(stored[name][each]) for each in ("fine", "half")}
    return PageExplorer(**stored[name] | pairs)


@dataclass(frozen=True)
class RecipeRun:
    """One run of the search for a recipe.

    Attributes:
        task: What was learnt: a key of ``RecipeSearch.tasks``.
        trial: How: a key of ``RecipeSearch.trials``.
        seed: Seed of the run and of the initial weights.
        images: Images seen at each measurement.
        seconds: Training time until then, on one core: processor time, or in the oldest runs that of a clock. Runs come
            from several kinds of processors.
        generator: Frechet distance of the generator of that step, 5,000 samples.
        average: The same of the averaged generator; None where weights were not averaged.
        present: Factor -> number of its values that the last generator makes (the averaged one, if there is one).
        statistics: Batch norm's statistics in the averaged generator: ``averaged`` as the weights are, or ``measured``
            on images of its own.
    """

    task: str
    trial: str
    seed: int
    images: list[int]
    seconds: list[float]
    generator: list[float]
    average: list[float] | None = None
    present: Mapping[str, int] | None = None
    statistics: Literal["averaged", "measured"] = "averaged"


@dataclass(frozen=True)
class RecipeSearch:
    """The search for a recipe, by ``benchmarks/recipe_search.py``.

    Attributes:
        tasks: Name -> ``data``, ``image_size``, ``images``, ``width``, and ``floor``, the Frechet distance of real
            images to other real ones.
        trials: Name -> ``why`` it was tried.
        finalists: ``published``, ``plain`` (the paper's recipe, tuned), ``r1`` and ``default`` -> task -> the trial
            that stands for it.
        runs: By task, trial and seed.
        hardware: Where they ran.
        speeds: Task -> finalist -> images per second on one core, all measured in turns on the same machine.
        samples: Task -> who of ``SHOWN_FINALISTS`` -> the first samples of its run with seed 0, uint8 (N, C, S, S), of
            the averaged generator; of the tasks that have a final.
    """

    tasks: Mapping[str, Mapping[str, Any]]
    trials: Mapping[str, Mapping[str, str]]
    finalists: Mapping[str, Mapping[str, str]]
    runs: list[RecipeRun]
    hardware: list[str]
    speeds: Mapping[str, Mapping[str, float]]
    samples: Mapping[str, Mapping[str, Tensor]]

    def of(self, task: str, trial: str) -> list[RecipeRun]:
        """The runs of one trial on one task, by seed."""
        return [run for run in self.runs if (run.task, run.trial) == (task, trial)]


def load_recipe_search() -> RecipeSearch:
    """Load what ``benchmarks/recipe_search.py`` measured."""
    stored = json.loads((FOLDER / "recipe-search.json").read_text(encoding="utf-8"))
    samples = {}
    for name, task in stored["tasks"].items():
        path = FOLDER / f"recipe-{name}.png"
        if path.exists():
            samples[name] = dict(zip(SHOWN_FINALISTS, cut(path, task["image_size"]), strict=True))
    return RecipeSearch(**stored | {"runs": [RecipeRun(**run) for run in stored["runs"]], "samples": samples})
