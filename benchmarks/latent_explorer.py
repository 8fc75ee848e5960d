"""Measure the latent explorer in headless Chromium: sizes, distances from PyTorch, and how soon pictures come.

    python benchmarks/latent_explorer.py

Puts explorers of the released weights on a page opened from the disk; writes benchmarks/results/latent-explorer.json
and, for chapter and README, dcgan_lib/recorded/latent-explorer.json. An image is timed in the page's own worker, from
the request to the picture in its canvas, one after the other; a drag moves a slider once for each picture of the
screen. The first picture is timed from the start of the navigation until it stands in the page. Precision is measured
for each number of bits, over 256 vectors, of the weights as they are and rounded for a release. Measure on a machine
that has nothing else to do.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from in_browser import headless, on_every_screen, summary
from playwright.sync_api import Browser, Page

from dcgan_lib import checkpoint, latent
from dcgan_lib.export import page_document
from dcgan_lib.files import write_json
from dcgan_lib.models import Generator
from dcgan_lib.page_generator import errors, pack, round_weights, unpack

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "latent-explorer.json"
RECORDED = ROOT / "dcgan_lib" / "recorded" / "latent-explorer.json"
NAMES = ("cats-64", "fashion-mnist-32")
TRIALS, SEED = 256, 7
OPENINGS = 5

# Ask for one picture after the other; milliseconds of each, from the request to the canvas.
IMAGES = """async ([name, count]) => {
  const maker = await explorers.latent.makerOf(await documents[name]), times = [];
  const picture = new explorers.latent.Picture(maker);
  for (let row = 0; row < count; row += 1) {
    const z = explorers.latent.sampleLatent(1, row, maker.generator.dimension), start = performance.now();
    await new Promise(resolve => picture.ask(z, true, resolve));
    picture.pen.getImageData(0, 0, 1, 1);
    times.push(performance.now() - start);
  }
  return times;
}"""
# Keep what data scripts bring, so that `IMAGES` finds the generators the page itself has loaded.
KEEP = """window.documents = {};
document.addEventListener("DOMContentLoaded", () => {
  const { receive } = explorers;
  explorers.receive = (name, value) => { documents[name] = value; receive(name, value); };
}, { capture: true });"""
# Drag a slider; milliseconds between the pictures that were shown meanwhile.
DRAG = """async () => {
  const range = document.querySelector(".latent-panel input[type=range]"), shown = [];
  const pen = CanvasRenderingContext2D.prototype, { putImageData } = pen;
  pen.putImageData = function (...rest) {
    if (this.canvas.matches(".latent-large")) shown.push(performance.now());
    return putImageData.apply(this, rest);
  };
  for (let frame = 0; frame < 150; frame += 1) {
    await new Promise(requestAnimationFrame);
    range.value = (frame % 50) / 10;
    range.dispatchEvent(new Event("input", { bubbles: true }));
  }
  pen.putImageData = putImageData;
  return shown.slice(1).map((time, i) => time - shown[i]);
}"""
# Milliseconds since the navigation began, when the explorer with its first picture has taken the still one's place.
FIRST = """new MutationObserver((changes, observer) => {
  if (!document.querySelector(".explorer-live")) return;
  observer.disconnect();
  requestAnimationFrame(() => { window.firstPicture = performance.now(); });
}).observe(document, { subtree: true, attributes: true, attributeFilter: ["class"], childList: true });"""


def write_pages(folder: Path, documents: dict[str, Any]) -> dict[str, Path]:
    """Build a page with one explorer of each generator; return the pages."""
    sys.path.insert(0, str(ROOT / "tests"))
    from pages import build, write_book

    use = ":::{{explorer}} latent\n:view: explore\n:data: {0}\n:alt: Pictures.\n:name: fig-{0}\n\nA caption.\n:::\n"
    pages = {name: f"# {name}\n\n{use.format(name)}" for name in documents}
    pages["index"] = "# Pages\n\n```{toctree}\n" + "\n".join(documents) + "\n```\n"
    data = {name: json.dumps(document) for name, document in documents.items()}
    book = write_book(folder / "book", pages, data)
    finished = build(book)
    if finished.returncode:
        raise SystemExit(finished.stderr)
    return {name: book / "_build" / "html" / f"{name}.html" for name in documents}


def open_page(browser: Browser, page: Path, screen: dict[str, Any], script: str) -> Page:
    """Open a page in a context of its own, so that nothing is cached, until its first picture is there."""
    tab = browser.new_context(**screen).new_page()
    tab.add_init_script(script)
    tab.goto(page.as_uri(), wait_until="load")
    tab.locator(".explorer").scroll_into_view_if_needed()
    tab.wait_for_selector(".explorer-live")
    return tab


def measure(pages: dict[str, Path], browser: Browser, screen: dict[str, Any]) -> dict[str, Any]:
    """Return the times, in milliseconds, of one screen."""
    result: dict[str, Any] = {}
    for name, page in pages.items():
        openings = []
        for _ in range(OPENINGS):
            tab = open_page(browser, page, screen, FIRST)
            tab.wait_for_function("window.firstPicture")
            openings.append(tab.evaluate("window.firstPicture"))
            tab.context.close()
        tab = open_page(browser, page, screen, KEEP)
        tab.evaluate(IMAGES, [name, 50])  # once to get warm
        result[name] = {
            "first_picture_ms": round(median(openings), 1),
            "image": summary(tab.evaluate(IMAGES, [name, 200])),
            "drag": summary(tab.evaluate(DRAG)),
        }
        tab.context.close()
    return result


def precisions(generator: Generator, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """For weights of 8 to 16 bits, of 16-bit floats, and as the document has them: bytes and error."""
    z = latent.sample_latent(TRIALS, generator.latent_dim, SEED)
    for bits in (8, 10, 12, 14, 16):
        packed = pack(generator, bits=bits)
        yield _row(f"{bits} bits", len(packed["numbers"]) * 3 // 4, unpack(packed), generator, z)
    half = unpack(pack(generator, bits=16))
    for layer in half.layers:
        layer.weight.copy_(layer.weight.half().double())
    yield _row("float16", 2 * sum(layer.weight.numel() for layer in half.layers), half, generator, z)
    yield _row("as chosen", len(document["numbers"]) * 3 // 4, unpack(document), generator, z)


def _row(what: str, size: int, packed: torch.nn.Module, generator: Generator, z: torch.Tensor) -> dict[str, Any]:
    mean, worst = errors(packed, generator, z)
    return {"weights": what, "bytes": size, "mean_error": round(mean, 4), "worst_error": round(worst, 2)}


def precision(name: str, rounded: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of released weights, as they are or rounded, and what its precision costs."""
    generator = checkpoint.load_pretrained(name)
    if rounded:
        round_weights(generator)
    document = page_document(generator, name, name.rpartition("-")[0])
    rows = list(precisions(generator, document))
    return document, {"bits": [layer["bits"] for layer in document["layers"]], "precision": rows}


def summarise(results: dict[str, Any]) -> dict[str, Any]:
    """What is shown: the weights as they are on the pages, and of each time that of the slowest screen."""
    shown = {}
    for name in NAMES:
        ways, rounded = (
            {row["weights"]: row for row in results["generators"][each]["precision"]}
            for each in (name, f"{name}-rounded")
        )
        chosen = ways["as chosen"]
        times = [screen[name] for screen in results["screens"].values()]
        shown[name] = {
            "weights_bytes": chosen["bytes"],
            "rounded_bytes": rounded["as chosen"]["bytes"],
            **{error: chosen[error] for error in ("mean_error", "worst_error")},
            **{
                kind: [ways[weights]["mean_error"], ways[weights]["worst_error"]]
                for kind, weights in (("fine", "16 bits"), ("half", "float16"))
            },
            **{time: max(each["image"][time] for each in times) for time in ("median_ms", "p95_ms")},
            "first_picture_ms": max(each["first_picture_ms"] for each in times),
            "script_bytes": sum(results["scripts"].values()),
            "hardware": results["hardware"],
        }
    return shown


def main() -> int:
    """Run the command line."""
    documents, generators = {}, {}
    for name in NAMES:
        documents[name], generators[name] = precision(name, rounded=False)
        documents[f"{name}-rounded"], generators[f"{name}-rounded"] = precision(name, rounded=True)
    with tempfile.TemporaryDirectory() as folder, headless() as browser:
        pages = write_pages(Path(folder), documents)
        static = pages[NAMES[0]].parent / "_static" / "explorers"
        scripts = [path for path in sorted(static.glob("*.js")) if not path.name.endswith(".data.js")]
        for name, generator in generators.items():
            generator["file_bytes"] = (static / f"{name}.data.js").stat().st_size
        result = {
            "scripts": {path.name: path.stat().st_size for path in scripts},
            "generators": generators,
        }
        result |= on_every_screen(browser, partial(measure, {name: pages[name] for name in NAMES}))
    write_json(RESULTS, result)
    write_json(RECORDED, summarise(result))
    print(json.dumps(result["generators"], indent=1))
    for name, times in result["screens"].items():
        print(name, *(f"  {what}: {numbers}" for what, numbers in times.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
