"""Grids and PNG files, compared pixel by pixel with plain NumPy."""

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import images
from dcgan_lib.errors import UserError


@pytest.fixture
def batch():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 4, 6), dtype=np.uint8))


def test_grid_has_every_image_at_its_place_and_white_elsewhere(batch):
    grid = images.make_grid(batch, columns=3, padding=2)
    expected = np.full((3, 2 * 4 + 2, 3 * 6 + 4), 255, dtype=np.uint8)
    for index, image in enumerate(batch.numpy()):
        row, column = divmod(index, 3)
        expected[:, row * 6 : row * 6 + 4, column * 8 : column * 8 + 6] = image
    np.testing.assert_array_equal(grid.numpy(), expected)


def test_grid_of_fewer_images_than_columns_is_no_wider_than_they_are(batch):
    assert images.make_grid(batch[:2], columns=8, padding=0).shape == (3, 4, 12)


def test_floats_are_taken_as_the_model_range():
    corners = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 1, 3)
    assert images.as_uint8(corners).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_png_reads_back_exactly(tmp_path, channels):
    batch = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, channels, 8, 8), dtype=np.uint8))
    path = tmp_path / "new" / "grid.png"
    images.save_png(batch, path, columns=2, padding=1)
    with Image.open(path) as saved:
        assert saved.format == "PNG"
        pixels = np.asarray(saved).reshape(17, 17, channels)
    np.testing.assert_array_equal(pixels.transpose(2, 0, 1), images.make_grid(batch, 2, 1).numpy())
    assert [file.name for file in path.parent.iterdir()] == ["grid.png"]


def test_failed_save_keeps_the_earlier_file(tmp_path, batch, monkeypatch):
    path = tmp_path / "grid.png"
    images.save_png(batch, path)
    before = path.read_bytes()

    def full_disk(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full_disk)
    with pytest.raises(UserError, match="No space left"):
        images.save_png(batch[:1], path)
    assert path.read_bytes() == before


def test_enlarging_repeats_pixels(batch):
    enlarged = np.asarray(images.to_pil(batch[0], size=18))
    np.testing.assert_array_equal(enlarged, batch[0].permute(1, 2, 0).numpy().repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 4, 4), "shape"),
        (torch.zeros(0, 3, 4, 4), "shape"),
        (torch.zeros(1, 2, 4, 4), "shape"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.int64), "int64"),
        (torch.full((1, 3, 4, 4), float("nan")), "diverged"),
    ],
)
def test_what_is_not_a_batch_of_images_is_refused_in_one_line(bad, message):
    with pytest.raises(UserError, match=message) as caught:
        images.make_grid(bad)
    assert "\n" not in str(caught.value)


def test_impossible_grids_are_refused(batch):
    with pytest.raises(UserError, match="columns=0"):
        images.make_grid(batch, columns=0)
    with pytest.raises(UserError, match="padding=-1"):
        images.make_grid(batch, padding=-1)
    with pytest.raises(UserError, match="size"):
        images.to_pil(batch[0], size=0)
