import copy
import json
import os
import pickle
from collections import OrderedDict

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import EVERY_OPTION, assert_same, configure, images, networks

from dcgan_lib import checkpoint, nested, tensor_file
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
    assert_same(load_generator(finished).state_dict(), state["average"])
    assert_same(load_weights(path, "generator").state_dict(), state["generator"])
    assert_same(load_weights(path, "discriminator").state_dict(), state["discriminator"])
    assert not torch.equal(state["average"]["layers.4x4.0.weight"], state["generator"]["layers.4x4.0.weight"])


def test_missing_checkpoints(tmp_path, finished):
    refused(tmp_path / "nothing.safetensors", "no checkpoint at .*nothing.safetensors; train one with: dcgan train")
    refused(tmp_path, "no checkpoint at .*checkpoint.safetensors")
    with pytest.raises(UserError, match="holds no 'teacher', only average, discriminator, generator"):
        load_weights(finished / "checkpoint.safetensors", "teacher")


@pytest.mark.parametrize("kept", [0, 1, 7, 100, 2000, -1])
def test_truncated_weights(tmp_path, finished, kept):
    content = (finished / "checkpoint.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[:kept])
    refused(
        tmp_path / "cut.safetensors", "cut.safetensors is truncated or .*; copy it again from where it came, or tra"
    )


def test_damaged_weights(tmp_path, finished):
    content = bytearray((finished / "checkpoint.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "flipped.safetensors").write_bytes(content)
    refused(
        tmp_path / "flipped.safetensors", "flipped.safetensors is truncated or damaged: its checksum does not match"
    )


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


def test_weights_from_before_there_was_a_checksum(tmp_path):
    generator, _ = networks()
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    metadata = {"format": "dcgan_lib", "architectures": json.dumps({"generator": generator.architecture}), "step": "0"}
    save_file(tensors, tmp_path / "old.safetensors", metadata)
    refused(
        tmp_path / "old.safetensors", "old.safetensors has no checksum: an earlier version wrote it, or it is damag"
    )


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
        ({"two\nlines": 5}, "cannot be built: .*unexpected keyword argument 'two lines'"),
        ({"channels": "x" * 1000}, "cannot be built: channels='x{100,200}$"),
        ({"width": 1024, "image_size": 128}, "is damaged or altered: generator.layers.4x4.0.weight .* wrong shape"),
        ({"channels": 3}, "is damaged or altered: generator.layers.32x32.0.weight is missing or has the wrong shape"),
    ],
)
def test_altered_architectures(tmp_path, altered, message):
    generator, _ = networks()
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    metadata = {"architectures": json.dumps({"generator": ARCHITECTURE | altered})}
    tensor_file.write(tmp_path / "altered.safetensors", tensors, metadata)
    refused(tmp_path / "altered.safetensors", message)


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "null", '{"generator": 5}', '{"generator": null}', "[" * 100_000])
def test_garbled_architectures(tmp_path, text):
    tensor_file.write(tmp_path / "a.safetensors", {"a": torch.zeros(1)}, {"architectures": text})
    refused(tmp_path / "a.safetensors", "its description of the networks cannot be read")


def test_altered_tensors(tmp_path):
    generator, _ = networks()
    tensors = {f"generator.{name}": tensor for name, tensor in generator.state_dict().items()}
    metadata = {"architectures": json.dumps({"generator": ARCHITECTURE})}
    path, name = tmp_path / "altered.safetensors", "generator.layers.8x8.1.running_var"
    for changed in (torch.ones(3), torch.ones(8, 1), torch.ones(8).long(), torch.ones(8).double(), None):
        kept = {key: value for key, value in tensors.items() if key != name}
        tensor_file.write(path, kept if changed is None else kept | {name: changed}, metadata)
        refused(path, f"is damaged or altered: {name} is missing or has the wrong shape or type")


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
    path = tmp_path / "state.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "torch.save")
    with pytest.raises(UserError, match=r"state.safetensors is truncated or not a safetensors file of dcgan_lib; put"):
        load_state(tmp_path)
    assert not proof.exists()
    if how == "pickle":  # the payload does work
        pickle.loads(path.read_bytes())
        assert proof.exists()


def adam(parameters, **options):
    optimizer = torch.optim.Adam(parameters, betas=(0.5, 0.9), **options)
    for _ in range(2):
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
    return optimizer


def parameters():
    return [torch.nn.Parameter(torch.full((3, 2), 0.5)), torch.nn.Parameter(torch.ones(()))]


def test_a_state_comes_back_equal_in_type_and_bit(tmp_path):
    random = torch.Generator().manual_seed(0)
    state = {
        "network": OrderedDict(weight=torch.randn(2, 3, 4, 4, generator=random), count=torch.tensor(2**60 + 1)),
        "optimizer": adam(parameters(), fused=True).state_dict(),
        "another": adam(parameters(), lr=torch.tensor(1e-3), capturable=False).state_dict(),
        "kinds": [torch.randn(5, generator=random).to(dtype) for dtype in (torch.bfloat16, torch.half, torch.double)],
        "whole": (
            torch.arange(3, dtype=torch.uint8),
            torch.tensor([True, False]),
            torch.empty(0, 3),
            torch.tensor(-0.0),
        ),
        "strides": torch.randn(2, 3, 4, 4, generator=random).contiguous(memory_format=torch.channels_last),
        "part": torch.randn(4, 4, generator=random)[1:3, ::2],
        "step": 3,
        "seconds": 0.1 + 0.2,
        "records": [{"step": 1, "seconds": 1e-320, "d_loss": -1.5e300}, {"step": 2, "seconds": 2.0, "d_loss": 3}],
        "table": [{"step": step, "seconds": step / 3, 5: -0.0} for step in range(100)],
        "tables": [
            [{}, {}],
            [{"a": 1}, {}],
            [{"a": 1, "b": 2}, {"b": 2, "a": 1}],
            [{"a": 2**63}],
            [{"a": True}],
            [{1: 1}],
        ],
        "plain": [None, True, 0, -0.0, 10**40, float("inf"), "ü\n\ud800", [], (), {}, {"1": 1, 1: "1"}, ((1,), [2])],
    }
    expected = copy.deepcopy(state)
    save_state(tmp_path, state)
    assert_same(state, expected)  # saving changes nothing
    loaded = load_state(tmp_path)
    assert list(loaded) == list(state)
    assert_same(loaded, expected)
    assert loaded["seconds"] == expected["seconds"]
    assert [record["seconds"] for record in loaded["records"]] == [1e-320, 2.0]
    for loaded_zero, zero in ((loaded["whole"][3], state["whole"][3]), (loaded["plain"][3], state["plain"][3])):
        assert str(loaded_zero) == str(zero)
    assert str(loaded["table"]) == str(expected["table"])
    assert load_file(tmp_path / "state.safetensors").keys() >= {
        *("/network/weight", "/optimizer/state/0/exp_avg", "/table/step", "json")
    }


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({1, 2}, "the set at '/a'"),
        (b"bytes", "the bytes at '/a'"),
        ([1j], "the complex at '/a/0'"),
        ({"b": {2.0: 1}}, "the dict at '/a/b', or its keys"),
        (Payload("x"), "the Payload at '/a'"),
        (torch.zeros(2).numpy()[0], "the float32 at '/a'"),
        (torch.zeros(2, dtype=torch.complex64), "tensor '/a' of torch.complex64"),
        (torch.zeros(2, 2).to_sparse(), "tensor '/a' of torch.float32 and torch.sparse_coo"),
        (torch.zeros(2, device="meta"), "tensor '/a' of torch.float32"),
        ({1: torch.zeros(1), "1": torch.ones(1)}, "both at '/a/1'"),
    ],
)
def test_what_a_state_cannot_hold_is_refused_on_saving(tmp_path, value, where):
    with pytest.raises(TypeError, match=where):
        save_state(tmp_path, {"a": value, "step": 0, "seconds": 0.0, "records": []})
    assert list(tmp_path.iterdir()) == []


def write_described(folder, text, **tensors):
    """A state file with a right checksum and any description."""
    tensors |= {
        "/short": torch.zeros(2).double(),
        "/long": torch.zeros(3).double(),
        "/flat": torch.zeros(2, 2).double(),
    }
    tensors["json"] = torch.tensor(list(text.encode() or b" "), dtype=torch.uint8)
    tensor_file.write(folder / "state.safetensors", tensors, {})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[" * 100_000,
        '{"dict": [["step", 1e999]]}',
        '{"dict": 5}',
        '{"dict": [5]}',
        '{"dict": [[["a"], 5]]}',
        '{"dict": [[null, 5]]}',
        '{"dict": [], "tuple": []}',
        '{"tensor": "missing"}',
        '{"tensor": ["json"]}',
        '{"table": [["a", "missing"]]}',
        '{"table": [["a", "json"]]}',
        '{"table": [[["a"], "json"]]}',
        '{"table": [["a", "/short"], ["b", "/long"]]}',
        '{"table": [["a", "/flat"]]}',
        '{"table": [["a", "/long"], ["b", "/long"]]}',
        '{"dict": [["a", {"tensor": "/long"}], ["b", {"tensor": "/long"}]]}',
        '{"os.system": ["true"]}',
        "9" * 5000,
    ],
)
def test_descriptions_that_are_none(tmp_path, text):
    write_described(tmp_path, text)
    with pytest.raises(UserError, match="holds no training state; was another file copied over it") as caught:
        load_state(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.int64])
def test_a_description_of_another_kind_of_number(tmp_path, dtype):
    tensor_file.write(tmp_path / "state.safetensors", {"json": torch.ones(4, dtype=dtype)}, {})
    with pytest.raises(UserError, match=r"state.safetensors holds no training state"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        [],
        {"step": 3},
        {"step": "3", "seconds": 0.0, "records": []},
        {"step": True, "seconds": 0.0, "records": []},
        {"step": -1, "seconds": 0.0, "records": []},
        {"step": 10**13, "seconds": 0.0, "records": []},
        {"step": 3, "seconds": None, "records": []},
        {"step": 3, "seconds": float("nan"), "records": []},
        {"step": 3, "seconds": 0.0, "records": {}},
        {"step": 3, "seconds": 0.0, "records": [5]},
        {"step": 3, "seconds": 0.0, "records": [{}]},
        {"step": 3, "seconds": 0.0, "records": [{"seconds": "long"}]},
    ],
)
def test_states_of_another_kind(tmp_path, state):
    write_described(tmp_path, nested.take_apart(state)[1])
    with pytest.raises(UserError, match=r"state.safetensors holds no training state"):
        load_state(tmp_path)


def test_weights_in_place_of_a_state_and_the_other_way_round(tmp_path, finished):
    weights, state = ((finished / name).read_bytes() for name in ("checkpoint.safetensors", "state.safetensors"))
    (tmp_path / "state.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match="holds no training state; was another file copied over it"):
        load_state(tmp_path)
    (tmp_path / "checkpoint.safetensors").write_bytes(state)
    refused(tmp_path, "its description of the networks cannot be read")


def test_missing_state(tmp_path):
    with pytest.raises(UserError, match=r"no run to resume in .*: state.safetensors is missing"):
        load_state(tmp_path)


def test_a_run_of_an_earlier_version_is_told_apart(tmp_path):
    torch.save({"step": 0, "seconds": 0.0, "records": []}, tmp_path / "state.pt")
    with pytest.raises(UserError, match=r"was written by an earlier version .* start a new run in another folder"):
        load_state(tmp_path)


def test_foreign_and_damaged_states_say_what_to_do(tmp_path, finished):
    path = tmp_path / "state.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="was not written by dcgan_lib; only what dcgan train wrote can be resumed"):
        load_state(tmp_path)
    path.write_bytes((finished / path.name).read_bytes()[:-1])
    with pytest.raises(UserError, match=r"is truncated or damaged: .*; put back a copy of it, or start a new run"):
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


@pytest.mark.parametrize("rate", [2e-3, torch.tensor(2e-3)], ids=["number", "tensor"])
@pytest.mark.parametrize("own_rate", [1e-3, torch.tensor(1e-3)], ids=["number", "tensor"])
def test_an_optimizer_takes_over_what_was_computed_and_keeps_its_ways_to_compute(rate, own_rate):
    saved = adam(parameters(), lr=rate, foreach=False).state_dict()
    saved["param_groups"][0] |= {"capturable": True, "fused": None}  # a GPU's run, which a CPU could not go on with
    del saved["param_groups"][0]["decoupled_weight_decay"]  # written by an earlier PyTorch
    target = torch.optim.Adam(parameters(), lr=own_rate, betas=(0.5, 0.9), fused=True)
    restore(target, saved, "optimizer")
    (group,) = target.param_groups
    assert type(group["lr"]) is type(own_rate)
    assert group["lr"] == pytest.approx(2e-3)
    assert (group["fused"], group["capturable"], group["foreach"]) == (True, False, None)
    for number, moments in enumerate(target.state.values()):
        assert_same(moments, saved["state"][number])
    for parameter in group["params"]:
        parameter.grad = torch.ones_like(parameter)
    target.step()


@pytest.mark.parametrize(
    "change",
    [
        {"betas": (0.9, 0.9)},
        {"betas": [0.5, 0.9]},
        {"betas": 0.5},
        {"eps": "small"},
        {"amsgrad": True},
        {"amsgrad": torch.zeros(2)},
        {"maximize": None},
        {"params": [0, 0]},
        {"params": [1, 0]},
        {"params": None},
        {"lr": -1.0},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"lr": 10**309},
        {"lr": torch.ones(2)},
        {"lr": True},
        {"lr": None},
        {"colour": 1},
    ],
    ids=lambda change: str(change)[:40],
)
def test_options_that_are_not_the_optimizers_own_are_refused(change):
    state = adam(parameters()).state_dict()
    state["param_groups"][0] |= change
    target = adam(parameters())
    before = copy.deepcopy(target.state_dict())
    with pytest.raises(UserError, match="the saved optimizer does not fit this network; were its options changed"):
        restore(target, state, "optimizer")
    assert_same(target.state_dict(), before)


@pytest.mark.parametrize(
    "moments",
    [
        5,
        {},
        {"exp_avg": None},
        {"exp_avg": torch.zeros(3)},
        {"exp_avg_sq": torch.zeros(3, 2).long()},
        {"exp_avg": torch.zeros(3, 2).to(torch.complex64)},
        {"step": torch.tensor(-1.0)},
        {"step": torch.tensor(float("nan"))},
        {"step": torch.tensor(3)},
        {"step": 3},
        {"max_exp_avg_sq": torch.zeros(3, 2)},
    ],
    ids=str,
)
def test_moments_that_are_not_adams_are_refused(moments):
    state = adam(parameters()).state_dict()
    state["state"][0] = state["state"][0] | moments if isinstance(moments, dict) and moments else moments
    with pytest.raises(UserError, match="the saved optimizer does not fit this network"):
        restore(adam(parameters()), state, "optimizer")


@pytest.mark.parametrize("key", [2, -1, "0"])
def test_moments_of_no_parameter_are_refused(key):
    state = adam(parameters()).state_dict()
    state["state"][key] = state["state"].pop(0)
    with pytest.raises(UserError, match="the saved optimizer does not fit this network"):
        restore(adam(parameters()), state, "optimizer")


def test_weights_of_another_kind_of_number_are_refused(finished):
    _, discriminator = networks(seed=5)
    state = load_state(finished)["discriminator"]
    name = next(iter(state))
    state[name] = state[name].double()
    with pytest.raises(UserError, match="the saved discriminator does not fit this network"):
        restore(discriminator, state, "discriminator")


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
