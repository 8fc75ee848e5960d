"""Runs that are killed at any moment, and files that are damaged in any way: nothing is lost, and nothing wrong passes.

What is killed, or might take the memory of the machine, is a process of its own: see `killed.py` and `damage.py`.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import damage
import pytest
from tiny import EVERY_OPTION, assert_same, configure, images, networks

from dcgan_lib import checkpoint, tensor_file
from dcgan_lib.checkpoint import load_state, load_weights
from dcgan_lib.training import train

TESTS = Path(__file__).parent
FILES = ["checkpoint.safetensors", "state.safetensors"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, kill and limits on memory, of POSIX")


def report(script, *arguments):
    """What a script beside this file prints as its last line."""
    command = [sys.executable, TESTS / script, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-4000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.fixture
def run(tmp_path):
    """A short run with every part that a state can have."""
    folder = tmp_path / "run"
    train(*networks(), images(), configure(steps=3, **EVERY_OPTION), folder, progress=False)
    return folder


# --- kills ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_killed_at_50_random_moments_ends_with_the_bits_of_the_undisturbed_run(tmp_path):
    seen = report("killed.py", "run", tmp_path, 50, 0)
    assert sum(seen["phases"].values()) == 50
    assert {"step", "grid", "state", "weights"} <= seen["phases"].keys(), seen
    assert len({tuple(place) for place in seen["steps"]}) > 10, seen  # so the kills hit different moments of the runs
    whole = tmp_path / "whole"
    for number in range(seen["runs"]):
        assert_same_run(tmp_path / str(number), whole)


def assert_same_run(folder, whole):
    state = load_state(folder)
    assert state["step"] == 60
    assert_same(state, load_state(whole))
    for name in ("generator", "discriminator", "average"):
        weights = [load_weights(place / checkpoint.WEIGHTS_NAME, name).state_dict() for place in (folder, whole)]
        assert_same(*weights)
    lines = [[json.loads(line) for line in (place / "metrics.jsonl").open()] for place in (folder, whole)]
    assert [line["step"] for line in lines[0]] == list(range(1, 61))
    assert_same(*lines)
    names = [sorted(str(path.relative_to(place)) for path in place.rglob("*")) for place in (folder, whole)]
    assert names[0] == names[1]  # and so nothing half written is left
    for path in (folder / "samples").iterdir():
        assert path.read_bytes() == (whole / "samples" / path.name).read_bytes()


@pytest.mark.slow
def test_200_kills_while_a_checkpoint_is_overwritten_leave_the_old_or_the_new_one(tmp_path):
    seen = report("killed.py", "overwrite", tmp_path, 200, 0)
    assert seen["versions"] > 100
    outcomes = seen["outcomes"]
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("state")) == 200
    assert sum(count for outcome, count in outcomes.items() if outcome.startswith("weights")) == 200
    assert outcomes["state old"] > 10, outcomes  # kills did hit while each of the files was being written
    assert outcomes["weights old"] > 10, outcomes
    # Each writer that was killed leaves a file, of which the next one removes that for the same target.
    assert sum(seen["left"]) > 20
    assert max(seen["left"]) <= 2
    assert seen["files"] == FILES


# --- damage -----------------------------------------------------------------------------------------------------------


def assert_harmless(seen, count):
    assert seen["slowest"] < damage.PATIENCE, seen
    # The file's bytes once and its tensors once, and what Python keeps for itself.
    assert seen["grown"] < 2 * seen["largest"] + 8 * 2**20, seen
    kinds = {"refused", "equal", "loaded", "refused when restored"}
    assert sum(seen["outcomes"].get(kind, 0) for kind in kinds) == count


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_of_10000_damaged_files_each_is_refused_in_one_line_or_loads_what_was_saved(run, name):
    seen = report("damage.py", run, name, "accident", 10_000, 0)
    assert_harmless(seen, 10_000)
    outcomes = seen["outcomes"]
    assert outcomes["refused"] > 9900  # a block of zeros exchanged with another, say, is no damage
    assert {mutate.__name__ for mutate in damage.ACCIDENTS} <= outcomes.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_whoever_computes_the_checksum_anew_can_change_numbers_and_nothing_else(run, name):
    seen = report("damage.py", run, name, "attack", 2000, 0)
    assert_harmless(seen, 2000)
    assert seen["outcomes"]["loaded"] > 50  # so the checksums were right, and the contents are what was refused
    assert {mutate.__name__ for mutate in damage.ATTACKS} <= seen["outcomes"].keys()


counts_memory = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone says what a process holds at its most")


def run_in_process(code, *arguments):
    """What a program prints that can import the modules beside this file."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=TESTS, timeout=120)


@counts_memory
def test_the_watch_over_damaged_files_sees_what_it_is_there_for(tmp_path):
    """The tests above would see code that runs, a file that is written, and memory that is taken."""
    code = """
import damage, pickle, sys
watch = damage.Watch()
with watch:
    pickle.loads(b"cos\\ngetpid\\n(tR.")
    open(sys.argv[1], "w").close()
    eval("1")
print(sorted(entry.split()[0] for entry in watch.seen))
print(damage.growth(lambda: b"x" * 2**26))
damage.limit_memory(damage.MARGIN)
bytearray(2**30)
"""
    finished = run_in_process(code, tmp_path / "a")
    seen, grown = finished.stdout.splitlines()
    assert seen == "['compile', 'exec', 'open', 'pickle.find_class']"
    assert abs(int(grown) - 2**26) < 2**20
    assert "MemoryError" in finished.stderr


@counts_memory
def test_reading_takes_the_file_and_its_tensors_once_and_writing_a_few_tensors(tmp_path):
    code = """
import damage, sys, torch
from dcgan_lib import tensor_file
torch.set_num_threads(1)
tensors = {str(number): torch.ones(2**20).view(1024, 1024).t() for number in range(24)}
tensor_file.write(sys.argv[2], {"a": torch.ones(2)}, {})
tensor_file.read(sys.argv[2], "", "")
print(damage.growth(lambda: tensor_file.write(sys.argv[1], tensors, {})))
del tensors
print(damage.growth(lambda: tensor_file.read(sys.argv[1], "", "")))
"""
    written, read = map(int, run_in_process(code, tmp_path / "large", tmp_path / "small").stdout.split())
    size = (tmp_path / "large").stat().st_size
    assert size > 24 * 2**22
    assert written < size / 2  # copies of a few tensors, of which the allocator keeps some
    assert 1.5 * size < read < 2.25 * size


@pytest.mark.parametrize("module", [checkpoint, tensor_file, checkpoint.nested])
def test_nothing_that_reads_a_checkpoint_knows_pickle(module):
    nodes = list(ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert "json" in imported  # the readers of imports and of calls see something
    assert called & {"json.loads", "json.dumps"}
    assert not imported & {"pickle", "marshal", "shelve", "dill"}
    assert not called & {"torch.load", "torch.save", "eval", "exec", "compile", "__import__"}
