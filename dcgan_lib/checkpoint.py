"""Save and load a run: weights, optimizers, configuration and place in the run.

A run directory holds ``checkpoint.safetensors``, the networks' weights for everyone, and ``state.safetensors``, the
complete state for resuming. Each is replaced in one atomic step and is whole by itself, so a kill between the two
leaves both loadable. Both carry a checksum of every byte (:mod:`dcgan_lib.tensor_file`), and neither can hold code.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcgan_lib import nested, tensor_file
from dcgan_lib.errors import UserError
from dcgan_lib.models import Discriminator, Generator, build_discriminator, build_generator

WEIGHTS_NAME = "checkpoint.safetensors"
STATE_NAME = "state.safetensors"
CONFIG_NAME = "config.json"
PRETRAINED = Path(__file__).parent / "pretrained"

_EARLIER_STATE_NAME = "state.pt"
_DESCRIPTION = "json"  # the tensor, uint8, that says how those of a state belong together; the others begin with "/"
_MOST_STEPS = 10**12  # as many as a configuration may ask for
# How an optimizer computes is for the machine at hand to say; what it computes comes from the file.
_ARITHMETIC = {"foreach", "fused", "capturable", "differentiable"}


def save_weights(
    path: str | Path,
    networks: Mapping[str, Generator | Discriminator],
    step: int = 0,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write networks to one safetensors file that names their architectures, atomically.

    Args:
        path: The file.
        networks: By name: ``"generator"``, ``"discriminator"``, ``"average"`` (the averaged generator).
        step: Training step of the weights, for the reader's information.
        dtype: Type of the stored numbers; ``torch.float16`` halves the file, and loading widens them again.
    """
    tensors = {
        f"{name}.{key}": _stored(value, dtype)
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }
    architectures = {name: network.architecture for name, network in networks.items()}
    tensor_file.write(path, tensors, {"architectures": json.dumps(architectures), "step": str(step)})


def load_weights(path: str | Path, name: str) -> Generator | Discriminator:
    """Rebuild one network from a file written by ``save_weights``, on the CPU and in eval mode.

    Raises:
        UserError: If the file is missing, truncated, damaged in any byte, of another origin, without a checksum (from
            an earlier version), lacks the network, or holds tensors that do not fit the architecture it names.
    """
    return _build(Path(path), *_read_weights(path), name)


def read_architectures(path: str | Path) -> dict[str, dict[str, Any]]:
    """Names and architectures of the networks in a weights file.

    Raises:
        UserError: If the file is missing, truncated, damaged or not written by this package.
    """
    return _read_weights(path)[0]


def load_generator(path: str | Path) -> Generator:
    """Load the generator to sample from: a weights file or a run directory, the averaged weights where there are any.

    Returns:
        The generator on the CPU, in eval mode.

    Raises:
        UserError: As ``load_weights``.
    """
    path = Path(path)
    if path.is_dir():
        path = path / WEIGHTS_NAME
    architectures, tensors = _read_weights(path)
    return _build(path, architectures, tensors, "average" if "average" in architectures else "generator")


def load_pretrained(name: str) -> Generator:
    """Load a generator released with the package, by name, such as ``"cats-64"``; its model card lies beside it.

    Raises:
        UserError: If there is no such name; the message lists the names there are.
    """
    names = pretrained_names()
    if name not in names:
        raise UserError(f"no released weights named {name!r}; there are {', '.join(names)}")
    return load_generator(PRETRAINED / f"{name}.safetensors")


def pretrained_names() -> list[str]:
    """Names of the generators released with the package."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors") if not path.stem.startswith("reader-"))


def load_config(run_dir: str | Path) -> dict[str, Any]:
    """Read ``config.json`` of a run: ``data``, ``generator``, ``discriminator`` and ``training``, each a mapping.

    Raises:
        UserError: If the folder holds no run, or the file is damaged.
    """
    path = Path(run_dir) / CONFIG_NAME
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        # Older runs do not name what there was no choice of.
        config["generator"] = {"upsampling": "transposed"} | config["generator"]
        config["discriminator"] = {"minibatch_std": False} | config["discriminator"]
        return {name: dict(config[name]) for name in ("data", "generator", "discriminator", "training")}
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{run_dir} holds no run; train one with: dcgan train --output {run_dir}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def check_no_run(folder: str | Path) -> None:
    """Make sure that a new run in ``folder`` would overwrite nothing.

    A configuration of ours without weights is what a run leaves that was killed before it began; it does not count.

    Raises:
        UserError: If there is a run, or a foreign file with the name of one of a run's.
    """
    folder = Path(folder)
    if any((folder / name).exists() for name in (WEIGHTS_NAME, STATE_NAME)):
        raise UserError(f"{folder} already holds a run; add --resume to continue it, or choose another --output")
    if (folder / CONFIG_NAME).exists():
        load_config(folder)


def save_state(run_dir: str | Path, state: Mapping[str, Any]) -> None:
    """Write the complete training state to ``state.safetensors``, atomically.

    Args:
        run_dir: The folder of the run.
        state: Tensors and plain values in lists, tuples and mappings; what :mod:`dcgan_lib.nested` can hold.
    """
    tensors, text = nested.take_apart(dict(state))
    # A tensor of bytes, for the header is limited and a long run has many records.
    tensors[_DESCRIPTION] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
    tensor_file.write(Path(run_dir) / STATE_NAME, tensors, {"holds": "training state"})


def load_state(run_dir: str | Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote, equal in every type and bit, with all tensors on the CPU.

    Raises:
        UserError: If the file is missing, truncated, damaged in any byte, from an earlier version, or holds anything
            else.
    """
    path = Path(run_dir) / STATE_NAME
    if not path.is_file():
        if (path.parent / _EARLIER_STATE_NAME).is_file():
            raise UserError(f"{run_dir} was written by an earlier version of dcgan_lib and cannot be resumed; "
                            "start a new run in another folder")  # fmt: skip
        raise UserError(f"no run to resume in {run_dir}: {STATE_NAME} is missing; start it without resume")
    tensors, _ = tensor_file.read(
        path,
        if_damaged="put back a copy of it, or start a new run in another folder",
        if_foreign="only what dcgan train wrote can be resumed",
    )
    try:
        description = tensors.pop(_DESCRIPTION)
        if description.dtype != torch.uint8:
            raise ValueError("not a text")
        state = nested.put_together(tensors, description.numpy().tobytes().decode())
        if not _is_place(state):
            raise ValueError("not a place in a run")
    except (KeyError, ValueError) as error:
        raise UserError(f"{path} holds no training state; was another file copied over it?") from error
    return state


def restore(target: Any, state: Any, name: str) -> None:
    """Load ``state`` into a network, an average of networks or an optimizer.

    An optimizer keeps the ways to compute that it was made with, such as ``fused``: they are the machine's, and a run
    may be resumed on another.

    Args:
        target: Anything with ``state_dict`` and ``load_state_dict``.
        state: What its ``state_dict`` returned.
        name: What to call it in the error's message.

    Raises:
        UserError: If it does not fit; the target is then unchanged.
    """
    try:
        if isinstance(target, torch.optim.Optimizer):
            state = _fitting_optimizer_state(target, state)
        elif _kinds(state) != _kinds(target.state_dict()):
            raise ValueError("other names, shapes or types")
        target.load_state_dict(state)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the saved {name} does not fit this network; were its options changed?") from error


def _read_weights(path: str | Path) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """Architectures of the networks in a weights file, and all its tensors."""
    if not Path(path).is_file():
        raise UserError(f"no checkpoint at {path}; train one with: dcgan train --output RUN")
    tensors, metadata = tensor_file.read(
        path,
        if_damaged="copy it again from where it came, or train again; resuming a run writes its weights anew",
        if_foreign="see models.load_in_order for foreign weights",
    )
    try:
        architectures = json.loads(metadata["architectures"])
        return {name: dict(value) for name, value in architectures.items()}, tensors
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or altered: its description of the networks cannot be read") from error


def _build(
    path: Path, architectures: Mapping[str, Mapping[str, Any]], tensors: Mapping[str, Tensor], name: str
) -> Generator | Discriminator:
    """The network called ``name``; no tensor of another shape or kind of number than its architecture's passes."""
    if name not in architectures:
        raise UserError(f"{path} holds no {name!r}, only {_one_line(', '.join(sorted(architectures)))}")
    build = build_discriminator if name == "discriminator" else build_generator
    try:
        with torch.device("meta"):  # no memory is taken until the shapes are known to be right
            network = build(**architectures[name])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} names an architecture that cannot be built: {_one_line(error)}") from error
    state = {}
    for key, expected in network.state_dict().items():
        stored = tensors.get(f"{name}.{key}")
        if stored is None or stored.shape != expected.shape or not _widens(stored.dtype, expected.dtype):
            raise UserError(f"{path} is damaged or altered: {name}.{key} is missing or has the wrong shape or type")
        state[key] = stored.to(expected.dtype)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(True)


def _one_line(message: object) -> str:
    """What a file makes us say, short and without line breaks."""
    return " ".join(str(message).split())[:200]


def _widens(stored: torch.dtype, dtype: torch.dtype) -> bool:
    return stored == dtype or (dtype == torch.float32 and stored in (torch.float16, torch.bfloat16))


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.detach().to(dtype) if value.is_floating_point() else value


def _is_place(state: Any) -> bool:
    """Whether the state says how far the run has come, in the types that training relies on."""
    if not isinstance(state, dict):
        return False
    step, seconds, records = (state.get(name) for name in ("step", "seconds", "records"))
    if not (type(step) is int and 0 <= step <= _MOST_STEPS and isinstance(seconds, float) and math.isfinite(seconds)):
        return False
    return isinstance(records, list) and all(
        isinstance(record, dict) and "seconds" in record and all(type(v) in (int, float) for v in record.values())
        for record in records
    )


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.dtype, torch.Size]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}


def _fitting_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state with this optimizer's ways to compute; PyTorch itself looks at no shape, type or option of it."""
    groups = []
    for own, saved in zip(optimizer.state_dict()["param_groups"], state["param_groups"], strict=True):
        groups.append(own | {"lr": _rate(own["lr"], saved["lr"])})
        for key in saved.keys() - _ARITHMETIC - {"lr"}:
            if saved[key] != own[key]:
                raise ValueError(f"{key} is {saved[key]!r} and not {own[key]!r}")
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    moments = {number: _fitting_moments(parameters[number], saved) for number, saved in state["state"].items()}
    return {"state": moments, "param_groups": groups}


def _fitting_moments(parameter: Tensor, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adam's moments of a parameter, laid out in memory as it is: the fused kernel goes by place, not by index."""
    shapes = {name: value.shape for name, value in moments.items()}
    if shapes != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
        raise ValueError(f"moments {shapes} for a parameter of shape {parameter.shape}")
    if not all(value.is_floating_point() for value in moments.values()) or not 0 <= moments["step"] < math.inf:
        raise ValueError("the moments are not what Adam counts with")
    laid_out = {name: torch.empty_like(parameter).copy_(moments[name]) for name in ("exp_avg", "exp_avg_sq")}
    return {"step": moments["step"].clone()} | laid_out


def _rate(own: float | Tensor, saved: float | Tensor) -> float | Tensor:
    """The saved learning rate as the optimizer keeps its own, which is a number or a tensor."""
    rate = saved.item() if isinstance(saved, Tensor) else saved
    if type(rate) not in (int, float) or not 0 <= rate <= sys.float_info.max:
        raise ValueError(f"{saved!r} is no learning rate")
    return torch.full_like(own, rate) if isinstance(own, Tensor) else rate
