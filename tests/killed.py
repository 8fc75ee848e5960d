"""Processes that are killed while they train, or write a checkpoint, and a parent that looks at what they leave.

``python killed.py run FOLDER KILLS SEED`` trains the run of ``RUN`` in FOLDER/whole undisturbed, and again in FOLDER/0,
FOLDER/1, ... until it was killed KILLS times at random moments; ``python killed.py overwrite FOLDER KILLS SEED`` kills
a process that overwrites the files of a checkpoint. Both print what they saw as one line of JSON. The children are
forks, so that a start takes milliseconds.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import torch
import torch._dynamo  # optimizers import it when they are first used, which takes seconds; so the forks have it already
from tiny import EVERY_OPTION, configure, deterministic, images, networks

from dcgan_lib import checkpoint, training
from dcgan_lib.run_folder import RunFolder

RUN = configure(steps=60, log_every=1, sample_every=1, checkpoint_every=2, **EVERY_OPTION)
LONGEST = 1 / 6  # of the time that the whole run takes, until a kill
PHASES = ("start", "step", "log", "grid", "state", "weights")
AIMS = ("state", "weights", "grid", "log")  # short ones, which a kill after a random time would often miss


class Place:
    """A few whole numbers that a process shares with its forks, and that outlive them."""

    def __init__(self):
        self.memory = mmap.mmap(-1, 64)

    def __getitem__(self, index):
        return int.from_bytes(self.memory[8 * index : 8 * index + 8], "little")

    def __setitem__(self, index, number):
        self.memory[8 * index : 8 * index + 8] = number.to_bytes(8, "little")


def fork(work):
    """Start a process that does the work and ends."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        sys.stderr.flush()
        os._exit(status)


def finish(child):
    """Wait for a child, which has to end well."""
    assert os.waitpid(child, 0)[1] == 0


def has_ended(child):
    """Whether a child has ended by itself. Its number stays its own until somebody waits for it in earnest."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_after(child, seconds):
    """Kill a child after a while; whether it was still alive."""
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"the process ended by itself with status {code}"
    return code != 0


def train(folder):
    """Begin or continue the run in a folder, as somebody would who only looks whether there is one."""
    resume = (folder / checkpoint.STATE_NAME).exists()
    # Other weights than those of the first start: everything has to come from the folder.
    with deterministic():
        training.train(*networks(seed=7 if resume else 0), images(), RUN, folder, resume=resume, progress=False)


def marked(function, place, phase):
    """A function that leaves a mark while it is at work, and counts how often it was."""
    number = PHASES.index(phase)

    def wrapper(*arguments, **options):
        before, place[0] = place[0], number
        place[number] += 1
        try:
            return function(*arguments, **options)
        finally:
            place[0] = before

    return wrapper


def kill_runs(folder, kills, dice):
    """Kill a run again and again, each time resumed; when it is finished all the same, begin another.

    Half of the kills come after a random time, and half soon after a phase has begun for the n-th time.
    """
    place, phases, steps, done = Place(), Counter(), [], 0
    for owner, name, phase in (
        (training, "train_step", "step"),
        (RunFolder, "append", "log"),
        (RunFolder, "write_grid", "grid"),
        (checkpoint, "save_state", "state"),
        (checkpoint, "save_weights", "weights"),
    ):
        setattr(owner, name, marked(getattr(owner, name), place, phase))
    started = time.perf_counter()
    finish(fork(lambda: train(folder / "whole")))
    longest = LONGEST * (time.perf_counter() - started)
    while kills:
        run, aim = folder / str(done), kills % 2 and AIMS[kills // 2 % len(AIMS)]
        for number in range(len(PHASES)):
            place[number] = 0
        child, delay, times = fork(lambda run=run: train(run)), dice.uniform(0, longest), dice.randrange(1, 5)
        while aim and place[PHASES.index(aim)] < times and not has_ended(child):
            delay = dice.uniform(0, 0.002)
            time.sleep(1e-4)
        if kill_after(child, delay):
            kills -= 1
            phases[PHASES[place[0]]] += 1
            if (run / checkpoint.STATE_NAME).exists():
                steps.append([done, checkpoint.load_state(run)["step"]])
        else:
            done += 1
    finish(fork(lambda: train(folder / str(done))))
    return {"runs": done + 1, "phases": phases, "steps": steps, "longest": longest}


def version(number):
    """Networks and a state of which every number follows from one."""
    pair = dict(zip(("generator", "discriminator"), networks(), strict=True))
    for network in pair.values():
        for value in network.state_dict().values():
            value.fill_(number)
    state = {name: network.state_dict() for name, network in pair.items()}
    return pair, state | {"step": number, "seconds": float(number), "records": [{"seconds": float(number)}] * 50}


def overwrite(folder, place):
    """Write version after version; ``place`` holds the last that was begun and the last that was finished, by file."""
    while True:
        number = place[0] + 1
        pair, state = version(number)
        place[0] = number
        checkpoint.save_state(folder, state)
        place[1] = number
        place[2] = number
        checkpoint.save_weights(folder / checkpoint.WEIGHTS_NAME, pair, number)
        place[3] = number


def the_one_number(tensors):
    """What all numbers of all tensors are."""
    numbers = {float(number) for tensor in tensors for number in (tensor.min(), tensor.max())}
    assert len(numbers) == 1, f"a mixture of versions: {numbers}"
    return int(numbers.pop())


def kill_writers(folder, kills, dice):
    """Kill a process that overwrites a checkpoint, and load both files each time."""
    place, outcomes, left = Place(), Counter(), []
    pair, state = version(0)
    checkpoint.save_state(folder, state)
    checkpoint.save_weights(folder / checkpoint.WEIGHTS_NAME, pair, 0)
    for _ in range(kills):
        assert kill_after(fork(lambda: overwrite(folder, place)), dice.uniform(0.005, 0.05))
        state = checkpoint.load_state(folder)
        found = the_one_number([*state["generator"].values(), *state["discriminator"].values()])
        assert found == state["step"] == state["seconds"] == state["records"][-1]["seconds"]
        outcomes["state " + between(found, place[1], place[0])] += 1
        place[1] = found
        loaded = [checkpoint.load_weights(folder / checkpoint.WEIGHTS_NAME, name).state_dict() for name in pair]
        found = the_one_number([value for network in loaded for value in network.values()])
        outcomes["weights " + between(found, place[3], place[2])] += 1
        place[3] = found
        left.append(sum(".partial-" in name for name in os.listdir(folder)))
    pair, state = version(7)
    checkpoint.save_state(folder, state)
    checkpoint.save_weights(folder / checkpoint.WEIGHTS_NAME, pair, 7)
    return {"outcomes": outcomes, "versions": place[0], "left": left, "files": sorted(os.listdir(folder))}


def between(found, finished, begun):
    """What a kill has left: with nothing begun after the last finished version, only that one is right."""
    assert found in (finished, begun), f"version {found} was found where {finished} was finished and {begun} begun"
    return "whole" if finished == begun else "old" if found == finished else "new"


def main():
    torch.set_num_threads(1)  # a process with threads must not be forked
    work = {"run": kill_runs, "overwrite": kill_writers}[sys.argv[1]]
    print(json.dumps(work(Path(sys.argv[2]), int(sys.argv[3]), random.Random(int(sys.argv[4])))))


if __name__ == "__main__":
    main()
