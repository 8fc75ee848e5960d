"""Count what a computation needs: arithmetic operations, and bytes read and written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class WorkCounter(TorchDispatchMode):
    """Counts the kernels that run inside.

    Attributes:
        operations: Additions and multiplications of convolutions and matrix products.
        traffic: Bytes of every kernel's inputs and outputs, each counted once: the least that must move when no two
            kernels are fused.
        kernels: For each kernel its operations and bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[float, float]] = []

    @property
    def operations(self) -> float:
        """Of all kernels."""
        return sum(operations for operations, _ in self.kernels)

    @property
    def traffic(self) -> float:
        """Of all kernels, in bytes."""
        return sum(traffic for _, traffic in self.kernels)

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        count = flop_registry.get(function._overloadpacket)
        operations = count(*args, **kwargs, out_val=result) if count else 0
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        outputs = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if operations or not function.is_view:
            self.kernels.append((operations, sum(tensor.nbytes for tensor in inputs + outputs)))
        return result


def count_work(action: Callable[[], Any]) -> dict[str, Any]:
    """Operations and bytes of an action, in all and kernel by kernel."""
    counter = WorkCounter()
    with counter:
        action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return {"operations": counter.operations, "bytes": counter.traffic, "kernels": counter.kernels}
