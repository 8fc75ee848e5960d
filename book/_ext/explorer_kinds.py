"""The kinds of in-page explorers: what each needs, and the still picture that stands for it without scripts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dcgan_lib.page_generator import unpack
from dcgan_lib.plots.look import BookFigure
from dcgan_lib.plots.ring import ring_frames
from dcgan_lib.ring import GOOD_RADIUS, Coverage, Frame, Ring
from dcgan_lib.ring_recording import UnpackedRun, unpack_real, unpack_runs

from convolution_kind import OPTIONS as CONVOLUTION_OPTIONS
from convolution_kind import draw_setting
from latent_kind import OPTIONS as LATENT_OPTIONS
from latent_kind import draw_view, released_generator, settle_view


@dataclass(frozen=True)
class Kind:
    """One kind of explorer.

    Attributes:
        label: What it is, for screen readers.
        check: Raises ValueError, KeyError or TypeError for data that it cannot show; None if it takes no data.
        still: Draws the still picture from the data and the settings; None if each use must name a poster.
        options: The directive's options of this kind alone -> how they are converted (as in docutils).
        settle: Completes the settings from the data; raises ValueError for those that do not go with it.
        made: For data that are no file of the book: a name and a folder -> the file, made there, and what it
            was made from; or ValueError.
        parts: Shared scripts and style sheets that it uses besides ``explorers``.
    """

    label: str
    check: Callable[[Any], None] | None = None
    still: Callable[[Any, Mapping[str, Any]], BookFigure] | None = None
    options: Mapping[str, Callable[[str | None], Any]] = field(default_factory=dict)
    settle: Callable[[Any, Mapping[str, Any]], dict[str, Any]] | None = None
    made: Callable[[str, Path], tuple[Path, list[Path]]] | None = None
    parts: tuple[str, ...] = ()


# --- scrubber: recorded runs of a GAN on a ring of Gaussians ---------------------------------------------------------


def check_runs(data: Any) -> None:
    """Refuse runs that the scrubber cannot show: :func:`dcgan_lib.ring_recording.unpack_runs` and one timeline."""
    runs = unpack_runs(data)
    if not runs:
        raise ValueError("there is no run")
    for run in runs:
        if not np.array_equal(run.steps, runs[0].steps):
            raise ValueError(f"run {run.name!r} was recorded at other steps than the first")
        if any(len(numbers) != len(run.steps) for numbers in (run.d_loss, run.g_loss, run.modes, run.good)):
            raise ValueError(f"run {run.name!r} does not have as many numbers as frames")


def draw_runs(data: Mapping[str, Any], settings: Mapping[str, Any]) -> BookFigure:
    """Draw the last frame of each run side by side."""
    frames = {run.title: _last_frame(data, run) for run in unpack_runs(data)}
    found = {title: f"{frame.coverage.modes} of {frame.ring.modes} modes" for title, frame in frames.items()}
    return ring_frames({f"{title}: {found[title]}": frame for title, frame in frames.items()}, columns=2)


def _last_frame(data: Mapping[str, Any], run: UnpackedRun) -> Frame:
    centres, good_radius = np.array(data["centres"]), data["radius_of_good"]
    ring = Ring(len(centres), float(np.linalg.norm(centres[0])), good_radius / GOOD_RADIUS)
    arrays = (unpack_real(data), run.fake[-1], run.surface[-1], run.arrows[-1])
    real, fake, surface, arrows = (torch.from_numpy(array.astype(np.float32)) for array in arrays)
    return Frame(
        ring=ring,
        d_steps=int(run.steps[-1]),
        g_steps=int(run.steps[-1]),
        real=real,
        fake=fake,
        surface=surface,
        arrows=arrows,
        d_loss=float(run.d_loss[-1]),
        g_loss=float(run.g_loss[-1]),
        coverage=Coverage(int(run.modes[-1]), float(run.good[-1]), ()),
    )


KINDS = {
    "convolution": Kind("Convolution explorer", still=draw_setting, options=CONVOLUTION_OPTIONS, parts=("controls",)),
    "latent": Kind(
        "Latent explorer",
        check=unpack,
        still=draw_view,
        options=LATENT_OPTIONS,
        settle=settle_view,
        made=released_generator,
        parts=("controls",),
    ),
    "scrubber": Kind("Recorded training runs", check=check_runs, still=draw_runs),
}
