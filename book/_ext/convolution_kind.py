"""The convolution explorer as a kind of in-page explorer: its options, and its still picture.

Options, all of which may be left out::

    :direction: transposed     or convolution
    :axes: 2                   or 1
    :size: 4                   of the input
    :kernel: 4
    :stride: 2
    :padding: 1
    :dilation: 1
    :output_padding: 0
    :seed: 1                   which numbers, 0 to 9; with 0 all are 1
    :show: values              or overlap: what the output's cells show
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dcgan_lib.convolution import ConvolutionSetting
from dcgan_lib.convolution_examples import LIMITS, MAX_SEED, ConvolutionExample
from dcgan_lib.plots.convolution_example import draw_example
from dcgan_lib.plots.look import BookFigure
from docutils.parsers.rst import directives

DEFAULTS = {"size": 4, "kernel": 4, "stride": 2, "padding": 1, "dilation": 1, "output_padding": 0}


def _one_of(*known: str) -> Callable[[str | None], str]:
    return lambda argument: directives.choice(argument, known)


def _between(low: int, high: int) -> Callable[[str | None], int]:
    def convert(argument: str | None) -> int:
        value = int(argument or "")
        if not low <= value <= high:
            raise ValueError(f"it must be between {low} and {high}, got {value}")
        return value

    return convert


OPTIONS: Mapping[str, Callable[[str | None], Any]] = {
    "direction": _one_of("transposed", "convolution"),
    "show": _one_of("values", "overlap"),
    "axes": _between(1, 2),
    "seed": _between(0, MAX_SEED),
    **{name: _between(*limits) for name, limits in LIMITS.items()},
}


def draw_setting(data: None, settings: Mapping[str, Any]) -> BookFigure:
    """Draw what the explorer shows first.

    Raises:
        UserError: If the setting is impossible; the message is the sentence that the explorer would show.
    """
    numbers = {name: settings.get(name, value) for name, value in DEFAULTS.items()}
    setting = ConvolutionSetting(**numbers, transposed=settings.get("direction") != "convolution")
    example = ConvolutionExample(setting, settings.get("axes", 2), settings.get("seed", 1))
    return draw_example(example, overlaps=settings.get("show") == "overlap")
