import pytest
import torch
from tiny import configure, images, networks

from dcgan_lib import averaging, latent, training
from dcgan_lib.averaging import WeightAverage


def test_average_is_the_recursion_it_says_in_double_precision(monkeypatch):
    snapshots = []
    original = training.train_step

    def spy(generator, *args, **kwargs):
        values = original(generator, *args, **kwargs)
        snapshots.append({name: value.detach().double().clone() for name, value in generator.named_parameters()})
        return values

    monkeypatch.setattr(training, "train_step", spy)
    half_life = 0.5  # images: the twentieth of the images seen is the shorter one at step 2 only
    config = configure(average_half_life=half_life, learning_rate=0.05)
    history = training.train(*networks(), images(), config, progress=False)
    average = snapshots[0]
    for step, weights in enumerate(snapshots[1:], start=2):
        decay = 0.5 ** (4 / min(half_life, step * 4 / 20))
        for name, value in weights.items():
            average[name] = decay * average[name] + (1 - decay) * value
    averaged = dict(history.generator.named_parameters())
    assert averaged.keys() == average.keys()
    for name, value in averaged.items():
        torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)
        assert name.endswith("4.0.weight") or not torch.equal(value.double(), snapshots[-1][name]), name


@pytest.mark.parametrize("training_mode", [True, False])
def test_statistics_are_those_of_images_of_the_averaged_weights(training_mode):
    generator, _ = networks()
    average = WeightAverage(generator, configure(average_half_life=1e9))
    for step in range(1, 4):
        with torch.no_grad():
            generator.layers[0][0].weight.mul_(1.5)
        average.update(generator, step)
    average.generator.train(training_mode)
    measured = average.measure()
    assert measured is average.generator
    assert all(layer.training == training_mode for layer in measured.modules())
    z = latent.sample_latent(averaging.BATCHES * averaging.BATCH_SIZE, measured.latent_dim, averaging.SEED)
    before, norm = measured.layers[0][0], measured.layers[0][1]
    assert (norm.momentum, norm.eps) == (0.1, 1e-5)  # as it was built: only the measurement counts all batches alike
    parts = [before(part[:, :, None, None]) for part in z.split(averaging.BATCH_SIZE)]
    means = torch.stack([part.mean(dim=(0, 2, 3)) for part in parts]).mean(dim=0)
    variances = torch.stack([part.var(dim=(0, 2, 3)) for part in parts]).mean(dim=0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-6)


def test_statistics_are_measured_once_for_the_same_weights(monkeypatch):
    calls = []
    original = averaging.update_bn
    monkeypatch.setattr(averaging, "update_bn", lambda *args: (calls.append(1), original(*args)))
    generator, _ = networks()
    average = WeightAverage(generator, configure(average_half_life=1e9))
    average.update(generator, 1)
    first = {name: value.clone() for name, value in average.measure().state_dict().items()}
    average.measure()
    assert len(calls) == 1
    average.load_state_dict(average.state_dict())
    second = average.measure().state_dict()
    assert len(calls) == 2
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    average.update(generator, 2)
    average.measure()
    assert len(calls) == 3


def test_long_half_lives_average_over_a_twentieth_of_the_run():
    """The decay of step t is 0.5 ** (20 / t) while the half-life asked for is longer than t / 20 batches."""
    generator, _ = networks()
    average = WeightAverage(generator, configure(average_half_life=1e9))
    expected = None
    for step in range(1, 8):
        with torch.no_grad():
            generator.layers[0][0].weight.fill_(step**2)
        average.update(generator, step)
        decay = 0.5 ** (20 / step)
        expected = step**2 if expected is None else decay * expected + (1 - decay) * step**2
    assert average.generator.layers[0][0].weight.mean().item() == pytest.approx(expected, rel=1e-5)


def test_it_goes_on_from_its_state():
    generator, _ = networks()
    first = WeightAverage(generator, configure(average_half_life=1e9))
    first.update(generator, 1)
    second = WeightAverage(networks(seed=5)[0], configure(average_half_life=1e9))
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        generator.layers[0][0].weight.add_(1)
    for average in (first, second):
        average.update(generator, 2)
    for a, b in zip(first.generator.state_dict().values(), second.generator.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_the_averaged_generator_is_a_copy_without_gradients():
    generator, _ = networks()
    average = averaging.WeightAverage(generator, configure(average_half_life=1.0))
    assert not any(parameter.requires_grad for parameter in average.generator.parameters())
    assert all(parameter.requires_grad for parameter in generator.parameters())
    own = {tensor.data_ptr() for tensor in average.generator.state_dict().values()}
    assert not own & {tensor.data_ptr() for tensor in generator.state_dict().values()}
