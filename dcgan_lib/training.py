"""The adversarial training loop: a step of D, then one or more of G, logged, sampled, saved and resumable.

Everything random in step ``t`` is drawn from a generator seeded by ``(seed, t)``, and the images of step ``t`` are a
function of ``(seed, t)`` too. So a resumed run needs no random state to continue exactly where it stopped.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from dcgan_lib import checkpoint, distributed, losses
from dcgan_lib.acceleration import accelerated, adam, uncompiled
from dcgan_lib.augmentation import augment
from dcgan_lib.averaging import WeightAverage
from dcgan_lib.batches import Batches
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import ImageDataset
from dcgan_lib.device import autocast, get_device
from dcgan_lib.errors import UserError
from dcgan_lib.interrupt import StopRequest, graceful_stop
from dcgan_lib.latent import generate, sample_latent
from dcgan_lib.models import Discriminator, Generator
from dcgan_lib.run_folder import RunFolder, kept_alone
from dcgan_lib.seeds import mixed_seed

__all__ = ["History", "TrainingConfig", "get_device", "train", "train_step"]

GRID_COUNT = 64
USUAL = 20  # records whose median is the usual size of a loss


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
    as the authors' own code does; further steps of G, where ``z`` has more rows, make fakes of their own. Nothing here
    waits for the device, and no gradient is computed that nobody uses.

    Args:
        generator: G, in train mode; perhaps in DistributedDataParallel.
        discriminator: D, in train mode; likewise.
        d_optimizer: Optimizer of D's parameters.
        g_optimizer: Optimizer of G's parameters.
        real: Real images in [-1, 1], float (N, C, S, S).
        z: Latent vectors, float (k N, latent_dim): G takes a step with each N of them, D one with the first N.
        config: Loss, smoothing, augmentation and penalty are read from it.
        random: Source of the augmentation, on the device of ``real``.
        penalise: Whether this step applies the R1 penalty, if the configuration has one.

    Returns:
        Scalars ``d_loss``, ``g_loss`` (of G's last step), ``d_real`` and ``d_fake``, detached and still on the device.
        ``d_real`` and ``d_fake`` are D's mean probability of "real" before its update.
    """
    loss, options = losses.LOSSES[config.loss], {}
    if config.label_smoothing:
        options["real_label"] = 1 - config.label_smoothing
    autocast_context = autocast(real.device, config.precision)
    penalise = penalise and config.r1_gamma > 0
    z, *more = z.split(len(real))

    judge = discriminator.module if isinstance(discriminator, nn.parallel.DistributedDataParallel) else discriminator

    # D's step. Its loss must not reach G: detach() cuts the graph there.
    real = augment(real.detach(), config, random).requires_grad_(penalise)
    with autocast_context:
        fake = generator(z)
        with uncompiled(judge, penalise):  # compiled gradients cannot be differentiated again
            real_logits = discriminator(real).float()
        fake_logits = discriminator(augment(fake.detach(), config, random)).float()
    d_loss = loss(real_logits, fake_logits, **options).d_loss
    total = d_loss
    if penalise:
        total = d_loss + 0.5 * config.r1_gamma * config.r1_every * losses.r1(real_logits, real)
    d_optimizer.zero_grad(set_to_none=True)
    total.backward()
    d_optimizer.step()

    # G's step. The gradient passes through D, but nobody needs D's own weight gradients, and nobody shares them.
    for others in (None, *more):
        with autocast_context, _frozen(judge):
            fake = fake if others is None else generator(others)
            new_logits = judge(augment(fake, config, random)).float()
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
    on_checkpoint: Callable[[History], None] | None = None,
) -> History:
    """Train both networks in place.

    Ctrl-C and SIGTERM end the run after the step at hand and leave it resumable; a second Ctrl-C stops at once.
    Inside :func:`dcgan_lib.distributed.join` the processes train one pair of networks together; all of them must see
    the same run directory.

    Args:
        generator: G.
        discriminator: D.
        dataset: The real images; the same size and channels as the networks'.
        config: How to train; None for the paper's way.
        run_dir: Folder for configuration, metrics, sample grids and checkpoints; None to write nothing.
        resume: Continue the run in ``run_dir``; ``config`` may then raise ``steps`` or ``minutes``.
        data_options: How ``dataset`` was loaded; stored in ``config.json`` for whoever resumes or evaluates the run.
        progress: Show a progress bar.
        on_checkpoint: Called with the history so far whenever both checkpoint files have been written, by the process
            that wrote them; to measure a run on its way, say.

    Returns:
        The history, with the generator to sample from.

    Raises:
        UserError: If sizes do not match, the folder holds a run already, none to resume or one that another process
            is training, a file cannot be read or written, the memory is full, a loss stops being finite or leaps, or
            another process of the run is lost. The last good checkpoint is then kept.
    """
    config = config or TrainingConfig()
    _check_shapes(generator, discriminator, dataset)
    if resume and run_dir is None:
        raise UserError("resume needs the folder of the run: give run_dir")
    with ExitStack() as stack:
        stop = stack.enter_context(graceful_stop())
        run = _Run(generator, discriminator, dataset, config, distributed.current())
        run.on_checkpoint = on_checkpoint
        if run_dir is not None:
            folder = Path(run_dir)
            if run.world.is_first:
                if resume:
                    checkpoint.load_config(folder)  # without a run there, no folder is made
                stack.enter_context(kept_alone(folder))
            run.open_folder(folder, resume, data_options or {})
        stack.callback(run.batches.close)
        stack.enter_context(run.explained())
        stack.enter_context(accelerated(config, run.device, run.generator, run.discriminator))
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
        self,
        generator: Generator,
        discriminator: Discriminator,
        dataset: ImageDataset,
        config: TrainingConfig,
        world: distributed.World,
    ) -> None:
        self.device, self.world = get_device(config.device), world
        layout = {"device": self.device, "memory_format": torch.channels_last}
        self.generator, self.discriminator = generator.to(**layout).train(), discriminator.to(**layout).train()
        self.average = WeightAverage(self.generator, config) if config.average_half_life else None
        self.d_optimizer, self.g_optimizer = (adam(n.parameters(), config) for n in (discriminator, generator))
        self.dataset, self.config, self.folder = dataset, config, None
        self.share = world.share(config.batch_size)
        self.batches = Batches(dataset, config.batch_size, config.seed, self.device, self.share)
        self.history = History(generator=self.generator if self.average is None else self.average.generator)
        self.clock, self.grid_z = _Clock(), sample_latent(GRID_COUNT, generator.latent_dim, config.seed)
        self.sums: dict[str, Tensor] = {}
        self.since_log = 0
        self.on_checkpoint: Callable[[History], None] | None = None

    @property
    def sampler(self) -> Generator:
        """The generator to sample from."""
        return self.generator if self.average is None else self.average.measure()

    @property
    def _writes(self) -> bool:
        """Whether this process writes into the run's folder."""
        return self.folder is not None and self.world.is_first

    def play(self, stop: StopRequest, progress: bool) -> History:
        """Train until the steps or the minutes are over, or a signal asks to stop."""
        config, history = self.config, self.history
        self.players = self.world.wrap(self.generator), self.world.wrap(self.discriminator)
        self.clock.start()
        with _progress_bar(progress and self.world.is_first, history.step, config.last_step) as bar:
            while history.step < config.last_step and not self._is_over(stop):
                self._advance()
                if history.step % config.log_every == 0:
                    self._log(bar)
                if history.step % config.sample_every == 0:
                    self._save_grid()
                if history.step % config.checkpoint_every == 0:
                    self.save()
                bar.update()
        self._log()
        self._save_grid()
        self.save()
        self.sampler.eval()
        return history

    def _is_over(self, stop: StopRequest) -> bool:
        """Whether time is up or a signal has come, in any process: all of them end with the same step."""
        late = self.config.minutes is not None and self.clock.seconds >= 60 * self.config.minutes
        reason = self.world.maximum(2 if stop.asked else int(late))
        self.history.interrupted = reason == 2
        return reason > 0

    def _set_rate(self) -> None:
        """Give both optimizers the learning rate of the step at hand, the same in all processes."""
        config = self.config
        if config.final_rate == 1:
            return
        done = self.history.step / config.last_step
        if config.minutes is not None:
            done = max(done, self.world.maximum(int(1e6 * self.clock.seconds / (60 * config.minutes))) / 1e6)
        fallen = (1 - config.final_rate) * min(max(2 * done - 1, 0), 1)
        for optimizer in (self.d_optimizer, self.g_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * (1 - fallen)

    def _advance(self) -> None:
        self._set_rate()
        step, config = self.history.step, self.config
        random = torch.Generator(self.device).manual_seed(mixed_seed(config.seed, step))
        shape = config.batch_size, self.generator.latent_dim
        draws = [torch.randn(shape, generator=random, device=self.device) for _ in range(config.generator_steps)]
        z = torch.cat([draw[self.share] for draw in draws])
        if self.world.rank:  # z is cut from one draw for all; noise is drawn by each process for its own images
            random.manual_seed(mixed_seed(config.seed, step, stream=1 + self.world.rank))
        values = train_step(
            *self.players, self.d_optimizer, self.g_optimizer,
            self.batches.real(step), z, config, random, penalise=step % config.r1_every == 0,
        )  # fmt: skip
        self.history.step, self.since_log = step + 1, self.since_log + 1
        if self.average is not None:
            self.average.update(self.generator, self.history.step)
        self.sums = {name: value + self.sums.get(name, 0) for name, value in values.items()}

    def _log(self, bar: tqdm | None = None) -> None:
        """Average what happened since the last record; the only place where the host waits for the device."""
        if not self.since_log:
            return
        history, batch = self.history, self.config.batch_size
        means = self.world.mean({name: float(value) / self.since_log for name, value in self.sums.items()})
        if not all(map(math.isfinite, means.values())):
            raise self._diverged("the loss is not finite")
        self._check_spike(means)
        before = history.records[-1] if history.records else {"seconds": 0.0}
        seconds = self.clock.seconds
        rate = self.since_log * batch / max(seconds - before["seconds"], 1e-9)
        record = {"step": history.step, "images": history.step * batch, "seconds": round(seconds, 3)}
        record |= {"images_per_second": round(rate, 1)} | {name: round(value, 6) for name, value in means.items()}
        history.records.append(record)
        self.sums, self.since_log = {}, 0
        if bar is not None:
            bar.set_postfix({name: f"{means[name]:.3f}" for name in ("d_loss", "g_loss")}, refresh=False)
        if self._writes:
            self.folder.append(record)

    def _check_spike(self, means: Mapping[str, float]) -> None:
        """Refuse a loss that leaps far above its usual size: what follows is lost, and must not be saved."""
        for name in ("d_loss", "g_loss"):
            usual = [abs(value) for value in self.history.column(name)[-USUAL:]]
            size = max(1.0, statistics.median(usual)) if usual else math.inf
            if 0 < self.config.stop_on_spike < abs(means[name]) / size:
                raise self._diverged(f"{name} leapt to {means[name]:.3g}, its usual size being {size:.3g},")

    def _diverged(self, what: str) -> UserError:
        return UserError(
            f"{what} at step {self.history.step}; "
            f"try a lower learning rate, --precision float32, or some instance noise{self._kept()}"
        )

    def _kept(self) -> str:
        return f"; the last good checkpoint is still in {self.folder.path}" if self.folder else ""

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Say in one line what to do when memory is full or another process is lost."""
        with distributed.lost_process(f"start the same command again with --resume{self._kept()}"):
            try:
                yield
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error):
                    raise
                raise UserError(
                    f"the memory of the device {self.device} is full at step {self.history.step}; "
                    f"try a smaller --batch-size or --width{self._kept()}"
                ) from error

    def _save_grid(self) -> None:
        if self._writes:
            self.folder.write_grid(generate(self.sampler, self.grid_z), self.history.step)

    def open_folder(self, path: Path, resume: bool, data_options: Mapping[str, Any]) -> None:
        """Begin a run in the folder ``path``, or continue the one that is there."""
        config = {
            "data": {"name": self.dataset.name} | dict(data_options),
            "generator": self.generator.architecture,
            "discriminator": self.discriminator.architecture,
            "training": asdict(self.config),
            "versions": {"torch": torch.__version__, "device": str(self.device)},
        }
        folder = RunFolder(path, config)
        if resume:
            folder.check_resumable()
            self._restore(checkpoint.load_state(path))
        elif self.world.is_first:
            checkpoint.check_no_run(path)
        self.folder = folder
        if self._writes:
            folder.write_config(self.history.records)
        if not resume:
            self.save()  # so that a run can be resumed from its first moment, and a full disk shows at once

    def save(self) -> None:
        """Write both checkpoint files; refuses to replace good weights by ones that are not finite."""
        if self.folder:
            self._log()  # in every process, since it looks at the losses of all of them
        if not self._writes:
            return
        if not all(bool(value.isfinite().all()) for value in self.generator.parameters()):
            raise self._diverged("G's weights are not finite")
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        if self.average is not None:
            networks["average"] = self.sampler
        state = {name: target.state_dict() for name, target in self._parts().items()}
        state |= {"step": self.history.step, "seconds": self.clock.seconds, "records": self.history.records}
        checkpoint.save_state(self.folder.path, state)
        checkpoint.save_weights(self.folder.path / checkpoint.WEIGHTS_NAME, networks, self.history.step)
        if self.on_checkpoint is not None:
            self.on_checkpoint(self.history)

    def _restore(self, state: dict[str, Any]) -> None:
        for name, target in self._parts().items():
            checkpoint.restore(target, state.get(name), name)
        self.history.step, self.clock = state["step"], _Clock(state["seconds"])
        self.history.records = list(state["records"])

    def _parts(self) -> dict[str, Any]:
        """All that changes in training, by the names of a saved state."""
        parts = {"generator": self.generator, "discriminator": self.discriminator}
        parts |= {"d_optimizer": self.d_optimizer, "g_optimizer": self.g_optimizer}
        return parts if self.average is None else parts | {"average": self.average}


@contextmanager
def _frozen(network: Discriminator) -> Iterator[None]:
    """What is computed inside leads no gradient to the network's own parameters."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


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


def _is_out_of_memory(error: Exception) -> bool:
    # A CPU's allocator has no error of its own.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
