"""Write the README's tables of measurements from benchmarks/results, so that no number there is typed by hand.

    python tools/tables.py

Each table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; the tests compare it with the results.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write
from dcgan_lib.recordings import PageExplorer, Throughput, load_page_explorer, load_recipe_search, load_throughput

ROOT = Path(__file__).resolve().parent.parent
NOT_MEASURED = "not measured yet"


def throughput_table() -> str:
    """How fast training is: one row for each kind of device, also for those that nobody has measured."""
    lines = [
        "| 64 x 64 pixels, width 64 | plain loop, images/s | `dcgan_lib`, images/s "
        "| times as fast | of the matrix rate |",
        "|---|---|---|---|---|",
    ]
    for device, name in (("cpu", "batch 64"), ("cuda", "one GPU, batch 128")):
        try:
            lines.append(_throughput_row(load_throughput(device)))
        except UserError:
            lines.append(f"| {name} | {NOT_MEASURED} | | | |")
    return "\n".join(lines)


def _throughput_row(measured: Throughput) -> str:
    plain, ours = measured["plain"], measured["train"]
    cells = [
        f"{measured.hardware}, batch {measured.settings['batch_size']}",
        f"{plain.images_per_second.median:.0f}",
        f"{ours.images_per_second.median:.0f}",
        f"{ours.times_plain.median:.2f} ({ours.times_plain.smallest:.2f} to {ours.times_plain.largest:.2f})",
        f"{measured.share_of_matrix_rate.median:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


def overheads_table() -> str:
    """What training costs besides its steps."""
    stored = json.loads((ROOT / "benchmarks" / "results" / "overheads.json").read_text(encoding="utf-8"))
    over, first = stored["import"]["over_torch"], stored["start"]["to_first_step"]
    store = stored["store"]
    few, many = (f"{count:,}" for count in store["images"])
    rows = {
        "`import dcgan_lib`, over `import torch`": _difference(over["dcgan_lib"]),
        "from `dcgan train` to the end of its first step": _seconds(first["as it comes"], ".1f"),
        "the same with `--compile yes` and nothing cached": _seconds(first["compiled, nothing cached"], ".0f"),
        "logging, sample grids and checkpoints": f"{stored['reporting']['share']:.1%} of training time",
        f"a store of {many} images against one of {few}": _store_cell(store),
        f"most memory in use, with {many} images and with {few}": _memory_cell(store),
    }
    return "\n".join(
        ["| besides the steps | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )


def _seconds(times: dict[str, float], digits: str) -> str:
    return f"{times['median']:{digits}} s ({times['smallest']:{digits}} to {times['largest']:{digits}})"


def _difference(times: dict[str, float]) -> str:
    """A difference of two times, or that it is lost in the noise."""
    return "nothing measurable" if times["median"] < 0.005 else f"{times['median']:.2f} s"


def _memory_cell(store: dict[str, Any]) -> str:
    few, many = (store["peak_bytes"][str(count)] / 1e9 for count in store["images"])
    return f"{many:.2f} GB and {few:.2f} GB; the larger store has {store['bytes'] / 1e9:.1f} GB"


def _store_cell(store: dict[str, Any]) -> str:
    speed = store["speed_of_the_large_one"]
    return f"{speed['median']:.0%} of the speed ({speed['smallest']:.0%} to {speed['largest']:.0%})"


def recipe_table() -> str:
    """The final of the search for a recipe: Frechet distances over the seeds."""
    search = load_recipe_search()
    columns = {
        "paper, as published": ("published", "generator"),
        "paper, tuned": ("plain", "generator"),
        "paper, tuned and averaged": ("plain", "average"),
        "`r1`": ("r1", "average"),
        "default, `r1-bn`": ("default", "average"),
    }
    lines = [f"| Frechet distance | {' | '.join(columns)} | real images |", f"|---|{'---|' * (len(columns) + 1)}"]
    for name, task in search.tasks.items():
        cells = [
            _spread([getattr(run, kind)[-1] for run in search.of(name, search.finalists[who][name])])
            for who, kind in columns.values()
        ]
        lines.append(f"| {name}, {task['images']:,} images | {' | '.join(cells)} | {task['floor']:.2f} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return NOT_MEASURED
    if len(values) == 1:
        return f"{values[0]:.1f} (one seed)"
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def explorer_table() -> str:
    """What the latent explorer of a page weighs and how fast it is."""
    names = ("cats-64", "fashion-mnist-32")
    measured = [load_page_explorer(name) for name in names]
    lines = [f"| on the page | {' | '.join(f'`{name}`' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for title, cell in _EXPLORER_ROWS.items():
        lines.append(f"| {title} | {' | '.join(cell(each) for each in measured)} |")
    return "\n".join(lines)


_EXPLORER_ROWS: dict[str, Callable[[PageExplorer], str]] = {
    "weights, bytes": lambda each: f"{each.weights_bytes / 1e6:.2f} MB",
    "rounded to 8 bits before their release": lambda each: f"{each.rounded_bytes / 1e6:.2f} MB",
    "grey levels of 255 from PyTorch: mean, worst": lambda each: f"{each.mean_error:.2f}, {each.worst_error:.1f}",
    "the same with weights of 16 bits": lambda each: "{:.3f}, {:.1f}".format(*each.fine),
    "the same with 16-bit floats": lambda each: "{:.3f}, {:.1f}".format(*each.half),
    "one picture: median, 95 % of them": lambda each: f"{each.median_ms:.1f} ms, {each.p95_ms:.1f} ms",
    "first picture, after opening the page": lambda each: f"{each.first_picture_ms / 1000:.1f} s",
}
TABLES = {
    "throughput": throughput_table,
    "overheads": overheads_table,
    "explorer": explorer_table,
    "recipe": recipe_table,
}


def with_tables(text: str) -> str:
    """Return ``text`` with every table made anew."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise SystemExit(f"README.md has no place for the table {name}: <!-- {name} -->, <!-- /{name} -->")
        text = pattern.sub(lambda match, table=table: match[1] + table() + "\n" + match[2], text)
    return text


def main() -> int:
    """Write the tables."""
    readme = ROOT / "README.md"
    text = with_tables(readme.read_text(encoding="utf-8"))
    with atomic_write(readme) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
