"""The convolution explorer: a convolution or transposed convolution of small numbers, cell by cell."""

from __future__ import annotations

import html
import io
from typing import Any

import ipywidgets

from dcgan_lib.convolution import RULES, ConvolutionSetting, explain_impossible
from dcgan_lib.convolution_examples import FORMULAS, LIMITS, MAX_SEED, ConvolutionExample, pytorch_line
from dcgan_lib.errors import UserError
from dcgan_lib.plots.convolution_example import draw_example
from dcgan_lib.plots.look import DPI, WIDTH, BookFigure, packed_png
from dcgan_lib.widgets.base import StillWidget

_PICTURE_WIDTH = round(WIDTH * 96)  # CSS pixels
_INTERVAL = 900  # milliseconds from one cell to the next while it plays
_LABEL_WIDTH = "8em"
_CONTROL_WIDTH = "25em"
_DIRECTIONS = {"convolution": False, "transposed": True}


def convolution_explorer(
    size: int = 4,
    kernel: int = 4,
    stride: int = 2,
    padding: int = 1,
    dilation: int = 1,
    output_padding: int = 0,
    direction: str = "transposed",
    axes: int = 2,
    seed: int = 1,
) -> ConvolutionExplorer:
    """Explore a convolution or transposed convolution: which cells meet, with numbers that can be checked in the head.

    Args:
        size: Size of the input, 1 to 16.
        kernel: Size of the kernel, 1 to 7.
        stride: As in ``torch.nn.Conv2d`` and ``ConvTranspose2d``, at most 4.
        padding: The same, at most 6.
        dilation: The same, at most 3.
        output_padding: The same, at most 4.
        direction: ``"transposed"`` or ``"convolution"``.
        axes: 2 for square images, 1 for sequences.
        seed: Which numbers, 0 to 9; with 0 all are 1.

    Returns:
        The explorer; make it the last expression of a cell to show it.

    Raises:
        UserError: If an argument is out of range, or the setting impossible.
    """
    return ConvolutionExplorer(
        {
            "size": size,
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "output_padding": output_padding,
        },
        direction,
        axes,
        seed,
    )


class ConvolutionExplorer(StillWidget):
    """Controls of a setting over its picture; one cell is lit, and everything shows what it meets.

    The sliders reach impossible settings as well: then `words` says which rule is broken, and the picture stays that of
    the last possible one.

    Attributes:
        direction: Buttons: ``"convolution"`` or ``"transposed"``.
        axes: Buttons: 1 or 2.
        sliders: "size", "kernel", "stride", "padding", "dilation" and "output_padding".
        seed: Which numbers stand in input and kernel.
        side: Buttons: whether the lit cell is one of the ``"input"`` or of the ``"output"``.
        step: Slider over the cells of that side, row by row.
        play: Play, pause and stop, from cell to cell.
        overlap: Check box: show the number of products in each output instead of their sum.
        partial: Check box: show only what is done so far.
        reset: Button: everything as it was at the beginning.
        words: Size formula, line of PyTorch and the arithmetic of the lit cell; or why the setting is impossible.
        picture: Kernel, input, output and matrix, PNG.
        view: The box that holds them all.
    """

    def __init__(self, setting: dict[str, int], direction: str, axes: int, seed: int) -> None:
        if direction not in _DIRECTIONS:
            raise UserError(f"direction={direction!r} must be 'convolution' or 'transposed'")
        transposed = _DIRECTIONS[direction]
        self._example = ConvolutionExample(ConvolutionSetting(**setting, transposed=transposed), axes, seed)
        for name, value in setting.items():
            low, high = LIMITS[name]
            if not low <= value <= high:
                raise UserError(RULES["between"].format(name=name, value=value, low=low, high=high))
        super().__init__()
        self.direction = _buttons(
            ["convolution", "transposed"], direction, "direction", "a convolution or its transpose"
        )
        self.axes = _buttons([("1-D", 1), ("2-D", 2)], axes, "axes", "sequences or square images")
        self.sliders = {name: _slider(name, value, *LIMITS[name]) for name, value in setting.items()}
        self.seed = ipywidgets.Dropdown(
            options=[("all 1", 0), *((f"set {number}", number) for number in range(1, MAX_SEED + 1))],
            value=seed,
            description="numbers",
            tooltip="which numbers stand in input and kernel",
            style={"description_width": _LABEL_WIDTH},
            layout={"width": "16em"},
        )
        self.side = _buttons(["input", "output"], self._example.coarse, "step through", "whose cells are lit")
        self.step = _slider("cell", 0, 0, 0)
        self.play = ipywidgets.Play(interval=_INTERVAL, show_repeat=False, tooltip="from cell to cell")
        self.overlap = _box("overlap: products in each output")
        self.partial = _box("only what is done so far")
        self.reset = ipywidgets.Button(
            description="Reset", icon="undo", tooltip="back to the beginning", layout={"width": "8em"}
        )
        self.words = ipywidgets.HTML()
        # No tooltip: ipywidgets 8.1 fails in the browser to show an Image that has one.
        self.picture = ipywidgets.Image(format="png", width=_PICTURE_WIDTH, layout={"max_width": "100%"})
        self._beginning = {control: control.value for control in self._controls if control is not self.step}
        self.view = self._laid_out()
        self._playing = ipywidgets.link((self.play, "value"), (self.step, "value"))
        for control in self._controls:
            control.observe(self._on_change, names="value")
        self.reset.on_click(self._on_reset)
        with self._one_redraw():
            self._light(self._example.coarse)

    @property
    def setting(self) -> dict[str, Any]:
        """What the controls say, possible or not: arguments of :class:`dcgan_lib.convolution.ConvolutionSetting`."""
        numbers = {name: slider.value for name, slider in self.sliders.items()}
        return numbers | {"transposed": _DIRECTIONS[self.direction.value]}

    @property
    def problem(self) -> str | None:
        """Why the setting is impossible, or ``None``."""
        return explain_impossible(**self.setting)

    @property
    def example(self) -> ConvolutionExample:
        """What the picture shows."""
        return self._example

    @property
    def cell(self) -> tuple[int, ...]:
        """The lit cell, one index for each axis."""
        size = self._example.size_of(self.side.value)
        return (self.step.value,) if self._example.axes == 1 else divmod(self.step.value, size)

    def figure(self) -> BookFigure:
        """The picture as a figure, to be saved."""
        side, cell = self.side.value, self.cell
        return draw_example(self._example, side, cell, self.overlap.value, self.partial.value)

    @property
    def _controls(self) -> tuple[Any, ...]:
        buttons = (self.direction, self.axes, self.seed, self.side)
        return (*buttons, *self.sliders.values(), self.step, self.overlap, self.partial)

    def _laid_out(self) -> ipywidgets.HBox:
        playing = ipywidgets.HBox([self.play, self.reset], layout={"flex_flow": "row wrap"})
        setting = [self.direction, self.axes, self.seed, *self.sliders.values()]
        left = ipywidgets.VBox([*setting, self.side, self.step, playing, self.overlap, self.partial])
        right = ipywidgets.VBox([self.words, self.picture], layout={"max_width": "48em"})
        # Wrapping puts the picture below the controls where the page is narrow.
        return ipywidgets.HBox([left, right], layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="1em"))

    def _redraw(self) -> None:
        problem = self.problem
        if problem is None:
            self._take_over()
        self.words.value = self._in_words(problem)
        if problem is None:
            drawn = io.BytesIO()
            self.figure().savefig(drawn, format="png", dpi=DPI)
            self.picture.value = drawn.getvalue()

    def _still(self) -> bytes:
        return packed_png(self.picture.value)  # in less than half of the bytes

    def _take_over(self) -> None:
        """Go from the example that is shown to the one that the controls ask for; the lit cell stays where it can."""
        before, cell, side = self._example, self.cell, self.side.value
        wanted = ConvolutionExample(ConvolutionSetting(**self.setting), self.axes.value, self.seed.value)
        if wanted == before:
            return
        self._example = wanted
        if wanted.setting.transposed != before.setting.transposed:
            self._light(wanted.coarse)
        elif wanted.axes != before.axes:
            self._light(side)
        else:
            self._light(side, cell)

    def _light(self, side: str, cell: tuple[int, ...] | None = None) -> None:
        """Light a cell, or the nearest there is; without one, the first to look at."""
        last = self._example.size_of(side) - 1
        number = 0
        for index in self._example.inner(side) if cell is None else cell:
            number = number * (last + 1) + min(index, last)
        held, self._held = self._held, True
        self.side.value = side
        self.step.max = self.play.max = (last + 1) ** self._example.axes - 1
        self.step.value = number
        self._held = held

    def _in_words(self, problem: str | None) -> str:
        transposed, axes = self.setting["transposed"], self.axes.value
        line = pytorch_line(*(self.setting[name] for name in _ARGUMENTS), axes)
        words, letters = (html.escape(formula) for formula in FORMULAS[transposed])
        lines = [f"Output size = {words}"]
        if problem:
            lines.append(f"<b>Impossible: {html.escape(problem)}.</b> The picture shows the last possible setting.")
        else:
            lines.append(f"<b>{html.escape(self._example.setting.size_formula)}</b>")
        lines += [f"In the letters of Dumoulin and Visin: {letters}", f"<code>{html.escape(line)}</code>"]
        if not problem:
            lines.append(html.escape(self._example.sentence(self.side.value, self.cell)))
        return f'<div style="line-height: 1.5">{"<br>".join(lines)}</div>'

    def _on_change(self, change: dict[str, Any]) -> None:
        if not self._held and change["owner"] is self.side:
            self._light(self.side.value)
        super()._on_change(change)

    def _on_reset(self, _button: object) -> None:
        with self._one_redraw():
            for control, value in self._beginning.items():
                control.value = value
            self._take_over()
            self._light(self._example.coarse)

    def close(self) -> None:
        """Remove the widgets from the page and free what they hold; closing twice is allowed."""
        if not self._closed:
            self._playing.unlink()
        super().close()

    def __repr__(self) -> str:
        # No address and no state that changes: notebooks store this text and compare it.
        return "ConvolutionExplorer()"


_ARGUMENTS = ("kernel", "stride", "padding", "dilation", "output_padding", "transposed")


def _buttons(options: list[Any], value: Any, description: str, tooltip: str) -> ipywidgets.ToggleButtons:
    return ipywidgets.ToggleButtons(
        options=options,
        value=value,
        description=description,
        tooltips=[tooltip] * len(options),
        style={"description_width": _LABEL_WIDTH, "button_width": "auto"},
        layout={"width": _CONTROL_WIDTH, "max_width": "100%"},
    )


def _slider(name: str, value: int, low: int, high: int) -> ipywidgets.IntSlider:
    return ipywidgets.IntSlider(
        value=value,
        min=low,
        max=high,
        description=name.replace("_", " "),
        tooltip=name.replace("_", " "),
        style={"description_width": _LABEL_WIDTH},
        layout={"width": _CONTROL_WIDTH, "max_width": "100%"},
    )


def _box(description: str) -> ipywidgets.Checkbox:
    return ipywidgets.Checkbox(value=False, description=description, indent=False, layout={"width": "auto"})
