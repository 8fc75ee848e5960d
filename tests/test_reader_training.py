"""Training a reader: it learns, repeats, learns from damaged images, and its texture is that of clean ones."""

import pytest
import torch

from dcgan_lib import features, reader_training
from dcgan_lib.data import ImageDataset, load_dataset, to_model_range
from dcgan_lib.errors import UserError


@pytest.fixture(scope="module")
def unseen():
    return load_dataset("cats", 64, split="test", limit=500, seed=1234)


def test_training_learns_saves_and_repeats(tmp_path):
    # Two classes that differ in which half is bright: a few steps must be enough.
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (256, 1), generator=generator)
    images = torch.randint(0, 60, (256, 1, 32, 32), generator=generator)
    for row, label in enumerate(labels.flatten().tolist()):
        images[row, :, 16 * label : 16 * label + 16] += 150
    dataset = ImageDataset(images.to(torch.uint8), labels, {"bright half": ("top", "bottom")}, "halves")
    options = reader_training.ReaderTraining(tmp_path / "a.safetensors", resolution=32, epochs=4, batch_size=32)
    trained = reader_training.train_reader(dataset, options)
    assert features.measure_accuracy(trained, dataset)["bright half"] > 0.95
    digest = trained.save(options.output)
    assert reader_training.train_reader(dataset, options).save(tmp_path / "b.safetensors") == digest
    loaded = features.read_reader_file(options.output, expected_sha256=digest)
    assert loaded.label_names == dataset.label_names
    assert torch.equal(loaded.read(dataset.images)[0], trained.read(dataset.images)[0])
    torch.testing.assert_close(loaded.features(dataset.images), trained.features(dataset.images), atol=0.02, rtol=0.02)


def test_training_needs_labels(tmp_path):
    dataset = ImageDataset(torch.zeros(4, 1, 32, 32).byte(), torch.zeros(4, 0).long(), {}, "folder:x")
    with pytest.raises(UserError, match="no labels"):
        reader_training.train_reader(dataset, reader_training.ReaderTraining(tmp_path / "x.safetensors", resolution=32))


def damaged(images, seed):
    torch.manual_seed(seed)
    return reader_training.augment(images.expand(64, 3, 32, 32))


def test_damage_repeats_and_leaves_its_input_alone(unseen):
    images = to_model_range(unseen.images[:16])
    before = images.clone()
    torch.manual_seed(3)
    first = reader_training.augment(images)
    torch.manual_seed(3)
    assert torch.equal(reader_training.augment(images), first)
    assert first.shape == images.shape
    assert torch.equal(images, before)


def test_half_of_the_images_are_noisy():
    noise = damaged(torch.zeros(1, 1, 1, 1), seed=0).flatten(1).std(dim=1)
    assert torch.all(noise[1::2] == 0)
    assert torch.all(noise[::2] > 0)
    assert noise.max() <= 0.25
    assert noise[::2].std() > 0.02  # little for some, more for others


def test_a_quarter_loses_every_second_pixel_and_a_quarter_is_blurred():
    checkerboard = ((torch.arange(32)[:, None] + torch.arange(32)) % 2) * 2.0 - 1
    contrasts = []
    for seed in range(8):
        quiet = damaged(checkerboard, seed)[1::2].abs().mean(dim=(1, 2, 3))
        halved, blurred, sharp = quiet.split([8, 8, 16])
        assert halved.max() < 0.01  # a shifted edge is repeated: nearly nothing is left
        assert sharp.min() > 0.8
        assert blurred.std() < 0.1  # one blur for all of a batch
        contrasts.append(blurred.mean())
    assert min(contrasts) < 0.2
    assert max(contrasts) > 0.4


def test_images_are_shifted_by_up_to_a_twentieth_in_both_directions():
    point = torch.zeros(32, 32)
    point[16, 16] = 1
    places = [damaged(point, seed)[33::2, 0].flatten(1).argmax(dim=1) for seed in range(8)]
    for axis in (torch.cat(places) // 32, torch.cat(places) % 32):
        assert set(axis.tolist()) == {15, 16, 17}


def test_a_calibrated_reader_is_what_its_file_holds_and_its_texture_is_standardised(unseen, tmp_path):
    torch.manual_seed(0)
    reader = features.Reader("cats", unseen.label_names)
    reader_training.calibrate(reader, unseen.images[:200])
    texture = reader.features(unseen.images[:200])[:, features.EMBEDDING :]
    torch.testing.assert_close(texture.mean(dim=0), torch.zeros(features.TEXTURE), atol=1e-3, rtol=0)
    torch.testing.assert_close(texture.std(dim=0), torch.ones(features.TEXTURE), atol=1e-3, rtol=0)
    assert not reader.training
    assert not any(parameter.requires_grad for parameter in reader.parameters())
    digest = reader.save(tmp_path / "reader.safetensors")
    loaded = features.read_reader_file(tmp_path / "reader.safetensors", expected_sha256=digest)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, reader.state_dict()[name]), name


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "dogs"], "there is no data set 'dogs'"),
        (["--limit", "20"], "20 images are fewer than --batch-size 128"),
        (["--epochs", "0"], "epochs 0 must be at least 1"),
        (["--batch-size", "0"], "batch-size 0 must be at least 1"),
        (["--output", "reader.pt"], "reader.pt must end in .safetensors"),
    ],
)
def test_mistakes_on_the_command_line_are_told_without_a_traceback(tmp_path, capsys, words, message):
    arguments = ["--output", str(tmp_path / "reader.safetensors"), "--limit", "300", *words]
    try:
        status = reader_training.main(arguments)
    except SystemExit as ended:  # what tyro itself refuses, in its box
        status = ended.code
    err = capsys.readouterr().err
    assert status == 2
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert not (tmp_path / "reader.safetensors").exists()
