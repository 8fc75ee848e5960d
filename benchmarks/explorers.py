"""Measure the in-page explorers in headless Chromium: what a page loads, and how long a scrub takes.

    python benchmarks/explorers.py

Builds the book into a temporary folder, opens its pages from there and writes benchmarks/results/scrubber.json. A scrub
is timed from the slider's event until every canvas of the explorer holds its new pixels, which reading one of them
waits for; so the browser's drawing counts, and not our calls alone. Measure on a machine that has nothing else to do.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from training_runs import processor

from dcgan_lib.files import write_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "scrubber.json"
PAGE = "training_dynamics.html"
FILES = ("explorers", "scrubber", "ring-runs")
"""What the page loads for its explorer, without the endings."""
SCREENS = {
    "desktop, 1280 x 900": {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 1},
    "sharp desktop, 1280 x 900 at 2": {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 2},
    "phone, 390 x 844 at 3": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3},
}

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


def measure(browser: Browser, page: Path, screen: dict[str, Any]) -> dict[str, float]:
    """Return the times, in milliseconds, of one screen."""
    context = browser.new_context(**screen)
    tab = context.new_page()
    tab.goto(page.as_uri(), wait_until="networkidle")
    started = tab.evaluate(START)
    tab.wait_for_timeout(1000)
    tab.evaluate(SCRUB)  # once to get warm
    times = tab.evaluate(SCRUB)
    context.close()
    return {
        "start_ms": round(started, 1),
        "frames": len(times),
        "scrub_median_ms": round(median(times), 2),
        "scrub_p95_ms": round(quantiles(times, n=20)[-1], 2),
        "scrub_worst_ms": round(max(times), 2),
    }


def main() -> int:
    """Run the command line."""
    installed = os.environ.get("DCGAN_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        html = build(Path(folder))
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        files = [file for name in FILES for file in sorted((html / "_static" / "explorers").glob(f"{name}.*"))]
        result = {
            "page": PAGE,
            "bytes": {file.name: file.stat().st_size for file in files},
            "screens": {name: measure(browser, html / PAGE, screen) for name, screen in SCREENS.items()},
            "hardware": processor(),
            "versions": {
                "python": platform.python_version(),
                "chromium": browser.version,
                "playwright": version("playwright"),
            },
        }
        browser.close()
    write_json(RESULTS, result)
    for name, times in result["screens"].items():
        print(f"{name}: {times}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
