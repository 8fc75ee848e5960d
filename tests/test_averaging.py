import pytest
import torch
from tiny import configure, images, networks

from dcgan_lib import averaging, training
from dcgan_lib.averaging import WeightAverage


def test_average_is_the_recursion_it_says_in_double_precision(monkeypatch):
    snapshots = []
    original = training.train_step

    def spy(generator, *args, **kwargs):
        values = original(generator, *args, **kwargs)
        snapshots.append({name: tensor.double().clone() for name, tensor in generator.state_dict().items()})
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
    averaged = history.generator.state_dict()
    assert averaged.keys() == average.keys()
    assert any(name.endswith("running_var") for name in averaged)
    for name, value in averaged.items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), average[name], rtol=1e-5, atol=1e-6, msg=name)
            assert name.endswith("4.0.weight") or not torch.equal(value.double(), snapshots[-1][name]), name
        else:
            assert value == 6  # batches seen are counted, not averaged


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
