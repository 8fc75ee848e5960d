"""A wall of samples; a click on one opens it in the explorer."""

from __future__ import annotations

from typing import Any

import ipywidgets
import torch
from torch import nn

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets.latent import LatentExplorer
from dcgan_lib.widgets.latent_view import MAX_SEED, LatentView, check_size, seed_box, start_of

_MOST = 100  # samples on a wall


def latent_grid(generator: nn.Module, seed: int = 0, count: int = 24, size: int = 64) -> LatentGrid:
    """Show the images of consecutive seeds, and open one in the latent explorer.

    Args:
        generator: A network with ``latent_dim`` and ``forward((N, latent_dim)) -> (N, C, S, S)``.
        seed: The first seed to begin with.
        count: Images on the wall, 1 to 100.
        size: Width of each in pixels.

    Returns:
        The grid; make it the last expression of a cell to show it.

    Raises:
        UserError: If the seed, the count or the size is out of range.
    """
    return LatentGrid(generator, seed, count, size)


class LatentGrid(LatentView):
    """The first sample of each of ``count`` seeds, with a button below each of them.

    Attributes:
        first: Box: the first seed.
        samples: The images, PNG.
        buttons: One below each image, named by its seed: opens the explorer there.
        explorer: The explorer that was opened last; None before the first.
        picture: The whole wall as one PNG, which is what a stored notebook shows.
        view: The box that holds them all.
    """

    def __init__(self, generator: nn.Module, seed: int = 0, count: int = 24, size: int = 64) -> None:
        check_size(size)
        if not 1 <= count <= _MOST:
            raise UserError(f"a wall has 1 to {_MOST} samples, got {count}")
        if not 0 <= latent.check_seed(seed) <= MAX_SEED + 1 - count:
            raise UserError(f"seeds go from 0 to {MAX_SEED}, got {seed} and the {count - 1} that follow")
        super().__init__(generator, size)
        self.explorer: LatentExplorer | None = None
        self.first = seed_box(seed, "first seed")
        self.first.max = MAX_SEED + 1 - count
        self.samples = tuple(ipywidgets.Image(format="png", width=size, height=size) for _ in range(count))
        layout = {"width": f"{max(size, 64)}px", "margin": "0"}
        self.buttons = tuple(ipywidgets.Button(layout=layout) for _ in range(count))
        for offset, button in enumerate(self.buttons):
            button.on_click(lambda _button, offset=offset: self.open(self.first.value + offset))
        self._place = ipywidgets.VBox()
        self.view = self._laid_out()
        self.first.observe(self._on_change, names="value")
        self._redraw()

    @property
    def seeds(self) -> range:
        """The seeds on the wall."""
        return range(self.first.value, self.first.value + len(self.samples))

    @property
    def z(self) -> torch.Tensor:
        """The latent vectors of the wall, float32 (count, latent_dim)."""
        return torch.stack([start_of(self.generator, seed) for seed in self.seeds])

    def open(self, seed: int) -> None:
        """Show the explorer below the wall, at the first sample of a seed; an explorer that is there is closed."""
        directions = None if self.explorer is None else self.explorer.directions
        if self.explorer is not None:
            self.explorer.close()
        self.explorer = LatentExplorer(self.generator, directions, seed=seed)
        self._place.children = (self.explorer.view,)
        self.status.value = f"seed {seed}, explored below"

    @property
    def _controls(self) -> tuple[Any, ...]:
        return (self.first,)

    def _laid_out(self) -> ipywidgets.VBox:
        cells = [ipywidgets.VBox(pair) for pair in zip(self.samples, self.buttons, strict=True)]
        wall = ipywidgets.Box(cells, layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="4px"))
        saving = ipywidgets.HBox([self.save_z, self.save_png])
        return ipywidgets.VBox([self.first, wall, self.status, saving, self._place])

    def _redraw(self) -> None:
        drawn = latent.generate(self.generator, self.z)
        for seed, image, sample, button in zip(self.seeds, drawn, self.samples, self.buttons, strict=True):
            sample.value = images.png_bytes(image, self._size)
            button.description, button.tooltip = str(seed), f"explore the sample of seed {seed}"
        self.picture.value = images.png_bytes(images.make_grid(drawn))
        self.status.value = "press a seed to explore its sample"

    def close(self) -> None:
        """Remove the widgets from the page, the open explorer's too; closing twice is allowed."""
        if self.explorer is not None:
            self.explorer.close()
        super().close()

    def __repr__(self) -> str:
        return f"LatentGrid({len(self.samples)} samples, latent_dim={self.generator.latent_dim})"
