"""What the measurements of in-page explorers share: the browser, the screens, and how times are summed up."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from statistics import median, quantiles
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from training_runs import processor

SCREENS = {
    "desktop, 1280 x 900": {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 1},
    "sharp desktop, 1280 x 900 at 2": {"viewport": {"width": 1280, "height": 900}, "device_scale_factor": 2},
    "phone, 390 x 844 at 3": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 3},
}


@contextmanager
def headless() -> Iterator[Browser]:
    """An installed Chromium or Chrome, or else Playwright's own."""
    installed = os.environ.get("DCGAN_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def on_every_screen(browser: Browser, measure: Callable[[Browser, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Measure on every screen; return the times with the hardware and the versions."""
    return {
        "screens": {name: measure(browser, screen) for name, screen in SCREENS.items()},
        "hardware": processor(),
        "versions": {
            "python": platform.python_version(),
            "chromium": browser.version,
            "playwright": version("playwright"),
        },
    }


def summary(times: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of some times, in milliseconds."""
    return {
        "count": len(times),
        "median_ms": round(median(times), 2),
        "p95_ms": round(quantiles(times, n=20)[-1], 2),
        "worst_ms": round(max(times), 2),
    }
