"""The package's own source in a chapter, so that what the reader sees is what runs."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def source(thing: Callable[..., Any] | type) -> Any:
    """Return the source of a function or class as highlighted code, for the last line of a notebook cell.

    Args:
        thing: A function, method or class of this package.

    Returns:
        An ``IPython.display.Markdown``.
    """
    from IPython.display import Markdown  # needed in notebooks only

    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```")
