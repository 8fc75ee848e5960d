"""Image stores: the same images as from the folder, whatever happens while they are built or read."""

import copy
import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import textwrap
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import assert_same, configure, deterministic, networks

from dcgan_lib import cli, folder, metrics, store, store_builder, store_writer
from dcgan_lib.checkpoint import load_state
from dcgan_lib.data import ImageDataset, load_dataset
from dcgan_lib.errors import UserError
from dcgan_lib.store import StoredImages, check_store, read_index
from dcgan_lib.store_builder import build_store
from dcgan_lib.store_writer import write_store
from dcgan_lib.training import train

IMAGE_BYTES = 3 * 32 * 32
BLOCK = 8 * IMAGE_BYTES  # eight images


def make_pictures(path, count=60, broken=()):
    """Pictures of noise in two sub-folders; those whose numbers are in `broken` cannot be read."""
    random = np.random.default_rng(0)
    for number in range(count):
        file = path / ("ab"[number % 2]) / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number in broken:
            file.write_bytes(b"broken")
        else:
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    return path


def build(source, output, **options):
    return build_store(source, output, 32, block_bytes=BLOCK, **options)


def content(path):
    """Names and bytes of all files of a store."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def batches(count=50, channels=3, seed=0, each=7):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=random).split(each)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Sixty pictures; read only."""
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def built(pictures, tmp_path_factory):
    """Their store; read only."""
    path = tmp_path_factory.mktemp("stores") / "built"
    build(pictures, path)
    return path


@pytest.fixture
def damaged(built, tmp_path):
    """A copy to damage."""
    return shutil.copytree(built, tmp_path / "damaged")


def assert_one_line(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def assert_same_dataset(a, b):
    assert torch.equal(a.images[:], b.images[:])
    assert torch.equal(a.labels, b.labels)
    assert a.labels.dtype == b.labels.dtype == torch.int64
    assert a.label_names == b.label_names
    assert (len(a), a.channels, a.image_size) == (len(b), b.channels, b.image_size)


# --- the same images as from the folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("options", [{}, {"limit": 4, "seed": 1}, {"limit": 4, "seed": 2}, {"limit": 10**6}], ids=str)
def test_a_store_holds_what_the_folder_gives(pictures, built, split, options):
    expected = load_dataset(f"folder:{pictures}", 32, split, **options)
    stored = load_dataset(f"store:{built}", 32, split, **options)
    assert isinstance(stored.images, StoredImages)
    assert stored.name == f"store:{built}"
    assert_same_dataset(stored, expected)


@pytest.mark.parametrize("options", [{}, {"limit": 30, "seed": 3}], ids=str)
def test_broken_images_are_named_counted_and_skipped_as_in_the_folder(tmp_path, options):
    source = make_pictures(tmp_path / "pictures", 60, broken=range(0, 60, 4))
    with pytest.warns(
        UserWarning, match=r"^skipped 15 of 60 images in .*: a/000.png \(not an image\), .*, and 7 more$"
    ):
        index = build(source, tmp_path / "store")
    assert sum(map(len, index.skipped.values())) == 15
    assert sum(index.splits.values()) == 45
    for split in ("train", "test"):
        with pytest.warns(UserWarning, match="skipped"):
            expected = load_dataset(f"folder:{source}", 32, split, **options)
        assert_same_dataset(load_dataset(f"store:{tmp_path / 'store'}", 32, split, **options), expected)


def test_a_flat_folder_has_no_labels(tmp_path):
    for number in range(3):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    output = tmp_path.parent / f"{tmp_path.name}-store"
    build(tmp_path, output)
    assert_same_dataset(load_dataset(f"store:{output}", 32), load_dataset(f"folder:{tmp_path}", 32))


def test_the_files_are_what_their_description_says(pictures, built):
    """Read with NumPy alone."""
    assert sorted(content(built)) == ["images.u8", "index.json", "labels.i64"]
    index = json.loads((built / "index.json").read_text())
    train, test = (load_dataset(f"folder:{pictures}", 32, split) for split in ("train", "test"))
    pixels = np.fromfile(built / "images.u8", np.uint8).reshape(index["shape"])
    np.testing.assert_array_equal(pixels, np.concatenate([train.images.numpy(), test.images.numpy()]))
    labels = np.fromfile(built / "labels.i64", "<i8").reshape(60, 1)
    np.testing.assert_array_equal(labels, np.concatenate([train.labels.numpy(), test.labels.numpy()]))
    assert index["splits"] == {"train": len(train), "test": len(test)}
    blocks = [pixels[start : start + 8].tobytes() for start in range(0, 60, 8)]
    assert index["blocks"] == [hashlib.sha256(block).hexdigest() for block in blocks]
    assert index["labels_sha256"] == hashlib.sha256(labels.tobytes()).hexdigest()


def test_photographs(shared_data, tmp_path):
    with zipfile.ZipFile(shared_data / "clothing64" / "clothing64.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][:300]
        archive.extractall(tmp_path / "photographs", names)
    build_store(tmp_path / "photographs", tmp_path / "store", 64, block_bytes=2**20)
    for split in ("train", "test"):
        expected = load_dataset(f"folder:{tmp_path / 'photographs'}", 64, split)
        stored = load_dataset(f"store:{tmp_path / 'store'}", 64, split)
        assert_same_dataset(stored, expected)
        assert stored.images[:].float().std() > 30
    assert check_store(tmp_path / "store").shape == (300, 3, 64, 64)


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """Fifty random images as a store, and the same images as a tensor."""
    path = tmp_path_factory.mktemp("numbered") / "store"
    write_store(path, batches(40), batches(10, seed=1))
    images = load_dataset(f"store:{path}", 32).images
    return images, torch.cat(batches(40))


NUMBER = st.integers(-40, 39)
BOUND = st.none() | st.integers(-60, 60)
INDEX = st.one_of(
    NUMBER,
    st.builds(slice, BOUND, BOUND, st.none() | st.integers(1, 50)),
    st.lists(NUMBER, max_size=70),
    st.lists(NUMBER, max_size=70).map(lambda rows: torch.tensor(rows, dtype=torch.int64)),
    st.lists(NUMBER, min_size=1, max_size=9).map(lambda rows: torch.tensor(rows, dtype=torch.int32)),
    st.lists(NUMBER, min_size=6, max_size=6).map(lambda rows: torch.tensor(rows).view(2, 3)),
    st.tuples(st.integers(0, 30), st.integers(0, 9)).map(lambda run: torch.arange(run[0], run[0] + run[1])),
    NUMBER.map(torch.tensor),
    NUMBER.map(np.int64),
)


@settings(max_examples=300, deadline=None)
@given(index=INDEX)
def test_stored_images_are_indexed_like_a_tensor(numbered, index):
    stored, plain = numbered
    got, expected = stored[index], plain[index]
    assert got.dtype == torch.uint8
    assert got.shape == expected.shape
    assert torch.equal(got, expected)


def test_stored_images_look_like_a_tensor(numbered):
    stored, plain = numbered
    assert (len(stored), stored.shape, stored.dtype, stored.ndim) == (40, plain.shape, plain.dtype, plain.ndim)
    assert all(torch.equal(a, b) for a, b in zip(stored, plain, strict=True))
    assert "shape=(40, 3, 32, 32)" in repr(stored)
    stored[0].zero_()  # a copy: the store stays as it is
    assert torch.equal(stored[0], plain[0])


@pytest.mark.parametrize("index", [40, -41, [0, 40], torch.tensor([-41])], ids=str)
def test_an_index_outside_of_the_images_is_refused(numbered, index):
    for images in numbered:
        with pytest.raises(IndexError, match=r"out of (range|bounds)"):
            images[index]


@pytest.mark.parametrize(
    "index", [None, True, (0, 1), ..., 1.0, "a", [1.5], torch.ones(40, dtype=torch.bool), torch.ones(2)], ids=repr
)
def test_other_indices_say_what_is_possible(numbered, index):
    with pytest.raises(TypeError, match="whole number, a slice, or whole numbers in a tensor"):
        numbered[0][index]
    with pytest.raises(ValueError, match="greater than zero"):
        numbered[0][::-1]


def test_without_pread_the_images_are_the_same(numbered, monkeypatch):
    stored, plain = numbered
    monkeypatch.delattr(os, "preadv")
    rows = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    with ThreadPoolExecutor(8) as pool:
        for got, part in zip(pool.map(stored.__getitem__, rows.split(2)), rows.split(2), strict=True):
            assert torch.equal(got, plain[part])


def test_a_read_that_comes_in_parts_is_completed(numbered, monkeypatch):
    stored, plain = numbered
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, place: original(file, [buffers[0][:1000]], place))
    assert torch.equal(stored[5:20], plain[5:20])


def test_threads_read_at_the_same_time(numbered):
    stored, plain = numbered
    rows = [torch.randint(0, 40, (16,), generator=torch.Generator().manual_seed(seed)) for seed in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for part, got in zip(rows, pool.map(stored.__getitem__, rows), strict=True):
            assert torch.equal(got, plain[part])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_reads_the_same_file_at_the_same_time(built):
    """In a process of its own, which has no other threads to fork."""
    code = f"""
        import os, sys, torch
        from dcgan_lib.data import load_dataset
        torch.set_num_threads(1)
        images = load_dataset("store:{built}", 32).images
        first, child = images[:], os.fork()
        random = torch.Generator().manual_seed(int(child == 0))
        for _ in range(300):
            rows = torch.randint(0, len(images), (16,), generator=random)
            if not torch.equal(images[rows], first[rows]):
                os._exit(1)
        if child == 0:
            os._exit(0)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=120)


def test_a_spawned_process_opens_the_file_for_itself(numbered):
    stored, plain = numbered
    for other in (pickle.loads(pickle.dumps(stored)), copy.deepcopy(stored)):
        assert other._file.fileno() != stored._file.fileno()
        assert torch.equal(other[3:9], plain[3:9])


MEMORY = """
    import json, re, sys
    from pathlib import Path
    import torch
    from dcgan_lib import store
    from dcgan_lib.data import load_dataset

    def peak():
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

    torch.set_num_threads(1)
    images = load_dataset("store:" + sys.argv[1], 64).images
    images[:64]
    before = peak()
    for seed in range(100):
        images[torch.randint(0, len(images), (64,), generator=torch.Generator().manual_seed(seed))]
    for start in range(0, len(images), 1000):
        images[start : start + 1000]
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_reading_takes_the_memory_of_a_batch_not_of_the_store(tmp_path):
    count = 400_000_000 // (3 * 64 * 64)
    index = store.StoreIndex(
        shape=(count, 3, 64, 64), splits={"train": count, "test": 0}, label_names={},
        skipped={"train": (), "test": ()}, block_images=count, blocks=("",),
        labels_sha256=hashlib.sha256(b"").hexdigest(),
    )  # fmt: skip
    (tmp_path / "index.json").write_text(index.to_json())
    (tmp_path / "labels.i64").touch()
    with (tmp_path / "images.u8").open("wb") as file:
        file.truncate(index.sizes["images.u8"])  # sparse: it takes no room on the disk
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path)]
    raised = int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert raised < 40_000_000  # a thousand images are 12 MB


# --- what cannot be read ----------------------------------------------------------------------------------------------


def test_no_store_says_what_to_do(tmp_path, pictures):
    for name in ("nowhere", "nowhere/deep"):
        with pytest.raises(UserError) as caught:
            load_dataset(f"store:{tmp_path / name}", 32)
        assert_one_line(
            caught, "there is no image store", tmp_path / name, "mount its disk", "dcgan store --data folder:"
        )
    with pytest.raises(UserError) as caught:
        load_dataset(f"store:{pictures}", 32)
    assert_one_line(caught, "is not an image store", f"write folder:{pictures}")
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="there is no image store"):
        load_dataset(f"store:{tmp_path / 'file'}", 32)
    with pytest.raises(UserError, match="image store"):
        load_dataset("store:", 32)


def test_a_bare_path_is_understood(built):
    with pytest.raises(UserError, match=f"did you mean 'store:{built}'"):
        load_dataset(str(built), 32)


def test_another_size_says_which_one_fits(built):
    with pytest.raises(UserError) as caught:
        load_dataset(f"store:{built}", 64)
    assert_one_line(caught, "32 x 32 pixels, not 64 x 64", "choose image size 32")


def test_an_empty_test_split_is_refused(tmp_path):
    write_store(tmp_path / "store", batches())
    with pytest.raises(UserError, match="has no image for split 'test'"):
        load_dataset(f"store:{tmp_path / 'store'}", 32, "test")


def rewrite_index(path, change):
    """Change the index and give it a right checksum."""
    stored = json.loads((path / "index.json").read_text())
    del stored["sha256"]
    change(stored)
    stored["sha256"] = hashlib.sha256(json.dumps(stored).encode()).hexdigest()
    (path / "index.json").write_text(json.dumps(stored))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: os.truncate(path / "images.u8", 1000), r"images.u8 has 1,000 bytes instead of 184,320; restore"),
        (lambda path: (path / "images.u8").unlink(), "cannot read .*images.u8: No such file"),
        (lambda path: (path / "labels.i64").unlink(), "cannot read .*labels.i64: No such file"),
        (lambda path: (path / "labels.i64").write_bytes(bytes(480)), "labels.i64 was altered or damaged"),
        (lambda path: (path / "labels.i64").write_bytes(bytes(8)), "labels.i64 has 8 bytes instead of 480"),
        (lambda path: (path / "index.json").write_text("{"), "index.json is damaged, or not the index"),
        (lambda path: (path / "index.json").write_text("[" * 100_000), "index.json is damaged, or not the index"),
        (lambda path: (path / "index.json").write_bytes(b"\xff\xfe"), "cannot read .*index.json: not text"),
        (lambda path: (path / "index.json").write_text('{"format": "other"}'), "index.json is damaged, or not"),
        (lambda path: (path / "index.json").write_text("[1]"), "index.json is damaged, or not"),
        (
            lambda path: (path / "index.json").write_text((path / "index.json").read_text().replace("32", "64", 1)),
            "index.json was altered or damaged: its checksum differs",
        ),
        (lambda path: rewrite_index(path, lambda index: index.update(version=2)), "version 2, and .* reads version 1"),
        (lambda path: rewrite_index(path, lambda index: index.update(shape=[60, 3, 32])), "index.json is damaged: "),
        (lambda path: rewrite_index(path, lambda index: index.pop("blocks")), "index.json is damaged: 'blocks'"),
        (lambda path: rewrite_index(path, lambda index: index["splits"].update(test=0)), "contradict each other"),
    ],
)
def test_a_damaged_store_is_one_clear_line(damaged, damage, message):
    damage(damaged)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(f"store:{damaged}", 32)
    assert_one_line(caught, damaged)


def test_a_store_that_is_cut_short_while_it_is_read_is_one_clear_line(damaged):
    images = load_dataset(f"store:{damaged}", 32).images
    kept = images[:5]
    os.truncate(damaged / "images.u8", 5 * IMAGE_BYTES + 10)
    assert torch.equal(images[:5], kept)
    for index in (slice(None), 5, torch.tensor([0, 40])):
        with pytest.raises(UserError) as caught:
            images[index]
        assert_one_line(caught, "it has been cut short; mount its disk", f"dcgan store --check {damaged}")


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no open file")
def test_a_store_that_is_deleted_while_it_is_read_can_be_read_to_the_end(damaged):
    images = load_dataset(f"store:{damaged}", 32).images
    expected = images[:]
    shutil.rmtree(damaged)
    assert torch.equal(images[:], expected)
    with pytest.raises(UserError, match=r"cannot read .*images.u8: No such file"):
        copy.deepcopy(images)


def test_a_disk_that_goes_away_is_one_clear_line(numbered, monkeypatch):
    def refuse(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", refuse)
    with pytest.raises(UserError) as caught:
        numbered[0][3]
    assert_one_line(caught, "cannot read", "images.u8: Input/output error; mount its disk")


# --- the full check ---------------------------------------------------------------------------------------------------


def test_a_whole_store_passes_the_check(built):
    assert check_store(built) == read_index(built)


def test_the_check_names_damaged_blocks(damaged):
    with (damaged / "images.u8").open("r+b") as file:
        for place in (19 * IMAGE_BYTES, 60 * IMAGE_BYTES - 1):  # in the third block and the last
            file.seek(place)
            byte = file.read(1)[0]
            file.seek(place)
            file.write(bytes([byte ^ 1]))
    load_dataset(f"store:{damaged}", 32)  # opening reads no pixel
    with pytest.raises(UserError) as caught:
        check_store(damaged)
    assert_one_line(
        caught, "damaged in", damaged / "images.u8", "block 3 of 8 (images 16 to 23), block 8 of 8 (images 56 to 59);",
        f"delete {damaged} and build it again",
    )  # fmt: skip


def test_many_damaged_blocks_are_counted(damaged):
    (damaged / "images.u8").write_bytes(bytes(60 * IMAGE_BYTES))
    rewrite_index(damaged, lambda index: index.update(block_images=2, blocks=["0"] * 30))
    with pytest.raises(UserError, match=r"block 8 of 30 \(images 14 to 15\), and 22 more;"):
        check_store(damaged)


# --- building ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "exists already: choose another --output, or delete it"),
        (lambda path: path.write_text("mine"), "exists already"),
        (lambda path: path.symlink_to("nowhere"), "exists already"),
        (lambda path: write_store(path, batches()), "is a store already: use it as store:"),
        (lambda path: Path(f"{path}.unfinished").write_text("mine"), r"cannot write .*: File exists"),
        (
            lambda path: (Path(f"{path}.unfinished").mkdir(), Path(f"{path}.unfinished", "diary.txt").write_text("x")),
            "holds a foreign file, diary.txt: move it away",
        ),
    ],
)
def test_what_is_there_already_is_kept(tmp_path, pictures, make, message):
    make(tmp_path / "store")
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    for write in (lambda path: build(pictures, path), lambda path: write_store(path, batches())):
        with pytest.raises(UserError, match=message) as caught:
            write(tmp_path / "store")
        assert_one_line(caught, tmp_path / "store")
        after = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
        after.pop(tmp_path / "store.lock", None)
        assert after == before


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


@pytest.mark.parametrize("place", ["/proc/nowhere/store", "file/store"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, pictures, place):
    (tmp_path / "file").write_text("mine")
    for write in (lambda path: build(pictures, path), lambda path: write_store(path, batches())):
        with pytest.raises(UserError, match=r"cannot write .*: .*; make room there, or choose another --output"):
            write(tmp_path / place)
    with pytest.raises(UserError, match="exists already"):
        build(pictures, "/")


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


def test_two_builds_of_one_store_do_not_meet(tmp_path, pictures, built, monkeypatch):
    started, go_on, original = threading.Event(), threading.Event(), store_builder.complete

    def wait(*arguments):
        started.set()
        assert go_on.wait(60)
        return original(*arguments)

    monkeypatch.setattr(store_builder, "complete", wait)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(build, pictures, tmp_path / "store")
        assert started.wait(60)
        for write in (build, lambda _, path: write_store(path, batches())):
            with pytest.raises(UserError) as caught:
                write(pictures, tmp_path / "store")
            assert_one_line(caught, "another process is building", tmp_path / "store", "wait for it")
        go_on.set()
        first.result(60)
    assert content(tmp_path / "store") == content(built)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_another_process_holds_the_lock(tmp_path, pictures):
    with FileLock(tmp_path / "store.lock"), pytest.raises(UserError, match="another process is building"):
        build(pictures, tmp_path / "store")


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


def test_a_resumed_build_decodes_only_the_rest(tmp_path, pictures, built, monkeypatch):
    interrupt(pictures, tmp_path / "store", monkeypatch)
    names = decoded(monkeypatch)
    build(pictures, tmp_path / "store")
    assert len(names) == 60 - 3 * 8
    assert content(tmp_path / "store") == content(built)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def cut_the_last_line(unfinished):
    journal = unfinished / "build.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("damage", "rest"),
    [
        (cut_the_last_line, 60 - 2 * 8),
        (lambda unfinished: os.truncate(unfinished / "images.u8", 2 * BLOCK - 1), 60 - 8),
        (lambda unfinished: (unfinished / "images.u8").unlink(), 60),
        (lambda unfinished: (unfinished / "build.jsonl").unlink(), 60),
        (lambda unfinished: (unfinished / "build.jsonl").write_bytes(b"\xff\n"), 60),
        (lambda unfinished: (unfinished / ".DS_Store").write_text("left by a file manager"), 60 - 3 * 8),
        (lambda unfinished: (unfinished / "images.u8").open("ab").write(b"x" * 10 * BLOCK), 60 - 3 * 8),
    ],
)
def test_a_build_goes_on_from_what_is_surely_there(tmp_path, pictures, built, monkeypatch, damage, rest):
    damage(interrupt(pictures, tmp_path / "store", monkeypatch))
    names = decoded(monkeypatch)
    build(pictures, tmp_path / "store")
    assert len(names) == rest
    (tmp_path / "store" / ".DS_Store").unlink(missing_ok=True)
    assert content(tmp_path / "store") == content(built)


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


def test_a_full_disk_leaves_what_can_be_resumed(tmp_path, pictures, built):
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
    assert content(tmp_path / "store") == content(built)


@pytest.mark.parametrize("what", ["the folder", "what is in it"])
def test_a_folder_that_vanishes_is_not_taken_for_broken_images(tmp_path, built, monkeypatch, what):
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
    assert content(tmp_path / "store")["images.u8"] == content(built)["images.u8"]


@pytest.mark.skipif(os.name != "posix", reason="making links needs a right of its own on Windows")
def test_a_link_to_nothing_is_a_broken_image(tmp_path):
    source = make_pictures(tmp_path / "pictures", 5)
    (source / "a" / "nowhere.png").symlink_to(tmp_path / "gone.png")
    with pytest.warns(UserWarning, match=r"skipped 1 of 6 images in .*: a/nowhere.png \(No such file"):
        assert sum(build(source, tmp_path / "store").splits.values()) == 5


# --- images that are made ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("block_bytes", [1, 5000, 2**20])
def test_generated_images_are_written_as_they_come(tmp_path, channels, block_bytes):
    train, test = batches(40, channels), batches(9, channels, seed=1, each=9)
    write_store(tmp_path / "store", iter(train), iter(test), block_bytes=block_bytes)
    for split, expected in (("train", train), ("test", test)):
        dataset = load_dataset(f"store:{tmp_path / 'store'}", 32, split)
        assert torch.equal(dataset.images[:], torch.cat(expected))
        assert dataset.labels.shape == (len(dataset), 0)
        assert (dataset.channels, dataset.label_names) == (channels, {})
    check_store(tmp_path / "store")


def test_generated_images_with_labels(tmp_path):
    images, labels = batches(20, each=5), torch.randint(0, 3, (20, 2), generator=torch.Generator().manual_seed(0))
    names = {"colour": ["red", "green", "blue"], "size": ("s", "m", "l")}
    # Channels last in memory, and a view of something larger: the pixels are written in the order of the shape.
    pairs = [
        (part.to(memory_format=torch.channels_last), rows) for part, rows in zip(images, labels.split(5), strict=True)
    ]
    write_store(tmp_path / "store", pairs[:3], [(torch.cat(images)[15:], labels[15:])], names)
    train, test = (load_dataset(f"store:{tmp_path / 'store'}", 32, split) for split in ("train", "test"))
    assert torch.equal(torch.cat([train.images[:], test.images[:]]), torch.cat(images))
    assert torch.equal(torch.cat([train.labels, test.labels]), labels)
    assert train.label_names == {"colour": ("red", "green", "blue"), "size": ("s", "m", "l")}
    few = load_dataset(f"store:{tmp_path / 'store'}", 32, limit=5, seed=1)
    rows = [next(i for i in range(15) if torch.equal(train.images[i], image)) for image in few.images]
    assert len(set(rows)) == 5
    assert torch.equal(few.labels, train.labels[rows])


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ([], "would have no image for training"),
        ([torch.zeros(2, 3, 32, 32)], r"must be uint8 \(n, 1 or 3, S, S\), not torch.float32 \(2, 3, 32, 32\)"),
        ([torch.zeros(2, 2, 32, 32).byte()], "must be uint8"),
        ([torch.zeros(3, 32, 32).byte()], "must be uint8"),
        ([torch.zeros(2, 3, 32, 64).byte()], "must be square, not 32 x 64"),
        ([torch.zeros(2, 3, 48, 48).byte()], "image size 48 is not supported"),
        ([*batches(5), torch.zeros(2, 3, 64, 64).byte()], r"one shape: \(3, 32, 32\), not \(3, 64, 64\)"),
        (
            [(batches(5)[0], torch.zeros(5, 1).long())],
            r"labels must be int64 \(5, 0\), as label_names, not .* \(5, 1\)",
        ),
    ],
)
def test_batches_that_do_not_fit_leave_nothing(tmp_path, train, message):
    with pytest.raises(UserError, match=message) as caught:
        write_store(tmp_path / "store", train)
    assert_one_line(caught)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [-1, 2])
def test_a_label_without_a_name_is_refused(tmp_path, value):
    batch = (batches(5)[0], torch.full((5, 1), value))
    with pytest.raises(UserError, match="a label is outside the values"):
        write_store(tmp_path / "store", [batch], label_names={"a": ("x", "y")})


def test_a_source_that_fails_leaves_nothing(tmp_path):
    def fail():
        yield batches(5)[0]
        raise RuntimeError("the generator is broken")

    with pytest.raises(RuntimeError, match="the generator is broken"):
        write_store(tmp_path / "store", fail())
    assert not list(tmp_path.iterdir())


# --- what uses them ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A thousand coloured images in memory and in a store."""
    path = tmp_path_factory.mktemp("pair") / "store"
    random = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (1000, 3, 4, 4), dtype=torch.uint8, generator=random)
    images = small.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    write_store(path, images.split(300))
    return ImageDataset(images, torch.empty(1000, 0).long(), {}, f"store:{path}"), load_dataset(f"store:{path}", 32)


def test_scores_against_stored_images_are_those_against_a_tensor(pair):
    plain, stored = pair
    generator, _ = networks(channels=3)
    scores = [metrics.evaluate(generator.eval(), dataset, samples=400) for dataset in (plain, stored)]
    assert scores[0] == scores[1]


def test_neighbours_among_stored_images_are_those_in_a_tensor(pair):
    plain, stored = pair
    queries = torch.cat([plain.images[[3, 999, 500]], plain.images[7:8] // 2])
    expected, got = (metrics.nearest_neighbours(queries, dataset) for dataset in (plain, stored))
    assert got.indices[:3].tolist() == [3, 999, 500]
    assert torch.equal(got.indices, expected.indices)
    assert torch.equal(got.distances, expected.distances)


def test_training_on_a_store_is_bitwise_training_on_its_folder(tmp_path, pictures, built):
    runs = []
    with deterministic():
        for name in (f"folder:{pictures}", f"store:{built}"):
            runs.append(tmp_path / name[:5])
            train(*networks(channels=3), load_dataset(name, 32), configure(), runs[-1], progress=False)
    assert_same(*map(load_state, runs))


def test_a_run_on_a_store_is_evaluated_on_it(tmp_path, pair, capsys):
    name = pair[1].name
    arguments = ["--data", name, "--image-size", "32", "--width", "4", "--latent-dim", "6", "--batch-size", "4"]
    arguments += ["--steps", "2", "--device", "cpu", "--output", str(tmp_path / "run")]
    assert cli.main(["train", *arguments]) == 0
    assert f"1,000 images of {name}, 32x32" in capsys.readouterr().out
    assert cli.main(["evaluate", "--run", str(tmp_path / "run"), "--samples", "400", "--device", "cpu"]) == 0
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["dataset"] == name
    shutil.move(name.removeprefix("store:"), tmp_path / "moved")
    try:
        assert cli.main(["evaluate", "--run", str(tmp_path / "run"), "--device", "cpu"]) == 2
    finally:
        shutil.move(tmp_path / "moved", name.removeprefix("store:"))
    assert "there is no image store at" in capsys.readouterr().err


def test_a_run_is_named_after_its_store():
    for data, expected in (
        ("store:/data/photos", "photos-64"),
        ("store:photos", "photos-64"),
        ("folder:/", "folder-64"),
    ):
        options = cli.TrainOptions(data=cli.DataOptions(data))
        assert cli.run_folder(options) == Path("runs") / expected


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


def test_ctrl_c_says_that_the_build_goes_on(tmp_path, pictures, built, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(store_builder.build_store, "__defaults__", (64, False, BLOCK))
        fail_at(patch, 7, KeyboardInterrupt())
        arguments = ["store", "--data", f"folder:{pictures}", "--image-size", "32", "--output", str(tmp_path / "store")]
        assert cli.main(arguments) == cli.INTERRUPTED
    assert capsys.readouterr().err.endswith("stopped; the same command goes on from there\n")
    build(pictures, tmp_path / "store")
    assert content(tmp_path / "store") == content(built)
