"""The player of a small GAN: D and G stepped one at a time, with the whole game to be wound back."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ipywidgets

from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import packed_png
from dcgan_lib.plots.ring import ring_frame
from dcgan_lib.ring import Frame, RingGAN, Snapshot
from dcgan_lib.widgets.base import StillWidget

MOST_STEPS = 500
"""The most steps one click takes: about a second's work."""

_DPI = 90  # so that the picture stands beside the controls on a laptop
_INTERVAL = 250  # milliseconds from one turn of Play to the next, if the computer keeps up
_LONG = 50  # steps; while more are taken, the buttons are switched off
_CONTROL_WIDTH = "23em"


def gan_player(game: RingGAN, moments: int = 200) -> GanPlayer:
    """Step a game on the ring by hand, and wind it back.

    Args:
        game: It is stepped itself, not a copy: after every click it stands where the picture shows it.
        moments: How many moments are kept for winding back, at least 2. One takes about 120 kB with the default
            networks. When there are more, every second one is forgotten, so that what is kept spans the whole game.

    Returns:
        The player; make it the last expression of a cell to show it.

    Raises:
        UserError: If ``game`` is something else, or ``moments`` out of range.
    """
    return GanPlayer(game, moments)


@dataclass(frozen=True)
class _Moment:
    """A game as it was: to be shown, and to be gone on from."""

    frame: Frame
    snapshot: Snapshot


class GanPlayer(StillWidget):
    """Buttons that train one network at a time, over a picture of the game.

    Every click takes as many steps as the number box says, and adds a moment to the history. The slider goes back to an
    earlier one; a step from there forgets what came after it and goes on exactly as the game would have then. Play
    presses "D then G" again and again. While a picture is drawn the browser holds back further turns of Play and
    positions of the slider and sends the last (ipywidgets throttles so), and while many steps are taken the buttons are
    off; so no queue builds up.

    Attributes:
        game: The game, as it stands in the picture.
        d_step: Button: steps of D alone.
        g_step: Button: steps of G alone.
        both: Button: steps of D and G by turns.
        count: How many steps a click takes, 1 to 500.
        play: Switch: Play, then Pause.
        history: Slider over the moments that are kept, from 0.
        reset: Button: back to the first moment; all others are forgotten.
        layers: Check boxes: "surface", "arrows" and "real".
        picture: The game at the chosen moment, PNG.
        status: The same in words: steps, losses, covered modes, share of good points.
        view: The box that holds them all.
    """

    def __init__(self, game: RingGAN, moments: int = 200) -> None:
        if not isinstance(game, RingGAN):
            raise UserError(f"game must be a RingGAN, got {type(game).__name__}")
        if not isinstance(moments, int) or isinstance(moments, bool) or moments < 2:
            raise UserError(f"moments must be a whole number of at least 2, got {moments!r}")
        super().__init__()
        self.game = game
        self._most = moments
        self._moments: list[_Moment] = []

        self.d_step = _button("D step", "train the discriminator alone")
        self.g_step = _button("G step", "train the generator alone")
        self.both = _button("D then G", "train both by turns, D first")
        self.reset = _button("Reset", "back to the first moment; forgets all others", icon="undo")
        self.count = ipywidgets.BoundedIntText(
            value=1,
            min=1,
            max=MOST_STEPS,
            description="steps a click",
            tooltip=f"how many steps a click takes, 1 to {MOST_STEPS}",
            style={"description_width": "initial"},
            layout={"width": "11em"},
        )
        self.play = ipywidgets.ToggleButton(
            description="Play", tooltip="D then G, again and again", icon="play", layout={"width": "8em"}
        )
        # Its own buttons have icons but no names, so screen readers could not tell them apart: it only keeps time.
        self._turns = ipywidgets.Play(min=0, max=10**6, interval=_INTERVAL, layout={"display": "none"})
        self.history = ipywidgets.IntSlider(
            min=0,
            max=0,
            description="moment",
            tooltip="go back to an earlier moment",
            style={"description_width": "initial"},
            layout={"width": _CONTROL_WIDTH, "max_width": "100%"},
        )
        names = {"surface": "D’s surface", "arrows": "arrows: where G’s loss falls", "real": "real points"}
        self.layers = {
            name: ipywidgets.Checkbox(value=True, description=text, indent=False, layout={"width": "auto"})
            for name, text in names.items()
        }
        # No tooltip: ipywidgets 8.1 fails in the browser to show an Image that has one.
        self.picture = ipywidgets.Image(format="png", layout={"max_width": "100%"})
        self.status = ipywidgets.HTML()
        self.view = self._laid_out()

        for control in self._controls:
            control.observe(self._on_change, names="value")
        self.history.observe(self._on_history, names="value")
        self.play.observe(self._on_play, names="value")
        self._turns.observe(self._on_turn, names="value")
        self.d_step.on_click(lambda _: self._take(1, 0))
        self.g_step.on_click(lambda _: self._take(0, 1))
        self.both.on_click(lambda _: self._take(1, 1))
        self.reset.on_click(lambda _: self._go_back())
        self._add_moment()

    @property
    def frame(self) -> Frame:
        """What the picture shows."""
        return self._moments[self.history.value].frame

    def close(self) -> None:
        """Remove the widgets from the page and free the history; closing twice is allowed. The game stays."""
        for control in (self.history, self.play, self._turns):
            control.unobserve_all()
        super().close()
        del self._moments[:]

    @property
    def _controls(self) -> tuple[ipywidgets.Widget, ...]:
        return tuple(self.layers.values())

    def _laid_out(self) -> ipywidgets.HBox:
        buttons = ipywidgets.HBox([self.d_step, self.g_step, self.both], layout={"flex_flow": "row wrap"})
        more = ipywidgets.HBox([self.play, self.reset, self.count], layout={"flex_flow": "row wrap"})
        layers = list(self.layers.values())
        left = ipywidgets.VBox([buttons, more, self._turns, self.history, *layers, self.status])
        left.layout.width, left.layout.max_width = "26em", "100%"
        # Wrapping puts the picture below the controls where the page is narrow.
        return ipywidgets.HBox([left, self.picture], layout=ipywidgets.Layout(flex_flow="row wrap", grid_gap="1em"))

    def _redraw(self) -> None:
        drawn = io.BytesIO()
        chosen = {name: box.value for name, box in self.layers.items()}
        ring_frame(self.frame, **chosen).savefig(drawn, format="png", dpi=_DPI)
        self.picture.value = drawn.getvalue()
        moment = f"Moment {self.history.value} of {len(self._moments) - 1}."
        self.status.value = f'<div style="line-height: 1.4">{moment} {_in_words(self.frame)}</div>'

    def _still(self) -> bytes:
        return packed_png(self.picture.value)  # a map with points in less than half of the bytes

    def _take(self, d_steps: int, g_steps: int) -> None:
        """Take the chosen number of steps from the moment that is shown; later moments are forgotten."""
        if self._closed:
            return
        with self._buttons_off(self.count.value * (d_steps + g_steps) > _LONG), self._all_or_nothing():
            for _ in range(self.count.value):
                for _ in range(d_steps):
                    self.game.step_discriminator()
                for _ in range(g_steps):
                    self.game.step_generator()
        del self._moments[self.history.value + 1 :]
        self._add_moment()

    def _add_moment(self) -> None:
        self._moments.append(_Moment(self.game.frame(), self.game.snapshot()))
        if len(self._moments) > self._most:
            # The first and the newest stay.
            self._moments = [*self._moments[:-1:2], self._moments[-1]]
        with self._one_redraw():
            self.history.max = len(self._moments) - 1
            self.history.value = self.history.max

    def _on_history(self, change: dict[str, int]) -> None:
        if not self._held:
            self.game.restore(self._moments[change["new"]].snapshot)
            self._redraw()

    def _on_play(self, change: dict[str, bool]) -> None:
        self._turns.playing = change["new"]
        self.play.description, self.play.icon = ("Pause", "pause") if change["new"] else ("Play", "play")

    def _on_turn(self, _change: object) -> None:
        if self.play.value:  # one turn may be on its way while Pause is pressed
            self._take(1, 1)

    def _go_back(self) -> None:
        if self._closed:
            return
        self.play.value = False
        del self._moments[1:]
        self.game.restore(self._moments[0].snapshot)
        with self._one_redraw():
            self.history.value = self.history.max = 0

    @contextmanager
    def _buttons_off(self, off: bool) -> Iterator[None]:
        """Switch the buttons off while much is done; for a moment's work they would only lose the keyboard's focus."""
        buttons = (self.d_step, self.g_step, self.both, self.reset) if off else ()
        for button in buttons:
            button.disabled = True
        try:
            yield
        finally:
            for button in buttons:
                button.disabled = False

    @contextmanager
    def _all_or_nothing(self) -> Iterator[None]:
        """Leave the game as the picture shows it where the kernel is interrupted in the middle."""
        try:
            yield
        except BaseException:
            self.game.restore(self._moments[self.history.value].snapshot)
            raise

    def __repr__(self) -> str:
        # No address and no state that changes: notebooks store this text and compare it.
        return f"GanPlayer({self.game.ring.modes} modes, loss={self.game.config.loss!r})"


def _in_words(frame: Frame) -> str:
    taken = f"Steps of D: {frame.d_steps:,}, of G: {frame.g_steps:,}."
    if not (math.isfinite(frame.d_loss) and math.isfinite(frame.g_loss)):
        return f"{taken} The game has diverged: a loss is no longer a number. Go back, or reset."
    return (
        f"{taken} {frame.coverage.modes} of {frame.ring.modes} modes covered, {100 * frame.coverage.good:.0f} % of the "
        f"points good. Loss of D {frame.d_loss:.2f}, of G {frame.g_loss:.2f}."
    )


def _button(description: str, tooltip: str, icon: str = "") -> ipywidgets.Button:
    return ipywidgets.Button(description=description, tooltip=tooltip, icon=icon, layout={"width": "8em"})
