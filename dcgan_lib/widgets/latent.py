"""The latent explorer: sliders that move through a generator's latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import numpy as np
import torch
from torch import nn

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets.latent_view import LOOKS, MAX_SEED, LatentView, check_size, seed_box, slider, start_of

_DEFAULT_DIRECTIONS = 6
_DIRECTION_RANGE = 4.0


def latent_explorer(
    generator: nn.Module,
    directions: torch.Tensor | None = None,
    direction_names: Sequence[str] | None = None,
    seed: int = 0,
    size: int = 256,
) -> LatentExplorer:
    """Explore a generator's latent space with sliders.

    Args:
        generator: A network with ``latent_dim`` and ``forward((N, latent_dim)) -> (N, C, S, S)``.
        directions: (K, latent_dim), one slider each; a slider's unit is one row, so rows of length 1 move by one
            standard deviation. Default: six directions from :func:`dcgan_lib.latent.principal_directions`.
        direction_names: K labels for the sliders. Default: "direction 1" and so on.
        seed: The seed to begin with, 0 to 999,999.
        size: Width of the picture in pixels; the generator's pixels are repeated, not smoothed.

    Returns:
        The explorer; make it the last expression of a cell to show it.

    Raises:
        UserError: If the directions do not fit the generator, or the names the directions.
    """
    return LatentExplorer(generator, directions, direction_names, seed, size)


class LatentExplorer(LatentView):
    """Sliders on the left, the image of the resulting z on the right.

    The picture is that of ``slerp(z_A, z_B, interpolation) + sum(slider_k * direction_k) + own changes``, with z_A and
    z_B the first sample of seed A and of seed B; the own changes are those of single coordinates. It is redrawn on
    every change. While one is being drawn the browser holds back further positions of the slider and sends the last
    (ipywidgets throttles so), so no queue builds up.

    Attributes:
        directions: (K, latent_dim) float32.
        seed_a: Seed of the starting image.
        seed_b: Seed of the image at the far end of the interpolation.
        interpolation: Slider from 0 (seed A) to 1 (seed B).
        sliders: K sliders along the directions.
        coordinate: Which of the latent_dim coordinates the next slider changes.
        change: What is added to that coordinate. The changes of all others stay.
        shuffle: Button: new seeds, drawn at random; they appear in the boxes, so any image can be found again.
        reset: Button: everything as it was at the beginning.
        picture: The image, PNG.
        view: The box that holds them all.
    """

    def __init__(
        self,
        generator: nn.Module,
        directions: torch.Tensor | None = None,
        direction_names: Sequence[str] | None = None,
        seed: int = 0,
        size: int = 256,
    ) -> None:
        if not 0 <= latent.check_seed(seed) <= MAX_SEED:
            raise UserError(f"the explorer takes seeds from 0 to {MAX_SEED}, got {seed}")
        check_size(size)
        directions = _checked_directions(generator, directions)
        names = _checked_names(direction_names, len(directions))
        super().__init__(generator, size)
        self.directions = directions
        self.changes = torch.zeros(generator.latent_dim)
        self._random = np.random.default_rng()

        self.seed_a = seed_box(seed, "seed A")
        self.seed_b = seed_box((seed + 1) % (MAX_SEED + 1), "seed B")
        self.interpolation = slider("A to B", 0.0, 1.0, 0.01, "0 is the image of seed A, 1 that of seed B")
        self.sliders = tuple(
            slider(name, -_DIRECTION_RANGE, _DIRECTION_RANGE, 0.1, f"distance along {name}") for name in names
        )
        self.coordinate = _coordinate_box(generator.latent_dim)
        self.change = slider("its change", -_DIRECTION_RANGE, _DIRECTION_RANGE, 0.1, "added to the coordinate above")
        self.shuffle = ipywidgets.Button(description="Shuffle", icon="random", tooltip="two new random seeds")
        self.reset = ipywidgets.Button(description="Reset", icon="undo", tooltip="back to the beginning")
        self._beginning = {control: control.value for control in self._controls}
        self.view = self._laid_out()

        for control in self._controls:
            control.observe(self._on_change, names="value")
        self.coordinate.observe(self._on_coordinate, names="value")
        self.change.observe(self._on_own_change, names="value")
        self.shuffle.on_click(self._on_shuffle)
        self.reset.on_click(self._on_reset)
        self._redraw()

    @property
    def z(self) -> torch.Tensor:
        """The latent vector of the picture, float32 (latent_dim,)."""
        ends = [start_of(self.generator, box.value) for box in (self.seed_a, self.seed_b)]
        amounts = torch.tensor([slider.value for slider in self.sliders], dtype=torch.float32)
        return latent.slerp(*ends, self.interpolation.value) + amounts @ self.directions + self.changes

    @property
    def image(self) -> torch.Tensor:
        """The picture as the generator makes it, float32 (C, S, S) in [-1, 1]."""
        return latent.generate(self.generator, self.z[None])[0]

    @property
    def _controls(self) -> tuple[Any, ...]:
        return (self.seed_a, self.seed_b, self.interpolation, *self.sliders)

    def _laid_out(self) -> ipywidgets.HBox:
        buttons = ipywidgets.HBox([self.shuffle, self.reset])
        own = [self.coordinate, self.change]
        left = ipywidgets.VBox([self.seed_a, self.seed_b, buttons, self.interpolation, *self.sliders, *own])
        right = ipywidgets.VBox([self.picture, self.status, ipywidgets.HBox([self.save_z, self.save_png])])
        # Wrapping puts the picture below the sliders where the page is narrow.
        return ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="1em"))

    def _redraw(self) -> None:
        self.picture.value = images.png_bytes(self.image, self._size)
        length, typical = float(self.z.norm()), self.generator.latent_dim**0.5
        self.status.value = f"length of z: {length:.1f} (typical: {typical:.1f})"

    def _on_shuffle(self, _button: object) -> None:
        with self._one_redraw():
            self.seed_a.value, self.seed_b.value = (int(s) for s in self._random.integers(MAX_SEED + 1, size=2))

    def _on_reset(self, _button: object) -> None:
        with self._one_redraw():
            for control, value in self._beginning.items():
                control.value = value
            self.changes.zero_()
            self.coordinate.value = 0
            self._on_coordinate(None)

    def _on_coordinate(self, _change: object) -> None:
        # The slider shows what this coordinate was changed by; nothing in the picture changes.
        held, self._held = self._held, True
        self.change.value = float(self.changes[self.coordinate.value])
        self._held = held

    def _on_own_change(self, _change: object) -> None:
        self.changes[self.coordinate.value] = self.change.value
        self._on_change(_change)

    def __repr__(self) -> str:
        # No address and no state that changes: notebooks store this text and compare it.
        return f"LatentExplorer({len(self.sliders)} directions, latent_dim={self.generator.latent_dim})"


def _checked_directions(generator: nn.Module, directions: torch.Tensor | None) -> torch.Tensor:
    if directions is None:
        count = min(_DEFAULT_DIRECTIONS, generator.latent_dim)
        return latent.principal_directions(generator, n=256, k=count)
    if directions.ndim != 2 or len(directions) == 0 or directions.shape[1] != generator.latent_dim:
        wanted = f"(K, {generator.latent_dim}) with K >= 1"
        raise UserError(f"directions must have shape {wanted} for this generator, got {tuple(directions.shape)}")
    if not torch.isfinite(directions).all():
        raise UserError("directions contain NaN or infinity")
    return directions.detach().cpu().float()


def _checked_names(names: Sequence[str] | None, count: int) -> list[str]:
    if names is None:
        return [f"direction {number + 1}" for number in range(count)]
    if len(names) != count:
        raise UserError(f"{count} directions need {count} names, got {len(names)}")
    return [str(name) for name in names]


def _coordinate_box(latent_dim: int) -> ipywidgets.BoundedIntText:
    return ipywidgets.BoundedIntText(
        value=0,
        min=0,
        max=latent_dim - 1,
        description="coordinate",
        **LOOKS,
        tooltip=f"one of the {latent_dim} numbers of z, from 0",
    )
