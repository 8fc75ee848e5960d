"""Run the chapters from top to bottom in clean kernels and store their outputs, without what varies from run to run.

    python tools/notebooks.py                            # every chapter of _toc.yml
    python tools/notebooks.py book/latent_space.ipynb    # one chapter

A chapter whose run fails keeps its old outputs, and the exit status is 1. What is not stored, and why, stands at
``clean_outputs`` and ``clean_metadata``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
IGNORED = "nbval-ignore-output"
KEPT_CELL_METADATA = {"mystnb", "tags"}


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the notebooks that ``_toc.yml`` lists, in the book's order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry["file"] for part in toc.get("parts", []) for entry in part["chapters"]]
    paths = [root / "book" / f"{entry}.ipynb" for entry in entries]
    return [path for path in paths if path.exists()]


def execute(notebook: NotebookNode, folder: Path, timeout: int = 600) -> None:
    """Run every cell in order, in a new kernel whose working directory is ``folder``; outputs replace the old ones.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell fails.
    """
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name=KERNEL["name"], resources={"metadata": {"path": str(folder)}}
    )
    client.record_timing = False  # the times of day would differ in every commit
    client.execute()


def clean_outputs(cell: NotebookNode) -> list[str]:
    """Remove from a code cell's outputs what no page can use, and return a complaint for each that the author mends.

    Removed are widget views, which are blank without a kernel; a widget that carries a picture beside its view leaves
    the picture. Removed is also everything on stderr: progress bars and warnings.
    """
    kept, complaints = [], []
    ignored = IGNORED in cell.metadata.get("tags", [])
    for output in cell.outputs:
        data = output.get("data", {})
        is_widget = data.pop(WIDGET_VIEW, None) is not None
        if is_widget and "image/png" not in data:
            if not ignored:
                complaints.append(f"shows a widget that has no picture for the page: tag the cell {IGNORED}")
        elif output.output_type == "stream" and output.name == "stderr":
            if not ignored:
                complaints.append(f"writes to stderr, silence it: {output.text.strip()[:200]!r}")
        elif output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text  # how one text falls into pieces depends on the moment
        else:
            kept.append(output)
    cell.outputs = kept
    return complaints


def clean_metadata(notebook: NotebookNode) -> None:
    """Reduce the metadata to the kernel's name, tags and figure captions, the same on every machine."""
    notebook.metadata = NotebookNode(kernelspec=dict(KERNEL), language_info={"name": "python"})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in KEPT_CELL_METADATA & cell.metadata.keys()})


def refresh(path: Path) -> list[str]:
    """Format, run and clean one chapter in place, and return the complaints about it."""
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent)
    clean_metadata(notebook)
    complaints = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            complaints += [f"{path.name}, cell {number}: {text}" for text in clean_outputs(cell)]
    notebook = nbformat.from_dict(notebook)
    nbformat.validate(notebook)
    nbformat.write(notebook, path)
    return complaints


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, help="chapters to run; without any, all of them")
    failed = False
    for path in parser.parse_args(arguments).notebooks or chapters():
        started = time.monotonic()
        try:
            complaints = refresh(path)
        except CellExecutionError as error:
            complaints = [f"{path.name} keeps its old outputs: {error}"]
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB")
        print(*complaints, sep="\n", end="\n" if complaints else "")
        failed = failed or bool(complaints)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
