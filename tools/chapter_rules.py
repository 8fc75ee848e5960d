"""What every chapter keeps to, beyond running without an error: each rule returns the problems that it finds.

Neither papermill nor nbval notices a cell that was never run or a chapter without parameters; these rules do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell
from notebooks import KERNEL, WIDGET_VIEW
from repository import FIRST_CELL_TAGS, first_cell

SIZE_LIMIT = 500_000  # bytes

# Text that a second run, or another machine, would print differently.
VARYING = {
    "a progress bar": re.compile(r"\d%\||\bit/s\b|\bs/it\b"),
    "a timing": re.compile(r"\b(Wall time|CPU times)\b|\d\s*(images/s|ms per|seconds elapsed)"),
    "a memory address": re.compile(r"\b0x[0-9a-f]{6,}"),
    "a path of one machine": re.compile(r"(/home/|/root/|/Users/|/tmp/|[A-Z]:\\|site-packages)"),
}
EXERCISE = re.compile(r"^:{3,}\{exercise\}.*\n(?:.*\n)*?:label: (\S+)", re.MULTILINE)
SOLUTION = re.compile(r"^:{3,}\{solution\} (\S+)\n((?:.*\n)*?)\n?:{3,}", re.MULTILINE)
PYTHON_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
MARKDOWN_FIGURE = re.compile(r"^(:{3,}|`{3,})\{(?:figure|image)\}.*\n((?::\S+:.*\n)*)", re.MULTILINE)
MARKDOWN_IMAGE = re.compile(r"!\[\s*\]\(")


def problems(notebook: NotebookNode, url: str) -> list[str]:
    """Return every problem of a chapter; ``url`` is the repository's configured address."""
    found = list(_first_cells(notebook, url))
    for rule in RULES:
        found += rule(notebook)
    return found


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells that hold any code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def prose(notebook: NotebookNode) -> str:
    """Return the text of all markdown cells."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown") + "\n"


def with_solutions(notebook: NotebookNode) -> NotebookNode:
    """Return a copy in which the code of every solution is a cell, at the place where the solution stands."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            for label, text in SOLUTION.findall(cell.source + "\n"):
                code = "".join(PYTHON_BLOCK.findall(text))
                cells.append(new_code_cell(f"# the solution of {label}\n{code}"))
    return NotebookNode(notebook | {"cells": cells})


def tags(cell: NotebookNode) -> list[str]:
    """Return a cell's tags."""
    return cell.metadata.get("tags", [])


def _first_cells(notebook: NotebookNode, url: str) -> Iterator[str]:
    cells = code_cells(notebook)
    if not cells or cells[0].source != first_cell(url) or tags(cells[0]) != FIRST_CELL_TAGS:
        yield "the first code cell is not the one that `tools/repository.py --first-cell` prints, tagged remove-cell"
    if [number for number, cell in enumerate(cells) if "parameters" in tags(cell)] != [1]:
        yield "the second code cell, and no other, must be tagged `parameters`"
    elif "quick = False" not in cells[1].source.splitlines():
        yield "the parameters must have the line `quick = False`"


def _opening(notebook: NotebookNode) -> Iterator[str]:
    first = notebook.cells[0] if notebook.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.startswith("# "):
        yield "the first cell must be markdown and start with `# Title`"
    text = re.split(r"^## ", prose(notebook), maxsplit=1, flags=re.MULTILINE)[0]
    if "?" not in text:
        yield "the chapter must open with a question"


def _headings(notebook: NotebookNode) -> Iterator[str]:
    unfenced = re.sub(r"^(`{3,}).*?^\1", "", prose(notebook), flags=re.MULTILINE | re.DOTALL)
    levels = [len(marks) for marks in re.findall(r"^(#{1,6}) ", unfenced, re.MULTILINE)]
    if levels.count(1) != 1:
        yield "there must be exactly one heading of level 1"
    if any(after > before + 1 for before, after in pairwise(levels)):
        yield "a heading skips a level"


def _kernel(notebook: NotebookNode) -> Iterator[str]:
    if notebook.metadata.get("kernelspec", {}).get("name") != KERNEL["name"]:
        yield "the kernel's name must be python3"


def _executed(notebook: NotebookNode) -> Iterator[str]:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    if counts != list(range(1, len(counts) + 1)):
        yield f"not every code cell was run once, in order: run `make notebooks` (execution counts {counts})"
    if any(output.output_type == "error" for cell in code_cells(notebook) for output in cell.outputs):
        yield "an error is stored in the outputs"


def _outputs(notebook: NotebookNode) -> Iterator[str]:
    if "widgets" in notebook.metadata:
        yield "widget state is stored: run `make notebooks`"
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if WIDGET_VIEW in output.get("data", {}):
                yield "a widget view is stored: run `make notebooks`"
            if output.get("name") == "stderr":
                yield "text on stderr is stored: run `make notebooks`"
            text = "".join(output.get("text", "")) + "".join(output.get("data", {}).get("text/plain", ""))
            yield from (f"{name} is stored: {text[:80]!r}" for name, pattern in VARYING.items() if pattern.search(text))


def _figures(notebook: NotebookNode) -> Iterator[str]:
    for cell in code_cells(notebook):
        images = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        shown = cell.metadata.get("mystnb", {})
        if images > 1:
            yield f"one cell shows {images} figures, and they would share a caption: {cell.source[:60]!r}"
        if images and not shown.get("image", {}).get("alt"):
            yield f"a figure has no alt text (mystnb.image.alt): {cell.source[:60]!r}"
        if images and not shown.get("figure", {}).get("caption"):
            yield f"a figure has no caption (mystnb.figure.caption): {cell.source[:60]!r}"
    if any(":alt:" not in options for _, options in MARKDOWN_FIGURE.findall(prose(notebook))):
        yield "a figure in the prose has no :alt:"
    if MARKDOWN_IMAGE.search(prose(notebook)):
        yield "an image in the prose has no alt text"


def _exercises(notebook: NotebookNode) -> Iterator[str]:
    exercises = EXERCISE.findall(prose(notebook))
    solutions = dict(SOLUTION.findall(prose(notebook)))
    if len(exercises) < 3:
        yield f"there are {len(exercises)} exercises with a label, not at least three"
    yield from (f"exercise {label} has no solution" for label in exercises if label not in solutions)
    yield from (f"solution {label} is not folded" for label, text in solutions.items() if "dropdown" not in text)
    runs = {label: PYTHON_BLOCK.search(text) for label, text in solutions.items()}
    yield from (f"solution {label} has no ```python block to run" for label, block in runs.items() if not block)


def _size(notebook: NotebookNode) -> Iterator[str]:
    size = len(json.dumps(notebook, indent=1, ensure_ascii=False).encode())
    if size >= SIZE_LIMIT:
        yield f"the notebook has {size} bytes; {SIZE_LIMIT} are the limit"


RULES: tuple[Callable[[NotebookNode], Iterator[str]], ...] = (
    _opening,
    _headings,
    _kernel,
    _executed,
    _outputs,
    _figures,
    _exercises,
    _size,
)
