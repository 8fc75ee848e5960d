"""Whatever goes wrong in a run: one clear line that says what to do, and the last good checkpoint stays."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch
from tiny import assert_same, configure, images, networks

from dcgan_lib import checkpoint, cli, latent, training
from dcgan_lib.errors import UserError
from dcgan_lib.run_folder import LOCK_NAME, kept_alone

TESTS = Path(__file__).parent


def run(config, folder, seed=0, **options):
    return training.train(*networks(seed=seed), images(), config, folder, progress=False, **options)


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def spoil_step(monkeypatch, number, change):
    """Let ``change`` alter what step ``number``, counted from 1, returns."""
    original, calls = training.train_step, []

    def step(*arguments, **options):
        calls.append(None)
        values = original(*arguments, **options)
        return change(values) if len(calls) == number else values

    monkeypatch.setattr(training, "train_step", step)


# --- losses that leap -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["d_loss", "g_loss"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_loss_that_leaps_ends_the_run_before_it_is_saved(tmp_path, monkeypatch, name, sign):
    spoil_step(monkeypatch, 6, lambda values: values | {name: values[name] + sign * 5000})
    with pytest.raises(UserError, match=f"{name} leapt to .* at step 6; try a lower learning rate") as caught:
        run(configure(steps=9), tmp_path)  # the checkpoint of step 6 was due
    assert f"the last good checkpoint is still in {tmp_path}" in one_line(caught)
    assert checkpoint.load_state(tmp_path)["step"] == 3
    monkeypatch.undo()
    assert run(configure(steps=6), tmp_path, seed=4, resume=True).step == 6


def test_a_loss_may_leap_where_it_was_allowed_and_a_small_leap_always(tmp_path, monkeypatch):
    spoil_step(monkeypatch, 5, lambda values: values | {"d_loss": values["d_loss"] + 5000})
    assert run(configure(stop_on_spike=0), None).step == 6
    monkeypatch.undo()
    spoil_step(monkeypatch, 5, lambda values: values | {"d_loss": values["d_loss"] + 900})
    assert run(configure(), None).step == 6


def test_losses_that_are_large_from_the_beginning_are_no_leap(monkeypatch):
    original = training.train_step
    large = lambda *a, **k: original(*a, **k) | {"d_loss": torch.tensor(1e6)}  # noqa: E731
    monkeypatch.setattr(training, "train_step", large)
    assert run(configure(), None).step == 6


def test_a_learning_rate_that_is_far_too_high_ends_in_one_line(tmp_path):
    """No spoilt step: training itself runs away."""
    config = configure(steps=400, learning_rate=1.0, beta1=0.0, loss="wasserstein", checkpoint_every=1000)
    with pytest.raises(UserError, match=r"(leapt to|not finite).*try a lower learning rate") as caught:
        training.train(*networks(batch_norm=False), images(), config, tmp_path, progress=False)
    one_line(caught)
    assert all(parameter.isfinite().all() for parameter in checkpoint.load_generator(tmp_path).parameters())


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        MemoryError(),
    ],
)
def test_a_full_memory_is_one_line_and_the_run_goes_on_with_more_of_it(tmp_path, monkeypatch, error):
    def full(values):
        raise error

    spoil_step(monkeypatch, 5, full)
    with pytest.raises(UserError, match=r"the memory of the device cpu is full at step 4; try a smaller --batch") as c:
        run(configure(), tmp_path)
    assert f"the last good checkpoint is still in {tmp_path}" in one_line(c)
    assert checkpoint.load_state(tmp_path)["step"] == 3
    monkeypatch.undo()
    assert run(configure(), tmp_path, seed=4, resume=True).step == 6


def test_other_errors_keep_their_kind(monkeypatch):
    def broken(values):
        raise RuntimeError("a bug")

    spoil_step(monkeypatch, 2, broken)
    with pytest.raises(RuntimeError, match="a bug"):
        run(configure(), None)


def test_a_memory_that_is_really_too_small(tmp_path):
    """The system refuses the memory; no error is made up."""
    pytest.importorskip("resource")
    code = """
        import resource, sys
        from dcgan_lib import cli
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 1_500_000_000, resource.RLIM_INFINITY))
        sys.exit(cli.main(sys.argv[1:]))
    """
    if not Path("/proc/self/statm").exists():
        pytest.skip("reads the size of a process in /proc")
    options = ["train", "--data", "cats", "--limit", "40", "--image-size", "32", "--width", "64"]
    command = [
        sys.executable,
        "-c",
        textwrap.dedent(code),
        *options,
        "--batch-size",
        "16384",
        "--output",
        tmp_path / "r",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert finished.returncode == 2, finished.stderr
    (line,) = [line for line in finished.stderr.splitlines() if "dcgan: error" in line]
    assert "is full at step 0; try a smaller --batch-size or --width" in line
    assert checkpoint.load_state(tmp_path / "r")["step"] == 0


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a small file system here; tests/test_training.py fakes a full disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    folder = small_disk / "run"
    run(configure(steps=3), folder)
    before = {name: (folder / name).read_bytes() for name in (checkpoint.STATE_NAME, checkpoint.WEIGHTS_NAME)}
    rest = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(rest.f_bavail * rest.f_bsize - 8192))
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; ") as caught:
        run(configure(), folder, resume=True)
    one_line(caught)
    assert {name: (folder / name).read_bytes() for name in before} == before
    (small_disk / "filler").unlink()
    assert run(configure(), folder, resume=True).step == 6


def test_a_disk_that_is_really_read_only(small_disk):
    folder = small_disk / "run"
    run(configure(steps=3), folder)
    remount = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(remount, check=True)
    with pytest.raises(UserError, match=r"cannot write .*: Read-only file system") as caught:
        run(configure(), folder, resume=True)
    one_line(caught)
    with pytest.raises(UserError, match=r"cannot write .*: Read-only file system"):
        run(configure(), small_disk / "another")
    assert checkpoint.load_state(folder)["step"] == 3


def test_a_folder_that_vanishes_while_training(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def remove(values):
        folder.rename(tmp_path / "elsewhere")
        return values

    spoil_step(monkeypatch, 2, remove)
    with pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: No such file or directory") as caught:
        run(configure(), folder)
    one_line(caught)
    assert checkpoint.load_state(tmp_path / "elsewhere")["step"] == 0


def test_photographs_that_are_gone_when_a_run_is_resumed(tmp_path, capsys):
    from dcgan_lib.images import save_png

    for index in range(6):
        save_png(images(channels=3).images[index : index + 1], tmp_path / "photos" / f"{index}.png")
    arguments = ["train", "--data", f"folder:{tmp_path / 'photos'}", "--image-size", "32", "--width", "4"]
    arguments += ["--batch-size", "2", "--output", str(tmp_path / "run")]
    assert cli.main([*arguments, "--steps", "2"]) == 0
    (tmp_path / "photos").rename(tmp_path / "moved")
    assert cli.main(["train", "--output", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"the folder of images '{tmp_path / 'photos'}' does not exist" in error
    assert checkpoint.load_state(tmp_path / "run")["step"] == 2
    (tmp_path / "moved").rename(tmp_path / "photos")
    assert cli.main(["train", "--output", str(tmp_path / "run"), "--resume", "--steps", "4"]) == 0


# --- two runs in one directory ----------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_is_refused_while_the_first_one_goes_on(tmp_path, monkeypatch):
    errors = []

    def start_another(values):
        for resume in (False, True):
            thread = threading.Thread(target=lambda resume=resume: errors.append(error_of(resume)))
            thread.start()
            thread.join()
        return values

    def error_of(resume):
        with pytest.raises(UserError) as caught:
            run(configure(), tmp_path, resume=resume)
        return str(caught.value)

    spoil_step(monkeypatch, 4, start_another)
    history = run(configure(), tmp_path)
    assert errors == [f"another process is training in {tmp_path}; wait for it, or choose another --output"] * 2
    assert history.step == 6
    assert_same(history.generator.state_dict(), run(configure(), None).generator.state_dict())


def test_another_process_is_kept_out_and_its_death_opens_the_folder(tmp_path):
    code = """
        import sys, time
        from pathlib import Path
        from dcgan_lib.run_folder import kept_alone
        with kept_alone(Path(sys.argv[1])):
            print("locked", flush=True)
            time.sleep(60)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match="another process is training in"):
            run(configure(), tmp_path)
        other.kill()
        other.wait()
    assert run(configure(), tmp_path).step == 6  # the lock died with its process


def test_the_lock_is_given_back(tmp_path):
    for _ in range(2):
        with kept_alone(tmp_path):
            pass
    with pytest.raises(KeyError), kept_alone(tmp_path):
        raise KeyError
    with kept_alone(tmp_path):
        pass


# --- signals in every phase -------------------------------------------------------------------------------------------

PHASES = {
    "opening the folder": (training.checkpoint, "save_state"),
    "fetching a batch": (training.Batches, "real"),
    "a step": (training, "train_step"),
    "averaging": (training.WeightAverage, "update"),
    "logging": (training._Run, "_log"),
    "a grid": (training, "generate"),
    "saving the state": (training.checkpoint, "save_state"),
    "saving the weights": (training.checkpoint, "save_weights"),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase_leaves_a_run_that_resumes_to_the_same_bits(tmp_path, monkeypatch, phase, number):
    place, name = PHASES[phase]
    original, calls = getattr(place, name), []
    which = 1 if phase == "opening the folder" else 2

    def interrupted(*arguments, **options):
        calls.append(None)
        if len(calls) == which:
            os.kill(os.getpid(), number)
        return original(*arguments, **options)

    config = configure(average_half_life=2.0, sample_every=2, checkpoint_every=2)
    monkeypatch.setattr(place, name, interrupted)
    stopped = run(config, tmp_path / "run")
    monkeypatch.undo()
    assert stopped.interrupted
    assert stopped.step < 6
    assert checkpoint.load_state(tmp_path / "run")["step"] == stopped.step
    assert not [path for path in (tmp_path / "run").rglob(".*") if path.name != LOCK_NAME]
    resumed, whole = run(config, tmp_path / "run", seed=5, resume=True), run(config, None)
    assert resumed.step == 6
    assert not resumed.interrupted
    assert_same(resumed.generator.state_dict(), whole.generator.state_dict())


def test_a_second_ctrl_c_in_the_middle_of_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
    original, calls = os.replace, []

    def interrupted(*arguments):
        calls.append(None)
        if len(calls) == 8:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return original(*arguments)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(configure(sample_every=100), tmp_path)
    monkeypatch.undo()
    signal.signal(signal.SIGINT, before)
    assert checkpoint.load_state(tmp_path)["step"] in (0, 3, 6)
    resumed = run(configure(), tmp_path, seed=5, resume=True)
    assert_same(resumed.generator.state_dict(), run(configure(), None).generator.state_dict())
    assert latent.sample(checkpoint.load_generator(tmp_path), 2, 0).isfinite().all()
