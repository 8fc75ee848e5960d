"""A small book with convolution explorers, and how tests use what is on its pages."""

import re

from pages import small_book

from dcgan_lib.convolution_examples import LIMITS

NAMES = tuple(LIMITS)


def use(name: str, *options: str) -> str:
    lines = [":::{explorer} convolution", f":name: fig-{name}", ":alt: Three grids and a matrix.", *options]
    return "\n".join([*lines, "", "A caption.", ":::", ""])


PAGES = {
    "index": "# Small\n\n```{toctree}\nline\ntwo\n```\n\n" + use("a"),
    "line": "# Line\n\n" + use("b", ":direction: convolution", ":axes: 1", ":size: 7", ":kernel: 3", ":seed: 3"),
    "two": "# Two\n\n" + use("c") + "\n" + use("d", ":direction: convolution", ":show: overlap"),
}


html, address, show = small_book(PAGES, dict, lambda page: page.wait_for_timeout(100))

# Keep what was last written on each canvas: [text, x, y] of each number and note in a cell.
LISTEN = """() => {
  if (window.written) return;
  window.written = new WeakMap();
  const pen = CanvasRenderingContext2D.prototype, { fillText, clearRect } = pen;
  pen.clearRect = function (...box) {
    written.set(this.canvas, []);
    return clearRect.apply(this, box);
  };
  pen.fillText = function (text, x, y, ...rest) {
    if (this.textBaseline === "middle") (written.get(this.canvas) || []).push([String(text), x, y]);
    return fillText.call(this, text, x, y, ...rest);
  };
}"""
WRITTEN = "name => written.get(document.querySelector(`.convolution-${name}`))"
SLIDERS = ".explorer-slider input"


def written(page, name: str) -> list[str]:
    """Numbers and notes in the cells of a canvas."""
    return [found[0] for found in page.evaluate(WRITTEN, name)]


def choose(page, **values) -> None:
    """Put sliders, radio buttons and boxes to values, as a reader does, one after the other."""
    for name, value in values.items():
        if name in NAMES:
            page.locator(SLIDERS).nth(NAMES.index(name)).fill(str(value))
        elif name == "transposed":
            page.get_by_role("radio", name="Transposed" if value else "Convolution").check(force=True)
        elif name == "axes":
            page.get_by_role("radio", name=f"{value}-D").check(force=True)
        elif name == "seed":
            page.get_by_label("Numbers").select_option(str(value))


def text(page, name: str) -> str:
    return page.locator(f".convolution-{name}").inner_text().replace("\u00a0", " ")


def now(page) -> str:
    return page.locator(".explorer-now").inner_text().replace("\n", " ")


def lit(page) -> str:
    """The active cell, as the timeline names it."""
    return now(page).rpartition(",")[0]


def lit_cell(page) -> tuple[int, ...]:
    """Its indices."""
    return tuple(int(part) for part in re.findall(r"\d+", lit(page)))
