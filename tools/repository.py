"""Set the repository's address everywhere, from the one place where it stands: ``repository.url`` in ``_config.yml``.

    python tools/repository.py https://github.com/owner/name    # set it
    python tools/repository.py ""                               # unset it: no Colab button, no dead link
    python tools/repository.py                                  # write the address in _config.yml everywhere again

Every chapter starts with the cell ``FIRST_CELL``; ``python tools/repository.py --first-cell`` prints it.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "https://github.com/OWNER/REPOSITORY"  # in shell examples, while the address is unset

# The page hides this cell (its tag is `remove-cell`); a reader of the notebook sees it first, so it stays short.
FIRST_CELL_TAGS = ["remove-cell"]
FIRST_CELL = """\
# Where the package is missing (in Colab, say), install it; torch stays as it is.
import importlib.util
import sys

repository = "{url}"  # set by `make repository URL=...`
if importlib.util.find_spec("dcgan_lib") is None:
    if not repository:
        raise ImportError("dcgan_lib is missing: run `pip install -e .` in a clone")
    %pip install -q robohash safetensors torchmetrics tyro
    %pip install -q --no-deps git+{{repository}}
if "google.colab" in sys.modules:
    from google.colab import output

    output.enable_custom_widget_manager()"""

README_BLOCK = re.compile(r"(<!-- repository -->\n).*?(<!-- /repository -->)", re.DOTALL)
CONFIG_URL = re.compile(r'^(repository:\n(?:[ #].*\n)*?  url: )"([^"]*)"', re.MULTILINE)
CITATION_URL = re.compile(r"^repository-code: .*\n", re.MULTILINE)


def first_cell(url: str) -> str:
    """Return the source of every chapter's first code cell, for the repository at ``url`` ("" while there is none)."""
    return FIRST_CELL.format(url=url)


def configured_url(root: Path = ROOT) -> str:
    """Return ``repository.url`` from ``_config.yml``; "" means that there is no public repository yet."""
    match = CONFIG_URL.search((root / "_config.yml").read_text(encoding="utf-8"))
    if match is None:
        raise SystemExit('_config.yml has no line `url: "..."` under `repository:`')
    return match.group(2)


def check_url(url: str) -> str:
    """Return ``url`` without a trailing slash or ``.git``.

    Raises:
        SystemExit: If it is not the address of a GitHub repository; Colab opens notebooks from GitHub only.
    """
    url = url.strip().rstrip("/").removesuffix(".git")
    if url and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise SystemExit(f"URL={url} is not of the form https://github.com/owner/name")
    return url


def chapters(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of the book, in alphabetical order."""
    return sorted((root / "book").glob("*.ipynb"))


def set_notebook(path: Path, url: str) -> None:
    """Write the first cell for ``url`` into a chapter; every other cell stays as it is."""
    notebook = nbformat.read(path, as_version=4)
    first = next((cell for cell in notebook.cells if cell.cell_type == "code"), None)
    if first is None or "dcgan_lib" not in first.source:
        raise SystemExit(f"{path.name}: the first code cell is not the one `tools/repository.py --first-cell` prints")
    if first.source != first_cell(url):
        first.source = first_cell(url)
        nbformat.write(notebook, path)


def set_readme(path: Path, old: str, new: str) -> None:
    """Rewrite the block of links between the two ``repository`` comments, and the address in shell examples."""
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    text = text.replace(old or PLACEHOLDER, new or PLACEHOLDER)
    path.write_text(README_BLOCK.sub(lambda m: m.group(1) + readme_links(new, path.parent) + m.group(2), text), "utf-8")


def readme_links(url: str, root: Path = ROOT) -> str:
    """Return the README's links to the published book and to each chapter in Colab; "" while there is no address."""
    if not url:
        return ""
    owner, name = url.removeprefix("https://github.com/").split("/")
    colab = f"https://colab.research.google.com/github/{owner}/{name}/blob/main/book"
    opened = ", ".join(f"[{path.stem.replace('_', ' ')}]({colab}/{path.name})" for path in chapters(root))
    return f"[Read the book](https://{owner}.github.io/{name}/) · Open in Colab: {opened}\n"


def set_citation(path: Path, url: str) -> None:
    """Add, change or remove the line ``repository-code``."""
    text = CITATION_URL.sub("", path.read_text(encoding="utf-8"))
    path.write_text(text + (f"repository-code: {json.dumps(url)}\n" if url else ""), "utf-8")


def set_everywhere(url: str, root: Path = ROOT) -> None:
    """Write ``url`` into ``_config.yml``, the notebooks, the README, ``CONTRIBUTING.md`` and ``CITATION.cff``."""
    old = configured_url(root)
    config = root / "_config.yml"
    text = config.read_text(encoding="utf-8")
    config.write_text(CONFIG_URL.sub(lambda match: f'{match.group(1)}"{url}"', text), "utf-8")
    for path in chapters(root):
        set_notebook(path, url)
    for name in ("README.md", "CONTRIBUTING.md"):
        set_readme(root / name, old, url)
    set_citation(root / "CITATION.cff", url)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="?", help='https://github.com/owner/name, or "" to unset it')
    parser.add_argument("--first-cell", action="store_true", help="print the first cell of a chapter, and do nothing")
    options = parser.parse_args(arguments)
    url = configured_url() if options.url is None else check_url(options.url)
    if options.first_cell:
        print(first_cell(url))
        return 0
    set_everywhere(url)
    print(f"repository address: {url or 'unset'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
