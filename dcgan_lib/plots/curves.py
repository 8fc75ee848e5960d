"""The losses and D's probabilities over training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import PALETTE, style, subplots


def history(history: Any, x: str = "images", smooth: int = 1, references: bool = True) -> Figure:
    """Draw the losses and D's probabilities over training.

    The reference lines are where a perfect generator leaves the best discriminator: D says 1/2 to everything, so D's
    loss ``-log D(x) - log(1 - D(G(z)))`` is 2 log 2 = 1.386 and G's loss ``-log D(G(z))`` is log 2 = 0.693.

    Args:
        history: A ``training.History``, or its ``records``: dicts with ``step``, ``images``, ``seconds``, ``d_loss``,
            ``g_loss``, ``d_real`` and ``d_fake`` (mean D(x) and D(G(z)), in [0, 1]).
        x: The horizontal axis: ``"step"``, ``"images"`` or ``"seconds"``.
        smooth: Records in the moving average that is drawn over the single values; 1 for none.
        references: Draw those lines, which hold for the non-saturating loss without label smoothing.

    Raises:
        UserError: If there are no records, they lack a value, or ``x`` is not one of the three.
    """
    records = list(getattr(history, "records", history))
    names = {"step": "training step", "images": "real images seen", "seconds": "seconds of training"}
    if x not in names:
        raise UserError(f"x must be one of {', '.join(names)}; got {x!r}")
    if smooth < 1:
        raise UserError(f"smooth must be at least 1 record, got {smooth}")
    values = {name: _column(records, name) for name in (x, "d_loss", "g_loss", "d_real", "d_fake")}
    figure, (losses, probabilities) = subplots(1, 2, height=2.9)
    with style():
        _curve(losses, values[x], values["d_loss"], "discriminator", "loss of D", "-", smooth)
        _curve(losses, values[x], values["g_loss"], "generator", "loss of G", "--", smooth)
        if references:
            _reference(losses, 2 * math.log(2), "2 log 2", PALETTE["discriminator"])
            _reference(losses, math.log(2), "log 2", PALETTE["generator"])
            _reference(probabilities, 0.5, "1/2", PALETTE["neutral"])
            losses.set_ylim(bottom=0)
        losses.set(title="Losses", xlabel=names[x])
        _curve(probabilities, values[x], values["d_real"], "real", "D(x), real images", "-", smooth)
        _curve(probabilities, values[x], values["d_fake"], "fake", "D(G(z)), generated", "--", smooth)
        probabilities.set(title="Probability that D gives to “real”", xlabel=names[x], ylim=(0, 1))
        for axis in (losses, probabilities):
            axis.legend(loc="best", fontsize=8)
    return figure


def _column(records: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """Values of one name; a missing or null one is a gap in the curve."""
    if not records or all(name not in record for record in records):
        raise UserError(f"the history has no values of {name!r}: was anything trained?")
    numbers = (record.get(name) for record in records)
    return np.array([math.nan if number is None else float(number) for number in numbers])


def _curve(axis: Axes, x: np.ndarray, y: np.ndarray, role: str, label: str, dashes: str, smooth: int) -> None:
    smooth = min(smooth, len(y))
    if smooth > 1:
        axis.plot(x, y, color=PALETTE[role], alpha=0.25, linewidth=0.8)
        # The mean of the last `smooth` values: nothing is shown before it has happened.
        x, y = x[smooth - 1 :], np.convolve(y, np.full(smooth, 1 / smooth), mode="valid")
    axis.plot(x, y, color=PALETTE[role], label=label, linestyle=dashes)


def _reference(axis: Axes, y: float, text: str, colour: str) -> None:
    axis.axhline(y, color=colour, linestyle=":", linewidth=1)
    # Beside the axis, where no curve can run through it.
    axis.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=8, color=colour)
