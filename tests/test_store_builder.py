"""Stores built from folders: the same bytes, wherever a build was interrupted."""

import os
import re
import shutil
import subprocess
import sys
import textwrap

import pytest
from PIL import Image
from stores import BLOCK, IMAGE_BYTES, assert_one_line, batches, build, content, make_pictures

from dcgan_lib import cli, folder, store_builder, store_writer
from dcgan_lib.data import load_dataset
from dcgan_lib.errors import UserError
from dcgan_lib.store_builder import build_store
from dcgan_lib.store_writer import write_store

# --- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [".", "a", "a/store", "new/../store"])
def test_a_store_inside_its_own_folder_is_refused(pictures, place):
    before = sorted(pictures.rglob("*"))
    with pytest.raises(UserError, match="would lie inside the folder of images: choose an --output outside"):
        build(pictures, pictures / place)
    assert sorted(pictures.rglob("*")) == before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist: check the path, or mount its disk"),
        (lambda path: path.write_text("x"), "is a file, not a folder"),
        (lambda path: path.mkdir(), "holds no image"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path, make, message):
    make(tmp_path / "pictures")
    with pytest.raises(UserError, match=message) as caught:
        build(tmp_path / "pictures", tmp_path / "store")
    assert_one_line(caught)
    assert not (tmp_path / "store.unfinished").exists()


def test_a_folder_of_broken_images_leaves_nothing(tmp_path):
    source = make_pictures(tmp_path / "pictures", 5, broken=range(1, 5))
    with pytest.raises(UserError, match="that can be read; at least 2 needed"):
        build(source, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_too_little_room_is_known_beforehand(tmp_path, pictures, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60 * (IMAGE_BYTES + 8) - 1))
    with pytest.raises(UserError) as caught:
        build_store(pictures, tmp_path / "store", 32)
    assert_one_line(caught, "the store needs 0.00 GB, and the disk of", tmp_path, "make room")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=60 * (IMAGE_BYTES + 8)))
    build_store(pictures, tmp_path / "store", 32)


def test_an_image_size_without_networks_is_refused(tmp_path, pictures):
    with pytest.raises(UserError, match="image size 48 is not supported"):
        build_store(pictures, tmp_path / "store", 48)


def test_progress_goes_to_standard_error_and_only_on_request(tmp_path, pictures, capsys):
    build(pictures, tmp_path / "quiet")
    assert capsys.readouterr() == ("", "")
    build(pictures, tmp_path / "shown", progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "60/60" in err


# --- builds that are interrupted --------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for a process that ends at this point: no handler of ours catches it."""


def fail_at(monkeypatch, number, error):
    """Let the `number`-th write to the disk be the last that succeeds."""
    counts, original = {"fsync": 0}, os.fsync

    def fsync(file):
        counts["fsync"] += 1
        if counts["fsync"] > number:
            raise error
        original(file)

    monkeypatch.setattr(os, "fsync", fsync)


def test_a_build_that_ends_at_any_write_is_resumed_to_the_same_bytes(tmp_path, monkeypatch):
    source = make_pictures(tmp_path / "pictures", 40, broken=(2, 3, 17, 39))
    with pytest.warns(UserWarning, match="skipped 4 of 40") as whole:
        build(source, tmp_path / "whole")
    for number in range(100):
        output = tmp_path / f"store-{number}"
        with monkeypatch.context() as patch:
            fail_at(patch, number, Killed())
            try:
                with pytest.warns(UserWarning, match="skipped 4 of 40"):
                    build(source, output)
            except Killed:
                ended = False
            else:
                ended = True
        if ended:
            break
        # The rename is the last thing but one.
        if not output.exists():
            with pytest.raises(UserError, match=r"there is no image store|is not finished: run the dcgan store"):
                load_dataset(f"store:{output}", 32)
            with pytest.warns(UserWarning, match="skipped 4 of 40") as resumed:
                build(source, output)
            assert [str(warning.message) for warning in resumed] == [str(warning.message) for warning in whole]
        (output / "build.jsonl").unlink(missing_ok=True)  # of a process killed after the rename
        assert content(output) == content(tmp_path / "whole")
    assert number >= 12  # the journal's first line, five blocks with a line each, labels, index, two folders


KILLS = """
    import os, random, signal, sys, time
    from pathlib import Path
    from dcgan_lib.store_builder import build_store

    source, output, block = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    journal = output.with_name(output.name + ".unfinished") / "build.jsonl"

    def lines():
        return journal.read_bytes().count(b"\\n") if journal.exists() else 0

    def start():
        child = os.fork()
        if child == 0:
            build_store(source, output, 32, block_bytes=block)
            os._exit(0)
        return child

    random.seed(0)
    places = []
    for _ in range(20):
        child, until = start(), time.monotonic() + 10
        aim = lines() + random.randrange(4)
        while lines() < aim and time.monotonic() < until:
            time.sleep(0.0005)
        time.sleep(random.uniform(0, 0.004))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        places.append(lines())
    assert os.waitpid(start(), 0)[1] == 0
    print(len(set(places)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_build_that_is_killed_again_and_again_ends_in_the_same_bytes(tmp_path):
    source = make_pictures(tmp_path / "pictures", 1200)
    build(source, tmp_path / "whole")
    command = [sys.executable, "-c", textwrap.dedent(KILLS), str(source), str(tmp_path / "store"), str(BLOCK)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert int(finished.stdout) >= 8  # the kills came at different places
    assert content(tmp_path / "store") == content(tmp_path / "whole")


def interrupt(source, output, monkeypatch, number=7):
    """Leave an unfinished build: three whole blocks, and part of a fourth."""
    with monkeypatch.context() as patch:
        fail_at(patch, number, Killed())
        with pytest.raises(Killed):
            build(source, output)
    unfinished = output.with_name(f"{output.name}.unfinished")
    assert len((unfinished / "build.jsonl").read_text().splitlines()) == 4
    return unfinished


def decoded(monkeypatch):
    """The names of the images that are decoded from now on."""
    names, original = [], folder._read
    monkeypatch.setattr(folder, "_read", lambda path, size: (names.append(path.name), original(path, size))[1])
    return names


def test_a_resumed_build_decodes_only_the_rest(tmp_path, pictures, built_store, monkeypatch):
    interrupt(pictures, tmp_path / "store", monkeypatch)
    names = decoded(monkeypatch)
    build(pictures, tmp_path / "store")
    assert len(names) == 60 - 3 * 8
    assert content(tmp_path / "store") == content(built_store)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def cut(journal, count):
    journal.write_bytes(journal.read_bytes()[:-count])


@pytest.mark.parametrize(
    ("damage", "rest"),
    [
        (lambda unfinished: cut(unfinished / "build.jsonl", 20), 60 - 2 * 8),
        (lambda unfinished: cut(unfinished / "build.jsonl", 1), 60 - 2 * 8),
        (lambda unfinished: os.truncate(unfinished / "images.u8", 2 * BLOCK - 1), 60 - 8),
        (lambda unfinished: (unfinished / "images.u8").unlink(), 60),
        (lambda unfinished: (unfinished / "build.jsonl").unlink(), 60),
        (lambda unfinished: (unfinished / "build.jsonl").write_bytes(b"\xff\n"), 60),
        (lambda unfinished: (unfinished / ".DS_Store").write_text("left by a file manager"), 60 - 3 * 8),
        (lambda unfinished: (unfinished / "images.u8").open("ab").write(b"x" * 10 * BLOCK), 60 - 3 * 8),
    ],
)
def test_a_build_goes_on_from_what_is_surely_there(tmp_path, pictures, built_store, monkeypatch, damage, rest):
    damage(interrupt(pictures, tmp_path / "store", monkeypatch))
    names = decoded(monkeypatch)
    build(pictures, tmp_path / "store")
    assert len(names) == rest
    (tmp_path / "store" / ".DS_Store").unlink(missing_ok=True)
    assert content(tmp_path / "store") == content(built_store)


def test_half_a_line_does_not_spoil_the_next(tmp_path, pictures, monkeypatch):
    cut(interrupt(pictures, tmp_path / "store", monkeypatch) / "build.jsonl", 20)
    # Two whole blocks; two more follow, each with two writes, before it ends again.
    with monkeypatch.context() as patch:
        fail_at(patch, 4, Killed())
        with pytest.raises(Killed):
            build(pictures, tmp_path / "store")
    names = decoded(monkeypatch)
    build(pictures, tmp_path / "store")
    assert len(names) == 60 - 4 * 8


def repaint(source):
    Image.new("RGB", (32, 32)).save(source / "a" / "000.png")


@pytest.mark.parametrize(
    "change", [lambda source: repaint(source), lambda source: (source / "b" / "001.png").unlink(),
               lambda source: shutil.copy(source / "a" / "000.png", source / "b" / "new.png")],
    ids=["changed", "removed", "added"],
)  # fmt: skip
def test_other_pictures_start_a_build_over(tmp_path, monkeypatch, change):
    source = make_pictures(tmp_path / "pictures")
    interrupt(source, tmp_path / "store", monkeypatch)
    change(source)
    with pytest.warns(UserWarning, match=r"^the images in '.*' have changed since the build began: it starts over$"):
        build(source, tmp_path / "store")
    build(source, tmp_path / "fresh")
    assert content(tmp_path / "store") == content(tmp_path / "fresh")


def test_an_unfinished_build_is_not_lost_to_another(tmp_path, pictures, monkeypatch):
    unfinished = interrupt(pictures, tmp_path / "store", monkeypatch)
    before = content(unfinished)
    with pytest.raises(UserError) as caught:
        build_store(pictures, tmp_path / "store", 64, block_bytes=BLOCK)
    assert_one_line(caught, unfinished, f"unfinished build of '{pictures}' at 32 pixels: finish it", "or delete it")
    with pytest.raises(UserError, match="unfinished build"):
        build(make_pictures(tmp_path / "others"), tmp_path / "store")
    with pytest.raises(UserError, match="unfinished build of a folder of images: finish it, or delete it"):
        write_store(tmp_path / "store", batches())
    assert content(unfinished) == before
    for path in (tmp_path / "store", unfinished):
        with pytest.raises(UserError, match="is not finished: run the dcgan store command that builds it again"):
            load_dataset(f"store:{path}", 32)


def test_a_full_disk_leaves_what_can_be_resumed(tmp_path, pictures, built_store):
    """A true failing write(2), not a replaced function."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * BLOCK + 100, hard))
    try:
        with pytest.raises(UserError) as caught:
            build(pictures, tmp_path / "store")
        with pytest.raises(UserError) as also_caught:
            write_store(tmp_path / "other", batches(count=60), block_bytes=BLOCK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    stays = f"what is built stays in {tmp_path / 'store.unfinished'}: make room, and the same command goes on"
    assert_one_line(caught, f"cannot write {tmp_path / 'store'}: File too large", stays)
    assert_one_line(also_caught, f"cannot write {tmp_path / 'other'}: File too large; make room there, or choose")
    assert not (tmp_path / "other.unfinished").exists()
    build(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(built_store)


@pytest.mark.parametrize("what", ["the folder", "what is in it"])
def test_a_folder_that_vanishes_is_not_taken_for_broken_images(tmp_path, built_store, monkeypatch, what):
    source, away = make_pictures(tmp_path / "pictures"), tmp_path / "away"
    original, appended = store_writer.PixelFile.append, []

    def append(self, images):
        original(self, images)
        appended.append(images)
        if len(appended) == 20:
            source.rename(away)
            if what == "what is in it":
                source.mkdir()

    monkeypatch.setattr(store_writer.PixelFile, "append", append)
    monkeypatch.setattr(store_builder, "CHUNK", 5)  # threads decode ahead
    with pytest.raises(UserError) as caught:
        build(source, tmp_path / "store")
    monkeypatch.undo()
    assert_one_line(caught, f"has vanished from '{source}'", "mount its disk", "run the same command again")
    if source.exists():
        source.rmdir()
    away.rename(source)
    names = decoded(monkeypatch)
    build(source, tmp_path / "store")
    assert len(names) == 60 - 2 * 8
    assert content(tmp_path / "store")["images.u8"] == content(built_store)["images.u8"]


@pytest.mark.skipif(os.name != "posix", reason="making links needs a right of its own on Windows")
def test_a_link_to_nothing_is_a_broken_image(tmp_path):
    source = make_pictures(tmp_path / "pictures", 5)
    (source / "a" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 images in .*: a/nowhere.png \(No such file"):
        assert sum(build(source, tmp_path / "store").splits.values()) == 5


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_builds_and_checks_a_store(tmp_path, pictures, capsys):
    output = tmp_path / "my store"
    arguments = ["store", "--data", f"folder:{pictures}", "--image-size", "32", "--output", str(output)]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert re.search(r"^\d\d images for training and \d+ for testing, 32x32; 0 skipped: .*my store$", out, re.MULTILINE)
    assert f"train:  dcgan train --data 'store:{output}' --image-size 32" in out
    assert cli.main(["store", "--check", str(output)]) == 0
    assert "every checksum is right" in capsys.readouterr().out
    assert cli.main(arguments) == 2
    assert "is a store already" in capsys.readouterr().err
    (output / "images.u8").write_bytes(bytes(60 * IMAGE_BYTES))
    assert cli.main(["store", "--check", str(output)]) == 2
    assert "block 1 of 1 (images 0 to 59)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a store is built with --data folder:PATH --output PATH, and compared with --check PATH"),
        (["--data", "folder:a"], "a store is built with"),
        (["--output", "a"], "a store is built with"),
        (["--data", "cats", "--output", "a"], "--data cats is not a folder of images: write folder:PATH"),
        (["--check", "a", "--output", "a"], "--check reads a store that is there; it goes with neither"),
        (["--check", "nowhere"], "there is no image store at 'nowhere'"),
        (["--data", "folder:nowhere", "--output", "a"], "'nowhere' does not exist"),
    ],
)
def test_bad_options_of_the_command(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["store", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("dcgan: error: ")
    assert message in line
    assert not list(tmp_path.iterdir())


def test_ctrl_c_says_that_the_build_goes_on(tmp_path, pictures, built_store, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(store_builder.build_store, "__defaults__", (64, False, BLOCK))
        fail_at(patch, 7, KeyboardInterrupt())
        arguments = ["store", "--data", f"folder:{pictures}", "--image-size", "32", "--output", str(tmp_path / "store")]
        assert cli.main(arguments) == cli.INTERRUPTED
    assert capsys.readouterr().err.endswith("stopped; the same command goes on from there\n")
    build(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(built_store)
