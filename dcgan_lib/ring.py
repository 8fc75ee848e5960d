"""Eight Gaussians on a ring and a small GAN that learns them, stepped one network at a time and rewound exactly.

The ring is the usual first test for missing modes (Metz et al. 2017): in two dimensions everything can be
drawn, the data's modes are known, and a run takes seconds. :class:`RingGAN` is the game, :class:`Frame` what there is
to see of it at one moment, and :data:`CONFIGS` holds three runs that behave alike from every seed that was tried.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dcgan_lib.arguments import as_generator, require_above_zero, require_between, require_is, require_whole
from dcgan_lib.errors import UserError
from dcgan_lib.losses import LOSSES, r1
from dcgan_lib.seeds import mixed_seed

GOOD_RADIUS = 3.0
"""A point is good within this many standard deviations of a centre (Srivastava et al. 2017)."""

_INIT, _D_STEP, _G_STEP, _FRAME = range(4)  # streams of random numbers, so that no two uses share one


@dataclass(frozen=True)
class Coverage:
    """How well points cover a ring; see :meth:`Ring.coverage`.

    Attributes:
        modes: Covered modes: those with at least one good point.
        good: Share of the points that are good, in [0, 1].
        counts: Good points of each mode.
    """

    modes: int
    good: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Ring:
    """Gaussians of one size, equally likely, at equal distances on a circle round the origin.

    Attributes:
        modes: Number of Gaussians, at least 1.
        radius: Of the circle, above 0.
        std: Standard deviation of each Gaussian along each axis, above 0.
    """

    modes: int = 8
    radius: float = 2.0
    std: float = 0.1

    def __post_init__(self) -> None:
        require_whole("modes", self.modes)
        require_above_zero("radius", self.radius)
        require_above_zero("std", self.std)

    @property
    def centres(self) -> Tensor:
        """The means of the Gaussians, float32 (modes, 2), counter-clockwise from the positive x axis."""
        angles = torch.arange(self.modes, dtype=torch.float64) * (2 * math.pi / self.modes)
        return (self.radius * torch.stack([angles.cos(), angles.sin()], dim=1)).float()

    @property
    def good_radius(self) -> float:
        """Distance from a centre within which a point is good; 98.9 % of a Gaussian lies there, 1 - exp(-9/2)."""
        return GOOD_RADIUS * self.std

    @property
    def extent(self) -> float:
        """Half the side of the square in which the ring is drawn."""
        return 1.5 * self.radius

    def sample(self, n: int, seed: int | torch.Generator = 0) -> Tensor:
        """Draw points of the ring, float32 (n, 2), from a seed or a generator, which moves on.

        Raises:
            UserError: If ``n`` is not a whole number of at least 1, or ``seed`` neither a whole number nor a generator.
        """
        require_whole("n", n)
        random = as_generator(seed)
        chosen = torch.randint(self.modes, (n,), generator=random)
        return self.centres[chosen] + self.std * torch.randn(n, 2, generator=random)

    def coverage(self, points: Tensor) -> Coverage:
        """Count the modes that points cover.

        A point is good within three standard deviations of the nearest centre, and a mode is covered by one good
        point: the convention of Srivastava et al. (2017) and Lin et al. (2018), so counts compare only between
        samples of one size.

        Args:
            points: Floating point (N, 2), N at least 1. A point that is not finite is not good.

        Raises:
            UserError: If ``points`` are not a tensor of that shape.
        """
        require_is("points", points, Tensor)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) == 0:
            raise UserError(f"points must have shape (N, 2) with N >= 1, got {tuple(points.shape)}")
        distance, nearest = torch.cdist(points.detach().double(), self.centres.double()).min(dim=1)
        good = distance <= self.good_radius
        counts = torch.bincount(nearest[good], minlength=self.modes)
        return Coverage(int((counts > 0).sum()), float(good.double().mean()), tuple(counts.tolist()))


@dataclass(frozen=True)
class RingConfig:
    """What a :class:`RingGAN` is made of and how it is trained.

    Attributes:
        loss: A name of :data:`dcgan_lib.losses.LOSSES`.
        d_learning_rate: Adam's step size for D.
        g_learning_rate: Adam's step size for G.
        beta1: Adam's memory of past gradients, in [0, 1); the momentum.
        beta2: Adam's memory of past squared gradients, in [0, 1).
        r1_gamma: Factor of the R1 penalty (Mescheder et al. 2018), which enters as gamma/2; 0 for none.
        batch_size: Real points, and as many generated ones, in one step.
        latent_dim: Length of z, which is drawn from N(0, I).
        hidden: Width of the two hidden layers of each network.
        seed: Decides everything random: first weights, batches, and the latent vectors of a frame.
    """

    loss: str = "non_saturating"
    d_learning_rate: float = 3e-3
    g_learning_rate: float = 3e-3
    beta1: float = 0.5
    beta2: float = 0.9
    r1_gamma: float = 0.0
    batch_size: int = 256
    latent_dim: int = 8
    hidden: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.loss, str) or self.loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}")
        for name in ("d_learning_rate", "g_learning_rate"):
            require_above_zero(name, getattr(self, name))
        for name, high in {"beta1": 1, "beta2": 1, "r1_gamma": math.inf}.items():
            require_between(name, getattr(self, name), 0, high)
        for name, least in {"batch_size": 1, "latent_dim": 1, "hidden": 1, "seed": 0}.items():
            require_whole(name, getattr(self, name), least)


# D learns 20 times as fast as G: it is soon sure of everything, and pushes G's points together where they are.
COLLAPSING = RingConfig(d_learning_rate=1e-2, g_learning_rate=5e-4)

CONFIGS: dict[str, RingConfig] = {
    "healthy": RingConfig(),
    "collapsing": COLLAPSING,
    "repaired": replace(COLLAPSING, r1_gamma=0.1),
}
"""Three runs for :class:`RingGAN`, by name, to be watched for some 2,500 steps: "healthy" has equal learning rates; in
"collapsing" D's is 20 times G's; "repaired" is "collapsing" with one change, the R1 penalty.
``benchmarks/results/ring-runs.json`` has what they do over many seeds."""


@dataclass(frozen=True)
class Frame:
    """What there is to see of a game at one moment. All tensors are float32, on the CPU and detached.

    Attributes:
        ring: The data.
        d_steps: Steps that D has taken.
        g_steps: Steps that G has taken.
        real: Real points (n, 2), the same in every frame of a game.
        fake: G's points (n, 2) for latent vectors that are the same in every frame.
        surface: D(x), the sigmoid of D's output, (R, R): at the R x R points of a grid over the square from -extent to
            extent, its first and last points on the border; row 0 has the lowest y, column 0 the lowest x.
        arrows: (k, 4): x and y of the first k generated points, and -dL/dx, -dL/dy, the direction in which G's loss L
            of that one point falls, as D sees it now.
        d_loss: D's loss on the points of this frame, without the penalty.
        g_loss: G's loss on them.
        coverage: Of ``fake``.
    """

    ring: Ring
    d_steps: int
    g_steps: int
    real: Tensor
    fake: Tensor
    surface: Tensor
    arrows: Tensor
    d_loss: float
    g_loss: float
    coverage: Coverage


@dataclass(frozen=True)
class Snapshot:
    """Everything :meth:`RingGAN.restore` needs, copied, so that later steps leave it as it is."""

    ring: Ring
    config: RingConfig
    d_steps: int
    g_steps: int
    state: dict[str, Any]


class RingGAN:
    """A small GAN on a ring, trained one step of one network at a time.

    What a step draws depends on the seed and on how many steps that network has taken, on nothing else; so a game put
    back by :meth:`restore` goes on exactly as it did the first time.

    Attributes:
        ring: The data.
        config: The settings.
        generator: z (N, latent_dim) -> points (N, 2).
        discriminator: Points (N, 2) -> logits (N,).
        d_steps: Steps that D has taken.
        g_steps: Steps that G has taken.

    Raises:
        UserError: If ``ring`` is not a :class:`Ring` or ``config`` not a :class:`RingConfig`.
    """

    def __init__(self, ring: Ring | None = None, config: RingConfig | None = None) -> None:
        self.ring = Ring() if ring is None else ring
        self.config = RingConfig() if config is None else config
        require_is("ring", self.ring, Ring)
        require_is("config", self.config, RingConfig)
        width, latent_dim = self.config.hidden, self.config.latent_dim
        # The first weights come from the seed; whoever else draws random numbers notices nothing.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mixed_seed(self.config.seed, 0, _INIT))
            self.generator = _mlp(latent_dim, width, 2, nn.ReLU())
            self.discriminator = nn.Sequential(_mlp(2, width, 1, nn.LeakyReLU(0.2)), nn.Flatten(0))
        betas = (self.config.beta1, self.config.beta2)
        self._d_adam = torch.optim.Adam(self.discriminator.parameters(), self.config.d_learning_rate, betas)
        self._g_adam = torch.optim.Adam(self.generator.parameters(), self.config.g_learning_rate, betas)
        self.d_steps = self.g_steps = 0

    @property
    def steps(self) -> tuple[int, int]:
        """Steps that D and G have taken."""
        return self.d_steps, self.g_steps

    def step_discriminator(self) -> None:
        """Let D take one step on fresh real and generated points; G stays as it is."""
        random = self._random(self.d_steps, _D_STEP)
        real = self.ring.sample(self.config.batch_size, random)
        with torch.no_grad():
            fake = self.generator(self._latents(self.config.batch_size, random))
        real.requires_grad_(self.config.r1_gamma > 0)
        real_logits = self.discriminator(real)
        loss = LOSSES[self.config.loss](real_logits, self.discriminator(fake)).d_loss
        if self.config.r1_gamma > 0:
            loss = loss + self.config.r1_gamma / 2 * r1(real_logits, real)
        _descend(self._d_adam, self.discriminator, loss)
        self.d_steps += 1

    def step_generator(self) -> None:
        """Let G take one step on fresh latent vectors; D stays as it is."""
        fake = self.generator(self._latents(self.config.batch_size, self._random(self.g_steps, _G_STEP)))
        fake_logits = self.discriminator(fake)
        # G's loss does not contain D's outputs for real points; any stand in for them.
        loss = LOSSES[self.config.loss](fake_logits.detach(), fake_logits).g_loss
        _descend(self._g_adam, self.generator, loss)
        self.g_steps += 1

    def step(self) -> None:
        """Let D take one step, then G."""
        self.step_discriminator()
        self.step_generator()

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """Generate points with G as it is now, float32 (n, 2).

        Raises:
            UserError: As :meth:`Ring.sample`.
        """
        require_whole("n", n)
        with torch.no_grad():
            return self.generator(self._latents(n, as_generator(seed)))

    def snapshot(self) -> Snapshot:
        """Copy the networks, the optimizers and the counts."""
        return Snapshot(self.ring, self.config, self.d_steps, self.g_steps, copy.deepcopy(self._state()))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back, or forward, to a snapshot; the steps that follow are the same to the last bit.

        Raises:
            UserError: If the snapshot was taken of a game with another ring or other settings.
        """
        require_is("snapshot", snapshot, Snapshot)
        theirs, ours = ({**asdict(game.ring), **asdict(game.config)} for game in (snapshot, self))
        if other := next((key for key in ours if theirs[key] != ours[key]), None):
            raise UserError(f"snapshot must be of this game; its {other} is {theirs[other]!r}, not {ours[other]!r}")
        # Adam changes the state it was given in place: it must not be the snapshot's.
        for part, state in copy.deepcopy(snapshot.state).items():
            getattr(self, part).load_state_dict(state)
        self.d_steps, self.g_steps = snapshot.d_steps, snapshot.g_steps

    def frame(self, points: int = 256, resolution: int = 32, arrows: int = 48) -> Frame:
        """See :class:`Frame`.

        Args:
            points: Real points, and as many generated ones, n.
            resolution: Grid points along each side of the surface, R, at least 2.
            arrows: How many, k, or as many as there are points; 0 for none.

        Raises:
            UserError: If a number is out of range.
        """
        require_whole("points", points)
        require_whole("resolution", resolution, least=2)
        require_whole("arrows", arrows, least=0)
        random = self._random(0, _FRAME)
        real = self.ring.sample(points, random)
        with torch.no_grad():
            fake = self.generator(self._latents(points, random))
            losses = LOSSES[self.config.loss](self.discriminator(real), self.discriminator(fake))
        return Frame(
            ring=self.ring,
            d_steps=self.d_steps,
            g_steps=self.g_steps,
            real=real,
            fake=fake,
            surface=self.surface(resolution),
            arrows=self._arrows(fake[:arrows]),
            d_loss=float(losses.d_loss),
            g_loss=float(losses.g_loss),
            coverage=self.ring.coverage(fake),
        )

    def surface(self, resolution: int = 32) -> Tensor:
        """D(x) on a grid, float32 (R, R), as in :class:`Frame`.

        Raises:
            UserError: If ``resolution`` is not a whole number of at least 2.
        """
        require_whole("resolution", resolution, least=2)
        line = torch.linspace(-self.ring.extent, self.ring.extent, resolution)
        y, x = torch.meshgrid(line, line, indexing="ij")
        with torch.no_grad():
            return self.discriminator(torch.stack([x, y], dim=-1).flatten(0, 1)).sigmoid().view(resolution, resolution)

    def _arrows(self, points: Tensor) -> Tensor:
        if len(points) == 0:
            return torch.zeros(0, 4)
        points = points.clone().requires_grad_()
        logits = self.discriminator(points)
        # Every loss is a mean over points that do not see each other: times their number it is the sum of theirs.
        loss = LOSSES[self.config.loss](logits.detach(), logits).g_loss * len(points)
        (gradient,) = torch.autograd.grad(loss, points)
        return torch.cat([points.detach(), -gradient], dim=1)

    def _latents(self, n: int, random: torch.Generator) -> Tensor:
        return torch.randn(n, self.config.latent_dim, generator=random)

    def _random(self, index: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed(mixed_seed(self.config.seed, index, stream))

    def _state(self) -> dict[str, Any]:
        return {part: getattr(self, part).state_dict() for part in ("generator", "discriminator", "_d_adam", "_g_adam")}


def record(game: RingGAN, steps: int, every: int, points: int = 256, resolution: int = 32) -> list[Frame]:
    """Train a game for a number of steps of D then G, and keep frames of the beginning and of every so many.

    Args:
        game: It goes on from where it is, and is left where the last step brought it.
        steps: Steps of each network, at least 1.
        every: Steps from one frame to the next, at least 1. The last step always has a frame.
        points: As in :meth:`RingGAN.frame`.
        resolution: As in :meth:`RingGAN.frame`.

    Raises:
        UserError: If ``game`` is something else, or a number is out of range.
    """
    require_is("game", game, RingGAN)
    require_whole("steps", steps)
    require_whole("every", every)
    frames = [game.frame(points, resolution)]
    for step in range(1, steps + 1):
        game.step()
        if step % every == 0 or step == steps:
            frames.append(game.frame(points, resolution))
    return frames


def _mlp(inputs: int, width: int, outputs: int, activation: nn.Module) -> nn.Sequential:
    first, second, last = nn.Linear(inputs, width), nn.Linear(width, width), nn.Linear(width, outputs)
    return nn.Sequential(first, activation, second, activation, last)


def _descend(adam: torch.optim.Adam, network: nn.Module, loss: Tensor) -> None:
    parameters = list(network.parameters())
    # Only this network's gradients are computed: the other's are neither needed nor to be left lying about.
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    adam.step()
