"""The default data set: cartoon cats put together from parts, so that five factors of every image are known.

The parts were drawn by David Revoy (https://www.peppercarrot.com), licence CC BY 4.0; `dcgan_lib.cat_parts` finds
them in the installed package `robohash`.

Ten furs are drawn, but two of them are empty, and both scarves cover the mouth. Here the empty fur counts once, and a
cat with a scarf has the mouth "hidden", so that labels and images correspond one to one: 15 bodies x 9 furs x 15 eyes x
(10 mouths x 14 accessories + 2 scarves) = 287,550 different cats.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.cat_parts import FULL_SIZE, LAYERS, PAIRS, load_parts
from dcgan_lib.errors import UserError
from dcgan_lib.seeds import shuffled

LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "body": (
        "maroon", "lime", "charcoal", "mauve", "coral", "sand", "pink", "brown", "blue", "yellow",
        "gold", "grey", "caramel", "cream", "orange",
    ),
    "fur": (
        "soft stripes", "bold stripes", "plain", "swirls", "dark patches", "pale patches", "pale muzzle", "squares",
        "dots",
    ),
    "eyes": (
        "wide", "sly", "beads", "grey pointed", "monocle", "square", "closed", "grey round", "bored", "green",
        "winged", "round", "glasses", "narrow", "lashes",
    ),
    "mouth": (
        "red laugh", "thin smile", "small o", "shout", "laugh", "gape", "thick smile", "narrow laugh", "teeth",
        "wide laugh", "hidden",
    ),
    "accessory": (
        "red scarf", "bell collar", "red collar", "red headband", "pink bow", "black hat", "red headphones",
        "blue scarf", "barrel collar", "typewriter", "diamond necklace", "bandana", "blue bow", "red hat",
        "silver headphones", "none",
    ),
}  # fmt: skip
"""Factor -> names of its values; the factors are in the order of drawing (a later part covers an earlier one).

:meta hide-value:
"""

DEFAULT_LIMIT = 20_000

PAIRED = (("body", "eyes"), ("body", "accessory"), ("eyes", "accessory"))
"""Factors of which pairs of values are held out of the data set "cats-held-out"."""
PAIRS_EACH = 8

_SIZES = tuple(len(names) for names in LABEL_NAMES.values())
_HIDDEN = LABEL_NAMES["mouth"].index("hidden")
_SCARVES = [LABEL_NAMES["accessory"].index(name) for name in ("red scarf", "blue scarf")]
_SPLIT_KEY = 20_151_119  # the day the DCGAN paper appeared
_PAIR_KEY = 20_151_120
_TEST_SHARE = 10  # one cat in ten is kept for the test split
_BATCH_PIXELS = 64 * 64 * 64  # drawn at once: few enough for the processor's cache, which makes it twice as fast


def all_cats() -> Tensor:
    """Return the factors of every different cat, int64 (287550, 5)."""
    body, fur, eyes, mouth, accessory = (axis.ravel() for axis in np.indices(_SIZES))
    possible = (mouth == _HIDDEN) == np.isin(accessory, _SCARVES)
    return torch.from_numpy(np.stack([body, fur, eyes, mouth, accessory], axis=1)[possible])


def held_out_pairs() -> list[dict[str, str]]:
    """Pairs of values that no training image of "cats-held-out" shows, such as {"body": "pink", "eyes": "sly"}.

    Eight pairs for each of the three couples of factors in ``PAIRED``, in which no value occurs twice: so every value
    is seen in training with almost all others, and only the pair is new.
    """
    pairs = []
    for number, couple in enumerate(PAIRED):
        orders = [shuffled(len(LABEL_NAMES[factor]), _PAIR_KEY + 2 * number + i) for i, factor in enumerate(couple)]
        for values in list(zip(*orders, strict=False))[:PAIRS_EACH]:
            pairs.append({factor: LABEL_NAMES[factor][value] for factor, value in zip(couple, values, strict=True)})
    return pairs


def shows(factors: Tensor, pair: Mapping[str, str]) -> Tensor:
    """Which cats show a pair of values.

    Args:
        factors: int64 (N, 5).
        pair: Factor -> value, by name.

    Returns:
        bool (N,).
    """
    columns = list(LABEL_NAMES)
    shown = torch.ones(len(factors), dtype=torch.bool)
    for factor, value in pair.items():
        shown &= factors[:, columns.index(factor)] == LABEL_NAMES[factor].index(value)
    return shown


def shows_held_out_pair(factors: Tensor) -> Tensor:
    """Which cats show any of ``held_out_pairs()``: bool (N,), from int64 (N, 5)."""
    return torch.stack([shows(factors, pair) for pair in held_out_pairs()]).any(dim=0)


def choose_cats(split: str, limit: int | None, seed: int, hold_out: bool = False) -> Tensor:
    """Draw different cats; every accessory is as frequent as any other.

    To which split a cat belongs is fixed once for all, so no seed and no limit can move a test image into the
    training data. A smaller limit gives the first rows of a larger one.

    Args:
        split: "train" (nine cats in ten) or "test".
        limit: Most cats to draw; None means 20,000. There are only 4,050 cats with a scarf: beyond some 29,000 for
            training and 3,000 for testing, scarves become rarer than the other accessories; with ``hold_out`` beyond
            27,984 and 1,152.
        seed: Which cats, and in which order.
        hold_out: Leave the cats that show one of ``held_out_pairs()`` out of "train", and keep only them for "test".

    Returns:
        int64 (N, 5): columns body, fur, eyes, mouth, accessory.
    """
    factors = all_cats().numpy()
    order = shuffled(len(factors), _SPLIT_KEY)
    border = len(factors) // _TEST_SHARE
    if hold_out:
        unseen = shows_held_out_pair(torch.from_numpy(factors)).numpy()
        chosen = order[unseen[order]] if split == "test" else order[border:][~unseen[order[border:]]]
    else:
        chosen = order[:border] if split == "test" else order[border:]
    members = factors[chosen]
    members = members[shuffled(len(members), seed)]
    # The accessories take turns: first one cat of each, in random order, then the second of each, and so on.
    turn = np.empty(len(members), dtype=np.int64)
    for accessory in range(_SIZES[-1]):
        mine = members[:, -1] == accessory
        turn[mine] = np.arange(mine.sum())
    chosen = np.argsort(turn, kind="stable")[: DEFAULT_LIMIT if limit is None else limit]
    return torch.from_numpy(members[chosen])


def compose_cats(factors: Tensor, image_size: int = 64) -> Tensor:
    """Draw cats from their factors, as if laid part over part at 1024 pixels and averaged down.

    Args:
        factors: Integer (N, 5): columns body, fur, eyes, mouth, accessory; indices into `LABEL_NAMES`.
        image_size: S, a power of two from 8 to 256.

    Returns:
        uint8 (N, 3, S, S), on a white background.

    Raises:
        UserError: If the factors have another shape or are out of range, or the parts cannot be found.
    """
    factors = torch.as_tensor(factors)
    if factors.ndim != 2 or factors.shape[1] != len(_SIZES) or factors.dtype.is_floating_point:
        raise UserError(f"cats need integer factors of shape (N, {len(_SIZES)}), not {tuple(factors.shape)}")
    if ((factors < 0) | (factors >= torch.tensor(_SIZES))).any():
        counts = ", ".join(f"{name} {size}" for name, size in zip(LABEL_NAMES, _SIZES, strict=True))
        raise UserError(f"a factor of a cat is out of range; the numbers of values are: {counts}")
    if not 8 <= image_size <= 256 or FULL_SIZE % image_size:
        raise UserError(f"cats cannot be drawn at {image_size} pixels: choose a power of two from 8 to 256")
    parts = load_parts(image_size)
    out = torch.empty(len(factors), 3, image_size**2, dtype=torch.uint8)
    batch = _BATCH_PIXELS // image_size**2
    for start in range(0, len(factors), batch):
        out[start : start + batch] = _draw(parts, factors[start : start + batch].long())
    return out.view(-1, 3, image_size, image_size)


def _draw(parts: dict[str, Tensor], factors: Tensor) -> Tensor:
    """Lay the averaged parts over each other, then add what the averages miss (see `dcgan_lib.cat_parts`)."""
    body, fur, eyes, mouth, accessory = factors.unbind(1)
    index = dict(zip(LAYERS, (body * _SIZES[1] + fur, eyes, mouth, accessory), strict=True))
    clear = {name: parts[f"{name}.clear"][index[name]] for name in LAYERS[1:]}
    beneath = {}
    image = parts["base.colour"][index["base"]]
    for name in LAYERS[1:]:
        beneath[name] = image
        image = torch.addcmul(parts[f"{name}.colour"][index[name]], image, clear[name])
    flat = image.view(-1)
    for lower, upper in PAIRS:
        pair = index[lower] * len(parts[f"{upper}.clear"]) + index[upper]
        row, pixel, value = _entries(parts, f"{lower}-{upper}", pair)
        change = value[:, :3]
        if lower in beneath:  # all but the base, which is opaque
            change = change + value[:, 3:] * beneath[lower][row, :, pixel]
        for other in LAYERS[LAYERS.index(lower) + 1 :]:
            if other != upper:
                change = change * clear[other][row, :, pixel]
        place = row * image[0].numel() + pixel
        for channel in range(3):
            flat.index_add_(0, place + channel * image.shape[-1], change[:, channel])
    return image.add_(0.5).clamp_(0, 255).to(torch.uint8)


def _entries(parts: dict[str, Tensor], name: str, pair: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Look up the covariances of one pair of parts for each image: row in the batch, pixel, value (E, 4)."""
    start, stop = parts[f"{name}.start"][pair], parts[f"{name}.start"][pair + 1]
    count = stop - start
    row = torch.repeat_interleave(torch.arange(len(pair)), count)
    before = torch.cumsum(count, 0) - count
    entry = torch.arange(len(row)) + (start - before)[row]
    return row, parts[f"{name}.pixel"][entry], parts[f"{name}.value"][entry]
