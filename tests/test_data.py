"""The one entrance to all data sets, the pixel ranges, and the data sets that torchvision reads."""

import gzip
import hashlib
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets import utils as torchvision_utils

from dcgan_lib import archives
from dcgan_lib.data import load_dataset, to_model_range, to_uint8
from dcgan_lib.errors import UserError


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever these tests do, they do not wait for a server."""

    def refuse(*_, **__):
        raise URLError("Connection refused")

    monkeypatch.setattr(torchvision_utils, "_urlretrieve", refuse)
    monkeypatch.setattr(torchvision_utils, "_get_redirect_url", refuse)


# Pixel ranges


def test_every_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    inside = to_model_range(levels)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, torch.linspace(-1, 1, 256))
    assert inside[0] == -1
    assert inside[-1] == 1
    assert torch.equal(to_uint8(inside), levels)


def test_what_lies_outside_is_clamped_and_what_lies_between_is_rounded():
    between = torch.tensor([-7.0, -1.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 7.0], requires_grad=True)
    assert to_uint8(between).tolist() == [0, 0, 1, 0, 255, 255]
    assert to_uint8(between.half()).dtype == torch.uint8


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "cat"},
            r"there is no data set 'cat': did you mean 'cats'\? choose from cats, cats-held-out, fashion-mnist",
        ),
        ({"name": "FashionMNIST"}, r"did you mean 'fashion-mnist'\?"),
        ({"name": "xyzzy"}, r"'xyzzy': choose from .*folder:PATH"),
        ({"name": ""}, "there is no data set ''"),
        ({"image_size": 48}, "image size 48 is not supported: choose from 32, 64, 128"),
        ({"image_size": 0}, "image size 0"),
        ({"image_size": -64}, "image size -64"),
        ({"split": "valid"}, "there is no split 'valid': choose train or test"),
        ({"limit": 0}, "at least 1, not 0"),
        ({"limit": -5}, "at least 1, not -5"),
        ({"limit": 2.5}, "not 2.5"),
    ],
)
def test_impossible_arguments_are_one_clear_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(**{"name": "cats", **arguments})
    assert "\n" not in str(caught.value)


def test_a_bare_path_is_understood(tmp_path):
    with pytest.raises(UserError, match=f"did you mean 'folder:{tmp_path}'"):
        load_dataset(str(tmp_path))


def test_importing_is_light():
    code = "import sys, dcgan_lib.data; print(*(m for m in ('torchvision', 'PIL', 'robohash') if m in sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == ""


# MNIST and Fashion-MNIST


def idx(array):
    """The IDX format: two zero bytes, the type, the number of axes, their sizes, the values."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def tiny_mnist(tmp_path, monkeypatch):
    """Original-looking archives of 20 and 8 images, whose md5 torchvision is made to expect."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources, arrays = [], {}
    for prefix, count in (("train", 20), ("t10k", 8)):
        arrays[prefix] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count, dtype=np.uint8) % 10
        for array, kind in zip(arrays[prefix], ("images-idx3", "labels-idx1"), strict=True):
            file = raw / f"{prefix}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(idx(array)))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return tmp_path / "root", arrays


@pytest.mark.parametrize(("split", "prefix"), [("train", "train"), ("test", "t10k")])
def test_mnist_at_32_has_the_published_pixels(tiny_mnist, split, prefix):
    root, arrays = tiny_mnist
    images, digits = arrays[prefix]
    dataset = load_dataset("mnist", 32, split, root=root)
    np.testing.assert_array_equal(dataset.images[:, 0, 2:30, 2:30].numpy(), images)
    assert dataset.images.sum(dtype=torch.int64) == images.sum(dtype=np.int64)  # nothing but black around
    assert dataset.labels[:, 0].tolist() == digits.tolist()
    assert dataset.labels.dtype == torch.int64
    assert dataset.label_names == {
        "class": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    }
    assert (len(dataset), dataset.channels, dataset.image_size, dataset.name) == (len(images), 1, 32, "mnist")


@pytest.mark.parametrize("size", [64, 128])
def test_mnist_is_enlarged_from_the_padded_image(tiny_mnist, size):
    root, _ = tiny_mnist
    small, large = (load_dataset("mnist", s, root=root).images[:, 0] for s in (32, size))
    for before, after in zip(small, large, strict=True):
        expected = Image.fromarray(before.numpy()).resize((size, size), Image.Resampling.BICUBIC)
        assert np.abs(np.asarray(expected).astype(int) - after.numpy()).max() <= 1


def test_a_limit_is_a_seeded_choice_with_its_labels(tiny_mnist):
    root, (images, digits) = tiny_mnist[0], tiny_mnist[1]["train"]
    few = load_dataset("mnist", 32, root=root, limit=7, seed=1)
    assert len(few) == 7
    rows = [
        next(i for i in range(20) if np.array_equal(images[i], image[0, 2:30, 2:30].numpy())) for image in few.images
    ]
    assert len(set(rows)) == 7
    assert rows != sorted(rows)
    assert few.labels[:, 0].tolist() == digits[rows].tolist()
    assert torch.equal(load_dataset("mnist", 32, root=root, limit=3, seed=1).images, few.images[:3])
    assert not torch.equal(load_dataset("mnist", 32, root=root, limit=7, seed=2).images, few.images)
    assert len(load_dataset("mnist", 32, root=root, limit=1000)) == 20


def test_the_root_comes_from_the_environment(tiny_mnist, monkeypatch):
    monkeypatch.setenv("DCGAN_DATA", str(tiny_mnist[0]))
    assert len(load_dataset("mnist", 32)) == 20


def test_a_read_only_root_is_unpacked_in_the_cache(tiny_mnist, tmp_path, monkeypatch):
    root, _ = tiny_mnist
    before = sorted(root.rglob("*"))
    monkeypatch.setenv("DCGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        archives.os, "access", lambda path, mode: False
    )  # tests may run as root, who may write anywhere
    assert len(load_dataset("mnist", 32, root=root)) == 20
    assert sorted(root.rglob("*")) == before
    assert (tmp_path / "cache" / "archives" / "MNIST" / "raw" / "train-images-idx3-ubyte").exists()


def test_a_refused_download_says_what_to_put_where(tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("fashion-mnist", 32, root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert "Connection refused" in message
    assert str(tmp_path / "FashionMNIST" / "raw") in message
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        assert f"{name}-ubyte.gz" in message


def test_an_archive_with_another_hash_is_named(tiny_mnist):
    root, _ = tiny_mnist
    damaged = root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    with pytest.raises(UserError, match=r"\(not the original file, or cut off: t10k-labels-idx1-ubyte\.gz\)") as caught:
        load_dataset("mnist", 32, root=root)
    assert "\n" not in str(caught.value)


def test_a_damaged_unpacked_file_is_a_user_error(tiny_mnist):
    root, _ = tiny_mnist
    load_dataset("mnist", 32, root=root)
    unpacked = root / "MNIST" / "raw" / "train-images-idx3-ubyte"
    unpacked.write_bytes(unpacked.read_bytes()[:500])
    with pytest.raises(UserError, match="in place of any damaged ones"):
        load_dataset("mnist", 32, root=root)


@pytest.mark.parametrize(("name", "folder", "first"), [("fashion-mnist", "FashionMNIST", 9), ("mnist", "MNIST", 5)])
def test_the_real_archives_load_without_a_network(shared_data, tmp_path, name, folder, first):
    shutil.copytree(shared_data / folder, tmp_path / folder)
    dataset = load_dataset(name, 32, root=tmp_path)
    assert dataset.images.shape == (60_000, 1, 32, 32)
    assert torch.bincount(dataset.labels[:, 0], minlength=10).min() > 5000
    assert dataset.labels[0, 0] == first
    mean = dataset.images[:, :, 2:30, 2:30].double().mean() / 255
    torch.testing.assert_close(mean.item(), {"mnist": 0.1307, "fashion-mnist": 0.2860}[name], atol=1e-4, rtol=0)


# CIFAR-10


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """An archive with the layout of the original: six pickled batches of four images, and the names of the classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "made" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = {}
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        pixels = rng.integers(0, 256, (4, 3072), dtype=np.uint8)
        batches[name] = pixels
        (folder / name).write_bytes(pickle.dumps({"data": pixels, "labels": [0, 1, 2, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class{i}" for i in range(10)]}))
    md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    kind = datasets.CIFAR10
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5((root / "cifar-10-python.tar.gz").read_bytes()).hexdigest())
    monkeypatch.setattr(kind, "train_list", [[f"data_batch_{i}", md5[f"data_batch_{i}"]] for i in range(1, 6)])
    monkeypatch.setattr(kind, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5["batches.meta"]})
    return root, batches


def test_cifar10(tiny_cifar):
    root, batches = tiny_cifar
    train, test = (load_dataset("cifar10", 32, split, root=root) for split in ("train", "test"))
    assert train.images.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(test.images.numpy(), batches["test_batch"].reshape(4, 3, 32, 32))
    assert test.labels.tolist() == [[0], [1], [2], [9]]
    assert test.label_names["class"][9] == "class9"
    assert load_dataset("cifar10", 64, "test", root=root, limit=2).images.shape == (2, 3, 64, 64)


def test_a_foreign_cifar_batch_is_never_unpickled(tiny_cifar):
    root, _ = tiny_cifar
    load_dataset("cifar10", 32, root=root)
    (root / "cifar-10-python.tar.gz").unlink()

    class Trap:
        def __reduce__(self):
            return (open, (str(root / "sprung"), "w"))

    (root / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(UserError, match=r"cannot load 'cifar10' .*cifar-10-python\.tar\.gz"):
        load_dataset("cifar10", 32, root=root)
    assert not (root / "sprung").exists()


# CelebA


@pytest.fixture
def tiny_celeba(tmp_path, monkeypatch):
    """Six portraits, three of them for training, with the files of the original."""
    folder = tmp_path / "root" / "celeba"
    folder.mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(1, 7)]
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for i, name in enumerate(names):
            Image.new("RGB", (178, 218), (50 * i, 0, 0)).save(tmp_path / name, quality=100)
            archive.write(tmp_path / name, f"img_align_celeba/{name}")
    parts = zip(names, (0, 0, 0, 1, 2, 2), strict=True)
    texts = {
        "list_eval_partition.txt": "".join(f"{name} {part}\n" for name, part in parts),
        "identity_CelebA.txt": "".join(f"{name} 7\n" for name in names),
        "list_bbox_celeba.txt": "6\nimage_id x y\n" + "".join(f"{name} 1 2\n" for name in names),
        "list_landmarks_align_celeba.txt": "6\nleft right\n" + "".join(f"{name} 1 2\n" for name in names),
        "list_attr_celeba.txt": "5\nBald Smiling \n"
        + "".join(f"{name} -1 {(-1) ** i}\n" for i, name in enumerate(names)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    files = ["img_align_celeba.zip", *texts]
    md5 = [("id", hashlib.md5((folder / name).read_bytes()).hexdigest(), name) for name in files]
    monkeypatch.setattr(datasets.CelebA, "file_list", md5)
    return tmp_path / "root", files


def test_celeba_from_files_put_there_by_hand(tiny_celeba):
    root, _ = tiny_celeba
    train = load_dataset("celeba", 32, root=root)
    assert train.images.shape == (3, 3, 32, 32)
    assert [round(image[0].float().mean().item() / 50) for image in train.images] == [0, 1, 2]
    assert train.label_names == {"Bald": ("no", "yes"), "Smiling": ("no", "yes")}
    assert train.labels.tolist() == [[0, 1], [0, 0], [0, 1]]
    test = load_dataset("celeba", 64, "test", root=root)
    assert test.images.shape == (2, 3, 64, 64)
    assert test.labels.tolist() == [[0, 1], [0, 0]]
    few = load_dataset("celeba", 32, root=root, limit=2, seed=3)
    levels = [round(image[0].float().mean().item() / 50) for image in few.images]
    assert [[0, (level + 1) % 2] for level in levels] == few.labels.tolist()


def test_celeba_says_what_to_put_where(tiny_celeba, tmp_path):
    _, files = tiny_celeba
    with pytest.raises(UserError) as caught:
        load_dataset("celeba", 32, root=tmp_path / "nothing")
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "nothing" / "celeba") in message
    assert all(name in message for name in files)


def test_a_damaged_celeba_archive_is_named(tiny_celeba):
    root, _ = tiny_celeba
    archive = root / "celeba" / "img_align_celeba.zip"
    archive.write_bytes(archive.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cut off: img_align_celeba\.zip"):
        load_dataset("celeba", 32, root=root)
    assert not (root / "celeba" / "img_align_celeba").exists()
