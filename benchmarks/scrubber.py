"""Measure the scrubber in headless Chromium: what a page loads, and how long a scrub takes.

    python benchmarks/scrubber.py

Builds the book into a temporary folder, opens its pages from there and writes benchmarks/results/scrubber.json. A scrub
is timed from the slider's event until every canvas of the explorer holds its new pixels, which reading one of them
waits for; so the browser's drawing counts, and not our calls alone. Measure on a machine that has nothing else to do.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from in_browser import headless, on_every_screen, summary
from playwright.sync_api import Browser

from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scrubber.json"
PAGE = "training_dynamics.html"
FILES = ("explorers", "scrubber", "ring-runs")
"""What the page loads for its explorer, without the endings."""

# Scroll to the explorer; milliseconds until it can be used, which includes loading and decoding its data.
START = """() => new Promise(resolve => {
  const box = document.querySelector(".explorer[data-kind=scrubber]"), start = performance.now();
  new MutationObserver(() => box.classList.contains("explorer-live") && resolve(performance.now() - start))
    .observe(box, { attributes: true });
  box.scrollIntoView();
})"""

# Move the slider over all frames, one for each picture the screen shows; milliseconds of each.
SCRUB = """async () => {
  const box = document.querySelector(".explorer[data-kind=scrubber]"), times = [];
  const range = box.querySelector("input[type=range]");
  const pens = [...box.querySelectorAll("canvas")].map(canvas => canvas.getContext("2d"));
  for (let frame = 0; frame <= Number(range.max); frame += 1) {
    await new Promise(requestAnimationFrame);
    range.value = frame;
    const start = performance.now();
    range.dispatchEvent(new Event("input", { bubbles: true }));
    for (const pen of pens) pen.getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""


def build(folder: Path) -> Path:
    """Build the book and return the folder of its pages."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [program, "build", "book", "-n", "--path-output", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder / "_build" / "html"


def measure(page: Path, browser: Browser, screen: dict[str, Any]) -> dict[str, Any]:
    """Return the times, in milliseconds, of one screen."""
    context = browser.new_context(**screen)
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="networkidle")
    started = tab.evaluate(START)
    tab.wait_for_timeout(1000)
    tab.evaluate(SCRUB)  # once to get warm
    times = tab.evaluate(SCRUB)
    context.close()
    return {"start_ms": round(started, 1), "scrub": summary(times)}


def main() -> int:
    """Run the command line."""
    with tempfile.TemporaryDirectory() as folder, headless() as browser:
        html = build(Path(folder))
        files = [file for name in FILES for file in sorted((html / "_static" / "explorers").glob(f"{name}.*"))]
        result = {"page": PAGE, "bytes": {file.name: file.stat().st_size for file in files}}
        result |= on_every_screen(browser, partial(measure, html / PAGE))
    write_json(RESULTS, result)
    for name, times in result["screens"].items():
        print(f"{name}: {times}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
