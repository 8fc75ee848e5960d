"""Vector arithmetic on concepts, with the seeds of every group in a box: the paper's figure 7, live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ipywidgets
import torch
from torch import nn

from dcgan_lib import images, latent
from dcgan_lib.errors import UserError
from dcgan_lib.widgets.latent_view import LatentView, check_size, parse_samples, samples_box, samples_text, start_of

_GAP = 8  # pixels between the parts of the picture
_MOST = 6  # images of a group that are shown


def latent_arithmetic(
    generator: nn.Module,
    a: Sequence[int | tuple[int, int]] = (0, 1, 2),
    b: Sequence[int | tuple[int, int]] = (3, 4, 5),
    c: Sequence[int | tuple[int, int]] = (6, 7, 8),
    names: Sequence[str] = ("A", "B", "C"),
    size: int = 512,
) -> LatentArithmetic:
    """Compute ``mean(A) - mean(B) + mean(C)`` on the latent vectors of three groups of samples, and the same on pixels.

    Args:
        generator: A network with ``latent_dim`` and ``forward((N, latent_dim)) -> (N, C, S, S)``.
        a: Seeds whose images have the attribute, or (seed, row) for another sample than its first; the paper takes
            means of three.
        b: Seeds of images like those, without it.
        c: Seeds of the images that are to get it.
        names: What the three groups are called.
        size: Width of the picture in pixels.

    Returns:
        The view; make it the last expression of a cell to show it.

    Raises:
        UserError: If a group is empty, a seed is out of range, or there are not three names.
    """
    return LatentArithmetic(generator, a, b, c, names, size)


class LatentArithmetic(LatentView):
    """Three boxes of samples over a picture of the groups, the result with its neighbours, and the pixels' control.

    The picture has a row for each group, its images and, last, the image of their mean latent vector. Below stands the
    result in the middle of nearby vectors, as in the paper, and right of it the same arithmetic on the images
    themselves.

    Attributes:
        boxes: Three boxes: seeds separated by commas; 4:17 is row 17 of seed 4.
        picture: All images, PNG.
        view: The box that holds them all.

    Source:
        Radford et al. (2015), section 6.3.2 and figure 7.
    """

    def __init__(
        self,
        generator: nn.Module,
        a: Sequence[int | tuple[int, int]],
        b: Sequence[int | tuple[int, int]],
        c: Sequence[int | tuple[int, int]],
        names: Sequence[str] = ("A", "B", "C"),
        size: int = 512,
    ) -> None:
        check_size(size)
        if len(names) != 3:
            raise UserError(f"the three groups need three names, got {len(names)}")
        texts = [samples_text(group) for group in (a, b, c)]
        for text in texts:
            parse_samples(text, least=1)
        super().__init__(generator, size)
        self._names = tuple(str(name) for name in names)
        self.boxes = tuple(
            samples_box(text, name, f"seeds of {name}, separated by commas; 4:17 is row 17 of seed 4")
            for text, name in zip(texts, self._names, strict=True)
        )
        self.view = self._laid_out()
        for box in self.boxes:
            box.observe(self._on_change, names="value")
        self._redraw()

    @property
    def groups(self) -> list[torch.Tensor]:
        """The latent vectors of the three groups, float32 (n, latent_dim) each.

        Raises:
            UserError: If a box holds no list of samples.
        """
        groups = [parse_samples(box.value, least=1) for box in self.boxes]
        return [torch.stack([start_of(self.generator, *sample) for sample in group]) for group in groups]

    @property
    def z(self) -> torch.Tensor:
        """The result, float32 (latent_dim,)."""
        return latent.arithmetic(*self.groups)

    @property
    def _controls(self) -> tuple[Any, ...]:
        return self.boxes

    def _laid_out(self) -> ipywidgets.VBox:
        formula = ipywidgets.Label("result = {} − {} + {}".format(*self._names))
        saving = ipywidgets.HBox([self.save_z, self.save_png])
        return ipywidgets.VBox([*self.boxes, formula, self.picture, self.status, saving])

    def _redraw(self) -> None:
        try:
            groups = self.groups
        except UserError as error:
            self.status.value = str(error)
            return
        self.picture.value = images.png_bytes(self._drawn(groups), self._size)
        length = float(latent.arithmetic(*groups).norm())
        typical = self.generator.latent_dim**0.5
        self.status.value = (
            f"last in each row: the mean; below: the result, then the pixels' own; length {length:.1f} ({typical:.1f})"
        )

    def _drawn(self, groups: Sequence[torch.Tensor]) -> torch.Tensor:
        """All images in one, uint8 (C, H, W)."""
        drawn = [latent.generate(self.generator, group) for group in groups]
        means = [latent.generate(self.generator, latent.mean_latent(group)[None]) for group in groups]
        columns = 1 + min(_MOST, max(len(group) for group in groups))
        rows = [
            images.make_grid(torch.cat([each[: columns - 1], mean]), columns)
            for each, mean in zip(drawn, means, strict=True)
        ]
        around = latent.generate(self.generator, latent.neighbours(latent.arithmetic(*groups)))
        a, b, c = (each.mean(dim=0) for each in drawn)
        block = images.make_grid(around, 3)
        rows.append(_beside(block, images.as_uint8((a - b + c)[None].clamp(-1, 1))[0]))
        return _below(rows)

    def __repr__(self) -> str:
        return f"LatentArithmetic({', '.join(self._names)}; latent_dim={self.generator.latent_dim})"


def _beside(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Two pictures (C, H, W) beside each other, their tops level."""
    return _below([left.transpose(1, 2), right.transpose(1, 2)]).transpose(1, 2)


def _below(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Pictures (C, H, W) below each other, with gaps, each at the left edge of the widest."""
    width = max(part.shape[2] for part in parts)
    height = sum(part.shape[1] for part in parts) + _GAP * (len(parts) - 1)
    whole = torch.full((parts[0].shape[0], height, width), images.BACKGROUND, dtype=torch.uint8)
    top = 0
    for part in parts:
        whole[:, top : top + part.shape[1], : part.shape[2]] = part
        top += part.shape[1] + _GAP
    return whole
