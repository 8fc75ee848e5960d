"""The recorded runs agree with their configurations, and their pictures are cut where one image ends."""

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_lib import recordings
from dcgan_lib.errors import UserError
from dcgan_lib.training import TrainingConfig

NAMES = ("plain", "noise", "r1", "fast", "range")


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_whole(name):
    run = recordings.load_recording(name)
    config = TrainingConfig(**run.training)
    steps = range(config.log_every, config.steps + 1, config.log_every)
    assert [record["step"] for record in run.records] == list(steps)
    assert all(record["images"] == record["step"] * config.batch_size for record in run.records)
    assert list(run.samples)[-1] == config.steps
    assert {(tuple(images.shape), images.dtype) for images in run.samples.values()} == {((12, 3, 32, 32), torch.uint8)}


def test_samples_are_the_cells_of_the_picture():
    grid = np.array(Image.open(recordings.FOLDER / "training-plain.png"))
    samples = recordings.load_recording("plain").samples
    for row, images in enumerate(samples.values()):
        for column, image in enumerate(images):
            cell = grid[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), cell)


def test_at_end_is_the_mean_of_the_last_records():
    records = [{"d_loss": float(value)} for value in (100, 1, 2, 6)]
    run = recordings.Recording("", {}, records, {}, "")
    assert run.at_end("d_loss", 3) == 3.0


def test_an_unknown_name_is_one_line_with_the_choices():
    with pytest.raises(UserError, match="plain, noise"):
        recordings.load_recording("good")
