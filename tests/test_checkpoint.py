import json
import os
import pickle
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import EVERY_OPTION, assert_same, configure, images, networks

from dcgan_lib import checkpoint
from dcgan_lib.checkpoint import (
    load_config,
    load_generator,
    load_pretrained,
    load_state,
    load_weights,
    pretrained_names,
    read_architectures,
    restore,
    save_state,
    save_weights,
)
from dcgan_lib.errors import UserError
from dcgan_lib.training import train


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with averaged weights; read only."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(*networks(), images(), configure(steps=3, learning_rate=0.01, **EVERY_OPTION), folder, progress=False)
    return folder


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        load_generator(path)
    assert "\n" not in str(caught.value)


# --- weights ----------------------------------------------------------------------------------------------------------


def test_weights_come_back_bit_for_bit_in_eval_mode(tmp_path):
    generator, discriminator = networks(channels=3)
    path = tmp_path / "new" / "weights.safetensors"
    save_weights(path, {"generator": generator, "discriminator": discriminator}, step=7)
    for name, network in (("generator", generator), ("discriminator", discriminator)):
        loaded = load_weights(path, name)
        assert type(loaded) is type(network)
        assert loaded.architecture == network.architecture
        assert_same(loaded.state_dict(), network.state_dict())
        assert not any(module.training for module in loaded.modules())
        assert all(parameter.requires_grad for parameter in loaded.parameters())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["step"] == "7"


def test_half_precision_is_rounded_once_and_widened_again(tmp_path):
    generator, _ = networks()
    save_weights(tmp_path / "half.safetensors", {"generator": generator}, dtype=torch.float16)
    save_weights(tmp_path / "full.safetensors", {"generator": generator})
    loaded = load_generator(tmp_path / "half.safetensors").state_dict()
    for name, value in generator.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name], expected), name
    sizes = [(tmp_path / f"{name}.safetensors").stat().st_size for name in ("half", "full")]
    assert sizes[0] < 0.65 * sizes[1]


def test_the_average_is_preferred_and_the_others_are_there(finished):
    path = finished / "checkpoint.safetensors"
    assert read_architectures(path).keys() == {"generator", "discriminator", "average"}
    state = load_state(finished)
    prefix = "module."
    average = {name.removeprefix(prefix): v for name, v in state["average"].items() if name.startswith(prefix)}
    assert_same(dict(load_generator(finished).state_dict()), average)
    assert_same(load_weights(path, "generator").state_dict(), state["generator"])
    assert_same(load_weights(path, "discriminator").state_dict(), state["discriminator"])
    assert not torch.equal(average["layers.4x4.0.weight"], state["generator"]["layers.4x4.0.weight"])


def test_missing_checkpoints(tmp_path, finished):
    refused(tmp_path / "nothing.safetensors", "no checkpoint at .*nothing.safetensors; train one with: dcgan train")
    refused(tmp_path, "no checkpoint at .*checkpoint.safetensors")
    with pytest.raises(UserError, match="holds no 'teacher', only average, discriminator, generator"):
        load_weights(finished / "checkpoint.safetensors", "teacher")


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 2000, -1])
def test_truncated_weights(tmp_path, finished, kept):
    content = (finished / "checkpoint.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:kept])
    refused(tmp_path / "cut.safetensors", "cut.safetensors is truncated or not a safetensors file")


def test_foreign_weights(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    refused(path, "was not written by dcgan_lib; see models.load_in_order")
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    refused(path, "was not written by dcgan_lib")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    refused(path, "is truncated or not a safetensors file")
    torch.save({"a": torch.zeros(2)}, path)
    refused(path, "is truncated or not a safetensors file")


ARCHITECTURE = {"image_size": 32, "channels": 1, "latent_dim": 6, "width": 4}


@pytest.mark.parametrize(
    ("altered", "message"),
    [
        ({"width": 10**9}, "names an architecture that cannot be built: width=1000000000"),
        ({"image_size": 48}, "cannot be built: image_size=48 is not supported"),
        ({"image_size": [32]}, "cannot be built: image_size"),
        ({"latent_dim": 10**12}, "cannot be built: latent_dim"),
        ({"channels": 2}, "cannot be built: channels=2"),
        ({"width": 4.0}, "cannot be built: width=4.0"),
        ({"width": None}, "cannot be built: width=None"),
        ({"upsampling": "magic"}, "cannot be built: upsampling='magic' is unknown"),
        ({"upsampling": ["resize"]}, r"cannot be built: upsampling=\['resize'\] is unknown"),
        ({"upsampling": "resize"}, "is damaged or altered: generator.layers.8x8.0.weight .* wrong shape"),
        ({"width": float("nan")}, "cannot be built: width=nan"),
        ({"depth": 5}, "cannot be built: .*unexpected keyword argument 'depth'"),
        ({"width": 1024, "image_size": 128}, "is damaged or altered: generator.layers.4x4.0.weight .* wrong shape"),
        ({"channels": 3}, "is damaged or altered: generator.layers.32x32.0.weight is missing or has the wrong shape"),
    ],
)
def test_altered_architectures(tmp_path, altered, message):
    generator, _ = networks()
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    metadata = {"format": "dcgan_lib", "architectures": json.dumps({"generator": ARCHITECTURE | altered})}
    save_file(tensors, tmp_path / "altered.safetensors", metadata)
    refused(tmp_path / "altered.safetensors", message)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"generator": 5}', '{"generator": null}', "[" * 100_000])
def test_garbled_architectures(tmp_path, text):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors", {"format": "dcgan_lib", "architectures": text})
    refused(tmp_path / "a.safetensors", "its description of the networks cannot be read")


def test_altered_tensors(tmp_path):
    generator, _ = networks()
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    metadata = {"format": "dcgan_lib", "architectures": json.dumps({"generator": ARCHITECTURE})}
    path, name = tmp_path / "altered.safetensors", "generator.layers.8x8.1.running_var"
    for changed in (torch.ones(3), torch.ones(8, 1), None):
        kept = {key: value for key, value in tensors.items() if key != name}
        save_file(kept if changed is None else kept | {name: changed}, path, metadata)
        refused(path, f"is damaged or altered: {name} is missing or has the wrong shape")


# --- released weights -------------------------------------------------------------------------------------------------


def test_released_weights_are_found_by_name_and_others_are_listed(tmp_path, monkeypatch):
    generator, _ = networks()
    monkeypatch.setattr(checkpoint, "PRETRAINED", tmp_path)
    for name in ("cats-32", "mnist-32", "reader-cats"):
        save_weights(tmp_path / f"{name}.safetensors", {"generator": generator})
    assert pretrained_names() == ["cats-32", "mnist-32"]  # readers are no generators
    assert_same(load_pretrained("cats-32").state_dict(), generator.state_dict())
    for name in ("dogs", "reader-cats", "../cats-32", "", "cats-32.safetensors"):
        with pytest.raises(UserError, match=r"no released weights named .*; there are cats-32, mnist-32"):
            load_pretrained(name)


# --- state ------------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickled by a careless reader, this creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("how", ["torch.save", "pickle", "old torch.save"])
def test_code_in_a_state_file_is_never_run(tmp_path, how):
    proof = tmp_path / "executed"
    state = {"step": Payload(proof), "seconds": 0.0, "records": []}
    if how == "pickle":
        (tmp_path / "state.pt").write_bytes(pickle.dumps(state))
    else:
        torch.save(state, tmp_path / "state.pt", _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(UserError, match="holds more than tensors and was not loaded; it may have been tampered with"):
        load_state(tmp_path)
    assert not proof.exists()
    if how == "pickle":  # the payload does work
        pickle.loads((tmp_path / "state.pt").read_bytes())
        assert proof.exists()


def test_truncated_and_flipped_state_files_are_refused_or_loaded_but_never_crash(tmp_path, finished):
    content = (finished / "state.pt").read_bytes()
    path, dice = tmp_path / "state.pt", random.Random(0)
    for kept in (0, 1, 10, 1000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(UserError, match=r"state.pt"):
            load_state(tmp_path)
    for _ in range(60):
        damaged = bytearray(content)
        for _ in range(dice.choice([1, 20])):
            # The pickled description stands at the beginning, the archive's directory at the end.
            position = dice.choice([dice.randrange(6000), -1 - dice.randrange(6000), dice.randrange(len(content))])
            damaged[position] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            load_state(tmp_path)
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right


@pytest.mark.parametrize(
    "state",
    [
        [],
        {"step": 3},
        {"step": "3", "seconds": 0.0, "records": []},
        {"step": -1, "seconds": 0.0, "records": []},
        {"step": 3, "seconds": None, "records": []},
        {"step": 3, "seconds": 0.0, "records": {}},
        {"step": 3, "seconds": 0.0, "records": [5]},
        {"step": 3, "seconds": 0.0, "records": [{}]},
        {"step": 3, "seconds": 0.0, "records": [{"seconds": "long"}]},
    ],
)
def test_states_of_another_kind(tmp_path, state):
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"state.pt was not written by dcgan_lib"):
        load_state(tmp_path)


def test_missing_state(tmp_path):
    with pytest.raises(UserError, match=r"no run to resume in .*: state.pt is missing"):
        load_state(tmp_path)


@pytest.mark.parametrize("part", ["generator", "discriminator", "average", "d_optimizer", "g_optimizer"])
def test_parts_of_a_state_that_do_not_fit_are_named(finished, tmp_path, part):
    for name in ("config.json", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    config = configure(learning_rate=0.01, **EVERY_OPTION)
    for alter in ("missing", "type", "shape"):
        state = load_state(finished)
        if alter == "missing":
            del state[part]
        elif alter == "type":
            state[part] = 5
        elif "optimizer" in part:
            state[part]["state"][0]["exp_avg"] = torch.zeros(3)
        else:
            name = next(name for name in state[part] if name.endswith("weight"))
            state[part][name] = torch.zeros(3)
        save_state(tmp_path, state)
        with pytest.raises(UserError, match=f"the saved {part} does not fit this network") as caught:
            train(*networks(), images(), config, tmp_path, resume=True, progress=False)
        assert "\n" not in str(caught.value)


def test_restore_accepts_what_fits(finished):
    _, discriminator = networks(seed=5)
    restore(discriminator, load_state(finished)["discriminator"], "discriminator")
    assert_same(dict(discriminator.state_dict()), dict(load_state(finished)["discriminator"]))


# --- configuration ----------------------------------------------------------------------------------------------------


def test_configuration_of_a_run(finished, tmp_path):
    assert load_config(finished).keys() == {"data", "generator", "discriminator", "training"}
    with pytest.raises(UserError, match="holds no run; train one with: dcgan train --output"):
        load_config(tmp_path)
    with pytest.raises(UserError, match="holds no run"):
        load_config(finished / "config.json")


@pytest.mark.parametrize("text", ["", "{", "5", "[]", '{"data": {}}', "\udcff", '{"data": 1, "generator": 2}'])
def test_damaged_configurations(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"config.json is damaged") as caught:
        load_config(tmp_path)
    assert "\n" not in str(caught.value)
