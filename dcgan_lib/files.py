"""Atomic writes, of which a reader sees the old content or the new, never half of it; and locks between processes."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dcgan_lib.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_PARTIAL = ".partial-"  # within the name of a temporary file, between the target's name and a random ending


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it over ``path``.

    Whatever fails on the way (no space, no permission, an exception in the body, the process killed), a previous
    file at ``path`` stays as it was. What a killed process left half written is removed when the same file is next
    written.

    Args:
        path: The file to write. Missing parent folders are made.

    Yields:
        The temporary path to write to, in the same folder and with the same suffix as ``path``.

    Raises:
        UserError: If the operating system refuses the write; the message names the path and the reason.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _temporary(path) as temporary:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
            os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write {path}: {reason}; any earlier file there is unchanged") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` to ``path`` as indented JSON, atomically."""
    text = json.dumps(value, indent=2) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A new file beside ``path``, removed at the end if it still has its name.

    It is locked as long as it is written; the system ends the lock with the process, however that ends. So a file
    that is not locked is one that nobody writes.
    """
    handle, temporary = _create(path)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


def _create(path: Path) -> tuple[int | None, Path]:
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}{_PARTIAL}", suffix=path.suffix, dir=path.parent)
        if fcntl is None:
            os.close(handle)  # Windows renames no open file
            return None, Path(name)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)  # another process saw it unlocked between the two calls, and is about to remove it
            continue
        except OSError:
            pass  # a file system without locks, where nothing is taken for abandoned either
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # it has removed it already


def _remove_abandoned(path: Path) -> None:
    """Remove temporary files for ``path`` whose process was killed; without locks (on Windows) they stay."""
    names: list[str] = []
    if fcntl is not None:
        with suppress(OSError):  # a folder that may be written to and not listed
            names = os.listdir(path.parent)
    for name in names:
        if not name.startswith(f".{path.name}{_PARTIAL}"):
            continue
        with suppress(OSError):  # it is locked, or already gone
            handle = os.open(path.parent / name, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path.parent / name)
            finally:
                os.close(handle)


def _umask() -> int:
    # The mask can only be read by setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable. Windows has no such call on folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Keep other processes out while this one is inside; the system ends the lock with the process that holds it.

    On a file system without locks nobody is kept out.

    Args:
        path: The lock's file, in a folder that exists.
        busy: What to say where another process is inside.

    Raises:
        UserError: If another process is inside.
        OSError: If the file cannot be made.
    """
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(busy) from error
    except NotImplementedError:
        pass
    try:
        yield
    finally:
        lock.release()
