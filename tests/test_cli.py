import ast
import builtins
import inspect
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny import assert_same, configure, deterministic, images, networks

from dcgan_lib import cats, cli, features, metrics, training
from dcgan_lib.__main__ import main as entry
from dcgan_lib.checkpoint import load_config, load_generator, load_state, save_weights
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import load_dataset, load_unseen
from dcgan_lib.images import make_grid
from dcgan_lib.latent import sample
from dcgan_lib.page_generator import unpack
from dcgan_lib.training import train

SMALL = ["--data", "cats", "--limit", "12", "--image-size", "32", "--width", "4", "--batch-size", "4"]
SMALL += ["--latent-dim", "6", "--device", "cpu", "--precision", "float32"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a short run of the command; read only."""
    folder = tmp_path_factory.mktemp("a folder") / "läuft schon"
    assert cli.main(["train", *SMALL, "--steps", "2", "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def enough(tmp_path_factory):
    """A short run on cats without some pairs, on images enough for an evaluation; read only."""
    folder = tmp_path_factory.mktemp("enough") / "run"
    options = ["--data", "cats-held-out", "--limit", "400", *SMALL[4:], "--steps", "2", "--output", str(folder)]
    assert cli.main(["train", *options]) == 0
    return folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Three photographs of noise."""
    folder = tmp_path_factory.mktemp("photographs")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return folder


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "dcgan_lib", *map(str, arguments)]


def assert_refused(capsys, arguments, message):
    """The command ends with status 2 and one line from us, and shows no traceback."""
    capsys.readouterr()
    assert cli.main([str(argument) for argument in arguments]) == 2
    _, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if line.startswith("dcgan: error: ")]
    assert len(lines) == 1, err
    assert err.rstrip().endswith(lines[0]), err  # nothing after it
    assert "Traceback" not in err
    assert re.search(message, lines[0]), lines[0]


def assert_refused_by_the_parser(capsys, arguments, *words):
    """The command line itself is wrong: tyro's box on standard error, and status 2."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    assert ended.value.code == 2
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    for word in words:
        assert word in err


# --- help -------------------------------------------------------------------------------------------------------------

OPTIONS = {
    "train": {f.name for f in (*fields(cli.TrainOptions), *fields(cli.DataOptions), *fields(TrainingConfig))}
    - {"training"},
    "sample": {f.name for f in fields(cli.SampleOptions)},
    "evaluate": {f.name for f in fields(cli.EvaluateOptions)},
    "export": {f.name for f in fields(cli.ExportOptions)},
    "store": {f.name for f in fields(cli.StoreOptions)},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_help_describes_every_option(capsys, name):
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    out = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    shown = set(re.findall(r"--([a-z][a-z0-9-]*)", out))
    assert {option.replace("_", "-") for option in OPTIONS[name]} <= shown
    # every option has a sentence: its name is followed by words that end in its default or in (required)
    text = re.sub(r"[│\s]+", " ", out)  # lines are broken anywhere
    assert text.count("(default: ") + text.count("(required)") >= len(OPTIONS[name])


@pytest.mark.parametrize("options", [*cli.COMMANDS, cli.DataOptions, TrainingConfig])
def test_help_has_no_line_break_within_a_sentence(options):
    # tyro keeps the line breaks of a docstring, wherever the terminal then breaks its lines.
    (definition,) = ast.parse(inspect.getsource(options)).body
    texts = [
        node.value.value
        for node in definition.body[1:]
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    assert texts
    assert [line for text in texts for line in text.splitlines() if not line.endswith((".", "?", ")"))] == []


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in OPTIONS)


def test_the_installed_command_and_the_module_are_the_same():
    finished = subprocess.run(command("sample", "--run", "nowhere"), capture_output=True, text=True, timeout=120)
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.startswith("dcgan: error: there is no run or file nowhere")
    assert finished.stderr.count("\n") == 1


# --- what the commands do ---------------------------------------------------------------------------------------------


def test_train_leaves_a_run_that_says_how_to_go_on(tmp_path, capsys):
    folder = tmp_path / "my run"
    assert cli.main(["train", *SMALL, "--steps", "2", "--output", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "12 images of cats, 32x32; width 4; cpu" in out
    assert "done after 2 steps" in out
    assert f"dcgan train --output '{folder}' --resume --steps MORE" in out  # as a shell wants it
    assert load_state(folder)["step"] == 2
    config = load_config(folder)
    assert config["data"]["name"] == "cats"
    assert config["data"]["limit"] == 12


@pytest.mark.parametrize("way", ["transposed-5", "resize"])
def test_another_way_to_double_is_trained_kept_resumed_and_sampled(tmp_path, way):
    folder = tmp_path / "run"
    assert cli.main(["train", *SMALL, "--steps", "1", "--output", str(folder), "--upsampling", way]) == 0
    assert cli.main(["train", "--resume", "--steps", "2", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 2
    assert load_generator(folder).upsampling == load_config(folder)["generator"]["upsampling"] == way
    assert cli.main(["sample", "--run", str(folder), "--count", "4"]) == 0
    assert (folder / "samples-seed-0.png").stat().st_size > 0
    assert cli.main(["export", "--run", str(folder), "--output", str(tmp_path / "small.safetensors"), "--half"]) == 0
    assert load_generator(tmp_path / "small.safetensors").upsampling == way


def test_a_run_from_before_there_was_a_choice_goes_on(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "old")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["generator"].pop("upsampling") == "transposed"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert cli.main(["train", "--resume", "--steps", "3", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 3
    assert load_config(folder)["generator"] == config["generator"] | {"upsampling": "transposed"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], 0.5), (["--recipe", "r1"], 0), (["--recipe", "paper"], 1), (["--batch-norm", "0.25"], 0.25)],
)
def test_the_share_of_batch_norm_is_trained_kept_and_resumed(tmp_path, capsys, words, expected):
    folder = tmp_path / "run"
    assert cli.main(["train", *words, *SMALL, "--steps", "1", "--output", str(folder)]) == 0
    assert load_config(folder)["discriminator"]["batch_norm"] == expected
    assert ("layers.4x4.1.running_mean" in load_state(folder)["discriminator"]) == (expected > 0)
    assert cli.main(["train", "--resume", "--steps", "2", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 2
    capsys.readouterr()
    resumed = ["train", "--resume", "--output", folder, "--steps", "3", "--batch-norm", "0.75"]
    assert_refused(capsys, resumed, f"--batch-norm is {float(expected)} in this run and cannot become 0.75")


def test_older_runs_had_batch_norm_or_none(tmp_path):
    folder = tmp_path / "run"
    assert cli.main(["train", "--recipe", "paper", *SMALL, "--steps", "1", "--output", str(folder)]) == 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["discriminator"]["batch_norm"] = True
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert cli.main(["train", "--resume", "--steps", "2", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 2


def test_a_share_of_batch_norm_above_one_is_refused(tmp_path, capsys):
    words = ["train", *SMALL, "--steps", "1", "--output", tmp_path / "run", "--batch-norm", "2"]
    assert_refused(capsys, words, "batch_norm=2.0 must be a share from 0 to 1")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], True),
        (["--no-minibatch-std"], False),
        (["--recipe", "paper"], False),
        (["--recipe", "paper", "--minibatch-std"], True),
    ],
)
def test_minibatch_std_is_trained_kept_and_resumed(tmp_path, capsys, words, expected):
    folder = tmp_path / "run"
    assert cli.main(["train", *words, *SMALL, "--steps", "1", "--output", str(folder)]) == 0
    stored = json.loads((folder / "config.json").read_text(encoding="utf-8"))["discriminator"]["minibatch_std"]
    assert stored is expected
    assert cli.main(["train", "--resume", "--steps", "2", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 2
    assert load_config(folder)["discriminator"]["minibatch_std"] is expected
    assert ("layers.4x4.0.variety.weight" in load_state(folder)["discriminator"]) == expected
    other = "--no-minibatch-std" if expected else "--minibatch-std"
    message = f"--minibatch-std is {expected} in this run and cannot become {not expected}"
    assert_refused(capsys, ["train", "--resume", "--output", folder, "--steps", "3", other], message)


def test_a_run_from_before_minibatch_std_goes_on(tmp_path):
    folder = tmp_path / "old"
    assert cli.main(["train", *SMALL, "--no-minibatch-std", "--steps", "1", "--output", str(folder)]) == 0
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["discriminator"].pop("minibatch_std") is False
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert cli.main(["train", "--resume", "--steps", "2", "--output", str(folder)]) == 0
    assert load_state(folder)["step"] == 2
    assert load_config(folder)["discriminator"] == config["discriminator"] | {"minibatch_std": False}


def test_resume_needs_no_option_again(finished, tmp_path, capsys):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = load_config(folder)
    assert cli.main(["train", "--output", str(folder), "--resume", "--steps", "3"]) == 0
    assert load_state(folder)["step"] == 3
    after = load_config(folder)
    assert after["training"].pop("steps") == 3
    assert before["training"].pop("steps") == 2
    assert after == before
    # nothing is left to do, which is no error
    assert cli.main(["train", "--output", str(folder), "--resume"]) == 0
    assert "done after 3 steps" in capsys.readouterr().out


def test_a_resumed_run_in_another_process_is_bitwise_the_whole_run(tmp_path):
    options = ["--instance-noise", "0.1", "--r1-gamma", "1", "--average-half-life", "8", "--log-every", "1"]
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    with deterministic():
        assert cli.main(["train", *SMALL, *options, "--output", str(whole), "--steps", "4"]) == 0
        assert cli.main(["train", *SMALL, *options, "--output", str(halves), "--steps", "2"]) == 0
    code = (
        "import sys, torch; torch.use_deterministic_algorithms(True); from dcgan_lib.cli import main; sys.exit(main())"
    )
    arguments = ["train", "--output", str(halves), "--resume", "--steps", "4"]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, timeout=240, env=environment
    )
    assert_same(load_state(whole), load_state(halves))
    assert_same(load_generator(whole).state_dict(), load_generator(halves).state_dict())


def test_default_folder_is_named_after_data_and_size(photographs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = [*SMALL[4:], "--steps", "1"]  # without the data and the limit
    assert cli.main(["train", "--data", f"folder:{photographs}", *options]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"{photographs.name}-32"
    assert load_generator(folder).channels == 3


def test_sample_writes_the_images_of_its_seed(finished, tmp_path, capsys):
    path = tmp_path / "new" / "grid.png"
    arguments = ["sample", "--run", str(finished), "--count", "5", "--seed", "3", "--columns", "3"]
    assert cli.main([*arguments, "--output", str(path), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(path)
    expected = make_grid(sample(load_generator(finished), 5, seed=3), columns=3).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)


def test_sample_from_a_file_writes_beside_the_caller(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["sample", "--run", str(finished / "checkpoint.safetensors"), "--count", "1"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["samples-seed-0.png"]


def test_export_of_both_kinds(finished, tmp_path, capsys):
    assert cli.main(["export", "--run", str(finished), "--output", str(tmp_path / "g.safetensors"), "--half"]) == 0
    state, expected = load_generator(tmp_path / "g.safetensors").state_dict(), load_generator(finished).state_dict()
    assert torch.equal(state["layers.4x4.0.weight"], expected["layers.4x4.0.weight"].half().float())
    assert cli.main(["export", "--run", str(finished), "--output", str(tmp_path / "g.onnx")]) == 0
    assert capsys.readouterr().out.split() == [str(tmp_path / "g.safetensors"), str(tmp_path / "g.onnx")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.onnx", "g.safetensors"]


def test_export_for_a_page(finished, tmp_path, capsys):
    path = tmp_path / "mine.json"
    assert cli.main(["export", "--run", str(finished), "--output", str(path), "--bits", "9", "--data", "none"]) == 0
    size, output = capsys.readouterr().out.splitlines()
    assert size == f"{path.stat().st_size:,} bytes; 9, 9, 9, 9 bits in the layers from z to the image"
    assert output == str(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    assert (document["name"], document["dataset"]) == (finished.stem, "none")
    assert unpack(document).image_size == 32


def test_export_of_weights_that_eight_bits_can_tell(finished, tmp_path):
    path = tmp_path / "small.safetensors"
    assert cli.main(["export", "--run", str(finished), "--output", str(path), "--half", "--bits", "8"]) == 0
    weight = load_generator(path).layers[0][0].weight[:, 0].flatten()
    steps = weight / (weight.abs().max() / 127)
    assert (steps - steps.round()).abs().max() < 0.1  # but for float16
    before = load_generator(finished).layers[0][0].weight[:, 0].flatten()
    steps = before / (before.abs().max() / 127)
    assert (steps - steps.round()).abs().max() > 0.2


def test_the_data_set_of_a_run_or_of_released_weights_is_known(finished):
    assert cli.trained_on(finished) == load_config(finished)["data"]["name"]
    assert cli.trained_on(Path("fashion-mnist-32")) == "fashion-mnist"
    assert cli.trained_on(finished / "checkpoint.safetensors") == ""


def test_evaluate_stores_and_prints_every_score(enough, tmp_path, capsys):
    arguments = ["evaluate", "--run", str(enough), "--samples", "200", "--seed", "3", "--device", "cpu"]
    assert cli.main([*arguments, "--output", str(tmp_path / "evaluation.json")]) == 0
    out = capsys.readouterr().out
    stored = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    known = load_dataset("cats-held-out", 32, limit=400)
    unseen = load_unseen("cats-held-out", 32, limit=1000)
    expected = metrics.evaluate(load_generator(enough), known, samples=200, seed=3, held_out=unseen)
    assert stored == json.loads(json.dumps(expected.to_dict()))
    assert out == f"{expected.table()}\n{tmp_path / 'evaluation.json'}\n"
    for name in ("frechet", "kernel", "density", "coverage"):
        score = stored[name]
        assert score.keys() == {"value", "low", "high", "floor"}
        assert score["low"] <= score["value"] <= score["high"]
    assert stored["frechet"]["value"] > stored["frechet"]["floor"] > 0
    assert stored["extractor"] == "reader-cats"
    assert (stored["copies"]["samples"], stored["copies"]["held_out"]) == (200, 1000)
    assert stored["copies"]["share"]["value"] <= 1
    assert stored["birthday"]["samples"] == 200
    assert len(stored["pairs"]["shares"]) == 24
    assert "inception" not in stored


def test_evaluate_with_a_reader_of_ones_own(enough, tmp_path):
    own = shutil.copy(features.PRETRAINED / "reader-cats.safetensors", tmp_path / "own")
    folder = shutil.copytree(enough, tmp_path / "run")
    stored = []
    for options in ([], ["--reader", "cats"], ["--reader", str(own)]):
        assert cli.main(["evaluate", "--run", str(folder), "--samples", "200", "--device", "cpu", *options]) == 0
        stored.append((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert stored[0] == stored[1] == stored[2]


def test_evaluate_adds_the_inception_distance(enough, tmp_path, capsys, monkeypatch):
    calls = []

    def distance(generator, dataset, samples, seed):
        calls.append((generator.latent_dim, dataset.name, samples, seed))
        return 12.345

    monkeypatch.setattr(metrics, "inception_distance", distance)
    path = tmp_path / "evaluation.json"
    arguments = ["--run", str(enough), "--samples", "300", "--seed", "4", "--device", "cpu", "--output", str(path)]
    assert cli.main(["evaluate", *arguments, "--inception"]) == 0
    assert calls == [(6, "cats-held-out", 200, 4)]  # no more than half of the real images
    assert json.loads(path.read_text(encoding="utf-8"))["inception"] == 12.345
    assert re.search(r"^Inception FID +12\.3[45] +\(200 against as many real images\)$", capsys.readouterr().out, re.M)


def test_only_enough_images_that_were_not_trained_on_are_compared(photographs):
    assert cli._held_out(cli.DataOptions(data=f"folder:{photographs}", image_size=32)) is None
    held_out = cli._held_out(cli.DataOptions(data="cats", image_size=32, limit=12))
    assert len(held_out) == 1000
    assert torch.equal(held_out.labels, load_dataset("cats", 32, "test", limit=1000).labels)
    # Cats that training must not show are no measure for it: they are far from everything.
    unseen = cli._held_out(cli.DataOptions(data="cats-held-out", image_size=32))
    assert len(unseen) == 1000
    assert not cats.shows_held_out_pair(unseen.labels).any()


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_run_that_resumes(tmp_path, capsys, number):
    folder = tmp_path / "run"
    arguments = ["train", *SMALL, "--steps", "1000000", "--log-every", "1", "--output", folder]
    process = subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline, metrics = time.monotonic() + 120, folder / "metrics.jsonl"
        while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "interrupted after" in out
    assert re.search(rf"dcgan train --output {re.escape(str(folder))} --resume$", out, re.MULTILINE)
    step = load_state(folder)["step"]
    assert step >= 3
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == list(range(1, step + 1))
    load_generator(folder)
    assert cli.main(["train", "--output", str(folder), "--resume", "--steps", str(step + 2)]) == 0
    assert load_state(folder)["step"] == step + 2


def test_ctrl_c_before_training_begins_is_quiet(monkeypatch, tmp_path, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load_dataset", interrupted)
    assert cli.main(["train", "--output", str(tmp_path / "run")]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_while_pytorch_is_imported_is_quiet(capsys, monkeypatch):
    original = builtins.__import__

    def interrupted(name, globals_=None, locals_=None, fromlist=(), level=0):
        if name == "dcgan_lib" and "cli" in (fromlist or ()):
            raise KeyboardInterrupt
        return original(name, globals_, locals_, fromlist, level)

    monkeypatch.setattr(builtins, "__import__", interrupted)
    assert entry() == 130
    assert capsys.readouterr().err == "stopped\n"


def test_a_full_memory_says_what_to_try(monkeypatch, tmp_path, capsys):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(cli, "train", full)
    assert_refused(capsys, ["train", *SMALL, "--output", tmp_path / "run"], "try a smaller --batch-size or --width")


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "cts"], "there is no data set 'cts': did you mean 'cats'"),
        (["--data", "fashionmnist"], "did you mean 'fashion-mnist'"),
        (["--data", ""], "there is no data set ''"),
        (["--data", "folder:"], "the folder of images '' does not exist"),
        (["--data", "folder:/no/such/folder"], "the folder of images '/no/such/folder' does not exist"),
        (["--limit", "0"], "limit must be a whole number of images, at least 1"),
        (["--limit", "-5"], "limit must be .* at least 1"),
        (["--width", "0"], "width=0 must be a whole number between 1 and 1024"),
        (["--width", "-4"], "width=-4"),
        (["--width", "1000000000"], "width=1000000000"),
        (["--latent-dim", "0"], "latent_dim=0"),
        (["--latent-dim", "99999999"], "latent_dim=99999999"),
        *(([f"--{name}", value], f"{name.replace('-', '_')}={value}") for name, values in {
            "steps": ("0", "-1"),
            "minutes": ("0.0", "-1.0", "nan", "inf"),
            "batch-size": ("0", "-1", "1000000"),
            "learning-rate": ("0.0", "-0.1", "2.0", "nan", "inf"),
            "beta1": ("-0.1", "1.0", "nan"),
            "beta2": ("-0.1", "1.0", "nan"),
            "label-smoothing": ("-0.1", "0.9", "nan"),
            "instance-noise": ("-0.1", "1000.0", "inf", "nan"),
            "r1-gamma": ("-1.0", "inf", "nan"),
            "r1-every": ("0", "-1"),
            "average-half-life": ("-1.0", "inf", "nan"),
            "seed": ("-1", "99999999999999999999"),
            "log-every": ("0", "-1"),
            "sample-every": ("0", "-1"),
            "checkpoint-every": ("0", "-1"),
        }.items() for value in values),
        (["--device", "gpu"], "device='gpu' is unknown; choose auto, cuda, mps or cpu"),
        (["--loss", "hinge", "--label-smoothing", "0.1"], "label_smoothing has no meaning for the loss hinge"),
        (["--output", "/proc/nowhere/run"], "cannot write /proc/nowhere/run"),
    ],
)  # fmt: skip
def test_bad_options_of_train(capsys, tmp_path, arguments, message):
    assert_refused(capsys, ["train", *SMALL, "--output", tmp_path / "run", "--steps", "1", *arguments], message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "--image-size", "48"], ["--image-size", "'128'"]),
        (["train", "--steps", "many"], ["--steps"]),
        (["train", "--loss", "none"], ["--loss"]),
        (["train", "--precision", "float16"], ["--precision"]),
        (["train", "--lerning-rate", "1"], ["--learning-rate"]),
        (["sample"], ["--run"]),
        (["evaluate"], ["--run"]),
        (["export"], ["--run"]),
        (["paint"], ["paint"]),
        ([], ["train"]),
    ],
)
def test_options_the_parser_refuses(capsys, arguments, words):
    assert_refused_by_the_parser(capsys, arguments, *words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
@pytest.mark.parametrize("name", ["train", "sample"])
def test_cuda_without_cuda(capsys, finished, tmp_path, name):
    arguments = [*SMALL, "--output", tmp_path / "run"] if name == "train" else ["--run", finished]
    assert_refused(capsys, [name, *arguments, "--device", "cuda"], "device='cuda' is not available here; choose auto")


def test_folders_of_images_that_are_not(capsys, tmp_path, photographs):
    empty, one, broken = tmp_path / "empty", tmp_path / "one", tmp_path / "broken"
    for folder in (empty, one, broken):
        folder.mkdir()
    shutil.copy(photographs / "0.png", one)
    for name in ("a.png", "b.jpg", "c.gif"):
        (broken / name).write_bytes(b"no image")
    for folder, message in (
        (empty, "holds no image"),
        (one, "holds only one image"),
        (broken, r"has 0 of \d images .* that can be read"),
    ):
        arguments = ["--data", f"folder:{folder}", *SMALL[4:], "--output", tmp_path / "run"]
        assert_refused(capsys, ["train", *arguments], message)
    assert_refused(capsys, ["train", "--data", photographs], f"did you mean 'folder:{photographs}'")


def test_photographs_that_cannot_be_read_are_named_and_left_out(capsys, tmp_path, photographs):
    folder = shutil.copytree(photographs, tmp_path / "my photographs")
    (folder / "broken.jpg").write_bytes(b"no image")
    arguments = ["train", "--data", f"folder:{folder}", *SMALL[4:], "--steps", "1", "--output", str(tmp_path / "run")]
    assert cli.main(arguments) == 0
    out, err = capsys.readouterr()
    line = rf"^dcgan: warning: skipped 1 of \d images in '{re.escape(str(folder))}': broken.jpg \(not an image\)$"
    assert re.search(line, err, re.MULTILINE)
    assert re.search(r"\d images of folder:", out)


def test_a_folder_with_a_run_is_refused_before_the_data_are_loaded(capsys, finished, monkeypatch):
    monkeypatch.setattr(cli, "load_dataset", None)
    assert_refused(capsys, ["train", *SMALL, "--output", finished], "already holds a run; add --resume")


def test_output_that_cannot_be_a_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        assert_refused(capsys, ["train", *SMALL, "--steps", "1", "--output", output], "cannot write ")
    assert (tmp_path / "file").read_text() == "mine"


def test_resuming_what_cannot_be_resumed(capsys, finished, tmp_path):
    assert_refused(capsys, ["train", "--resume", "--output", tmp_path / "no"], "holds no run; train one with")
    for option, value, message in (
        ("--width", "8", "--width is 4 in this run and cannot become 8; leave it out to resume"),
        ("--upsampling", "resize", "--upsampling is transposed in this run and cannot become resize"),
        ("--data", "folder:/nowhere", "does not exist"),
        ("--loss", "hinge", "--loss is non_saturating in this run"),
        ("--seed", "1", "--seed is 0 in this run"),
        ("--limit", "11", "--limit is 12 in this run"),
        ("--image-size", "64", "--image-size is 32 in this run"),
    ):
        assert_refused(capsys, ["train", "--resume", "--output", finished, option, value], message)
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "state.safetensors").write_bytes((finished / "state.safetensors").read_bytes()[:-100])
    assert_refused(capsys, ["train", "--resume", "--output", folder], "state.safetensors is truncated or damaged")
    (folder / "state.safetensors").unlink()
    assert_refused(capsys, ["train", "--resume", "--output", folder], "no run to resume in .*state.safetensors is miss")


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("training", {"steps": -1}, "steps=-1 must be"),
        ("training", {"steps": "many"}, "steps=many must be"),
        ("training", {"unheard_of": 1}, "config.json is damaged"),
        ("generator", {"width": "wide"}, "width='wide' must be"),
        ("generator", {"latent_dim": None}, "latent_dim=None must be"),
        ("generator", {"upsampling": "magic"}, "upsampling='magic' is unknown"),
        ("generator", {"image_size": 48}, "image size 48 is not supported"),
        ("data", {"name": 5}, "there is no data set '5'"),
        ("data", {"limit": "all"}, "limit must be a whole number"),
        ("data", {"data_root": 5}, "config.json is damaged"),
    ],
)
def test_an_altered_configuration_is_one_clear_line(capsys, finished, tmp_path, section, change, message):
    folder = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config[section] |= change
    (folder / "config.json").write_text(json.dumps(config))
    assert_refused(capsys, ["train", "--resume", "--output", folder, "--steps", "3"], message)


@pytest.mark.parametrize("name", ["sample", "export", "evaluate"])
def test_checkpoints_that_are_none(capsys, finished, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    assert_refused(capsys, [name, "--run", tmp_path / "nowhere"], "there is no run or file|holds no run")
    run = shutil.copytree(finished, tmp_path / "run")
    weights = run / "checkpoint.safetensors"
    weights.write_bytes((finished / weights.name).read_bytes()[:-1])
    assert_refused(capsys, [name, "--run", run], "is truncated or damaged: its checksum does not match")
    weights.write_bytes(b"")
    assert_refused(capsys, [name, "--run", run], "is truncated or not a safetensors file")
    save_file({"a": torch.zeros(1)}, weights)
    assert_refused(capsys, [name, "--run", run], "was not written by dcgan_lib")
    weights.unlink()
    assert_refused(capsys, [name, "--run", run], "no checkpoint at ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "--count 0 must be between 1 and 100000"),
        (["--count", "-3"], "--count -3"),
        (["--count", "10000000000"], "--count 10000000000"),
        (["--seed", "-1"], "seed must be between 0 and"),
        (["--seed", "99999999999999999999"], "seed must be between 0 and"),
        (["--columns", "0"], "columns >= 1"),
        (["--columns", "-2"], "columns >= 1"),
        (["--device", "nonsense"], "is unknown; choose auto"),
        (["--output", "/proc/nowhere/a.png"], "cannot write /proc/nowhere/a.png"),
    ],
)
def test_bad_options_of_sample(capsys, finished, arguments, message):
    assert_refused(capsys, ["sample", "--run", finished, *arguments], message)


def test_weights_that_are_not_finite_make_no_picture(capsys, tmp_path):
    generator, _ = networks()
    with torch.no_grad():
        generator.layers[0][0].weight[0] = float("nan")
    save_weights(tmp_path / "nan.safetensors", {"generator": generator})
    assert_refused(capsys, ["sample", "--run", tmp_path / "nan.safetensors"], "NaN or infinity; .* has diverged")


def test_export_to_another_kind_of_file(capsys, finished, tmp_path):
    assert_refused(
        capsys, ["export", "--run", finished, "--output", tmp_path / "a.pt"], "must end in .onnx, .safetensors or"
    )
    assert list(tmp_path.iterdir()) == []
    for options, message in [
        (["a.onnx", "--bits", "9"], "--bits goes with a .json or a .safetensors file, not with .*a.onnx"),
        (["a.safetensors", "--data", "cats"], "--data goes with a .json file, not with .*a.safetensors"),
    ]:
        wrong = ["export", "--run", finished, "--output", tmp_path / options[0], *options[1:]]
        assert_refused(capsys, wrong, message)
    for ending in ("onnx", "safetensors", "json"):
        path = f"/proc/nowhere/a.{ending}"
        assert_refused(capsys, ["export", "--run", finished, "--output", path], f"cannot write {path}")


def test_a_generator_is_not_evaluated_on_data_of_other_channels_or_sizes(capsys, tmp_path):
    for options in ({"name": "cats", "image_size": 32}, {"name": "cats", "image_size": 64}):
        folder = tmp_path / str(options["image_size"])
        stored = options | {"limit": 12}
        train(*networks(channels=1), images(), configure(steps=1), folder, data_options=stored, progress=False)
        assert_refused(capsys, ["evaluate", "--run", folder, "--device", "cpu"], "1 x 32 x 32|channel")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reader", "fashion-mnist"], "the reader 'fashion-mnist' does not know the factors of 'cats-held-out'"),
        (["--reader", "dogs"], "no reader for 'dogs'; there are readers for: cats, clothing, fashion-mnist$"),
        (["--reader", ""], r"cannot read \.: Is a directory$"),
        (["--reader", str(features.PRETRAINED / "cats-64.safetensors")], "is not a reader's weights"),
        (["--output", "/proc/nowhere/evaluation.json"], "cannot write /proc/nowhere/evaluation.json"),
        (["--seed", "-1"], "seed must be between 0 and"),
        (["--samples", "100"], "100 samples are too few for these features: use at least 176"),
    ],
)
def test_bad_options_of_evaluate(capsys, enough, options, message):
    assert_refused(capsys, ["evaluate", "--run", enough, "--samples", "200", "--device", "cpu", *options], message)
    assert not (enough / "evaluation.json").exists()


def test_an_evaluation_survives_the_lack_of_the_inception_package(capsys, enough, tmp_path, monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    path = tmp_path / "evaluation.json"
    arguments = ["evaluate", "--run", enough, "--samples", "200", "--device", "cpu", "--output", path, "--inception"]
    assert_refused(capsys, arguments, r"pip install 'dcgan-lib\[inception\]'$")
    assert json.loads(path.read_text(encoding="utf-8"))["compared"] == 200


def test_weights_that_are_not_finite_are_not_evaluated(capsys, enough, tmp_path):
    run = shutil.copytree(enough, tmp_path / "run")
    generator = load_generator(run)
    with torch.no_grad():
        generator.layers[0][0].weight[0] = float("nan")
    save_weights(run / "checkpoint.safetensors", {"generator": generator})
    message = "NaN or infinity; .* has diverged"
    assert_refused(capsys, ["evaluate", "--run", run, "--samples", "200", "--device", "cpu"], message)
    assert not (run / "evaluation.json").exists()


@pytest.mark.parametrize("samples", ["0", "-1", "3"])
def test_too_few_samples_to_evaluate(capsys, enough, samples):
    assert_refused(capsys, ["evaluate", "--run", enough, "--samples", samples, "--device", "cpu"], "samples")


def test_too_few_real_images_are_not_blamed_on_the_samples(capsys, finished):
    message = "12 real images are too few to compare with: load at least 352"
    assert_refused(capsys, ["evaluate", "--run", finished, "--device", "cpu"], message)


def test_a_diverging_run_is_one_clear_line(capsys, tmp_path, monkeypatch):
    original = training.train_step
    monkeypatch.setattr(training, "train_step", lambda *a, **k: original(*a, **k) | {"g_loss": torch.tensor(torch.inf)})
    arguments = ["train", *SMALL, "--steps", "3", "--log-every", "1", "--output", tmp_path / "run"]
    assert_refused(capsys, arguments, "the loss is not finite at step 1; try a lower learning rate.* is still in")
    assert load_state(tmp_path / "run")["step"] == 0
