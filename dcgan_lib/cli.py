"""The command line: ``dcgan train | sample | evaluate | export | store``, thin over the functions of the package."""

from __future__ import annotations

import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from dcgan_lib import checkpoint, distributed
from dcgan_lib.acceleration import keep_freed_memory
from dcgan_lib.config import DEFAULT_RECIPE, RECIPES, RecipeName, TrainingConfig
from dcgan_lib.data import FOLDER, ImageDataset, load_dataset, load_unseen
from dcgan_lib.device import get_device
from dcgan_lib.errors import UserError
from dcgan_lib.files import write_json
from dcgan_lib.models import Generator, Upsampling, build_discriminator, build_generator
from dcgan_lib.store import StoreIndex
from dcgan_lib.training import History, train

INTERRUPTED = 130  # the shell's exit status for "ended by Ctrl-C"


@dataclass(frozen=True)
class DataOptions:
    """Which real images."""

    data: str = "cats"
    """cats, cats-held-out, fashion-mnist, mnist, cifar10, celeba, folder:PATH or store:PATH.
    cats-held-out: without 24 pairs of values; does a generator compose what it never saw?
    folder:PATH: any folder of images.
    store:PATH: what dcgan store has built of a folder that does not fit into memory."""
    image_size: Literal[32, 64, 128] = 64
    """Height and width in pixels."""
    limit: int | None = None
    """Use at most this many images. None: 20,000 cats, all of any other data set."""
    data_root: Path | None = None
    """Where torchvision's data sets are kept or downloaded to. None: $DCGAN_DATA, or ./data."""


@dataclass(frozen=True)
class TrainOptions:
    """Train a DCGAN. The run can be stopped with Ctrl-C at any time and continued with --resume."""

    recipe: RecipeName = DEFAULT_RECIPE
    """Where the other options start from.
    r1-bn: batch 32, batch norm of half of D's channels, R1, two steps of G for one of D, falling rate, averaged G.
    r1: batch 64, no batch norm in D, R1, averaged G.
    paper: batch 128, batch norm, no penalty, Adam as in Radford et al. (2015)."""
    output: Path | None = None
    """Folder of the run: configuration, metrics, sample grids, checkpoints. None: runs/DATA-SIZE, e.g. runs/cats-64."""
    resume: bool = False
    """Continue the run in --output with its own options; --minutes and --steps are totals and may be raised."""
    width: int | None = None
    """Channels next to the image. None: 64 on a GPU, 32 on a CPU. The paper's networks have 128."""
    latent_dim: int = 100
    """Length of the latent vectors."""
    upsampling: Upsampling = "transposed"
    """How the generator doubles its maps.
    transposed: kernel 4.
    transposed-5: kernel 5, as in the authors' code.
    resize: pixels repeated, then an ordinary convolution; slower, and without a checkerboard pattern of its own."""
    batch_norm: float = RECIPES[DEFAULT_RECIPE].batch_norm
    """Share of the discriminator's channels that are batch normalised, 0 to 1. 1: all, as in the paper."""
    minibatch_std: bool = RECIPES[DEFAULT_RECIPE].minibatch_std
    """Show the discriminator how much a batch varies, so that the generator leaves less out."""
    data: Annotated[DataOptions, tyro.conf.arg(name="")] = field(default_factory=DataOptions)
    training: Annotated[TrainingConfig, tyro.conf.arg(name="")] = RECIPES[DEFAULT_RECIPE].training


@dataclass(frozen=True)
class SampleOptions:
    """Write a grid of samples. Image i depends on the seed and i alone, so grids of two counts agree."""

    run: Path
    """A run directory, a .safetensors file, or the name of released weights such as cats-64."""
    count: int = 64
    """Number of images."""
    seed: int = 0
    """Seed of the latent vectors."""
    columns: int = 8
    """Images in a row."""
    output: Path | None = None
    """The PNG file. None: samples-seed-SEED.png in the run directory, or here for other weights."""
    device: str = "auto"
    """cuda, mps or cpu. auto: the first of them there is."""


@dataclass(frozen=True)
class EvaluateOptions:
    """Score a trained generator against real images and store the scores as JSON."""

    run: Path
    """A run directory."""
    samples: int | None = None
    """Number of generated images. None: 5,000, or half the number of real images where that is less."""
    seed: int = 0
    """Seed of the samples and of the choice of real images."""
    reader: str | None = None
    """The network whose features are compared: cats, clothing, fashion-mnist, or a file of one.
    A file is what python -m dcgan_lib.reader_training has written.
    None: the data set's own, or plain colours where there is none."""
    inception: bool = False
    """Measure in addition the Frechet distance of the literature, in the features of Inception-v3.
    It needs pip install 'dcgan-lib[inception]', and a network the first time."""
    output: Path | None = None
    """The JSON file. None: evaluation.json in the run directory."""
    device: str = "auto"
    """cuda, mps or cpu. auto: the first of them there is."""


@dataclass(frozen=True)
class ExportOptions:
    """Export a trained generator: as ONNX, as a small safetensors file to share, or for a page of the book."""

    run: Path
    """A run directory, a .safetensors file, or the name of released weights such as cats-64."""
    output: Path = Path("generator.onnx")
    """The file to write; its ending, .onnx, .safetensors or .json, says which format.
    In book/explorers a .json file is what the book's latent explorer shows."""
    half: bool = False
    """Store a .safetensors file in float16: half the size."""
    bits: int | None = None
    """Bits of a weight, 8 to 16, in a .json file. None: as few as keep the images as they are.
    A .safetensors file then holds weights that as many bits can tell.
    With 8, but for --half, a page later shows exactly that generator."""
    data: str | None = None
    """The data set, whose reader names directions in a .json file. None: that of the run."""


@dataclass(frozen=True)
class StoreOptions:
    """Build a store of images that do not fit into memory. Stopped at any time, the same command goes on from there.

    The images of a folder are decoded once into one file, from which dcgan train --data store:PATH reads its batches.
    """

    data: str | None = None
    """folder:PATH, the images."""
    output: Path | None = None
    """Folder of the store. Train on it with --data store:PATH."""
    image_size: Literal[32, 64, 128] = 64
    """Height and width in pixels."""
    check: Path | None = None
    """Build nothing: read this whole store and compare it with its checksums."""


def run_train(options: TrainOptions) -> int:
    """``dcgan train``; under ``torchrun``, one of several processes that train together."""
    keep_freed_memory()
    device = get_device(options.training.device)
    with distributed.join(device) as world:
        return _train(options, device, world.is_first)


def _train(options: TrainOptions, device: torch.device, talks: bool) -> int:
    data, config, output = options.data, options.training, run_folder(options)
    if talks and not options.resume:
        checkpoint.check_no_run(output)  # before the data are loaded, which takes a while
    dataset = load_dataset(data.data, data.image_size, root=data.data_root, limit=data.limit)
    width = (32 if device.type == "cpu" else 64) if options.width is None else options.width
    generator = build_generator(data.image_size, dataset.channels, options.latent_dim, width, options.upsampling)
    switches = options.batch_norm, options.minibatch_std
    discriminator = build_discriminator(data.image_size, dataset.channels, width, *switches)
    root = None if data.data_root is None else str(data.data_root)
    stored = {"image_size": data.image_size, "limit": data.limit, "data_root": root}
    if talks:
        print(f"{len(dataset):,} images of {data.data}, {data.image_size}x{data.image_size}; width {width}; {device}")
    history = train(generator, discriminator, dataset, config, output, options.resume, stored)
    if talks:
        done = "interrupted" if history.interrupted else "done"
        quoted = shlex.quote(str(output))
        print(f"{done} after {history.step:,} steps; grids in {output / 'samples'}")
        print(f"continue:  dcgan train --output {quoted} --resume{_needed_to_continue(config, history)}")
        print(f"sample:    dcgan sample --run {quoted}")
    return INTERRUPTED if history.interrupted else 0


def run_sample(options: SampleOptions) -> int:
    """``dcgan sample``."""
    from dcgan_lib.images import save_png
    from dcgan_lib.latent import sample

    if not 1 <= options.count <= 100_000:
        raise UserError(f"--count {options.count} must be between 1 and 100000")
    generator = load_any_generator(options.run).to(get_device(options.device))
    folder = options.run if options.run.is_dir() else Path()
    output = options.output or folder / f"samples-seed-{options.seed}.png"
    save_png(sample(generator, options.count, options.seed), output, options.columns)
    print(output)
    return 0


def run_evaluate(options: EvaluateOptions) -> int:
    """``dcgan evaluate``."""
    from dcgan_lib.features import any_reader
    from dcgan_lib.metrics import evaluate, inception_distance

    data = stored_options(options.run).data
    generator = checkpoint.load_generator(options.run).to(get_device(options.device))
    reader = None if options.reader is None else any_reader(options.reader)
    dataset = load_dataset(data.data, data.image_size, root=data.data_root, limit=data.limit)
    scores = evaluate(generator, dataset, reader, options.samples, options.seed, _held_out(data))
    stored, output = scores.to_dict(), options.output or options.run / "evaluation.json"
    write_json(output, stored)  # first, lest it be lost with a download that fails
    print(scores.table())
    if options.inception:
        stored["inception"] = inception_distance(generator, dataset, scores.compared, options.seed)
        write_json(output, stored)
        print(f"Inception FID       {stored['inception']:.2f}   ({scores.compared:,} against as many real images)")
    print(output)
    return 0


def _held_out(data: DataOptions) -> ImageDataset | None:
    """Real images that were not trained on; None where the data set has too few of them."""
    from dcgan_lib.metrics import COMPARED_PIXELS, FEWEST_HELD_OUT

    try:
        found = load_unseen(data.data, data.image_size, data.data_root, COMPARED_PIXELS)
    except UserError:  # a small folder keeps none back
        return None
    return found if len(found) >= FEWEST_HELD_OUT else None


def run_export(options: ExportOptions) -> int:
    """``dcgan export``."""
    generator = load_any_generator(options.run)
    suffix = options.output.suffix
    if suffix != ".json" and options.data is not None:
        raise UserError(f"--data goes with a .json file, not with {options.output}")
    if suffix == ".onnx" and options.bits is not None:
        raise UserError(f"--bits goes with a .json or a .safetensors file, not with {options.output}")
    if suffix == ".json":
        from dcgan_lib.export import export_page

        dataset = trained_on(options.run) if options.data is None else options.data
        document = export_page(generator, options.output, options.run.stem, dataset, options.bits)
        bits = ", ".join(str(layer["bits"]) for layer in document["layers"])
        print(f"{options.output.stat().st_size:,} bytes; {bits} bits in the layers from z to the image")
    elif suffix == ".safetensors":
        if options.bits is not None:
            from dcgan_lib.page_generator import round_weights

            round_weights(generator, options.bits)
        dtype = torch.float16 if options.half else torch.float32
        checkpoint.save_weights(options.output, {"generator": generator}, dtype=dtype)
    elif suffix == ".onnx":
        from dcgan_lib.export import export_onnx

        export_onnx(generator, options.output)
    else:
        raise UserError(f"--output {options.output} must end in .onnx, .safetensors or .json")
    print(options.output)
    return 0


def run_store(options: StoreOptions) -> int:
    """``dcgan store``."""
    from dcgan_lib.store import check_store
    from dcgan_lib.store_builder import build_store

    if options.check is not None:
        if options.data is not None or options.output is not None:
            raise UserError("--check reads a store that is there; it goes with neither --data nor --output")
        done = check_store(options.check, progress=True)
        print(f"{describe_store(done)}; every checksum is right")
        return 0
    if options.data is None or options.output is None:
        raise UserError("a store is built with --data folder:PATH --output PATH, and compared with --check PATH")
    if not options.data.startswith(FOLDER):
        raise UserError(f"--data {options.data} is not a folder of images: write folder:PATH")
    try:
        done = build_store(options.data.removeprefix(FOLDER), options.output, options.image_size, progress=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    quoted = shlex.quote(f"store:{options.output}")
    print(f"{describe_store(done)}: {options.output}")
    print(f"train:  dcgan train --data {quoted} --image-size {options.image_size}")
    return 0


def describe_store(index: StoreIndex) -> str:
    """Numbers of images for training, for testing and skipped, and their size."""
    skipped, size = sum(map(len, index.skipped.values())), index.image_size
    train, test = index.splits["train"], index.splits["test"]
    return f"{train:,} images for training and {test:,} for testing, {size}x{size}; {skipped:,} skipped"


def load_any_generator(run: Path) -> Generator:
    """Load a generator from a run directory, a weights file, or the name of released weights."""
    if run.exists():
        return checkpoint.load_generator(run)
    names = checkpoint.pretrained_names()
    if str(run) not in names:
        raise UserError(f"there is no run or file {run}; the released weights are {', '.join(names)}")
    return checkpoint.load_pretrained(str(run))


def trained_on(run: Path) -> str:
    """The data set of a run or of released weights; empty where only the weights are there."""
    if (run / checkpoint.CONFIG_NAME).exists():
        return str(checkpoint.load_config(run)["data"]["name"])
    return "" if run.exists() else str(run).rpartition("-")[0]


def _needed_to_continue(config: TrainingConfig, history: History) -> str:
    if history.interrupted:
        return ""
    return " --steps MORE" if history.step >= config.last_step else " --minutes MORE"


def run_folder(options: TrainOptions) -> Path:
    """The run directory: ``--output``, or one named after the data and the image size."""
    if options.output is not None:
        return options.output
    kind, colon, path = options.data.data.partition(":")
    name = (Path(path).name or kind) if colon else kind
    return Path("runs") / f"{name}-{options.data.image_size}"


def data_options(config: dict[str, Any]) -> DataOptions:
    """The data options stored in a run's configuration."""
    stored, root = config["data"], config["data"].get("data_root")
    size = config["generator"]["image_size"]
    return DataOptions(str(stored["name"]), size, stored.get("limit"), Path(root) if root else None)


def recipe_options(recipe: RecipeName) -> TrainOptions:
    """The options of a recipe."""
    training, batch_norm, minibatch_std = RECIPES[recipe]
    return TrainOptions(recipe=recipe, batch_norm=batch_norm, minibatch_std=minibatch_std, training=training)


def stored_options(output: Path) -> TrainOptions:
    """The options a run was started with, and ``resume``."""
    config = checkpoint.load_config(output)
    try:
        return TrainOptions(
            output=output,
            resume=True,
            width=config["generator"]["width"],
            latent_dim=config["generator"]["latent_dim"],
            upsampling=config["generator"].get("upsampling", "transposed"),  # older runs had no choice
            batch_norm=config["discriminator"]["batch_norm"],
            minibatch_std=config["discriminator"]["minibatch_std"],
            data=data_options(config),
            training=TrainingConfig(**config["training"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{output / checkpoint.CONFIG_NAME} is damaged: {error}") from error


Options = Annotated[
    Annotated[TrainOptions, tyro.conf.subcommand("train")]
    | Annotated[SampleOptions, tyro.conf.subcommand("sample")]
    | Annotated[EvaluateOptions, tyro.conf.subcommand("evaluate")]
    | Annotated[ExportOptions, tyro.conf.subcommand("export")]
    | Annotated[StoreOptions, tyro.conf.subcommand("store")],
    None,
]
COMMANDS: dict[type, Callable[[Any], int]] = {
    TrainOptions: run_train,
    SampleOptions: run_sample,
    EvaluateOptions: run_evaluate,
    ExportOptions: run_export,
    StoreOptions: run_store,
}


def parse(arguments: Sequence[str]) -> TrainOptions | SampleOptions | EvaluateOptions | ExportOptions | StoreOptions:
    """Turn the words after ``dcgan`` into the options of one command."""
    options = tyro.cli(Options, prog="dcgan", description=__doc__, args=arguments)
    if not isinstance(options, TrainOptions):
        return options
    # Parsed a second time: what the command line leaves out comes from the recipe, or from the run resumed.
    defaults = stored_options(run_folder(options)) if options.resume else recipe_options(options.recipe)
    return tyro.cli(TrainOptions, prog="dcgan train", args=list(arguments)[1:], default=defaults)


def _print_warning(message: Warning | str, *_: Any) -> None:
    # What a user should know, such as the photographs that could not be read, without the place in our code.
    print(f"dcgan: warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a mistake the user can mend is printed as one line, with exit status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = parse(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _print_warning
            return COMMANDS[type(options)](options)
    except UserError as error:
        message = str(error)
    except torch.OutOfMemoryError:
        message = "the device's memory is full; try a smaller --batch-size or --width"
    except OSError as error:
        message = f"{error.filename or 'the system'}: {error.strerror or error}"
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    print(f"dcgan: error: {message}", file=sys.stderr)
    return 2
