"""Measure the convolution explorer of the page in headless Chromium: how soon it answers a change of its setting.

    python benchmarks/convolution_explorer.py

Puts the explorer on a bare page as wide as the book's column, moves its sliders at random, with inputs of 16 x 16 and
with any, and writes benchmarks/results/convolution-explorer.json. A change is timed from the slider's event until every
canvas holds its new pixels, as in scrubber.py; so is a move of the lit cell. Only changes that lead to a possible
setting count: the others draw nothing. Measure on a machine that has nothing else to do.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from in_browser import headless, on_every_screen, summary
from playwright.sync_api import Browser

from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "book" / "explorers"
RESULTS = ROOT / "benchmarks" / "results" / "convolution-explorer.json"
PAGE = """<!doctype html><html data-theme="light"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">{links}
<body style="font: 16px sans-serif; margin: 1.5rem auto; max-width: min(42rem, calc(100% - 3rem))">
<div class="explorer" data-kind="convolution" data-label="Convolution explorer"></div></body></html>"""

# Move the sliders to random settings, one change for each picture the screen shows; [milliseconds, output size] of each
# change that leads to a possible setting. `size` is that of the input, or 0 for any.
CHANGE = """async ([wanted, count, seed]) => {
  const box = document.querySelector(".explorer"), ranges = [...box.querySelectorAll(".explorer-slider input")];
  const names = ["size", "kernel", "stride", "padding", "dilation", "output_padding"], times = [];
  const radios = [...box.querySelectorAll("input[type=radio]")];
  const random = (n) => { seed = seed * 48271 % 2147483647; return seed % n; };
  const canvases = [...box.querySelectorAll("canvas")];
  const send = (range) => range.dispatchEvent(new Event("input", { bubbles: true }));
  while (times.length < count) {
    await new Promise(requestAnimationFrame);
    const transposed = random(2);
    radios[transposed].click();
    radios[3].click();
    const setting = { transposed: Boolean(transposed) };
    ranges.forEach((range, i) => {
      const low = Number(range.min), high = Number(range.max);
      setting[names[i]] = i === 0 && wanted ? wanted : low + random(high - low + 1);
    });
    if (!transposed || random(2)) setting.output_padding = 0;
    if (explorers.convolution.explainImpossible(setting)) continue;
    // All but one slider first, so that the change that is timed is the step into this setting.
    const last = random(6);
    ranges.forEach((range, i) => { if (i !== last) { range.value = setting[names[i]]; send(range); } });
    await new Promise(requestAnimationFrame);
    ranges[last].value = setting[names[last]];
    const start = performance.now();
    send(ranges[last]);
    for (const canvas of canvases) if (canvas.clientWidth) canvas.getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""

# Let the timeline go over all cells of one setting; milliseconds of each step.
MOVE = """async () => {
  const box = document.querySelector(".explorer"), range = box.querySelector(".explorer-timeline input"), times = [];
  const canvases = [...box.querySelectorAll("canvas")];
  for (let cell = 0; cell <= Number(range.max); cell += 1) {
    await new Promise(requestAnimationFrame);
    range.value = cell;
    const start = performance.now();
    range.dispatchEvent(new Event("input", { bubbles: true }));
    for (const canvas of canvases) if (canvas.clientWidth) canvas.getContext("2d").getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""


def write_page(folder: Path) -> Path:
    """Write a page with one explorer and what it loads; return its path."""
    names = [path.name for path in sorted(FOLDER.glob("convolution-*.js"))]
    scripts = ["explorers.js", "controls.js", *names, "convolution.js"]
    for name in (*scripts, "explorers.css", "controls.css", "convolution.css"):
        shutil.copy(FOLDER / name, folder / name)
    links = [f'<link rel="stylesheet" href="{name}.css">' for name in ("explorers", "controls", "convolution")]
    links += [f'<script defer src="{name}"></script>' for name in scripts]
    page = folder / "index.html"
    page.write_text(PAGE.format(links="".join(links)), encoding="utf-8")
    return page


def measure(page: Path, browser: Browser, screen: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return the times, in milliseconds, of one screen."""
    context = browser.new_context(**screen)
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="networkidle")
    tab.wait_for_selector(".explorer-live")
    tab.evaluate(CHANGE, [16, 60, 3])  # once to get warm
    result = {
        "change, inputs of 16 x 16": summary(tab.evaluate(CHANGE, [16, 300, 7])),
        "change, any input": summary(tab.evaluate(CHANGE, [0, 300, 11])),
    }
    tab.get_by_role("radio", name="Transposed").check(force=True)
    for index, value in enumerate((16, 7, 2, 1, 1, 0)):
        tab.locator(".explorer-slider input").nth(index).fill(str(value))
    result["lit cell, 16 x 16, kernel 7"] = summary(tab.evaluate(MOVE))
    context.close()
    return result


def main() -> int:
    """Run the command line."""
    with tempfile.TemporaryDirectory() as folder, headless() as browser:
        page = write_page(Path(folder))
        result = on_every_screen(browser, partial(measure, page))
    write_json(RESULTS, result)
    for name, times in result["screens"].items():
        print(name, *(f"  {what}: {numbers}" for what, numbers in times.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
