"""The readers: accuracy on unseen images, one answer whatever the batch, and files that are what they claim."""

import hashlib
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from dcgan_lib import features
from dcgan_lib.data import ImageDataset, load_dataset, to_model_range
from dcgan_lib.errors import UserError

TARGETS = {"body": 0.99, "eyes": 0.99, "accessory": 0.99}


@pytest.fixture(scope="module")
def reader():
    return features.load_reader("cats")


@pytest.fixture(scope="module")
def unseen():
    return load_dataset("cats", 64, split="test", limit=500, seed=1234)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_accuracy_on_unseen_combinations(reader, size):
    dataset = load_dataset("cats", size, split="test", limit=500, seed=1234)
    accuracy = features.measure_accuracy(reader, dataset)
    for factor, target in TARGETS.items():
        assert accuracy[factor] >= target, accuracy


@pytest.mark.parametrize("name", features.released_readers())
def test_released_readers_are_small_and_have_their_recorded_hash(name):
    loaded = features.load_reader(name)
    path = features.PRETRAINED / f"reader-{name}.safetensors"
    assert loaded.name == name
    assert loaded.sha256 == features.RELEASED[name] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.sha256 in path.with_suffix(".md").read_text(encoding="utf-8")
    assert path.stat().st_size < 1_500_000
    assert sum(parameter.numel() for parameter in loaded.parameters()) < 300_000
    assert not loaded.training


def test_features_do_not_depend_on_the_batch(reader, unseen):
    images = unseen.images[:300]
    together = reader.features(images)
    alone = torch.cat([reader.features(images[start : start + 7]) for start in range(0, 300, 7)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-4)
    assert torch.equal(reader.classify(alone)[0], reader.classify(together)[0])


def test_features_are_standardised_on_real_images(reader, unseen):
    embedded = reader.features(unseen.images)
    assert embedded.shape == (500, reader.dimension)
    assert embedded.mean(dim=0).abs().max() < 0.35
    assert 0.7 < embedded.var(dim=0).mean() < 1.4


def test_read_takes_bytes_and_floats_alike(reader, unseen):
    images = unseen.images[:50]
    labels, confidence = reader.read(images)
    assert labels.shape == confidence.shape == (50, 5)
    assert labels.dtype == torch.int64
    assert ((confidence > 0) & (confidence <= 1)).all()
    torch.testing.assert_close(reader.read(to_model_range(images)), (labels, confidence))


def test_forward_gives_logits_per_factor(reader, unseen):
    logits = reader(to_model_range(unseen.images[:50]))
    assert {factor: tuple(values.shape) for factor, values in logits.items()} == {
        factor: (50, len(values)) for factor, values in unseen.label_names.items()
    }
    expected = torch.stack([values.argmax(dim=1) for values in logits.values()], dim=1)
    assert torch.equal(reader.read(unseen.images[:50])[0], expected)


def test_the_reader_is_less_sure_of_noise(reader, unseen):
    noise = torch.randn(100, 3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    assert reader.read(noise)[1].mean() < reader.read(unseen.images[:100])[1].mean() - 0.1


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(4, 1, 64, 64), "wants images"),
        (torch.zeros(3, 64, 64), "wants images"),
        (torch.zeros(0, 3, 64, 64), "no images"),
        (torch.full((2, 3, 64, 64), float("nan")), "NaN"),
    ],
)
def test_bad_images_are_refused(reader, images, message):
    with pytest.raises(UserError, match=message):
        reader.read(images)


def test_unknown_reader_names_the_known_ones():
    with pytest.raises(UserError, match="there are readers for: cats"):
        features.load_reader("dogs")


def test_a_file_with_another_hash_is_refused(tmp_path):
    original = features.PRETRAINED / "reader-cats.safetensors"
    content = bytearray(original.read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "reader-cats.safetensors"
    changed.write_bytes(content)
    with pytest.raises(UserError, match="not the released file"):
        features.read_reader_file(changed, expected_sha256=features.RELEASED["cats"])


def test_files_that_are_no_readers_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot read"):
        features.read_reader_file(tmp_path / "missing.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    weights = load_file(features.PRETRAINED / "reader-cats.safetensors")
    save_file(weights, tmp_path / "bare.safetensors", metadata={"reader": '{"name": "cats", "label_names": {}}'})
    save_file(weights, tmp_path / "list.safetensors", metadata={"reader": "[1]"})
    for name in ("text", "other", "bare", "list"):
        with pytest.raises(UserError, match="not a reader's weights"):
            features.read_reader_file(tmp_path / f"{name}.safetensors")


def test_every_data_set_of_cats_has_the_reader_of_cats():
    datasets = ["cats", "cats-held-out", "fashion-mnist", "mnist", "celeba", "folder:cats", "store:cats", ""]
    found = [features.reader_for(name) for name in datasets]
    assert found == ["cats", "cats", "fashion-mnist", None, None, None, None, None]


def test_a_reader_is_found_by_name_or_by_file(reader, unseen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cats").mkdir()  # the name goes before a file or folder
    own = shutil.copy(features.PRETRAINED / "reader-cats.safetensors", tmp_path / "my own reader")
    expected = reader.features(unseen.images[:20])
    for name in ("cats", str(own), "my own reader"):
        found = features.any_reader(name)
        assert found.sha256 == features.RELEASED["cats"]
        assert torch.equal(found.features(unseen.images[:20]), expected)
    assert features.any_reader("fashion-mnist").name == "fashion-mnist"


@pytest.mark.parametrize("name", ["dogs", "cats-held-out", "nowhere/reader.safetensors", "reader-cats.safetensors"])
def test_what_is_neither_name_nor_file_is_one_line_with_the_names(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        features.any_reader(name)
    assert str(caught.value) == f"no reader for {name!r}; there are readers for: cats, clothing, fashion-mnist"


def test_a_file_without_a_reader_is_one_line(tmp_path):
    (tmp_path / "text").write_text("not weights")
    for path, message in (
        (tmp_path / "text", "text is not a reader's weights; train one: python -m dcgan_lib.reader_training$"),
        (features.PRETRAINED / "cats-64.safetensors", "cats-64.safetensors is not a reader's weights"),
        (tmp_path, "cannot read .*: Is a directory$"),  # and not: install the package again
    ):
        with pytest.raises(UserError, match=message) as caught:
            features.any_reader(str(path))
        assert "\n" not in str(caught.value)


def test_accuracy_needs_the_same_factors(reader):
    dataset = ImageDataset(torch.zeros(4, 3, 32, 32).byte(), torch.zeros(4, 1).long(), {"class": ("a",)}, "other")
    with pytest.raises(UserError, match="does not know the factors"):
        features.measure_accuracy(reader, dataset)
