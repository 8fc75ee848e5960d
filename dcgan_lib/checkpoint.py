"""Save and load a run: weights, optimizers, configuration and place in the run.

A run directory holds ``checkpoint.safetensors``, the networks' weights for everyone, and ``state.pt``, the complete
state for resuming. Each is replaced in one atomic step and is whole by itself, so a kill between the two leaves both
loadable. Nothing is unpickled: safetensors holds numbers only, and ``state.pt`` is read with ``weights_only=True``.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write
from dcgan_lib.models import Discriminator, Generator, build_discriminator, build_generator

WEIGHTS_NAME = "checkpoint.safetensors"
STATE_NAME = "state.pt"
CONFIG_NAME = "config.json"
PRETRAINED = Path(__file__).parent / "pretrained"


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
    metadata = {"format": "dcgan_lib", "architectures": json.dumps(architectures), "step": str(step)}
    content = to_bytes(tensors, metadata)  # written by us, so that a full disk is an OSError with its reason
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def load_weights(path: str | Path, name: str) -> Generator | Discriminator:
    """Rebuild one network from a file written by ``save_weights``, on the CPU and in eval mode.

    Raises:
        UserError: If the file is missing, truncated, of another origin, lacks the network, or holds tensors that do
            not fit the architecture it names.
    """
    path = Path(path)
    architectures = read_architectures(path)
    if name not in architectures:
        raise UserError(f"{path} holds no {name!r}, only {', '.join(sorted(architectures))}")
    build = build_discriminator if name == "discriminator" else build_generator
    try:
        with torch.device("meta"):  # no memory is taken until the shapes are known to be right
            network = build(**architectures[name])
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} names an architecture that cannot be built: {error}") from error
    with safe_open(path, framework="pt") as file:
        keys = [key for key in file.keys() if key.startswith(f"{name}.")]  # noqa: SIM118 - not a dict
        expected = network.state_dict()
        for key, tensor in expected.items():
            stored = f"{name}.{key}"
            if stored not in keys or tuple(file.get_slice(stored).get_shape()) != tuple(tensor.shape):
                raise UserError(f"{path} is damaged or altered: {stored} is missing or has the wrong shape")
        state = {key: file.get_tensor(f"{name}.{key}").to(tensor.dtype) for key, tensor in expected.items()}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(True)


def read_architectures(path: str | Path) -> dict[str, dict[str, Any]]:
    """Names and architectures of the networks in a weights file.

    Raises:
        UserError: If the file is missing, truncated or not written by this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; train one with: dcgan train --output RUN")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != "dcgan_lib":
            raise UserError(f"{path} was not written by dcgan_lib; see models.load_in_order for foreign weights")
        return {name: dict(value) for name, value in json.loads(metadata["architectures"]).items()}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is truncated or not a safetensors file ({error})") from error
    except (json.JSONDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged or altered: its description of the networks cannot be read") from error


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
    return load_weights(path, "average" if "average" in read_architectures(path) else "generator")


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
        config["generator"] = {"upsampling": "transposed"} | config["generator"]  # older runs do not name the only way
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
    """Write the complete training state, a mapping of tensors and plain values, to ``state.pt``, atomically."""
    content = io.BytesIO()  # torch.save's own errors do not say what is wrong with the disk
    torch.save(dict(state), content)
    with atomic_write(Path(run_dir) / STATE_NAME) as temporary:
        temporary.write_bytes(content.getbuffer())


def load_state(run_dir: str | Path) -> dict[str, Any]:
    """Read what ``save_state`` wrote, on the CPU and without unpickling anything but tensors and plain values.

    Raises:
        UserError: If the file is missing, truncated, or holds anything else.
    """
    path = Path(run_dir) / STATE_NAME
    if not path.is_file():
        raise UserError(f"no run to resume in {run_dir}: {STATE_NAME} is missing; start it without resume")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} holds more than tensors and was not loaded; it may have been tampered with") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(f"{path} is truncated or damaged and cannot be resumed from") from error
    if not isinstance(state, dict) or not _is_place(state):
        raise UserError(f"{path} was not written by dcgan_lib")
    return state


def restore(target: nn.Module | torch.optim.Optimizer, state: Any, name: str) -> None:
    """Load ``state`` into a network or optimizer.

    Raises:
        UserError: If it does not fit.
    """
    try:
        target.load_state_dict(state)
        if isinstance(target, torch.optim.Optimizer):  # which, unlike a network, does not look at shapes
            _check_moments(target)
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"the saved {name} does not fit this network; were its options changed?") from error


def _is_place(state: dict[str, Any]) -> bool:
    """Whether the state says how far the run has come, in the types that training relies on."""
    step, seconds, records = (state.get(name) for name in ("step", "seconds", "records"))
    if not (isinstance(step, int) and step >= 0 and isinstance(seconds, float) and isinstance(records, list)):
        return False
    return all(
        isinstance(record, dict) and "seconds" in record and all(isinstance(v, int | float) for v in record.values())
        for record in records
    )


def _check_moments(optimizer: torch.optim.Optimizer) -> None:
    for parameter, moments in optimizer.state.items():
        shapes = {name: value.shape for name, value in moments.items()}
        if shapes != {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}:
            raise ValueError(f"moments {shapes} for a parameter of shape {parameter.shape}")


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.to(dtype) if value.is_floating_point() else value
