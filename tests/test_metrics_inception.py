"""The distance of the literature, with a stand-in for its network: what it is shown, and what is said without it."""

from urllib.error import URLError

import pytest
import torch
from tiny import networks

from dcgan_lib import metrics
from dcgan_lib.data import ImageDataset
from dcgan_lib.errors import UserError
from dcgan_lib.latent import sample

SAMPLES = 230


class Recorder:
    """Takes the place of torchmetrics' class, and remembers what it is given."""

    def __init__(self, feature):
        assert feature == 2048
        self.seen = {True: [], False: []}
        self.device = None
        Recorder.last = self

    def to(self, device):
        self.device = device
        return self

    def update(self, images, real):
        assert images.dtype == torch.uint8
        self.seen[real].append(images.clone())

    def compute(self):
        return torch.tensor(12.5)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", Recorder)
    return Recorder


def noise(channels, count=300):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, channels, 32, 32), generator=random, dtype=torch.uint8)
    return ImageDataset(images, torch.empty(count, 0, dtype=torch.int64), {}, "noise")


def shown(recorder):
    """The real and the generated images of the last metric."""
    return [torch.cat(recorder.last.seen[real]) for real in (True, False)]


def rows_of(images, dataset):
    """Row of the data set of each image, which is shown in three channels."""
    known = {image.expand(3, -1, -1).numpy().tobytes(): row for row, image in enumerate(dataset.images)}
    return [known[image.numpy().tobytes()] for image in images]


@pytest.mark.parametrize("channels", [1, 3])
def test_as_many_real_as_generated_images_are_shown_in_colour(recorder, channels):
    generator, dataset = networks(channels)[0], noise(channels)
    found = metrics.inception_distance(generator, dataset, SAMPLES, seed=3)
    assert type(found) is float
    assert found == 12.5
    assert recorder.last.device == torch.device("cpu")
    real, made = shown(recorder)
    assert real.shape == made.shape == (SAMPLES, 3, 32, 32)
    rows = rows_of(real, dataset)
    assert len(set(rows)) == SAMPLES  # none twice
    assert rows != sorted(rows)  # and not just the first ones
    expected = ((sample(generator, SAMPLES, seed=3) + 1) * 127.5).round().byte()
    assert torch.equal(made, expected.expand(-1, 3, -1, -1))


def test_the_seed_chooses_both_and_there_are_no_more_images_than_real_ones(recorder):
    generator, dataset = networks()[0], noise(1, 120)
    images = []
    for samples, seed in ((50, 0), (50, 0), (50, 1), (500, 0)):
        metrics.inception_distance(generator, dataset, samples, seed)
        images.append(shown(recorder))
    first, again, other, many = images
    for position in range(2):
        assert torch.equal(first[position], again[position])
        assert not torch.equal(first[position], other[position])
        assert len(many[position]) == 120
    assert sorted(rows_of(many[0], dataset)) == list(range(120))


def test_a_generator_of_another_size_or_colour_is_refused(recorder):
    with pytest.raises(UserError, match="load it with the generator's size"):
        metrics.inception_distance(networks(3)[0], noise(1), 50)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("FrechetInceptionDistance metric requires\nthat `Torch-fidelity` is installed."),
            r"^the Inception FID needs another package: pip install 'dcgan-lib\[inception\]'$",
        ),
        (
            URLError("Connection refused"),
            r"^the Inception network cannot be downloaded \(.*Connection refused.*\); try again with a network$",
        ),
        (TimeoutError("timed out"), r"^the Inception network cannot be downloaded \(timed out\)"),
    ],
)
def test_what_is_missing_is_one_line(monkeypatch, error, message):
    def fail(**_):
        raise error

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", fail)
    with pytest.raises(UserError, match=message) as caught:
        metrics.inception_distance(networks()[0], noise(1), 50)
    assert "\n" not in str(caught.value)


def test_the_real_class_asks_for_the_same_package(monkeypatch):
    monkeypatch.setattr("torchmetrics.image.fid._TORCH_FIDELITY_AVAILABLE", False)
    with pytest.raises(UserError, match=r"pip install 'dcgan-lib\[inception\]'"):
        metrics.inception_distance(networks()[0], noise(1), 50)
