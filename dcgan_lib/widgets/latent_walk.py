"""A walk through latent space: from seed to seed, played or dragged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import torch
from torch import nn

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets.latent_view import (
    LOOKS,
    LatentView,
    check_size,
    parse_samples,
    samples_box,
    samples_text,
    start_of,
)

_STEPS = 20  # from one key to the next
_INTERVAL = 100  # milliseconds between two steps, if the computer keeps up


def latent_walk(
    generator: nn.Module, seeds: Sequence[int | tuple[int, int]] = (0, 1, 2), size: int = 256
) -> LatentWalk:
    """Walk from the image of one seed to that of the next.

    Args:
        generator: A network with ``latent_dim`` and ``forward((N, latent_dim)) -> (N, C, S, S)``.
        seeds: Two or more seeds to begin with, or (seed, row) for another sample than its first; the box takes others.
        size: Width of the picture in pixels.

    Returns:
        The walk; make it the last expression of a cell to show it.

    Raises:
        UserError: If there are fewer than two seeds, or one is out of range.
    """
    return LatentWalk(generator, seeds, size)


class LatentWalk(LatentView):
    """A slider along a path through the latent vectors of several samples, and a button that plays it.

    While a picture is drawn the browser holds back further positions and sends the last, so no queue builds up.

    Attributes:
        seeds: Box: the seeds the path passes, separated by commas; 4:17 is row 17 of seed 4. What is no such list
            changes nothing but the status.
        method: "slerp" or "lerp".
        position: Slider in steps, 20 from one seed to the next.
        play: Button: play, pause, stop, repeat.
        picture: The image at the position, PNG.
        view: The box that holds them all.
    """

    def __init__(
        self, generator: nn.Module, seeds: Sequence[int | tuple[int, int]] = (0, 1, 2), size: int = 256
    ) -> None:
        check_size(size)
        text = samples_text(seeds)
        keys = parse_samples(text, least=2)
        super().__init__(generator, size)
        self.seeds = samples_box(text, "seeds", "two or more seeds, separated by commas; 4:17 is row 17 of seed 4")
        self.method = ipywidgets.ToggleButtons(
            options=["slerp", "lerp"],
            description="method",
            tooltips=["along the sphere", "along the straight line"],
            style={"description_width": LOOKS["style"]["description_width"], "button_width": "6em"},
        )
        self.position = ipywidgets.IntSlider(
            description="position", tooltip="steps from the first seed on, 20 to the next", **LOOKS
        )
        self.play = ipywidgets.Play(interval=_INTERVAL, tooltip="play the walk")
        # In the browser: playing goes on without waiting for the kernel.
        self._link = ipywidgets.jslink((self.play, "value"), (self.position, "value"))
        self._path = self._walked(keys)
        self.view = self._laid_out()
        self.seeds.observe(self._on_path, names="value")
        self.method.observe(self._on_path, names="value")
        self.position.observe(self._on_change, names="value")
        self._redraw()

    @property
    def z(self) -> torch.Tensor:
        """The latent vector of the picture, float32 (latent_dim,)."""
        return self._path[min(self.position.value, len(self._path) - 1)]

    @property
    def _controls(self) -> tuple[Any, ...]:
        return (self.seeds, self.method, self.position)

    def _laid_out(self) -> ipywidgets.HBox:
        left = ipywidgets.VBox([self.seeds, self.method, self.position, self.play])
        right = ipywidgets.VBox([self.picture, self.status, ipywidgets.HBox([self.save_z, self.save_png])])
        return ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="1em"))

    def _walked(self, keys: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """The path through the keys; slider and player get its length."""
        path = latent.walk(torch.stack([start_of(self.generator, *key) for key in keys]), _STEPS, self.method.value)
        for control in (self.position, self.play):
            control.max = len(path) - 1
        return path

    def _redraw(self) -> None:
        z = self.z
        self.picture.value = images.png_bytes(latent.generate(self.generator, z[None])[0], self._size)
        self.status.value = f"length of z: {float(z.norm()):.1f} (typical: {self.generator.latent_dim**0.5:.1f})"

    def _on_path(self, _change: object) -> None:
        try:
            keys = parse_samples(self.seeds.value, least=2)
        except UserError as error:
            self.status.value = str(error)
            return
        with self._one_redraw():
            self._path = self._walked(keys)

    def close(self) -> None:
        """Remove the widgets from the page and free what they hold; closing twice is allowed."""
        self._link.close()
        super().close()

    def __repr__(self) -> str:
        return f"LatentWalk(latent_dim={self.generator.latent_dim})"
