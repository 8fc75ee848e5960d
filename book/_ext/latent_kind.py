"""The latent explorer as a kind of in-page explorer: where its generator comes from, its views, its still pictures.

``:data:`` names released weights, such as ``cats-64``, or a file of ``book/explorers`` that ``dcgan export`` has
written. Options, all of which may be left out::

    :view: explore             or walk, arithmetic, grid
    :sum: glasses, orange      what the arithmetic shows first; see dcgan_lib.page_description.choose_sum
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from dcgan_lib import checkpoint, features, files, latent, page_description, page_generator, plots
from dcgan_lib.export import page_document
from dcgan_lib.page_generator import PageGenerator
from dcgan_lib.plots.look import BookFigure
from docutils.parsers.rst import directives

VIEWS = ("explore", "walk", "arithmetic", "grid")
_NOISE = 0.25  # of the vectors around a sum, as in the paper's Figure 7


def _words(argument: str | None) -> list[str]:
    return [word.strip() for word in (argument or "").split(",") if word.strip()]


OPTIONS: Mapping[str, Callable[[str | None], Any]] = {
    "view": lambda argument: directives.choice(argument, VIEWS),
    "sum": _words,
}


def released_generator(name: str, folder: Path) -> tuple[Path, list[Path]]:
    """Make the document of released weights, unless it is there already; return its path, and what it was made from.

    Raises:
        ValueError: If no weights of that name are released.
    """
    names = checkpoint.pretrained_names()
    if name not in names:
        raise ValueError(f"and no released weights have that name; there are {', '.join(names)}")
    sources = [
        checkpoint.PRETRAINED / f"{name}.safetensors",
        *(Path(module.__file__) for module in (page_generator, page_description, features, latent)),
    ]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    path = folder / f"{name}-{digest}.json"
    if not path.exists():
        document = page_document(checkpoint.load_pretrained(name), name, name.rpartition("-")[0])
        with files.atomic_write(path) as temporary:
            temporary.write_text(json.dumps(document), encoding="utf-8")
    return path, sources


def settle_view(data: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Name the view, and say what an arithmetic begins with.

    Raises:
        ValueError: If the generator's samples cannot be added and subtracted like that.
    """
    view = settings.get("view", VIEWS[0])
    if view != "arithmetic":
        if "sum" in settings:
            raise ValueError(f"the option :sum: goes with :view: arithmetic, not with {view}")
        return {"view": view}
    description = page_generator.unpack(data).description
    return {"view": view, "sum": list(page_description.choose_sum(description, settings.get("sum", ())).words)}


def draw_view(data: Any, settings: Mapping[str, Any]) -> BookFigure:
    """Draw what a view shows first, or some of it."""
    generator = page_generator.unpack(data)
    draw = {"explore": _draw_explore, "walk": _draw_walk, "arithmetic": _draw_arithmetic, "grid": _draw_grid}
    return draw[settings["view"]](generator, settings)


def _draw_explore(generator: PageGenerator, settings: Mapping[str, Any]) -> BookFigure:
    """Sample 0 of seed 0, moved along the first direction of each factor, or along the first directions there are."""
    directions = generator.description.directions
    first = {direction.factor: direction for direction in reversed(directions) if direction.factor}
    chosen = {first[factor].value: first[factor] for factor in generator.description.factors if factor in first}
    if len(chosen) < 2:
        chosen = {found.value or f"principal {i}": found for i, found in enumerate(directions[:5], start=1)}
    if not chosen:
        return _draw_grid(generator, settings)
    z, stops = latent.sample_latent(1, generator.latent_dim, 0), torch.tensor([-3.0, -1.5, 0.0, 1.5, 3.0])
    rows = {label: latent.generate(generator, z + stops[:, None] * found.vector) for label, found in chosen.items()}
    return plots.image_rows(rows, ["−3", "−1.5", "0", "+1.5", "+3"])


def _draw_walk(generator: PageGenerator, settings: Mapping[str, Any]) -> BookFigure:
    keys = torch.cat([latent.sample_latent(1, generator.latent_dim, seed) for seed in range(3)])
    return plots.image_rows(
        {way: latent.generate(generator, latent.walk(keys, 4, way)) for way in ("slerp", "lerp")},
        ["seed 0", "", "", "", "seed 1", "", "", "", "seed 2"],
    )


def _draw_arithmetic(generator: PageGenerator, settings: Mapping[str, Any]) -> BookFigure:
    """Three samples of each group, the sum with eight vectors around it, and the sum of the pictures."""
    chosen = page_description.choose_sum(generator.description, settings["sum"])
    most = 1 + max(max(rows) for rows in chosen.groups)
    z = latent.sample_latent(most, generator.latent_dim, 0)
    result = latent.arithmetic(*(z[rows] for rows in chosen.groups))
    around = latent.generate(generator, latent.neighbours(result, 9, _NOISE))
    groups = [latent.generate(generator, z[rows]) for rows in chosen.groups]
    a, b, c = (pictures.mean(dim=0) for pictures in groups)
    control, blank = (a - b + c).clamp(-1, 1)[None], torch.ones_like(groups[0][:1])
    rows = {}
    for i, (sign, title) in enumerate(zip("A−+", chosen.titles, strict=True)):
        last = control if i == 1 else blank
        name = f"{sign} {title}" if i else title
        rows[name.replace(", ", ",\n")] = torch.cat([groups[i], around[3 * i : 3 * i + 3], last])
    return plots.image_rows(rows, ["", "samples", "", "", "sum of vectors", "", "of pictures"])


def _draw_grid(generator: PageGenerator, settings: Mapping[str, Any]) -> BookFigure:
    return plots.image_grid(latent.sample(generator, 32, 0), columns=8)
