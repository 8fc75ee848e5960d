"""Random orders that stay the same on every machine and with every release of NumPy."""

from __future__ import annotations

import numpy as np


def shuffled(count: int, seed: int) -> np.ndarray:
    """Return the numbers 0 to count - 1 in a random order fixed by `seed`, int64 (count,).

    It sorts raw bits of the Philox generator, a stream NumPy guarantees; the order of ``Generator.permutation`` may
    change between releases (NumPy enhancement proposal 19).
    """
    return np.argsort(np.random.Philox(key=seed % 2**64).random_raw(count), kind="stable")
