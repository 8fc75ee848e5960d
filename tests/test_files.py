"""Atomic writes: whatever fails, the earlier file stays and nothing is left behind."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest

from dcgan_lib import files
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write, write_json


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("old")
    return path


def assert_untouched(path):
    assert path.read_text() == "old"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_new_content_replaces_old(old):
    with atomic_write(old) as temporary:
        assert temporary.parent == old.parent
        assert temporary.suffix == old.suffix
        temporary.write_text("new")
        assert old.read_text() == "old"
    assert old.read_text() == "new"
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


def test_missing_folders_are_made(tmp_path):
    write_json(tmp_path / "a" / "b" / "c.json", {"x": [1, 2.5, None]})
    assert json.loads((tmp_path / "a" / "b" / "c.json").read_text()) == {"x": [1, 2.5, None]}


@pytest.mark.skipif(os.name != "posix", reason="permission bits are POSIX's")
def test_others_may_read_the_file(tmp_path):
    previous = os.umask(0o022)
    try:
        write_json(tmp_path / "x.json", 1)
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o644


def write_half_and_raise(path, error):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_old_content_stays_when_the_body_raises(old, error):
    with pytest.raises(type(error)):
        write_half_and_raise(old, error)
    assert_untouched(old)


def test_old_content_stays_when_the_body_meets_a_full_disk(old):
    with pytest.raises(UserError, match="No space left on device"):
        write_half_and_raise(old, OSError(errno.ENOSPC, "No space left on device"))
    assert_untouched(old)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_old_content_stays_when_the_disk_is_full_at_the_end(old, monkeypatch, call):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, call, refuse)
    with pytest.raises(UserError, match=r"cannot write .*notes\.txt: No space left on device") as caught:
        write_json(old, "new")
    monkeypatch.undo()
    assert "\n" not in str(caught.value)
    assert_untouched(old)


def test_read_only_folder_is_a_user_error(old, monkeypatch):
    def refuse(**_):  # tests may run as root, who may write anywhere
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(UserError, match="Permission denied"):
        write_json(old, "new")
    monkeypatch.undo()
    assert_untouched(old)


def test_a_file_in_place_of_the_folder_is_a_user_error(old):
    with pytest.raises(UserError, match="cannot write"):
        write_json(old / "inside.json", 1)
    assert_untouched(old)


def test_what_cannot_be_json_leaves_the_old_file(old):
    with pytest.raises(TypeError):
        write_json(old, object())
    assert_untouched(old)


# --- what killed processes leave --------------------------------------------------------------------------------------

needs_locks = pytest.mark.skipif(files.fcntl is None, reason="files can be locked on POSIX systems only")


def leave_partial(path):
    """Start to write a file in another process, and kill it half-way."""
    code = (
        "import os, signal, sys; from dcgan_lib.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    finished = subprocess.run([sys.executable, "-c", code, path], timeout=120)
    assert finished.returncode == -signal.SIGKILL


@needs_locks
def test_what_a_killed_process_left_is_removed_by_the_next_write_of_the_same_file(old):
    other = old.with_name("other.txt")
    for path in (old, old, other):
        leave_partial(path)
    # The second removed what the first had left; the third has nothing to do with it.
    left = sorted(entry.name for entry in old.parent.iterdir())
    assert len(left) == 3
    assert left[0].startswith(".notes.txt.partial-")
    assert left[1].startswith(".other.txt.partial-")
    assert old.read_text() == "old"
    for path in (old, other):
        write_json(path, "new")
    assert sorted(entry.name for entry in old.parent.iterdir()) == [old.name, other.name]


@needs_locks
def test_what_another_process_is_writing_is_not_removed(old):
    with atomic_write(old) as first:
        first.write_text("first")
        write_json(old, "second")
        assert first.read_text() == "first"
    assert old.read_text() == "first"
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


def test_files_of_others_are_not_removed(old):
    others = [
        old.with_name(name) for name in (".notes.txt", ".notes.txt.swp", ".notes-backup12.txt", "notes.txt.partial-x")
    ]
    for path in others:
        path.write_text("mine")
    write_json(old, "new")
    assert all(path.read_text() == "mine" for path in others)


@needs_locks
@pytest.mark.parametrize("removed", [True, False])
def test_a_temporary_file_that_another_process_takes_for_abandoned_is_made_again(old, monkeypatch, removed):
    create, made, others = files.tempfile.mkstemp, [], []

    def seen_at_once(**options):
        handle, name = create(**options)
        made.append(name)
        if len(made) == 1:  # between our two calls the other process has locked it, and perhaps removed it already
            others.append(os.open(name, os.O_RDWR))
            files.fcntl.flock(others[0], files.fcntl.LOCK_EX)
            if removed:
                os.unlink(name)
                os.close(others.pop())
        return handle, name

    monkeypatch.setattr(files.tempfile, "mkstemp", seen_at_once)
    write_json(old, "new")
    assert json.loads(old.read_text()) == "new"
    assert len(set(made)) == 2
    for other in others:
        os.close(other)


def test_without_locks_files_are_written_all_the_same(old, monkeypatch):
    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if files.fcntl is not None:
        monkeypatch.setattr(files.fcntl, "flock", none)
        write_json(old, 1)
    monkeypatch.setattr(files, "fcntl", None)
    write_json(old, 2)
    assert old.read_text() == "2\n"
    assert [entry.name for entry in old.parent.iterdir()] == [old.name]


@needs_locks
def test_a_folder_that_cannot_be_listed_can_be_written_to(old, monkeypatch):
    def refuse(*_):  # tests may run as root, who may list any
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "listdir", refuse)
        write_json(old, 1)
    assert old.read_text() == "1\n"
