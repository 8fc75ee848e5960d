"""The ring, its coverage, and the game that is stepped one network at a time."""

import copy
import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dcgan_lib.errors import UserError
from dcgan_lib.ring import CONFIGS, Ring, RingConfig, RingGAN, record

SMALL = RingConfig(batch_size=16, latent_dim=3, hidden=8, r1_gamma=0.5, seed=3)


def game(**changes):
    return RingGAN(Ring(), replace(SMALL, **changes))


def weights(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def everything(played):
    return [
        *weights(played.generator),
        *weights(played.discriminator),
        *(
            value
            for adam in (played._d_adam, played._g_adam)
            for state in adam.state_dict()["state"].values()
            for value in state.values()
        ),
    ]


def test_centres_lie_at_equal_distances_on_the_circle():
    centres = Ring(modes=8, radius=2.0).centres.double().numpy()
    angles = np.deg2rad(45.0) * np.arange(8)
    np.testing.assert_allclose(centres, 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), atol=1e-6)
    assert centres.shape == (8, 2)


def test_samples_have_the_moments_of_the_mixture():
    ring = Ring(modes=8, radius=2.0, std=0.1)
    points = ring.sample(200_000, seed=1)
    assert points.dtype == torch.float32
    assert points.shape == (200_000, 2)
    distance, nearest = torch.cdist(points, ring.centres).min(dim=1)
    # Each mode has an eighth; four standard errors of the share are 0.003.
    assert_close(torch.bincount(nearest) / len(points), torch.full((8,), 1 / 8), atol=0.003, rtol=0)
    # The distance from the centre is Rayleigh: its mean square is 2 std^2, and P(distance > 3 std) is exp(-9/2).
    assert_close(float(distance.square().mean()), 2 * 0.1**2, rtol=0.01, atol=0)
    assert_close(float((distance > 0.3).float().mean()), math.exp(-4.5), atol=0.001, rtol=0)


def test_samples_depend_on_the_seed_and_a_generator_moves_on():
    ring = Ring()
    assert torch.equal(ring.sample(5, seed=7), ring.sample(5, seed=7))
    assert not torch.equal(ring.sample(5, seed=7), ring.sample(5, seed=8))
    random = torch.Generator().manual_seed(7)
    assert torch.equal(ring.sample(5, random), ring.sample(5, seed=7))
    assert not torch.equal(ring.sample(5, random), ring.sample(5, seed=7))


def test_coverage_of_points_made_by_hand():
    ring = Ring(modes=4, radius=1.0, std=0.1)  # centres at (1, 0), (0, 1), (-1, 0), (0, -1)
    points = torch.tensor([[1.0, 0.0], [1.29, 0.0], [1.31, 0.0], [0.0, 0.75], [0.0, 0.0], [0.0, -1.2], [0.2, -0.9]])
    found = ring.coverage(points)
    # Within 0.3: the first two of mode 0, one of mode 1, none of mode 2, two of mode 3.
    assert found.counts == (2, 1, 0, 2)
    assert found.modes == 3
    assert_close(found.good, 5 / 7)


def test_coverage_at_the_ends():
    ring = Ring()
    assert ring.coverage(torch.zeros(3, 2)) == type(ring.coverage(torch.zeros(1, 2)))(0, 0.0, (0,) * 8)
    assert ring.coverage(ring.centres).counts == (1,) * 8
    assert ring.coverage(torch.tensor([[math.nan, 0.0], [math.inf, 0.0], [2.0, 0.0]])).good == 1 / 3
    real = ring.coverage(ring.sample(50_000))
    assert real.modes == 8
    assert_close(real.good, 1 - math.exp(-4.5), atol=0.002, rtol=0)


def test_a_step_of_one_network_leaves_the_other_as_it_was():
    played = game()
    d, g = weights(played.discriminator), weights(played.generator)
    played.step_discriminator()
    assert same(weights(played.generator), g)
    assert not same(weights(played.discriminator), d)
    assert played.steps == (1, 0)
    d = weights(played.discriminator)
    played.step_generator()
    assert same(weights(played.discriminator), d)
    assert not same(weights(played.generator), g)
    assert played.steps == (1, 1)


def test_step_is_d_then_g():
    first, second = game(), game()
    first.step()
    second.step_discriminator()
    second.step_generator()
    assert same(everything(first), everything(second))


def test_a_step_is_one_step_of_adam_on_the_loss():
    """The first step of Adam moves every weight by the learning rate against the sign of its gradient."""
    played = game(r1_gamma=0.0)
    before = copy.deepcopy(played)
    random = before._random(0, 1)
    real = played.ring.sample(16, random)
    fake = before.generator(torch.randn(16, 3, generator=random)).detach()
    loss = -(
        before.discriminator(real).sigmoid().log().mean() + (1 - before.discriminator(fake).sigmoid()).log().mean()
    )
    loss.backward()
    played.step_discriminator()
    for old, new in zip(before.discriminator.parameters(), played.discriminator.parameters(), strict=True):
        sizeable = old.grad.abs() > 1e-5
        moved = (new - old).detach()[sizeable]
        assert_close(moved, -SMALL.d_learning_rate * old.grad[sizeable].sign(), rtol=2e-3, atol=1e-7)


@pytest.mark.parametrize("step", ["step_discriminator", "step_generator"])
def test_every_step_draws_anew_from_the_seed_and_its_count(step, monkeypatch):
    drawn = []
    latents = RingGAN._latents
    monkeypatch.setattr(RingGAN, "_latents", lambda self, *a: drawn.append(latents(self, *a)) or drawn[-1])
    played, other = game(), game(seed=4)
    for _ in range(3):
        getattr(played, step)()
    getattr(other, step)()
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    played.restore(game().snapshot())
    getattr(played, step)()
    assert torch.equal(drawn[-1], drawn[0])


def test_the_penalty_takes_part_in_the_step_of_d_only():
    with_penalty, without = game(r1_gamma=5.0), game(r1_gamma=0.0)
    for played in (with_penalty, without):
        played.step_generator()
    assert same(everything(with_penalty), everything(without))
    for played in (with_penalty, without):
        for _ in range(200):
            played.step_discriminator()
    slope = {}
    for name, played in (("with", with_penalty), ("without", without)):
        points = played.ring.sample(64, 0).requires_grad_()
        (gradient,) = torch.autograd.grad(played.discriminator(points).sum(), points)
        slope[name] = float(gradient.norm(dim=1).mean())
    assert slope["with"] < 0.5 * slope["without"]


def test_the_same_seed_gives_the_same_game_and_another_one_another():
    first, second, other = game(), game(), game(seed=4)
    assert same(everything(first), everything(second))
    assert not same(weights(first.generator), weights(other.generator))
    for played in (first, second):
        for _ in range(5):
            played.step()
    assert same(everything(first), everything(second))


def test_a_game_leaves_the_global_random_numbers_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    played = game()
    played.step()
    played.frame(points=8, resolution=3, arrows=2)
    assert torch.equal(torch.rand(3), expected)


def test_restore_goes_on_to_the_last_bit_and_may_be_repeated():
    played = game()
    for _ in range(4):
        played.step()
    played.step_discriminator()
    kept = played.snapshot()

    def go_on():
        for _ in range(3):
            played.step_generator()
            played.step()
        return everything(played)

    expected = go_on()
    for _ in range(2):
        played.restore(kept)
        assert played.steps == (5, 4)
        assert same(go_on(), expected)
    fresh = game()
    fresh.restore(kept)
    played = fresh
    assert same(go_on(), expected)


def test_a_snapshot_at_the_beginning_forgets_the_optimizers_memory():
    played = game()
    kept = played.snapshot()
    played.step()
    expected = everything(played)
    played.restore(kept)
    played.step()
    assert same(everything(played), expected)


def test_a_snapshot_of_another_game_is_refused():
    with pytest.raises(UserError, match="snapshot must be of this game; its seed is 9, not"):
        game().restore(game(seed=9).snapshot())
    with pytest.raises(UserError, match="snapshot must be of this game; its modes is 4, not 8"):
        RingGAN().restore(RingGAN(Ring(modes=4)).snapshot())


def test_the_surface_is_d_on_the_grid():
    played = game()
    played.step()
    frame = played.frame(points=8, resolution=5, arrows=0)
    assert frame.surface.shape == (5, 5)
    for row, y in enumerate(np.linspace(-3, 3, 5)):
        for column, x in enumerate(np.linspace(-3, 3, 5)):
            logit = played.discriminator(torch.tensor([[x, y]], dtype=torch.float32)).item()
            assert_close(float(frame.surface[row, column]), 1 / (1 + math.exp(-logit)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("loss", ["non_saturating", "minimax", "least_squares"])
def test_arrows_are_the_negative_gradient_of_one_points_loss(loss):
    """Against central differences of the loss, written out, in float64."""
    played = game(loss=loss)
    for _ in range(20):
        played.step()
    frame = played.frame(points=16, resolution=2, arrows=6)
    assert_close(frame.arrows[:, :2], frame.fake[:6])
    network = copy.deepcopy(played.discriminator).double()
    written = {
        "non_saturating": lambda logit: math.log1p(math.exp(-logit)),
        "minimax": lambda logit: -math.log1p(math.exp(logit)),
        "least_squares": lambda logit: 0.5 * (logit - 1) ** 2,
    }[loss]

    def value(point):
        with torch.no_grad():
            return written(float(network(torch.from_numpy(point)[None])))

    for arrow in frame.arrows.double().numpy():
        for axis in (0, 1):
            shift = 1e-6 * np.eye(2)[axis]
            slope = (value(arrow[:2] + shift) - value(arrow[:2] - shift)) / 2e-6
            np.testing.assert_allclose(arrow[2 + axis], -slope, rtol=1e-3, atol=1e-5)


def test_a_frame_holds_what_it_says():
    played = game(r1_gamma=0.0)
    played.step()
    frame = played.frame(points=64, resolution=4, arrows=3)
    again = played.frame(points=64, resolution=4, arrows=3)
    assert (frame.d_steps, frame.g_steps) == (1, 1)
    assert torch.equal(frame.fake, again.fake)
    assert frame.coverage == played.ring.coverage(frame.fake)
    real = played.discriminator(frame.real).detach().double().numpy()
    fake = played.discriminator(frame.fake).detach().double().numpy()
    assert_close(frame.d_loss, float(np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()), rtol=1e-5, atol=0)
    assert_close(frame.g_loss, float(np.log1p(np.exp(-fake)).mean()), rtol=1e-5, atol=0)
    played.step()
    later = played.frame(points=64, resolution=4, arrows=3)
    assert torch.equal(later.real, frame.real)
    assert (len(frame.arrows), len(played.frame(points=4, resolution=2).arrows)) == (3, 4)
    assert not torch.equal(later.fake, frame.fake)
    with pytest.raises(FrozenInstanceError):
        frame.d_steps = 4


def test_record_keeps_the_first_every_and_the_last():
    played = game()
    frames = record(played, steps=7, every=3, points=8, resolution=2)
    assert [frame.g_steps for frame in frames] == [0, 3, 6, 7]
    assert [frame.g_steps for frame in record(played, steps=2, every=2, points=8, resolution=2)] == [7, 9]
    assert torch.equal(frames[0].fake, game().frame(points=8, resolution=2, arrows=0).fake)


def test_the_repair_is_one_change():
    changed = replace(CONFIGS["repaired"], r1_gamma=0.0)
    assert changed == CONFIGS["collapsing"]
    assert CONFIGS["repaired"].r1_gamma > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "modes", "good"), [("healthy", 8, 0.7), ("collapsing", None, None), ("repaired", 8, 0.5)]
)
def test_the_named_runs_behave_as_they_are_called(name, modes, good):
    played = RingGAN(config=CONFIGS[name])
    for _ in range(2000):
        played.step()
    found = played.ring.coverage(played.sample(2000, seed=1))
    if name == "collapsing":
        assert 0 < found.modes <= 5
    else:
        assert found.modes == modes
        assert good < found.good <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Ring(modes=0), "modes .* got 0"),
        (lambda: Ring(modes=2.5), "modes .* got 2.5"),
        (lambda: Ring(radius=0.0), "radius .* got 0.0"),
        (lambda: Ring(std=-1.0), "std .* got -1.0"),
        (lambda: Ring(std=math.nan), "std .* got nan"),
        (lambda: Ring().sample(0), "n .* got 0"),
        (lambda: Ring().coverage(torch.zeros(0, 2)), r"points .* got \(0, 2\)"),
        (lambda: Ring().coverage(torch.zeros(4, 3)), r"points .* got \(4, 3\)"),
        (lambda: RingConfig(loss="bce"), "loss .* got 'bce'"),
        (lambda: RingConfig(d_learning_rate=0.0), "d_learning_rate .* got 0.0"),
        (lambda: RingConfig(g_learning_rate=math.inf), "g_learning_rate .* got inf"),
        (lambda: RingConfig(beta1=1.0), "beta1 .* got 1.0"),
        (lambda: RingConfig(beta2=-0.1), "beta2 .* got -0.1"),
        (lambda: RingConfig(r1_gamma=-1.0), "r1_gamma .* got -1.0"),
        (lambda: RingConfig(batch_size=0), "batch_size .* got 0"),
        (lambda: RingConfig(latent_dim=0), "latent_dim .* got 0"),
        (lambda: RingConfig(hidden=True), "hidden .* got True"),
        (lambda: RingConfig(seed=-1), "seed .* got -1"),
        (lambda: game().frame(points=0), "points .* got 0"),
        (lambda: game().frame(resolution=1), "resolution .* got 1"),
        (lambda: game().frame(arrows=-1), "arrows .* got -1"),
        (lambda: game().sample(0), "n .* got 0"),
        (lambda: game().surface(0), "resolution .* got 0"),
        (lambda: game().restore(3), "snapshot must be a Snapshot, got 3"),
        (lambda: game().sample(2, "a"), "seed .* got 'a'"),
        (lambda: Ring().sample(2, 1.5), "seed .* got 1.5"),
        (lambda: Ring(std="a"), "std .* got 'a'"),
        (lambda: Ring().coverage([[1.0, 2.0]]), "points must be a Tensor, got .*1.0, 2.0"),
        (lambda: RingConfig(loss=["hinge"]), "loss .* got .'hinge'."),
        (lambda: RingConfig(beta1="a"), "beta1 .* got 'a'"),
        (lambda: RingConfig(r1_gamma=None), "r1_gamma .* got None"),
        (lambda: RingGAN("healthy"), "ring must be a Ring, got 'healthy'"),
        (lambda: RingGAN(config="healthy"), "config must be a RingConfig, got 'healthy'"),
        (lambda: record("game", 1, 1), "game must be a RingGAN, got 'game'"),
        (lambda: record(game(), steps=0, every=1), "steps .* got 0"),
        (lambda: record(game(), steps=1, every=0), "every .* got 0"),
    ],
)
def test_mistakes_are_named_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
