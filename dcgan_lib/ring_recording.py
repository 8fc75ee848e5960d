"""Games on the ring, recorded in few bytes for the page's player: ``book/explorers/ring-runs.json``.

Everything drawn is quantised to bytes, and a frame stores each byte's difference to the frame before, of which most are
near 0 and compress well. :func:`unpack_runs` is the reference for what reads the file in a browser.
"""

from __future__ import annotations

import base64
import reprlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dcgan_lib.errors import UserError
from dcgan_lib.ring import Frame

FORMAT = 1
"""Number of the format that is written and read."""

SURFACE_STEP = 8
"""A byte of D's surface stays as it was in the frame before until it is off by more than half of this, and then becomes
a multiple of it: that halves the surface's bytes, and errors of 4/255 are hard to see."""

_TEXTS = ("name", "title", "summary")
_CURVES = ("steps", "d_loss", "g_loss", "modes", "good")


@dataclass(frozen=True)
class RecordedRun:
    """A run to be packed.

    Attributes:
        name: Short and unique, such as "repaired".
        title: Its heading on the page.
        summary: What to see, in one sentence.
        frames: At least one, alike in ring, points, resolution and arrows; D and G have taken equally many steps.
    """

    name: str
    title: str
    summary: str
    frames: Sequence[Frame]


@dataclass(frozen=True)
class UnpackedRun:
    """A run as it comes out of the file, with F frames; arrays are float64 where nothing else is said.

    Attributes:
        name: As in :class:`RecordedRun`.
        title: As in :class:`RecordedRun`.
        summary: As in :class:`RecordedRun`.
        steps: Steps of each network, int64 (F,).
        d_loss: (F,).
        g_loss: (F,).
        modes: Covered modes, int64 (F,).
        good: Share of good points, (F,).
        fake: Generated points (F, n, 2), within half a byte's step, extent / 255, of the truth; those outside the
            square lie on its border.
        surface: D(x) (F, R, R), within 4.5/255, and in the first frame within 0.5/255.
        arrows: (F, k, 4): x, y and direction, the longest of a frame with length 1.
    """

    name: str
    title: str
    summary: str
    steps: NDArray[np.int64]
    d_loss: NDArray[np.float64]
    g_loss: NDArray[np.float64]
    modes: NDArray[np.int64]
    good: NDArray[np.float64]
    fake: NDArray[np.float64]
    surface: NDArray[np.float64]
    arrows: NDArray[np.float64]


def pack_runs(runs: Sequence[RecordedRun]) -> dict[str, Any]:
    """Pack runs into one dictionary of JSON's types.

    ``frames`` of a run is base64 of a zlib stream of bytes: for each frame 2 n of the generated points (x and y by
    turns, 0 to 255 from -extent to extent), R * R of D's surface (0 to 255 for 0 to 1; the lowest y first) and 4 k of
    the arrows (x and y as of points, then direction + 128, where 127 is the frame's longest), each as the difference,
    modulo 256, to the same byte of the frame before, and of the first frame to 0.

    Args:
        runs: With the same ring, numbers of points and steps. The real points are those of the first frame.

    Raises:
        UserError: If there are no runs, one has no frames, two have one name, or they differ in what they must share.
    """
    if not runs or not all(isinstance(run, RecordedRun) and run.frames for run in runs):
        raise UserError(f"runs must hold RecordedRuns, each with at least one frame, got {reprlib.repr(runs)}")
    names = [run.name for run in runs]
    if len(set(names)) != len(names):
        raise UserError(f"runs must have different names, got {', '.join(names)}")
    first = runs[0].frames[0]
    shapes = {_shapes(frame) for run in runs for frame in run.frames}
    if len(shapes) != 1:
        raise UserError(f"runs must be alike in ring, points, resolution and arrows; got {len(shapes)} kinds")
    if len({tuple(frame.g_steps for frame in run.frames) for run in runs}) != 1:
        raise UserError("runs must have frames of the same steps")
    return {
        "format": FORMAT,
        "extent": first.ring.extent,
        "points": len(first.fake),
        "resolution": len(first.surface),
        "arrows": len(first.arrows),
        "real": _text(_point_bytes(first.real.numpy(), first.ring.extent).tobytes()),
        "centres": [[round(float(value), 4) for value in centre] for centre in first.ring.centres],
        "radius_of_good": round(first.ring.good_radius, 4),
        "runs": [_pack_run(run) for run in runs],
    }


def unpack_runs(packed: Mapping[str, Any]) -> list[UnpackedRun]:
    """Undo :func:`pack_runs`, up to what the bytes cannot hold.

    Raises:
        UserError: If the format is another one, something is missing, or the bytes are spoilt or not as many as the
            numbers say.
    """
    _check_keys("packed", packed, ("format",))
    if packed["format"] != FORMAT:
        raise UserError(f"format must be {FORMAT}, got {packed['format']!r}")
    _check_keys("packed", packed, ("extent", "points", "resolution", "arrows", "runs"))
    extent, points, resolution = packed["extent"], packed["points"], packed["resolution"]
    parts = (2 * points, resolution**2, 4 * packed["arrows"])
    unpacked = []
    for run in packed["runs"]:
        _check_keys("each of packed['runs']", run, (*_TEXTS, *_CURVES, "frames"))
        try:
            data = np.frombuffer(zlib.decompress(base64.b64decode(run["frames"], validate=True)), np.uint8)
        except (ValueError, zlib.error) as error:
            raise UserError(f"frames of {run['name']!r} must be base64 of a zlib stream: {error}") from None
        count = len(run["steps"])
        if len(data) != count * sum(parts):
            raise UserError(f"frames of {run['name']!r} must have {count * sum(parts)} bytes, got {len(data)}")
        frames = np.cumsum(data.reshape(count, -1), axis=0, dtype=np.uint8)
        fake, surface, arrows = np.split(frames, np.cumsum(parts)[:-1], axis=1)
        arrows = arrows.reshape(count, -1, 4)
        directions = (arrows[..., 2:].astype(np.float64) - 128) / 127
        unpacked.append(
            UnpackedRun(
                **{name: run[name] for name in _TEXTS},
                **{name: np.array(run[name]) for name in _CURVES},
                fake=_places(fake.reshape(count, points, 2), extent),
                surface=surface.reshape(count, resolution, resolution) / 255,
                arrows=np.concatenate([_places(arrows[..., :2], extent), directions], axis=-1),
            )
        )
    return unpacked


def unpack_real(packed: Mapping[str, Any]) -> NDArray[np.float64]:
    """Return the real points of the file, (m, 2).

    Raises:
        UserError: If the file has none.
    """
    _check_keys("packed", packed, ("real", "extent"))
    return _places(np.frombuffer(base64.b64decode(packed["real"]), np.uint8).reshape(-1, 2), packed["extent"])


def _check_keys(name: str, value: object, keys: Sequence[str]) -> None:
    wanted = f"{name} must be a dictionary as from dcgan_lib.ring_recording.pack_runs"
    if not isinstance(value, Mapping):
        raise UserError(f"{wanted}, got {reprlib.repr(value)}")
    if missing := [key for key in keys if key not in value]:
        raise UserError(f"{wanted}, got one without {', '.join(missing)}")


def _pack_run(run: RecordedRun) -> dict[str, Any]:
    frames = np.stack([_frame_bytes(frame) for frame in run.frames])
    points, resolution = len(run.frames[0].fake), len(run.frames[0].surface)
    _hold(frames[:, 2 * points : 2 * points + resolution**2])
    differences = np.diff(frames, axis=0, prepend=np.zeros_like(frames[:1]))  # modulo 256, as uint8 is
    return {
        "name": run.name,
        "title": run.title,
        "summary": run.summary,
        "steps": [frame.g_steps for frame in run.frames],
        "d_loss": [round(frame.d_loss, 3) for frame in run.frames],
        "g_loss": [round(frame.g_loss, 3) for frame in run.frames],
        "modes": [frame.coverage.modes for frame in run.frames],
        "good": [round(frame.coverage.good, 4) for frame in run.frames],
        "frames": _text(zlib.compress(differences.tobytes(), level=9)),
    }


def _frame_bytes(frame: Frame) -> NDArray[np.uint8]:
    extent, arrows = frame.ring.extent, frame.arrows.double().numpy()
    direction = arrows[:, 2:]
    longest = np.linalg.norm(direction, axis=1).max(initial=0.0)
    scaled = direction * (127 / longest) if 0 < longest < np.inf else np.zeros_like(direction)
    shafts = (np.rint(scaled) + 128).astype(np.uint8)
    surface = np.rint(255 * np.nan_to_num(frame.surface.double().numpy())).astype(np.uint8)
    arrow_bytes = np.concatenate([_point_bytes(arrows[:, :2], extent), shafts], axis=1)
    return np.concatenate([_point_bytes(frame.fake.numpy(), extent).ravel(), surface.ravel(), arrow_bytes.ravel()])


def _hold(surfaces: NDArray[np.uint8]) -> None:
    """Make bytes (F, R * R) change less often, in place: see `SURFACE_STEP`."""
    for before, now in pairwise(surfaces):
        rounded = (SURFACE_STEP * np.rint(now / SURFACE_STEP)).clip(0, 255)
        near = np.abs(now.astype(int) - before) <= SURFACE_STEP // 2
        now[:] = np.where(near, before, rounded)


def _point_bytes(points: NDArray[Any], extent: float) -> NDArray[np.uint8]:
    share = (points.astype(np.float64) + extent) / (2 * extent)
    return np.rint(255 * np.clip(np.nan_to_num(share), 0, 1)).astype(np.uint8)


def _places(values: NDArray[np.uint8], extent: float) -> NDArray[np.float64]:
    return values * (2 * extent / 255) - extent


def _shapes(frame: Frame) -> tuple[Any, ...]:
    return frame.ring, len(frame.fake), len(frame.surface), len(frame.arrows)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
