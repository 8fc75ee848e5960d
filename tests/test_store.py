"""Image stores: the same images as from the folder, read batch by batch, and one clear line for what cannot be read."""

import copy
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stores import IMAGE_BYTES, assert_one_line, assert_same_dataset, batches, build, content, make_pictures
from tiny import assert_same, configure, deterministic, networks

from dcgan_lib import cli, metrics, store
from dcgan_lib.checkpoint import load_state
from dcgan_lib.data import ImageDataset, load_dataset
from dcgan_lib.errors import UserError
from dcgan_lib.store import StoredImages, check_store, read_index
from dcgan_lib.store_builder import build_store
from dcgan_lib.store_writer import write_store
from dcgan_lib.training import train


@pytest.fixture
def damaged(built_store, tmp_path):
    """A copy to damage."""
    return shutil.copytree(built_store, tmp_path / "damaged")


# --- the same images as from the folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("options", [{}, {"limit": 4, "seed": 1}, {"limit": 4, "seed": 2}, {"limit": 10**6}], ids=str)
def test_a_store_holds_what_the_folder_gives(pictures, built_store, split, options):
    expected = load_dataset(f"folder:{pictures}", 32, split, **options)
    stored = load_dataset(f"store:{built_store}", 32, split, **options)
    assert isinstance(stored.images, StoredImages)
    assert stored.name == f"store:{built_store}"
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


def test_the_files_are_what_their_description_says(pictures, built_store):
    """Read with NumPy alone."""
    assert sorted(content(built_store)) == ["images.u8", "index.json", "labels.i64"]
    index = json.loads((built_store / "index.json").read_text())
    train, test = (load_dataset(f"folder:{pictures}", 32, split) for split in ("train", "test"))
    pixels = np.fromfile(built_store / "images.u8", np.uint8).reshape(index["shape"])
    np.testing.assert_array_equal(pixels, np.concatenate([train.images.numpy(), test.images.numpy()]))
    labels = np.fromfile(built_store / "labels.i64", "<i8").reshape(60, 1)
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
def test_a_forked_process_reads_the_same_file_at_the_same_time(built_store):
    """In a process of its own, which has no other threads to fork."""
    code = f"""
        import os, sys, torch
        from dcgan_lib.data import load_dataset
        torch.set_num_threads(1)
        images = load_dataset("store:{built_store}", 32).images
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


def test_a_bare_path_is_understood(built_store):
    with pytest.raises(UserError, match=f"did you mean 'store:{built_store}'"):
        load_dataset(str(built_store), 32)


def test_another_size_says_which_one_fits(built_store):
    with pytest.raises(UserError) as caught:
        load_dataset(f"store:{built_store}", 64)
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


def test_a_whole_store_passes_the_check(built_store):
    assert check_store(built_store) == read_index(built_store)


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


def test_training_on_a_store_is_bitwise_training_on_its_folder(tmp_path, pictures, built_store):
    runs = []
    with deterministic():
        for name in (f"folder:{pictures}", f"store:{built_store}"):
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
