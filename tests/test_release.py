"""What is released is what its card, its grid and its recorded history say."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from release import command_line
from release import main as release

from dcgan_lib import checkpoint, cli, images, latent, models
from dcgan_lib.config import RECIPES, TrainingConfig

ROOT = Path(__file__).resolve().parent.parent
NAMES = checkpoint.pretrained_names()


def history_of(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"release-{name}.json").read_text(encoding="utf-8"))


def test_the_promised_generators_are_released():
    assert {"cats-64", "fashion-mnist-32"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_shows_the_first_samples_of_seed_0(name):
    # Nobody can have chosen them: the released weights draw this very grid, up to rounding on another processor.
    grid = images.make_grid(latent.sample(checkpoint.load_pretrained(name), 64, 0)).permute(1, 2, 0).numpy()
    stored = np.asarray(Image.open(ROOT / "book" / "images" / f"{name}.png"))
    difference = np.abs(stored.reshape(grid.shape).astype(int) - grid)
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@pytest.mark.parametrize("name", NAMES)
def test_card_agrees_with_the_recorded_history(name):
    history, card = history_of(name), (checkpoint.PRETRAINED / f"{name}.md").read_text(encoding="utf-8")
    built = models.build_generator(**history["config"]["generator"])
    assert built.architecture == checkpoint.load_pretrained(name).architecture
    assert command_line(history["config"], history["steps"]) in card
    assert f"{history['steps']:,} steps" in card
    assert f"{history['scores']['frechet']['value']:.3f}" in card
    assert history["hardware"] in card


@pytest.mark.parametrize("name", NAMES)
def test_the_command_on_the_card_asks_for_the_recorded_run(name):
    history = history_of(name)
    options = cli.parse(shlex.split(command_line(history["config"], history["steps"]))[1:])
    reporting = {"steps", "minutes", "log_every", "sample_every", "checkpoint_every", "device"}
    recorded = asdict(TrainingConfig()) | history["config"]["training"]  # options that are newer have their defaults
    for key, value in asdict(options.training).items():
        assert key in reporting or value == recorded[key], key
    assert options.width == history["config"]["generator"]["width"]
    assert options.batch_norm == history["config"]["discriminator"]["batch_norm"]
    assert options.minibatch_std == history["config"]["discriminator"].get("minibatch_std", False)
    data = history["config"]["data"]
    assert (options.data.data, options.data.image_size, options.data.limit) == (
        data["name"], data["image_size"], data["limit"]
    )  # fmt: skip
    assert options.latent_dim == history["config"]["generator"]["latent_dim"]
    assert options.training.steps == history["steps"]
    assert options.upsampling == "transposed"


def test_the_command_names_a_folder_and_a_latent_size_as_a_shell_wants_them():
    config = history_of("cats-64")["config"]
    config["data"]["name"] = "folder:my photos"
    config["generator"]["latent_dim"] = 64
    options = cli.parse(shlex.split(command_line(config, 10))[1:])
    assert (options.data.data, options.latent_dim) == ("folder:my photos", 64)


def test_the_command_names_another_way_to_double():
    config = history_of("cats-64")["config"]
    config["generator"]["upsampling"] = "resize"
    assert cli.parse(command_line(config, 10).split()[1:]).upsampling == "resize"


def test_command_line_names_only_what_differs_from_the_nearest_recipe():
    config = {
        "data": {"name": "cats", "image_size": 32, "limit": None},
        "generator": {"width": 16},
        "discriminator": {"batch_norm": False},
        "training": asdict(RECIPES["paper"].training) | {"beta1": 0.9},
    }
    expected = "--data cats --image-size 32 --width 16 --recipe paper --steps 7 --beta1 0.9 --batch-norm 0.0"
    assert command_line(config, 7) == f"dcgan train {expected}"
    config["discriminator"]["minibatch_std"] = True
    assert command_line(config, 7) == f"dcgan train {expected} --minibatch-std"


@pytest.mark.parametrize("minibatch_std", [False, True])
def test_the_command_names_the_discriminators_switches(minibatch_std):
    config = history_of("cats-64")["config"]
    config["discriminator"]["minibatch_std"] = minibatch_std
    assert cli.parse(command_line(config, 10).split()[1:]).minibatch_std == minibatch_std


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dogs-64"], "nothing is released as dogs-64: give --run and --hardware"),
        (["dogs-64", "--run", "nowhere", "--hardware", "one core"], "nowhere"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert release(words) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
