import threading

import pytest
import torch
from tiny import images

from dcgan_lib.batches import AHEAD, Batches
from dcgan_lib.data import ImageDataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.seeds import batch_indices

CPU, WHOLE = torch.device("cpu"), slice(0, 4)


class Stored:
    """Stands for images that are not in memory: it can be indexed, and counts."""

    def __init__(self, tensor, fail_at=None):
        self.tensor, self.reads, self.threads, self.fail_at = tensor, [], set(), fail_at
        self.shape = tensor.shape

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, indices):
        self.reads.append(indices)
        self.threads.add(threading.current_thread().name)
        if len(self.reads) == self.fail_at:
            raise UserError("the store is gone")
        return self.tensor[indices]


def stored(**options) -> ImageDataset:
    dataset = images(channels=3)
    return ImageDataset(Stored(dataset.images, **options), dataset.labels, {}, "stored")


def expected(step, share=WHOLE):
    return to_model_range(images(channels=3).images[batch_indices(10, 4, step, 7)[share]])


@pytest.mark.parametrize("ahead", [0, AHEAD])
@pytest.mark.parametrize("make", [lambda: images(channels=3), stored], ids=["resident", "fetched"])
def test_a_batch_follows_from_seed_and_step(make, ahead):
    batches = Batches(make(), 4, 7, CPU, WHOLE)
    batches.ahead = ahead
    for step in (0, 1, 2, 5, 3, 3):  # a resumed run begins anywhere
        real = batches.real(step)
        assert torch.equal(real, expected(step))
        assert real.dtype == torch.float32
        assert real.is_contiguous(memory_format=torch.channels_last)
    batches.close()


@pytest.mark.parametrize("make", [lambda: images(channels=3), stored], ids=["resident", "fetched"])
def test_a_process_gets_its_share(make):
    shares = [slice(0, 2), slice(2, 4)]
    parts = [Batches(make(), 4, 7, CPU, share).real(3) for share in shares]
    assert torch.equal(torch.cat(parts), expected(3))


def test_images_that_are_not_in_memory_are_read_ahead_by_another_thread_and_each_once():
    dataset = stored()
    batches = Batches(dataset, 4, 7, CPU, WHOLE)
    batches.ahead = AHEAD  # as on a GPU
    for step in range(5):
        batches.real(step)
    batches.close()
    assert len(dataset.images.reads) <= 5 + AHEAD
    for step, indices in enumerate(dataset.images.reads):
        assert torch.equal(indices, batch_indices(10, 4, step, 7))
    assert threading.current_thread().name not in dataset.images.threads
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_a_cpu_that_computes_reads_by_itself_and_a_gpu_has_a_thread_that_does():
    dataset = stored()
    batches = Batches(dataset, 4, 7, CPU, WHOLE)
    assert torch.equal(batches.real(0), expected(0))
    assert dataset.images.threads == {threading.current_thread().name}
    assert len(dataset.images.reads) == 1
    assert Batches(dataset, 4, 7, torch.device("cuda"), WHOLE).ahead == AHEAD


def test_what_fails_while_reading_ahead_is_raised_when_the_batch_is_asked_for():
    batches = Batches(stored(fail_at=3), 4, 7, CPU, WHOLE)
    batches.ahead = AHEAD
    assert torch.equal(batches.real(0), expected(0))
    assert torch.equal(batches.real(1), expected(1))
    with pytest.raises(UserError, match="the store is gone"):
        batches.real(2)
    batches.close()


def test_images_too_many_for_a_gpu_stay_where_they_are(monkeypatch):
    few = images(channels=3)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * few.images.nbytes - 1, 10**12))
    assert not Batches(few, 4, 7, torch.device("cuda"), WHOLE).resident
