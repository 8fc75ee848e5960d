"""What every widget of the book shares: a picture that stays on the page, and an orderly end."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets


class StillWidget:
    """Controls around one picture; the base of the book's widgets.

    A subclass sets `picture` and `view`, draws in `_redraw`, and names in `_controls` what it observes.

    Attributes:
        picture: The image, PNG.
        view: The box that holds picture and controls.
    """

    picture: ipywidgets.Image
    view: ipywidgets.Box

    def __init__(self) -> None:
        self._held = False
        self._closed = False

    @property
    def _controls(self) -> tuple[Any, ...]:
        """The widgets whose values decide the picture."""
        raise NotImplementedError

    def _redraw(self) -> None:
        """Draw the picture that belongs to the controls' values."""
        raise NotImplementedError

    def _still(self) -> bytes:
        """The picture as a notebook stores it."""
        return self.picture.value

    def close(self) -> None:
        """Remove the widgets from the page and free what they hold; closing twice is allowed."""
        self._closed = True
        for control in self._controls:
            control.unobserve_all()
        for widget in [*_tree(self.view), *_tree(self.picture)]:  # a picture need not be on the page
            widget.close()

    def _on_change(self, _change: object) -> None:
        if not self._held:
            self._redraw()

    @contextmanager
    def _one_redraw(self) -> Iterator[None]:
        """Change several controls, then draw once."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self._redraw()

    def _repr_mimebundle_(self, **_options: Any) -> dict[str, Any]:
        bundle = {
            "text/plain": repr(self),
            "image/png": base64.b64encode(self._still()).decode("ascii"),
        }
        if not self._closed:
            bundle["application/vnd.jupyter.widget-view+json"] = {
                "version_major": 2,
                "version_minor": 0,
                "model_id": self.view.model_id,
            }
        return bundle


def _tree(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """A widget and everything inside it, with the layouts and styles, which are widgets as well."""
    found = [widget]
    for name in ("layout", "style"):
        if hasattr(widget, name):
            found.append(getattr(widget, name))
    for child in getattr(widget, "children", ()):
        found += _tree(child)
    return found
