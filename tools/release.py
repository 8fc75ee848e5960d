"""Release the generator of a run: weights into the package, its model card, its grid and its history.

python tools/release.py runs/cats-64 cats-64 --hardware "one core of an AMD EPYC with AVX-512"
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dcgan_lib import checkpoint, data, features, images, latent, metrics
from dcgan_lib.config import RECIPES
from dcgan_lib.files import atomic_write, write_json
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
| weights | averaged over training (half-life {half_life:,.0f} images), rounded to 8 bits, stored as float16 |
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
            if value != getattr(RECIPES[name], switch):
                changed[switch] = value
        return changed

    recipe = min(RECIPES, key=lambda name: len(differences(name)))
    options = {"data": config["data"]["name"], "image_size": config["data"]["image_size"]}
    options |= {"width": config["generator"]["width"], "recipe": recipe, "limit": config["data"]["limit"]}
    if config["generator"].get("upsampling", "transposed") != "transposed":
        options["upsampling"] = config["generator"]["upsampling"]
    options |= differences(recipe)
    words = []
    for name, value in options.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            words.append(f"--{flag} {value}")
    return " ".join(["dcgan train", *words])


def main() -> None:
    """Write the four files of a release."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of dcgan train")
    parser.add_argument("name", help="name of the release, such as cats-64")
    parser.add_argument("--hardware", required=True, help="what it was trained on, in words")
    parser.add_argument("--reader", help="whose features to score it in, where the data set has no reader of its own")
    options = parser.parse_args()

    config = checkpoint.load_config(options.run)
    records = checkpoint.load_state(options.run)["records"]
    last = records[-1]
    target = checkpoint.PRETRAINED / f"{options.name}.safetensors"
    networks = {"generator": checkpoint.load_generator(options.run)}
    round_weights(networks["generator"])  # what a page runs, within its bytes, is then this very network
    checkpoint.save_weights(target, networks, last["step"], dtype=torch.float16)

    generator = checkpoint.load_generator(target)
    stored = config["data"]
    where = {"root": stored["data_root"]}
    dataset = data.load_dataset(stored["name"], stored["image_size"], limit=stored["limit"], **where)
    held_out = data.load_dataset(stored["name"], stored["image_size"], "test", limit=metrics.COMPARED_PIXELS, **where)
    reader = None if options.reader is None else features.load_reader(options.reader)
    samples = min(SAMPLES, len(dataset) // 2)
    scores = metrics.evaluate(generator, dataset, reader, samples, held_out=held_out)
    card = CARD.format(
        name=options.name,
        size=generator.image_size,
        architecture=", ".join(f"{name}={value!r}" for name, value in generator.architecture.items()),
        latent_dim=generator.latent_dim,
        dataset=stored["name"],
        count=len(dataset),
        command=command_line(config, last["step"]),
        steps=last["step"],
        seen=last["images"],
        minutes=last["seconds"] / 60,
        hardware=options.hardware,
        seed=config["training"]["seed"],
        half_life=config["training"]["average_half_life"],
        torch=torch.__version__.split("+")[0],
        credit=CREDITS[stored["name"]],
        table=scores.table(),
    )
    with atomic_write(target.with_suffix(".md")) as temporary:
        temporary.write_text(card, encoding="utf-8")
    images.save_png(latent.sample(generator, 64, 0), ROOT / "book" / "images" / f"{options.name}.png")

    config["data"].pop("data_root")  # a path of one machine
    thinned = records[:: max(1, len(records) // HISTORY_LINES)]
    history = {"config": config, "hardware": options.hardware, "steps": last["step"], "records": thinned}
    history["scores"] = scores.to_dict()
    write_json(ROOT / "benchmarks" / "results" / f"release-{options.name}.json", history)
    print(card)


if __name__ == "__main__":
    main()
