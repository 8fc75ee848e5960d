"""The folder of a run: who may write there, its configuration, its metrics and its sample grids."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dcgan_lib import checkpoint
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write, locked, write_json
from dcgan_lib.images import save_png

METRICS_NAME = "metrics.jsonl"
LOCK_NAME = ".lock"
# What may differ when a run is resumed: how long it goes on, how it reports, where and how it computes.
CHANGEABLE = {
    *("steps", "minutes", "device", "log_every", "sample_every", "checkpoint_every"),
    *("compile", "deterministic", "stop_on_spike"),
}


@contextmanager
def kept_alone(folder: Path) -> Iterator[None]:
    """Make the folder of a run, and keep other processes from training in it.

    Raises:
        UserError: If another process trains there, or the folder cannot be written to.
    """
    busy = f"another process is training in {folder}; wait for it, or choose another --output"
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(folder / LOCK_NAME, busy))
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}; choose another --output") from error
        yield


class RunFolder:
    """Writes what a run leaves besides its checkpoints.

    Args:
        path: The folder.
        config: The sections of ``config.json``.
    """

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        self.path, self.config = path, config

    def check_resumable(self) -> None:
        """Make sure that the run in the folder can go on with this configuration.

        Raises:
            UserError: If not; the message names the option.
        """
        before, now = checkpoint.load_config(self.path), json.loads(json.dumps(self.config))
        for section in ("data", "generator", "discriminator", "training"):
            for name in now[section]:
                old, new = before[section].get(name), now[section][name]
                if old != new and name not in CHANGEABLE:
                    option = "data" if name == "name" else name.replace("_", "-")
                    raise UserError(f"--{option} is {old} in this run and cannot become {new}; leave it out to resume")

    def write_config(self, records: Sequence[Mapping[str, float]]) -> None:
        """Write the configuration, and the metrics up to where the run stands: a killed run may have logged more."""
        write_json(self.path / checkpoint.CONFIG_NAME, self.config)
        with atomic_write(self.path / METRICS_NAME) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")

    def append(self, record: Mapping[str, float]) -> None:
        """Add one line to the metrics."""
        path = self.path / METRICS_NAME
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; the last checkpoint is kept") from error

    def write_grid(self, images: Tensor, step: int) -> None:
        """Write the sample grid of a step."""
        save_png(images, self.path / "samples" / f"step-{step:06d}.png")
