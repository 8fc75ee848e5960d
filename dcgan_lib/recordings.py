"""Training runs recorded once by ``benchmarks/training_runs.py``, so that a chapter can show what takes minutes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan_lib.errors import UserError

FOLDER = Path(__file__).parent / "recorded"


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
    with Image.open(FOLDER / f"training-{name}.png") as picture:
        grid = torch.from_numpy(np.array(picture))
    # The file is a grid without gaps: a row for each stage, a column for each latent vector.
    rows = grid.unflatten(0, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3)
    samples = dict(zip(stored["stages"], rows, strict=True))
    return Recording(run["title"], run["training"], run["records"], samples, stored["hardware"])
