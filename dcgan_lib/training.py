"""The adversarial training loop: one step of D, one step of G, logged, sampled, saved and resumable.

Everything random in step ``t`` is drawn from a generator seeded by ``(seed, t)``, and the images of step ``t`` are a
function of ``(seed, t)`` too. So a resumed run needs no random state to continue exactly where it stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from dcgan_lib import checkpoint, losses
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import ImageDataset, to_model_range
from dcgan_lib.device import autocast, get_device
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write, write_json
from dcgan_lib.images import save_png
from dcgan_lib.interrupt import StopRequest, graceful_stop
from dcgan_lib.latent import generate, sample_latent
from dcgan_lib.models import Discriminator, Generator
from dcgan_lib.seeds import batch_indices, mixed_seed

__all__ = ["History", "TrainingConfig", "get_device", "train", "train_step"]

METRICS_NAME = "metrics.jsonl"
GRID_COUNT = 64
# What may differ when a run is resumed: how long it goes on, how it reports, where it computes.
CHANGEABLE = {"steps", "minutes", "device", "log_every", "sample_every", "checkpoint_every"}


@dataclass
class History:
    """What a run did.

    Attributes:
        records: The lines of ``metrics.jsonl``: ``step``, ``images``, ``seconds``, ``images_per_second`` and, averaged
            over the steps since the line before, ``d_loss``, ``g_loss``, ``d_real`` = D(x), ``d_fake`` = D(G(z)).
        generator: The generator to sample from: the averaged one where averaging was on.
        step: Steps done.
        interrupted: Whether Ctrl-C or SIGTERM ended the run before its time.
    """

    generator: Generator
    records: list[dict[str, float]] = field(default_factory=list)
    step: int = 0
    interrupted: bool = False

    def column(self, name: str) -> list[float]:
        """One quantity of ``records`` over time, such as ``history.column("d_loss")``."""
        return [record[name] for record in self.records]


def train_step(
    generator: Generator,
    discriminator: Discriminator,
    d_optimizer: torch.optim.Optimizer,
    g_optimizer: torch.optim.Optimizer,
    real: Tensor,
    z: Tensor,
    config: TrainingConfig,
    random: torch.Generator | None = None,
    penalise: bool = True,
) -> dict[str, Tensor]:
    """One step of each player, in the order of the paper: D on a real and a fake batch, then G against the new D.

    Both batches go through D apart, so that its batch norm never mixes them, and G's step uses the same fakes again,
    as the authors' own code does.

    Args:
        generator: G, in train mode.
        discriminator: D, in train mode.
        d_optimizer: Optimizer of D's parameters.
        g_optimizer: Optimizer of G's parameters.
        real: Real images in [-1, 1], float (N, C, S, S).
        z: Latent vectors, float (N, latent_dim).
        config: Loss, smoothing, noise and penalty are read from it.
        random: Source of the instance noise, on the device of ``real``.
        penalise: Whether this step applies the R1 penalty, if the configuration has one.

    Returns:
        Scalars ``d_loss``, ``g_loss``, ``d_real`` and ``d_fake``, detached and still on the device. ``d_real`` and
        ``d_fake`` are D's mean probability of "real" before its update.
    """
    loss, options = losses.LOSSES[config.loss], {}
    if config.label_smoothing:
        options["real_label"] = 1 - config.label_smoothing
    autocast_context = autocast(real.device, config.precision)
    penalise = penalise and config.r1_gamma > 0

    # D's step. Its loss must not reach G: detach() cuts the graph there.
    real = _with_noise(real.detach(), config.instance_noise, random).requires_grad_(penalise)
    with autocast_context:
        fake = generator(z)
        real_logits = discriminator(real).float()
        fake_logits = discriminator(_with_noise(fake.detach(), config.instance_noise, random)).float()
    d_loss = loss(real_logits, fake_logits, **options).d_loss
    total = d_loss
    if penalise:
        total = d_loss + 0.5 * config.r1_gamma * config.r1_every * losses.r1(real_logits, real)
    d_optimizer.zero_grad(set_to_none=True)
    total.backward()
    d_optimizer.step()

    # G's step. The gradient passes through D, but nobody needs D's own weight gradients.
    with autocast_context, _frozen(discriminator):
        new_logits = discriminator(_with_noise(fake, config.instance_noise, random)).float()
    g_loss = loss(real_logits.detach(), new_logits, **options).g_loss
    g_optimizer.zero_grad(set_to_none=True)
    g_loss.backward()
    g_optimizer.step()

    return {
        "d_loss": d_loss.detach(),
        "g_loss": g_loss.detach(),
        "d_real": real_logits.detach().sigmoid().mean(),
        "d_fake": fake_logits.detach().sigmoid().mean(),
    }


def train(
    generator: Generator,
    discriminator: Discriminator,
    dataset: ImageDataset,
    config: TrainingConfig | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    data_options: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> History:
    """Train both networks in place.

    Ctrl-C and SIGTERM end the run after the step at hand and leave it resumable; a second Ctrl-C stops at once.

    Args:
        generator: G.
        discriminator: D.
        dataset: The real images; the same size and channels as the networks'.
        config: How to train; None for the paper's way.
        run_dir: Folder for configuration, metrics, sample grids and checkpoints; None to write nothing.
        resume: Continue the run in ``run_dir``; ``config`` may then raise ``steps`` or ``minutes``.
        data_options: How ``dataset`` was loaded; stored in ``config.json`` for whoever resumes or evaluates the run.
        progress: Show a progress bar.

    Returns:
        The history, with the generator to sample from.

    Raises:
        UserError: If sizes do not match, the folder holds a run already or none to resume, a file cannot be written,
            or a loss stops being finite (the last good checkpoint is then kept).
    """
    config = config or TrainingConfig()
    _check_shapes(generator, discriminator, dataset)
    run = _Run(generator, discriminator, dataset, config)
    if run_dir is not None:
        run.open_folder(Path(run_dir), resume, data_options or {})
    elif resume:
        raise UserError("resume needs the folder of the run: give run_dir")
    with graceful_stop() as stop:
        return run.play(stop, progress)


class _Clock:
    """Seconds spent on a run, over all its sessions; it stands still until it is started."""

    def __init__(self, before: float = 0.0) -> None:
        self.before, self.started = before, None

    def start(self) -> None:
        """Start counting."""
        self.started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self.before + (0.0 if self.started is None else time.perf_counter() - self.started)


class _Run:
    """The state of one run: networks, optimizers, average, step, clock and history."""

    def __init__(
        self, generator: Generator, discriminator: Discriminator, dataset: ImageDataset, config: TrainingConfig
    ) -> None:
        self.device = get_device(config.device)
        layout = {"device": self.device, "memory_format": torch.channels_last}
        self.generator, self.discriminator = generator.to(**layout).train(), discriminator.to(**layout).train()
        self.average = average_model(self.generator, config) if config.average_half_life else None
        self.d_optimizer, self.g_optimizer = (
            torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=(config.beta1, config.beta2))
            for network in (discriminator, generator)
        )
        self.dataset, self.config, self.folder = dataset, config, None
        self.images = dataset.images.to(self.device)
        self.history = History(generator=self.sampler)
        self.clock, self.grid_z = _Clock(), sample_latent(GRID_COUNT, generator.latent_dim, config.seed)
        self.sums: dict[str, Tensor] = {}
        self.since_log = 0

    @property
    def sampler(self) -> Generator:
        """The generator to sample from."""
        return self.generator if self.average is None else self.average.module

    def play(self, stop: StopRequest, progress: bool) -> History:
        """Train until the steps or the minutes are over, or a signal asks to stop."""
        config, history = self.config, self.history
        deadline = 60 * config.minutes if config.minutes else math.inf
        self.clock.start()
        with _progress_bar(progress, history.step, config.last_step) as bar:
            while history.step < config.last_step and self.clock.seconds < deadline and not stop.asked:
                self._advance()
                if history.step % config.log_every == 0:
                    self._log(bar)
                if history.step % config.sample_every == 0:
                    self._save_grid()
                if history.step % config.checkpoint_every == 0:
                    self.save()
                bar.update()
        history.interrupted = stop.asked
        self._log()
        self._save_grid()
        self.save()
        self.sampler.eval()
        return history

    def _advance(self) -> None:
        step, config = self.history.step, self.config
        indices = batch_indices(len(self.images), config.batch_size, step, config.seed)
        real = to_model_range(self.images[indices.to(self.device)]).contiguous(memory_format=torch.channels_last)
        random = torch.Generator(self.device).manual_seed(mixed_seed(config.seed, step))
        z = torch.randn(config.batch_size, self.generator.latent_dim, generator=random, device=self.device)
        values = train_step(
            self.generator, self.discriminator, self.d_optimizer, self.g_optimizer,
            real, z, config, random, penalise=step % config.r1_every == 0,
        )  # fmt: skip
        if self.average is not None:
            self.average.update_parameters(self.generator)
        self.sums = {name: value + self.sums.get(name, 0) for name, value in values.items()}
        self.history.step, self.since_log = step + 1, self.since_log + 1

    def _log(self, bar: tqdm | None = None) -> None:
        """Average what happened since the last record; the only place where the host waits for the device."""
        if not self.since_log:
            return
        history, batch = self.history, self.config.batch_size
        means = {name: float(value) / self.since_log for name, value in self.sums.items()}
        if not all(map(math.isfinite, means.values())):
            raise self._diverged("the loss is")
        before = history.records[-1] if history.records else {"seconds": 0.0}
        seconds = self.clock.seconds
        rate = self.since_log * batch / max(seconds - before["seconds"], 1e-9)
        record = {"step": history.step, "images": history.step * batch, "seconds": round(seconds, 3)}
        record |= {"images_per_second": round(rate, 1)} | {name: round(value, 6) for name, value in means.items()}
        history.records.append(record)
        self.sums, self.since_log = {}, 0
        if bar is not None:
            bar.set_postfix({name: f"{means[name]:.3f}" for name in ("d_loss", "g_loss")}, refresh=False)
        if self.folder:
            _append_line(self.folder / METRICS_NAME, json.dumps(record))

    def _diverged(self, what: str) -> UserError:
        kept = f"; the last good checkpoint is still in {self.folder}" if self.folder else ""
        return UserError(
            f"{what} not finite at step {self.history.step}; "
            f"try a lower learning rate, --precision float32, or some instance noise{kept}"
        )

    def _save_grid(self) -> None:
        if self.folder:
            images = generate(self.sampler, self.grid_z)
            save_png(images, self.folder / "samples" / f"step-{self.history.step:06d}.png")

    def open_folder(self, folder: Path, resume: bool, data_options: Mapping[str, Any]) -> None:
        """Begin a run in ``folder``, or continue the one that is there."""
        self.folder = folder
        config = {
            "data": {"name": self.dataset.name} | dict(data_options),
            "generator": self.generator.architecture,
            "discriminator": self.discriminator.architecture,
            "training": asdict(self.config),
            "versions": {"torch": torch.__version__, "device": str(self.device)},
        }
        if resume:
            _check_unchanged(checkpoint.load_config(folder), config)
            self._restore(checkpoint.load_state(folder))
        else:
            checkpoint.check_no_run(folder)
        write_json(folder / checkpoint.CONFIG_NAME, config)
        lines = "".join(json.dumps(record) + "\n" for record in self.history.records)
        with atomic_write(folder / METRICS_NAME) as temporary:
            temporary.write_text(lines, encoding="utf-8")
        if not resume:
            self.save()  # so that a run can be resumed from its first moment, and a full disk shows at once

    def save(self) -> None:
        """Write both checkpoint files; refuses to replace good weights by ones that are not finite."""
        if not self.folder:
            return
        self._log()
        if not all(bool(value.isfinite().all()) for value in self.generator.parameters()):
            raise self._diverged("G's weights are")
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        state = {name: network.state_dict() for name, network in networks.items()}
        state |= {"d_optimizer": self.d_optimizer.state_dict(), "g_optimizer": self.g_optimizer.state_dict()}
        if self.average is not None:
            networks["average"] = self.average.module
            state["average"] = self.average.state_dict()
        state |= {"step": self.history.step, "seconds": self.clock.seconds, "records": self.history.records}
        checkpoint.save_state(self.folder, state)
        checkpoint.save_weights(self.folder / checkpoint.WEIGHTS_NAME, networks, self.history.step)

    def _restore(self, state: dict[str, Any]) -> None:
        targets = {"generator": self.generator, "discriminator": self.discriminator}
        targets |= {"d_optimizer": self.d_optimizer, "g_optimizer": self.g_optimizer}
        if self.average is not None:
            targets["average"] = self.average
        for name, target in targets.items():
            checkpoint.restore(target, state.get(name), name)
        self.history.step, self.clock = state["step"], _Clock(state["seconds"])
        self.history.records = list(state["records"])


def _append_line(path: Path, line: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}; the last checkpoint is unchanged") from error


def average_model(generator: Generator, config: TrainingConfig) -> AveragedModel:
    """An exponential moving average of G's weights and batch-norm statistics (Yazici et al. 2019).

    With the half-life ``h``, in images, ``average = decay * average + (1 - decay) * weights`` after each step, with
    ``decay = 0.5 ** (batch_size / h)``; ``h`` is at most a twentieth of the images seen so far.
    """

    def update(averages: list[Tensor], values: list[Tensor], updates: Tensor) -> None:
        seen = config.batch_size * (int(updates) + 1)
        half_life = min(config.average_half_life, 0.05 * seen)
        decay = 0.5 ** (config.batch_size / half_life)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, values, 1 - decay)
        else:  # batch norm's count of batches
            torch._foreach_copy_(averages, values)

    return AveragedModel(generator, multi_avg_fn=torch.no_grad()(update), use_buffers=True)


@contextmanager
def _frozen(network: Discriminator) -> Iterator[None]:
    """What is computed inside leads no gradient to the network's own parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


def _with_noise(images: Tensor, deviation: float, random: torch.Generator | None) -> Tensor:
    if not deviation:
        return images
    noise = torch.empty_like(images).normal_(0.0, deviation, generator=random)
    return images + noise


def _progress_bar(show: bool, step: int, last_step: float) -> tqdm:
    total = None if math.isinf(last_step) else int(last_step)
    return tqdm(initial=step, total=total, unit="step", disable=not show, dynamic_ncols=True)


def _check_shapes(generator: Generator, discriminator: Discriminator, dataset: ImageDataset) -> None:
    sizes = {
        "the generator makes": (generator.channels, generator.image_size),
        "the discriminator reads": (discriminator.channels, discriminator.image_size),
        f"the data set {dataset.name} holds": (dataset.channels, dataset.image_size),
    }
    if len(set(sizes.values())) > 1:
        described = ", ".join(f"{who} {c} x {s} x {s}" for who, (c, s) in sizes.items())
        raise UserError(f"channels and sizes differ: {described}; build all three alike")


def _check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    now = json.loads(json.dumps(now))
    for section in ("data", "generator", "discriminator", "training"):
        for name in now[section]:
            old, new = before[section].get(name), now[section][name]
            if old != new and name not in CHANGEABLE:
                option = "data" if name == "name" else name.replace("_", "-")
                raise UserError(f"--{option} is {old} in this run and cannot become {new}; leave it out to resume")
