"""Atomic writes: whatever fails, the earlier file stays and nothing is left behind."""

import errno
import json
import os
import stat

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
