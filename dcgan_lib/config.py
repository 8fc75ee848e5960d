"""How to train: every option with its unit, its default and what None means."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from dcgan_lib.errors import UserError
from dcgan_lib.losses import LOSSES

DEFAULT_STEPS = 10_000


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. The defaults are section 4 of Radford et al. (2015), with z drawn from a normal distribution."""

    steps: int | None = None
    """Steps in all, each one update of D and `generator_steps` of G.
    None: 10,000, or as many as fit where `minutes` is given."""
    minutes: float | None = None
    """Stop after this much training time, in minutes, if `steps` are not done before."""
    batch_size: int = 128
    """Images in a batch of real images, and of generated ones."""
    learning_rate: float = 2e-4
    """Adam's learning rate, for both networks."""
    generator_steps: int = 1
    """Steps of G, each with images of its own, for one of D."""
    final_rate: float = 1.0
    """Share of the learning rate that is left at the end. 1: it stays as it is.
    It falls in a straight line over the second half of a run, by `steps` or `minutes`."""
    beta1: float = 0.5
    """Adam's decay of the gradient's running mean; the usual 0.9 makes the game oscillate."""
    beta2: float = 0.999
    """Adam's decay of the squared gradient's running mean."""
    loss: Literal["non_saturating", "minimax", "least_squares", "hinge", "wasserstein"] = "non_saturating"
    """The game that is played; see `dcgan_lib.losses`."""
    label_smoothing: float = 0.0
    """D's target for real images is 1 minus this; generated images keep the target 0 (one-sided)."""
    instance_noise: float = 0.0
    """Standard deviation of the normal noise added to all that D sees, real and generated, on the scale [-1, 1]."""
    translation: float = 0.0
    """D sees every image, real or generated, shifted by up to this share of its side: for few training images."""
    mirror: bool = False
    """D sees half of all images mirrored: doubles few training images, where left and right mean the same."""
    r1_gamma: float = 0.0
    """Weight of the R1 penalty, gamma / 2 times the squared gradient of D at real images. 0: none."""
    r1_every: int = 1
    """Apply R1 at every so many steps, that much stronger."""
    average_half_life: float = 0.0
    """Average G's weights over this many images' half-life. 0: no averaging.
    The average's batch-norm statistics are measured anew.
    Early in a run the half-life is a twentieth of the images seen, so that the first weights are soon forgotten."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the convolutions. auto: bfloat16 where the processor has instructions for it."""
    compile: Literal["auto", "yes", "no"] = "auto"
    """Compile the networks with torch.compile. auto: on a GPU. On a CPU it gains nothing and takes half a minute."""
    deterministic: bool = False
    """Use only operations that give the same bits in every run on the same machine; slower on a GPU."""
    device: str = "auto"
    """cuda, cuda:1, mps or cpu. auto: the first of them there is."""
    seed: int = 0
    """Seed of the order of the images, of every z and of all noise."""
    log_every: int = 50
    """Steps between two lines of metrics.jsonl."""
    sample_every: int = 1000
    """Steps between two grids of samples; the z of a grid never change."""
    checkpoint_every: int = 1000
    """Steps between two checkpoints; one more is written at the end."""
    stop_on_spike: float = 1000.0
    """Stop, and keep the last checkpoint, when a logged loss is this many times its usual size. 0: never."""

    def __post_init__(self) -> None:
        """Reject values that cannot work, before anything is computed."""
        every = ("r1_every", "log_every", "sample_every", "checkpoint_every")
        at_least_one = ("steps", "batch_size", "generator_steps", *every)
        for name in at_least_one:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or not 1 <= value <= 10**12):
                raise UserError(f"{name}={value} must be a whole number, at least 1 and at most 10**12")
        _check_range(self, "minutes", 0, 60 * 24 * 365, open_low=True)
        _check_range(self, "learning_rate", 0, 1, open_low=True)
        _check_range(self, "final_rate", 0, 1)
        _check_range(self, "beta1", 0, 1, open_high=True)
        _check_range(self, "beta2", 0, 1, open_high=True)
        _check_range(self, "label_smoothing", 0, 0.5)
        _check_range(self, "instance_noise", 0, 10)
        _check_range(self, "translation", 0, 0.5)
        _check_range(self, "r1_gamma", 0, 1e6)
        _check_range(self, "average_half_life", 0, 1e12)
        _check_range(self, "stop_on_spike", 0, 1e12)
        _check_range(self, "seed", 0, 2**63 - 1)
        if not isinstance(self.seed, int):
            raise UserError(f"seed={self.seed} must be a whole number")
        if self.batch_size > 65_536:
            raise UserError(f"batch_size={self.batch_size} must be at most 65536")
        if self.generator_steps > 100:
            raise UserError(f"generator_steps={self.generator_steps} must be at most 100")
        if self.loss not in LOSSES:
            raise UserError(f"loss={self.loss!r} is unknown; choose from {', '.join(LOSSES)}")
        if self.label_smoothing and self.loss not in ("non_saturating", "minimax"):
            raise UserError(f"label_smoothing has no meaning for the loss {self.loss}; set it to 0")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise UserError(f"precision={self.precision!r} is unknown; choose auto, float32 or bfloat16")
        if self.compile not in ("auto", "yes", "no"):
            raise UserError(f"compile={self.compile!r} is unknown; choose auto, yes or no")
        for name in ("deterministic", "mirror"):
            if not isinstance(getattr(self, name), bool):
                raise UserError(f"{name}={getattr(self, name)!r} must be True or False")

    @property
    def last_step(self) -> float:
        """The number of steps after which a run is over; infinite where only ``minutes`` bounds it."""
        return self.steps or (math.inf if self.minutes else DEFAULT_STEPS)


def _check_range(
    config: TrainingConfig, name: str, low: float, high: float, open_low: bool = False, open_high: bool = False
) -> None:
    value = getattr(config, name)
    if value is None:
        return
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    if not inside:  # NaN ends here as well
        raise UserError(f"{name}={value} must be {'above' if open_low else 'at least'} {low} and "
                        f"{'below' if open_high else 'at most'} {high}")  # fmt: skip


class Recipe(NamedTuple):
    """A way to train: the configuration, and two switches of ``build_discriminator``."""

    training: TrainingConfig
    batch_norm: float
    minibatch_std: bool


_R1 = TrainingConfig(
    batch_size=64,
    learning_rate=1e-3,
    beta1=0.0,
    beta2=0.99,
    r1_gamma=0.5,
    r1_every=8,
    average_half_life=20_000,
)

# "paper" is section 4 of Radford et al. (2015). "r1" plays the same alternating updates with what was learnt since:
# no batch norm in D, the R1 penalty (Mescheder et al. 2018) instead, a D that sees how much a batch varies (Karras et
# al. 2018), Adam without momentum at a higher rate, and an averaged generator (Yazici et al. 2019). "r1-bn" brings
# batch norm back, for half of D's channels, and takes more steps for as many images, more of G than of D, and smaller
# ones towards the end. What each of them brings was measured by benchmarks/recipe_search.py.
RecipeName = Literal["r1-bn", "r1", "paper"]
RECIPES: dict[RecipeName, Recipe] = {
    "r1-bn": Recipe(replace(_R1, batch_size=32, generator_steps=2, final_rate=0.1), batch_norm=0.5, minibatch_std=True),
    "r1": Recipe(_R1, batch_norm=0.0, minibatch_std=True),
    "paper": Recipe(TrainingConfig(), batch_norm=1.0, minibatch_std=False),
}
DEFAULT_RECIPE: RecipeName = "r1-bn"
