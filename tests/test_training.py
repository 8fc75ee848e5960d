import copy
import json
import os
import signal
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import EVERY_OPTION, assert_same, configure, deterministic, images, networks
from torch.nn import functional as F

from dcgan_lib import losses, seeds, training
from dcgan_lib.checkpoint import load_config, load_generator, load_state, load_weights
from dcgan_lib.data import to_model_range
from dcgan_lib.device import autocast, get_device
from dcgan_lib.errors import UserError
from dcgan_lib.images import make_grid
from dcgan_lib.interrupt import graceful_stop
from dcgan_lib.latent import generate, sample_latent
from dcgan_lib.run_folder import LOCK_NAME
from dcgan_lib.seeds import batch_indices
from dcgan_lib.training import TrainingConfig, train, train_step


def run(config, folder=None, seed=0, dataset=None, **options):
    batch_norm = options.pop("batch_norm", True)
    dataset = dataset or images()
    return train(*networks(dataset.channels, seed, batch_norm), dataset, config, folder, progress=False, **options)


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, EVERY_OPTION], ids=["plain", "every option"])
@pytest.mark.parametrize("batch_norm", [True, 0.5, False])
def test_stopping_half_way_and_resuming_changes_no_bit(tmp_path, monkeypatch, options, batch_norm):
    inputs = []
    original = training.train_step

    def spy(*args, **kwargs):
        inputs.append((args[4].clone(), args[5].clone()))  # real images and z
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", spy)
    with deterministic():
        whole = run(configure(**options), tmp_path / "whole", batch_norm=batch_norm)
        torch.manual_seed(99)  # a resumed process has another global random state
        run(configure(steps=3, **options), tmp_path / "halves", batch_norm=batch_norm)
        # Other weights than those of the first half: everything has to come from the folder.
        resumed = run(configure(**options), tmp_path / "halves", seed=5, batch_norm=batch_norm, resume=True)
    assert whole.step == resumed.step == 6
    assert_same(inputs[:6], inputs[6:])
    assert_same(load_state(tmp_path / "whole"), load_state(tmp_path / "halves"))
    names = ["generator", "discriminator"] + ["average"] * ("average_half_life" in options)
    for name in names:
        states = [
            load_weights(tmp_path / folder / "checkpoint.safetensors", name).state_dict()
            for folder in ("whole", "halves")
        ]
        assert_same(*states)
    assert_same(whole.records, resumed.records)
    for step in (3, 6):
        grids = [(tmp_path / folder / f"samples/step-{step:06d}.png").read_bytes() for folder in ("whole", "halves")]
        assert grids[0] == grids[1]


def test_state_holds_both_networks_and_optimizers_and_the_average(tmp_path):
    run(configure(**EVERY_OPTION), tmp_path)
    state = load_state(tmp_path)
    assert {"generator", "discriminator", "d_optimizer", "g_optimizer", "average"} <= state.keys()
    assert state["step"] == 6
    for name in ("d_optimizer", "g_optimizer"):
        assert all(moments["step"] == 6 for moments in state[name]["state"].values())
        (group,) = state[name]["param_groups"]
        assert (group["lr"], *group["betas"]) == (2e-4, 0.5, 0.999)  # section 4 of the paper


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path):
    run(configure(), tmp_path)
    before = load_state(tmp_path)
    assert run(configure(), tmp_path, seed=3, resume=True).step == 6
    assert_same(load_state(tmp_path), before)


def test_a_run_can_be_resumed_before_its_first_step(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        run(configure(), tmp_path)
    monkeypatch.undo()
    assert load_state(tmp_path)["step"] == 0
    resumed, whole = run(configure(), tmp_path, seed=5, resume=True), run(configure())
    assert_same(resumed.generator.state_dict(), whole.generator.state_dict())


def test_lines_logged_after_the_last_checkpoint_are_not_kept_twice(tmp_path):
    run(configure(steps=3), tmp_path)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4}\n{"st')  # a killed process got one step further, and half a line
    run(configure(), tmp_path, resume=True)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, "--seed is 0 in this run and cannot become 1; leave it out to resume"),
        ({"loss": "hinge"}, "--loss is non_saturating in this run and cannot become hinge"),
        ({"average_half_life": 9.0}, "--average-half-life is 0.0"),
        ({"batch_size": 5}, "--batch-size is 4"),
    ],
)
def test_an_option_that_would_change_the_run_is_refused_on_resuming(tmp_path, change, message):
    run(configure(steps=1), tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    with pytest.raises(UserError, match=message):
        run(configure(**change), tmp_path, resume=True)
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_other_networks_and_data_are_refused_on_resuming(tmp_path):
    run(configure(steps=1), tmp_path)
    with pytest.raises(UserError, match="--batch-norm is True in this run and cannot become False"):
        run(configure(), tmp_path, resume=True, batch_norm=False)
    with pytest.raises(UserError, match="--data is tiny in this run and cannot become other"):
        run(configure(), tmp_path, resume=True, data_options={"name": "other"})
    with pytest.raises(UserError, match="--channels is 1 in this run and cannot become 3"):
        run(configure(), tmp_path, resume=True, dataset=images(channels=3))


def test_a_folder_with_a_run_is_never_overwritten(tmp_path):
    run(configure(steps=1), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="already holds a run; add --resume to continue it, or choose another --output"):
        run(configure(steps=1), tmp_path)
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(UserError, match="already holds a run"):  # its weights would still be lost
        run(configure(steps=1), tmp_path)
    assert {path: path.read_bytes() for path in before if path.exists()}.items() <= before.items()


def test_a_foreign_config_is_never_overwritten(tmp_path):
    (tmp_path / "config.json").write_text('{"my": "settings"}')
    with pytest.raises(UserError, match=r"config.json is damaged"):
        run(configure(steps=1), tmp_path)
    assert (tmp_path / "config.json").read_text() == '{"my": "settings"}'


def test_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match="holds no run; train one with: dcgan train --output"):
        run(configure(), tmp_path / "nowhere", resume=True)
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(UserError, match="resume needs the folder of the run"):
        run(configure(), resume=True)


# --- one step ---------------------------------------------------------------------------------------------------------


def sgd_pair(generator, discriminator, rate=0.1):
    """Plain gradient descent: a step is the gradient times the rate, so that steps show gradients."""
    return torch.optim.SGD(discriminator.parameters(), rate), torch.optim.SGD(generator.parameters(), rate)


def batch(seed=3, count=5):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(count, 1, 32, 32, generator=random) * 2 - 1, torch.randn(count, 6, generator=random)


def update(network, loss, rate=0.1):
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.sub_(rate * gradient)


@pytest.mark.parametrize("more_steps", [0, 2])
def test_a_step_is_algorithm_1_written_out(more_steps):
    """D ascends log D(x) + log(1 - D(G(z))), then G descends -log D(G(z)) against the new D, perhaps more than once."""
    generator, discriminator = networks()
    plain_g, plain_d = copy.deepcopy(generator).double(), copy.deepcopy(discriminator).double()
    optimizers = sgd_pair(generator, discriminator)
    for seed in (3, 4):
        real, z = batch(seed)
        more = torch.randn(more_steps, *z.shape, generator=torch.Generator().manual_seed(seed))
        values = train_step(
            generator, discriminator, *optimizers, real, torch.cat([z, more.flatten(0, 1)]), configure()
        )

        fake = plain_g(z.double())
        real_p, fake_p = plain_d(real.double()).sigmoid(), plain_d(fake.detach()).sigmoid()
        d_loss = -real_p.log().mean() - (1 - fake_p).log().mean()
        update(plain_d, d_loss)
        g_loss = -plain_d(fake).sigmoid().log().mean()
        update(plain_g, g_loss)
        for others in more:
            g_loss = -plain_d(plain_g(others.double())).sigmoid().log().mean()
            update(plain_g, g_loss)

        expected = {"d_loss": d_loss, "g_loss": g_loss, "d_real": real_p.mean(), "d_fake": fake_p.mean()}
        assert values.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(values[name].double(), value.detach(), rtol=1e-4, atol=1e-6)
            assert not values[name].requires_grad
    for ours, plain in ((generator, plain_g), (discriminator, plain_d)):
        for (name, mine), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
            torch.testing.assert_close(mine.double(), other.double(), rtol=1e-4, atol=1e-5, msg=name)


def test_the_penalty_and_the_smoothed_label_reach_the_discriminator():
    generator, discriminator = networks(batch_norm=False)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(10)  # D's slopes at its initial weights are too small to show
    plain = copy.deepcopy(discriminator).double()
    real, z = batch()
    fake = copy.deepcopy(generator).double()(z.double()).detach()
    config = configure(r1_gamma=2.0, r1_every=3, label_smoothing=0.1)
    values = train_step(generator, discriminator, *sgd_pair(generator, discriminator), real, z, config)

    x = real.double().requires_grad_()
    p = plain(x).sigmoid()
    d_loss = -(0.9 * p.log() + 0.1 * (1 - p).log()).mean() - (1 - plain(fake).sigmoid()).log().mean()
    (slope,) = torch.autograd.grad(plain(x).sum(), x, create_graph=True)
    penalty = 2.0 / 2 * 3 * slope.square().sum((1, 2, 3)).mean()
    assert penalty > 0.01 * d_loss
    torch.testing.assert_close(values["d_loss"].double(), d_loss.detach(), rtol=1e-4, atol=1e-6)  # without the penalty
    update(plain, d_loss + penalty)
    for mine, other in zip(discriminator.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5)


def test_steps_between_penalties_have_none():
    real, z = batch()
    weights = []
    for options, penalise in (({}, True), ({"r1_gamma": 1e3}, False), ({"r1_gamma": 1e3}, True)):
        generator, discriminator = networks(batch_norm=False)
        optimizers = sgd_pair(generator, discriminator)
        train_step(generator, discriminator, *optimizers, real, z, configure(**options), penalise=penalise)
        weights.append(discriminator.layers[0][0].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_r1_every_counts_the_steps_of_the_run(monkeypatch):
    asked = []
    original = training.train_step

    def spy(*args, penalise, **kwargs):
        asked.append(penalise)
        return original(*args, penalise=penalise, **kwargs)

    monkeypatch.setattr(training, "train_step", spy)
    run(configure(r1_gamma=1.0, r1_every=3))
    assert asked == [True, False, False, True, False, False]


def test_each_step_of_the_generator_has_latent_vectors_of_its_own(monkeypatch):
    seen = []
    original = training.train_step

    def spy(generator, discriminator, d_optimizer, g_optimizer, real, z, *args, **kwargs):
        seen.append((len(real), z))
        return original(generator, discriminator, d_optimizer, g_optimizer, real, z, *args, **kwargs)

    monkeypatch.setattr(training, "train_step", spy)
    run(configure(steps=2))
    run(configure(steps=2, generator_steps=3))
    (count, z), *_ = seen
    assert [(real, len(z)) for real, z in seen] == [(count, count)] * 2 + [(count, 3 * count)] * 2
    assert torch.equal(seen[2][1][:count], z)  # D and the first step of G see what they would see without the others
    assert len(torch.cat([z for _, z in seen[2:]]).unique(dim=0)) == 6 * count


def test_the_discriminator_gets_no_gradient_from_the_generators_step():
    generator, discriminator = networks()
    plain_g, plain_d = copy.deepcopy(generator), copy.deepcopy(discriminator)
    real, z = batch()
    train_step(generator, discriminator, *sgd_pair(generator, discriminator), real, z, configure())
    fake = plain_g(z).detach()
    ones, zeros = torch.ones(5), torch.zeros(5)
    loss = F.binary_cross_entropy_with_logits(plain_d(real), ones)
    loss = loss + F.binary_cross_entropy_with_logits(plain_d(fake), zeros)
    expected = torch.autograd.grad(loss, list(plain_d.parameters()))
    for parameter, gradient in zip(discriminator.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
        assert parameter.requires_grad
    assert all(parameter.grad is not None for parameter in generator.parameters())


def test_a_step_that_fails_leaves_the_discriminator_trainable_and_never_marks_the_callers_images():
    generator, discriminator = networks(batch_norm=False)
    real, z = batch()
    calls = []

    def fail_the_third_time(*_):
        calls.append(len(calls))
        if len(calls) == 3:
            raise KeyboardInterrupt

    discriminator.register_forward_pre_hook(fail_the_third_time)
    with pytest.raises(KeyboardInterrupt):
        train_step(generator, discriminator, *sgd_pair(generator, discriminator), real, z, configure(r1_gamma=1.0))
    assert all(parameter.requires_grad for parameter in discriminator.parameters())
    assert not real.requires_grad


def test_noise_is_added_afresh_to_everything_the_discriminator_sees():
    generator, discriminator = networks()
    seen = []
    discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    real, z = batch(count=64)
    clean = copy.deepcopy(generator)(z).detach()
    optimizers = sgd_pair(generator, discriminator)
    config = configure(instance_noise=0.3)
    train_step(generator, discriminator, *optimizers, real, z, config, torch.Generator().manual_seed(1))
    noise = [seen[0] - real, seen[1] - clean, seen[2] - clean]
    for part in noise:
        count = part.numel()
        assert abs(float(part.mean())) < 5 * 0.3 / count**0.5
        assert abs(float(part.std()) - 0.3) < 5 * 0.3 / (2 * count) ** 0.5
    for a, b in ((0, 1), (0, 2), (1, 2)):
        correlation = float((noise[a] * noise[b]).mean()) / 0.09
        assert abs(correlation) < 5 / noise[a].numel() ** 0.5


@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_trains(loss):
    history = run(configure(steps=2, loss=loss))
    assert np.isfinite(history.column("d_loss")).all()


# --- the order of the images ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 25), st.integers(1, 40), st.integers(0, 2**63 - 1))
def test_every_pass_shows_every_image_once(count, size, seed):
    steps = -(-3 * count // size)
    order = torch.cat([batch_indices(count, size, step, seed) for step in range(steps)])
    assert order.dtype == torch.int64
    for first in range(0, 3 * count, count):  # passes begin anywhere in a batch
        assert sorted(order[first : first + count].tolist()) == list(range(count))
    backwards = [batch_indices(count, size, step, seed) for step in reversed(range(steps))]
    assert torch.equal(torch.cat(backwards[::-1]), order)


def test_order_differs_between_passes_and_seeds_and_ignores_the_global_state():
    torch.manual_seed(0)
    first = batch_indices(100, 100, 0, seed=7)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    seeds._epoch_order.cache_clear()
    assert torch.equal(batch_indices(100, 100, 0, seed=7), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(batch_indices(100, 100, 1, seed=7), first)
    assert not torch.equal(batch_indices(100, 100, 0, seed=8), first)


def test_training_shows_the_images_of_the_order(monkeypatch):
    shown = []
    original = training.train_step

    def spy(*args, **kwargs):
        shown.append(args[4].clone())
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", spy)
    dataset = images()
    run(configure(steps=3), dataset=dataset)
    for step, real in enumerate(shown):
        assert torch.equal(real, to_model_range(dataset.images[batch_indices(10, 4, step, 0)]))


# --- what a run writes ------------------------------------------------------------------------------------------------


def test_contents_of_a_run_folder(tmp_path):
    folder = tmp_path / "new folder" / "ünïcode run"
    history = run(configure(log_every=2), folder, data_options={"limit": 10})
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    grids = ["samples/step-000003.png", "samples/step-000006.png"]
    files = [name for name in files if name != LOCK_NAME]
    assert files == ["checkpoint.safetensors", "config.json", "metrics.jsonl", *grids, "state.safetensors"]

    config = load_config(folder)
    assert config["data"] == {"name": "tiny", "limit": 10}
    sizes = {"image_size": 32, "channels": 1, "latent_dim": 6, "width": 4}
    assert config["generator"] == sizes | {"upsampling": "transposed"}
    switches = {"batch_norm": True, "minibatch_std": False}
    assert config["discriminator"] == {"image_size": 32, "channels": 1, "width": 4} | switches
    assert TrainingConfig(**config["training"]) == configure(log_every=2)

    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    keys = ["step", "images", "seconds", "images_per_second", "d_loss", "g_loss", "d_real", "d_fake"]
    assert [list(line) for line in lines] == [keys] * 4
    # every second step, and one at the checkpoint, which is only written after a look at the losses
    assert [(line["step"], line["images"]) for line in lines] == [(2, 8), (3, 12), (4, 16), (6, 24)]
    assert all(0 < line[name] < 1 for line in lines for name in ("d_real", "d_fake"))
    assert lines == history.records
    assert history.column("step") == [2, 3, 4, 6]


def test_records_average_over_the_steps_since_the_line_before():
    each, pairs = run(configure(log_every=1)).records, run(configure(log_every=2)).records
    for name in ("d_loss", "g_loss", "d_real", "d_fake"):
        means = np.reshape([record[name] for record in each], (3, 2)).mean(1)
        np.testing.assert_allclose([record[name] for record in pairs], means, atol=2e-6)


@pytest.mark.parametrize("half_life", [0.0, 0.5])
def test_grids_show_the_same_latent_vectors_at_every_step(tmp_path, half_life):
    history = run(configure(average_half_life=half_life, sample_every=2, learning_rate=0.01), tmp_path)
    z = sample_latent(64, 6, seed=0)
    expected = make_grid(generate(history.generator, z))[0].numpy()
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "samples/step-000006.png")), expected)
    earlier = np.asarray(Image.open(tmp_path / "samples/step-000002.png"))
    assert earlier.shape == expected.shape == (8 * 34 - 2, 8 * 34 - 2)
    assert (earlier != expected).any()
    # and the released weights are those that drew the grid
    assert_same(load_generator(tmp_path).state_dict(), history.generator.cpu().state_dict())


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    history = run(configure())
    assert len(history.records) == 6
    assert list(tmp_path.iterdir()) == []
    assert not history.generator.training


def rates_of(monkeypatch, config, **options):
    """The learning rates, of D and of G, at every step of a run."""
    rates = []
    step = training.train_step

    def spy(generator, discriminator, d_optimizer, g_optimizer, *args, **kwargs):
        rates.append([group["lr"] for each in (d_optimizer, g_optimizer) for group in each.param_groups])
        return step(generator, discriminator, d_optimizer, g_optimizer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_step", spy)
        run(config, **options)
    assert all(d_rate == g_rate for d_rate, g_rate in rates)
    return [d_rate for d_rate, _ in rates]


def test_the_rate_falls_in_the_second_half_of_a_run(monkeypatch, tmp_path):
    config = configure(steps=8, final_rate=0.2, learning_rate=0.01)
    expected = pytest.approx([0.01, 0.01, 0.01, 0.01, 0.01, 0.008, 0.006, 0.004])
    assert rates_of(monkeypatch, config) == expected
    # A resumed run has the rates that it would have had, and an optimizer of the first half falls with it.
    first = rates_of(monkeypatch, replace(config, steps=4), folder=tmp_path)
    assert first == pytest.approx([0.01, 0.01, 0.01, 0.006])
    assert rates_of(monkeypatch, config, folder=tmp_path, resume=True) == pytest.approx([0.01, 0.008, 0.006, 0.004])
    assert rates_of(monkeypatch, configure(steps=4)) == [configure().learning_rate] * 4


def test_the_rate_falls_with_the_minutes_where_they_bound_a_run(monkeypatch):
    now = 0.0
    step = training.train_step

    def slow_step(*args, **kwargs):
        nonlocal now
        now += 12
        return step(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", slow_step)
    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now))
    config = configure(steps=None, minutes=1.0, final_rate=0.0, learning_rate=0.01)
    assert rates_of(monkeypatch, config) == pytest.approx([0.01, 0.01, 0.01, 0.008, 0.004])
    # Both bounds: whichever ends the run first.
    assert rates_of(monkeypatch, replace(config, steps=3)) == pytest.approx([0.01, 0.01, 0.02 / 3])


def test_a_run_can_be_measured_at_its_checkpoints(tmp_path):
    seen = []

    def look(history):
        stored = load_state(tmp_path)
        assert stored["step"] == history.step
        seen.append((history.step, len(history.records), history.generator.training))

    history = run(configure(steps=5, checkpoint_every=2), tmp_path, on_checkpoint=look)
    assert [step for step, *_ in seen] == [0, 2, 4, 5]
    assert [records for _, records, _ in seen][-1] == len(history.records)
    run(configure(steps=3), on_checkpoint=look)  # without a folder there is none
    assert len(seen) == 4


def test_minutes_bound_a_run_and_default_steps_do_not_apply(monkeypatch):
    now = 0.0

    def slow_step(*arguments, **options):
        nonlocal now
        now += 10  # seconds
        return train_step(*arguments, **options)

    monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr(training, "train_step", slow_step)
    history = run(configure(steps=None, minutes=1.0))
    assert history.step == 6
    assert history.records[-1]["seconds"] == 60
    assert run(configure(steps=4, minutes=1.0)).step == 4


def test_batches_may_be_larger_than_the_data_set():
    assert run(configure(batch_size=23, steps=2), dataset=images(count=3)).step == 2
    assert run(configure(batch_size=1, steps=2), dataset=images(count=1)).step == 2


def test_sizes_and_channels_must_agree():
    generator, discriminator = networks(channels=3)
    with pytest.raises(UserError, match=r"the generator makes 3 x 32 x 32.*the data set tiny holds 1 x 32 x 32"):
        train(generator, discriminator, images(), configure(), progress=False)


# --- what can go wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_folder", [True, False])
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch, with_folder):
    original, calls = training.train_step, []

    def spoilt(*args, **kwargs):
        calls.append(None)
        values = original(*args, **kwargs)
        return values | {"d_loss": values["d_loss"] * (float("nan") if len(calls) == 5 else 1)}

    monkeypatch.setattr(training, "train_step", spoilt)
    folder = tmp_path / "run" if with_folder else None
    with pytest.raises(UserError, match=r"the loss is not finite at step 5; try a lower learning rate") as caught:
        run(configure(steps=9), folder)
    assert "\n" not in str(caught.value)
    assert len(calls) == 5
    if with_folder:
        assert f"the last good checkpoint is still in {folder}" in str(caught.value)
        assert load_state(folder)["step"] == 3
        monkeypatch.undo()
        assert run(configure(), folder, seed=4, resume=True).step == 6
    else:
        assert "checkpoint" not in str(caught.value)


def test_a_run_that_really_diverges_keeps_finite_weights(tmp_path):
    generator, discriminator = networks(batch_norm=False)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.mul_(1e12)  # logits of 1e38 and their squares overflow
    config = configure(loss="least_squares", log_every=2)
    with pytest.raises(UserError, match="the loss is not finite at step 2"):
        train(generator, discriminator, images(), config, tmp_path, progress=False)
    assert not all(parameter.isfinite().all() for parameter in generator.parameters())
    assert all(parameter.isfinite().all() for parameter in load_generator(tmp_path).parameters())
    assert load_state(tmp_path)["step"] == 0


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch, call):
    run(configure(steps=3), tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("state.safetensors", "checkpoint.safetensors")}
    original, failing = getattr(os, call), []

    def full(*args, **kwargs):
        if failing:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    saved = training._Run.save

    def save(self):
        failing.append(None)
        saved(self)

    monkeypatch.setattr(os, call, full)
    monkeypatch.setattr(training._Run, "save", save)
    with pytest.raises(UserError, match=r"cannot write .*state.safetensors: No space left on device; any ear") as error:
        run(configure(), tmp_path, resume=True)
    assert "\n" not in str(error.value)
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not [path for path in tmp_path.glob(".*") if path.name != LOCK_NAME]  # no temporary file stays behind
    assert run(configure(), tmp_path, resume=True).step == 6


def test_a_size_limit_of_the_system_is_one_clear_line(tmp_path):
    """A true failing write(2), not a replaced function."""
    resource = pytest.importorskip("resource")
    run(configure(steps=3), tmp_path)
    before = (tmp_path / "state.safetensors").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write .*state.safetensors: File too large"):
            run(configure(), tmp_path, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "state.safetensors").read_bytes() == before


def test_a_metrics_file_that_cannot_be_written_is_one_clear_line(tmp_path, monkeypatch):
    original = training._Run._advance

    def spoil(self):
        original(self)
        (tmp_path / "metrics.jsonl").unlink()
        (tmp_path / "metrics.jsonl").mkdir()

    monkeypatch.setattr(training._Run, "_advance", spoil)
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: Is a directory; the last"):
        run(configure(), tmp_path)


@pytest.mark.parametrize("place", ["file/run", "/proc/nowhere/run"])
def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write "):
        run(configure(steps=1), tmp_path / place)


# --- stopping ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_at_hand(tmp_path, monkeypatch, number):
    original, before = training.train_step, signal.getsignal(number)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(None)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    monkeypatch.setattr(training, "train_step", interrupted)
    history = run(configure(), tmp_path)
    assert (history.step, history.interrupted) == (2, True)
    assert load_state(tmp_path)["step"] == 2
    assert signal.getsignal(number) is before
    monkeypatch.undo()
    history = run(configure(), tmp_path, seed=3, resume=True)
    assert (history.step, history.interrupted) == (6, False)
    assert_same(history.generator.state_dict(), run(configure()).generator.state_dict())


def test_a_second_ctrl_c_stops_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
    with graceful_stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_training_in_another_thread_needs_no_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(configure(steps=2)).step))
    thread.start()
    thread.join()
    assert results == [2]


# --- configuration and device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, (0, -1, 1.5, 10**13)) for name in ("steps", "r1_every", "log_every", "sample_every")),
        ("checkpoint_every", (0, -5)),
        ("batch_size", (0, -1, 65_537, 2.5)),
        ("generator_steps", (0, 101, 1.5)),
        ("minutes", (0, -1, float("nan"), float("inf"), 1e9)),
        ("learning_rate", (0, -1e-3, 1.1, float("nan"), float("inf"))),
        ("final_rate", (-0.1, 1.1, float("nan"))),
        ("beta1", (-0.1, 1.0, float("nan"))),
        ("beta2", (-0.1, 1.0, float("nan"))),
        ("label_smoothing", (-0.1, 0.6, float("nan"))),
        ("instance_noise", (-0.1, 11, float("nan"), float("inf"))),
        ("translation", (-0.1, 0.6, float("nan"))),
        ("mirror", (1, "yes", None)),
        ("r1_gamma", (-1, 1e7, float("nan"), float("inf"))),
        ("average_half_life", (-1, float("nan"), float("inf"))),
        ("seed", (-1, 2**63, 0.5)),
        ("loss", ("nonsense",)),
        ("precision", ("float16",)),
    ],
)
def test_absurd_options_are_refused_before_anything_is_computed(name, values):
    for value in values:
        with pytest.raises(UserError, match=f"^{name}=") as caught:
            TrainingConfig(**{name: value})
        assert "\n" not in str(caught.value)


def test_smoothing_needs_a_loss_with_labels():
    with pytest.raises(UserError, match="label_smoothing has no meaning for the loss hinge"):
        TrainingConfig(loss="hinge", label_smoothing=0.1)


def test_defaults_are_the_papers():
    config = TrainingConfig()
    assert (config.batch_size, config.learning_rate, config.beta1, config.beta2) == (128, 2e-4, 0.5, 0.999)
    assert (config.loss, config.label_smoothing, config.instance_noise) == ("non_saturating", 0.0, 0.0)
    assert (config.r1_gamma, config.average_half_life) == (0.0, 0.0)


@pytest.mark.parametrize("name", ["cpu:x", "gpu", "", "cuda:-1", "meta", "mps:7", "xla"])
def test_unknown_and_useless_devices_are_refused(name):
    with pytest.raises(UserError, match="choose auto") as caught:
        get_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_best_device_is_chosen(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert get_device().type == expected
    assert get_device("cpu").type == "cpu"
    if cuda:
        assert get_device("cuda:0").index == 0
        with pytest.raises(UserError, match="'cuda:1' is not available"):
            get_device("cuda:1")
    else:
        with pytest.raises(UserError, match="device='cuda' is not available here; choose auto or cpu"):
            get_device("cuda")


def test_bfloat16_is_used_where_it_is_asked_for_and_losses_stay_in_float32(monkeypatch):
    with autocast(torch.device("cpu"), "bfloat16"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    with autocast(torch.device("cpu"), "float32"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    for has_it, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda has_it=has_it: has_it)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # which is False
        with autocast(torch.device("cpu"), "auto"):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    half, full = run(configure(precision="bfloat16")), run(configure())
    assert all(parameter.dtype == torch.float32 for parameter in half.generator.parameters())
    assert half.column("d_loss") != full.column("d_loss")
    np.testing.assert_allclose(half.column("d_loss"), full.column("d_loss"), rtol=0.1)


# --- on a GPU ---------------------------------------------------------------------------------------------------------

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


@pytest.mark.gpu
@needs_gpu
def test_training_on_a_gpu_resumes_and_agrees_with_the_cpu(tmp_path):
    options = {
        "steps": 3,
        "precision": "float32",
        **EVERY_OPTION,
        "instance_noise": 0.0,
        "translation": 0.0,
        "mirror": False,
    }
    history = run(configure(device="cuda", **options), tmp_path)
    assert next(history.generator.parameters()).device.type == "cuda"
    # z of the steps come from the device's own generator, so the runs differ; D's first answers to real images do not
    assert history.records[0]["d_real"] == pytest.approx(run(configure(**options)).records[0]["d_real"], abs=1e-3)
    assert run(configure(device="cpu", **options | {"steps": 5}), tmp_path, resume=True).step == 5


@pytest.mark.gpu
@needs_gpu
def test_a_few_steps_on_a_gpu_in_automatic_precision(tmp_path):
    history = run(configure(steps=3, device="cuda", precision="auto", **EVERY_OPTION), tmp_path)
    assert np.isfinite(history.column("d_loss")).all()
    assert load_state(tmp_path)["step"] == 3


@pytest.mark.gpu
@needs_gpu
def test_the_same_z_gives_the_same_picture_on_cpu_and_gpu():
    generator, _ = networks(channels=3)
    with torch.no_grad():
        for block in generator.layers:
            block[0].weight.mul_(20)  # pictures of full contrast
    z = sample_latent(8, 6, seed=1)
    on_cpu = generate(generator, z)
    torch.testing.assert_close(generate(generator.cuda(), z), on_cpu, rtol=0, atol=5e-3)
