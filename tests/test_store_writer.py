"""Stores of generated images; the place of a store, which only a whole one takes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from stores import assert_one_line, batches, build, content

from dcgan_lib import store_builder
from dcgan_lib.data import load_dataset
from dcgan_lib.errors import UserError
from dcgan_lib.store import check_store
from dcgan_lib.store_writer import write_store

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


# --- the place of a store ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("place", ["/proc/nowhere/store", "file/store"])
def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path, pictures, place):
    (tmp_path / "file").write_text("mine")
    for write in (lambda path: build(pictures, path), lambda path: write_store(path, batches())):
        with pytest.raises(UserError, match=r"cannot write .*: .*; make room there, or choose another --output"):
            write(tmp_path / place)
    with pytest.raises(UserError, match="exists already"):
        build(pictures, "/")


def test_two_builds_of_one_store_do_not_meet(tmp_path, pictures, built_store, monkeypatch):
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
    assert content(tmp_path / "store") == content(built_store)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
