"""Release the generator of a run: weights into the package, its model card, its grid and its history.

python tools/release.py cats-64 --run runs/cats-64 --hardware "one core of an AMD EPYC with AVX-512"
python tools/release.py cats-64    # scores the released weights again, and writes the card anew
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dcgan_lib import checkpoint, data, features, images, latent, metrics
from dcgan_lib.config import RECIPES
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write, write_json
from dcgan_lib.models import Generator
from dcgan_lib.page_generator import round_weights

ROOT = Path(__file__).resolve().parent.parent
BY_REVOY = (
    "The cats are drawn by David Revoy (CC BY 4.0) and reach us in parts through the package `robohash`; "
    "whoever shows these samples credits the artist."
)
CREDITS = {
    "cats": BY_REVOY,
    "cats-held-out": f"{BY_REVOY} Pairs of values were held out of training (`cats.held_out_pairs`).",
    "folder:data/clothing": (
        "The photographs are Alexey Grigorev's clothing dataset (CC0 1.0), laid out as a folder by `tools/clothing.py`."
    ),
    "fashion-mnist": "Fashion-MNIST is by Zalando Research (Xiao, Rasul and Vollgraf 2017), MIT licence.",
}
HISTORY_LINES = 200
SAMPLES = 10_000  # at most, of which the card tells the scores
CARD = """\
# {name}

A DCGAN generator for {size} x {size} images, trained from scratch on `{dataset}` by this repository:

```
{command}
```

| | |
|---|---|
| architecture | `build_generator({architecture})` |
| latent vectors | standard normal, {latent_dim} numbers |
| training data | `{dataset}`, {count:,} images |
| training | {steps:,} steps, {seen:,} images, {minutes:.0f} minutes on {hardware} |
| seed | {seed} |
| weights | averaged over training (half-life {half_life:,.0f} images), rounded to 8 bits |
| software | torch {torch} |

{credit}

## Scores

Of the weights in this file, by `metrics.evaluate`:

```
{table}
```

The samples in the book are those of seed 0 in order; none was chosen.
"""


def command_line(config: dict[str, Any], steps: int) -> str:
    """The shortest command that repeats the run, from the recipe nearest to it."""
    training = config["training"] | {"steps": steps, "minutes": None}
    ignored = {"log_every", "sample_every", "checkpoint_every", "device"}

    def differences(name: str) -> dict[str, Any]:
        recipe = asdict(RECIPES[name].training)
        changed = {k: v for k, v in training.items() if v != recipe[k] and k not in ignored and v is not None}
        for switch in ("batch_norm", "minibatch_std"):
            value = config["discriminator"].get(switch, False)  # older runs had no minibatch_std
            value = float(value) if switch == "batch_norm" else value  # older runs had True or False
            if value != getattr(RECIPES[name], switch):
                changed[switch] = value
        return changed

    recipe = min(RECIPES, key=lambda name: len(differences(name)))
    options = {"data": shlex.quote(config["data"]["name"]), "image_size": config["data"]["image_size"]}
    options |= {"width": config["generator"]["width"], "recipe": recipe, "limit": config["data"]["limit"]}
    for name, usual in (("upsampling", "transposed"), ("latent_dim", 100)):  # older runs had no choice
        if config["generator"].get(name, usual) != usual:
            options[name] = config["generator"][name]
    options |= differences(recipe)
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words.append(f"--{flag} {value}")
    return " ".join(["dcgan train", *words])


def write_weights(run: Path, target: Path) -> dict[str, Any]:
    """Write the generator of a run, rounded, and return the history of its training."""
    config, records = checkpoint.load_config(run), checkpoint.load_state(run)["records"]
    generator = checkpoint.load_generator(run)
    # What a page runs, within its bytes, is then this very network; float16 would move the weights off their steps.
    round_weights(generator)
    checkpoint.save_weights(target, {"generator": generator}, records[-1]["step"])
    thinned = records[:: max(1, len(records) // HISTORY_LINES)]
    thinned += [] if thinned[-1] is records[-1] else [records[-1]]
    config["data"].pop("data_root", None)  # a path of one machine
    return {"config": config, "steps": records[-1]["step"], "records": thinned}


def score(
    generator: Generator, config: dict[str, Any], reader: str | None, root: str | None = None
) -> tuple[metrics.Evaluation, int]:
    """Score released weights against the images they were trained on, and count these."""
    name, size = config["data"]["name"], config["data"]["image_size"]
    dataset = data.load_dataset(name, size, root=root, limit=config["data"]["limit"])
    held_out = data.load_unseen(name, size, root, metrics.COMPARED_PIXELS)
    chosen = None if reader is None else features.load_reader(reader)
    samples = min(SAMPLES, len(dataset) // 2)
    return metrics.evaluate(generator, dataset, chosen, samples, held_out=held_out), len(dataset)


def card(name: str, generator: Generator, history: dict[str, Any], table: str, count: int) -> str:
    """The model card."""
    config, last = history["config"], history["records"][-1]
    return CARD.format(
        name=name,
        size=generator.image_size,
        architecture=", ".join(f"{name}={value!r}" for name, value in generator.architecture.items()),
        latent_dim=generator.latent_dim,
        dataset=config["data"]["name"],
        count=count,
        command=command_line(config, history["steps"]),
        steps=history["steps"],
        seen=history["steps"] * config["training"]["batch_size"],
        minutes=last["seconds"] / 60 * history["steps"] / last["step"],  # the last record may be some steps older
        hardware=history["hardware"],
        seed=config["training"]["seed"],
        half_life=config["training"]["average_half_life"],
        torch=torch.__version__.split("+")[0],
        credit=CREDITS[config["data"]["name"]],
        table=table,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the four files of a release, or score one again; 2, after one line, for a mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="name of the release, such as cats-64")
    parser.add_argument(
        "--run", type=Path, help="run directory of dcgan train; without it, the release is scored again"
    )
    parser.add_argument("--hardware", help="what it was trained on, in words; goes with --run")
    parser.add_argument("--reader", help="whose features to score it in, where the data set has no reader of its own")
    options = parser.parse_args(arguments)
    if (options.run is None) != (options.hardware is None):
        parser.error("--run and --hardware go together")
    try:
        release(options)
    except UserError as error:
        print(f"release.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def release(options: argparse.Namespace) -> None:
    """Write the files, or score again."""
    trained_on = {} if options.run is None else checkpoint.load_config(options.run)["data"]
    if trained_on and trained_on["name"] not in CREDITS:
        raise UserError(f"say in CREDITS whose images {trained_on['name']} are")

    target = checkpoint.PRETRAINED / f"{options.name}.safetensors"
    stored = ROOT / "benchmarks" / "results" / f"release-{options.name}.json"
    if options.run is None:
        if not stored.exists():
            raise UserError(f"nothing is released as {options.name}: give --run and --hardware")
        history = json.loads(stored.read_text(encoding="utf-8"))
    else:
        history = write_weights(options.run, target) | {"hardware": options.hardware}
    generator = checkpoint.load_generator(target)
    scores, count = score(generator, history["config"], options.reader, trained_on.get("data_root"))
    text = card(options.name, generator, history, scores.table(), count)
    with atomic_write(target.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    images.save_png(latent.sample(generator, 64, 0), ROOT / "book" / "images" / f"{options.name}.png")
    write_json(stored, history | {"scores": scores.to_dict()})
    print(text)


if __name__ == "__main__":
    sys.exit(main())
