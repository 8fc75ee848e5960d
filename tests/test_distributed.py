"""Two processes that train one pair of networks, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import images, networks
from torch.func import functional_call
from torch.nn import functional as F

from dcgan_lib import checkpoint, distributed
from dcgan_lib.data import to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.seeds import batch_indices, mixed_seed

TESTS = Path(__file__).parent
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS)}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

WORKER = """
import sys
import torch
from pathlib import Path
from safetensors.torch import save_file
from tiny import configure, images, networks
from dcgan_lib import batches, distributed, training

folder, steps, generator_steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
shown = []
original = batches.Batches._indices
batches.Batches._indices = lambda self, step: shown.append(original(self, step)) or shown[-1]
with distributed.join(torch.device("cpu")) as world:
    assert world.maximum(world.rank) == 1
    assert world.mean({"rank": float(world.rank), "two": 2.0}) == {"rank": 0.5, "two": 2.0}
    assert distributed.current() is world
    pair = networks(seed=3 * world.rank)  # other weights in each process: what counts are the first one's
    config = configure(steps=steps, generator_steps=generator_steps, checkpoint_every=100, sample_every=100)
    history = training.train(*pair, images(), config, folder / "run", progress=False)
    weights = {f"{i}.{k}": v.contiguous() for i, n in enumerate(pair) for k, v in n.state_dict().items()}
    save_file(weights | {"shown": torch.stack(shown)}, folder / f"{world.rank}.safetensors")
    assert len(history.records) == steps
assert distributed.current().size == 1
"""


def two_processes(tmp_path, steps: int, generator_steps: int) -> list[dict[str, torch.Tensor]]:
    """Train in two processes; return what each of them ends with."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    command = [*TORCHRUN, str(worker), str(tmp_path), str(steps), str(generator_steps)]
    finished = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=200)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]


def by_hand(steps: int, generator_steps: int):
    """The same training in this process: each half of a batch by itself, their gradients averaged, one step of Adam."""
    generator, discriminator = pair = networks()
    g_adam, d_adam = (torch.optim.Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999)) for network in pair)
    # Each process has batch-norm statistics of its own; those of the first are kept.
    own = [[dict(network.named_buffers()) for network in pair], [dict(n.named_buffers()) for n in networks()]]

    def call(rank, network, x):
        return functional_call(network, own[rank][pair.index(network)], x)

    dataset = images()
    for step in range(steps):
        real = to_model_range(dataset.images[batch_indices(10, 4, step, 0)]).split(2)
        random = torch.Generator().manual_seed(mixed_seed(0, step))
        z, *more = (torch.randn(4, 6, generator=random).split(2) for _ in range(generator_steps))
        fakes = [call(rank, generator, z[rank]) for rank in range(2)]
        d_losses = [
            F.softplus(-call(rank, discriminator, real[rank])).mean()
            + F.softplus(call(rank, discriminator, fakes[rank].detach())).mean()
            for rank in range(2)
        ]
        average_and_step(d_adam, discriminator, d_losses)
        for others in (None, *more):
            if others is not None:
                fakes = [call(rank, generator, others[rank]) for rank in range(2)]
            g_losses = [F.softplus(-call(rank, discriminator, fakes[rank])).mean() for rank in range(2)]
            average_and_step(g_adam, generator, g_losses)
    return pair


def average_and_step(optimizer, network, losses):
    gradients = [torch.autograd.grad(loss, list(network.parameters())) for loss in losses]
    for parameter, *parts in zip(network.parameters(), *gradients, strict=True):
        parameter.grad = sum(parts) / len(parts)
    optimizer.step()


@pytest.mark.slow
@pytest.mark.parametrize("generator_steps", [1, 2])
def test_two_processes_end_with_equal_weights_from_disjoint_shares(tmp_path, generator_steps):
    steps = 5
    first, second = two_processes(tmp_path, steps, generator_steps)
    parameters = {f"{i}.{name}" for i, n in enumerate(networks()) for name, _ in n.named_parameters()}
    for name in parameters:
        assert torch.equal(first[name], second[name]), name
    for step in range(steps):
        whole = torch.cat([first["shown"][step], second["shown"][step]])
        assert torch.equal(whole, batch_indices(10, 4, step, 0))
    seen = torch.cat([first["shown"], second["shown"]], dim=1).flatten()
    assert sorted(seen.tolist()) == sorted(2 * list(range(10)))  # two passes over ten images
    # and what they learnt is what averaged gradients teach
    start = {f"{i}.{k}": v for i, n in enumerate(networks()) for k, v in n.state_dict().items()}
    expected = {f"{i}.{k}": v for i, n in enumerate(by_hand(steps, generator_steps)) for k, v in n.state_dict().items()}
    for name, value in expected.items():
        moved = (value - start[name]).abs().max()
        torch.testing.assert_close(first[name], value, rtol=0, atol=float(0.02 * moved) + 1e-7, msg=name)
    # one process wrote the run
    assert checkpoint.load_state(tmp_path / "run")["step"] == steps


def train_command(folder, *options) -> list[str]:
    small = "--data cats --limit 60 --image-size 32 --width 4 --batch-size 8 --log-every 2 --checkpoint-every 5"
    return ["-m", "dcgan_lib", "train", *small.split(), "--output", str(folder), *options]


def start_two(folder, *options) -> subprocess.Popen:
    command = [*TORCHRUN, *train_command(folder, *options)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def workers(process) -> dict[int, int]:
    """Rank -> process number of the processes that torchrun has started."""
    found = {}
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        environment = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        ranks = [int(entry.removeprefix(b"RANK=")) for entry in environment if entry.startswith(b"RANK=")]
        found |= {rank: int(child) for rank in ranks}
    return found


def wait_for_step(folder, step: int) -> None:
    metrics, deadline = folder / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.05)
    pytest.fail("the run did not come that far")


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")


@pytest.mark.slow
@needs_proc
def test_a_killed_process_ends_the_run_and_one_or_two_processes_go_on(tmp_path):
    folder = tmp_path / "run"
    process = start_two(folder, "--steps", "100000")
    wait_for_step(folder, 8)
    os.kill(workers(process)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=100)
    assert process.returncode != 0
    line = next(line for line in output.splitlines() if "dcgan: error" in line)
    assert "process 0 of this run lost another one" in line
    assert "start the same command again with --resume" in line
    assert f"the last good checkpoint is still in {folder}" in line
    step = checkpoint.load_state(folder)["step"]
    assert step >= 5
    assert step % 5 == 0

    alone = [sys.executable, *train_command(folder, "--resume", "--steps", str(step + 5))]
    finished = subprocess.run(alone, env=ENVIRONMENT, capture_output=True, text=True, timeout=100)
    assert finished.returncode == 0, finished.stderr
    assert checkpoint.load_state(folder)["step"] == step + 5

    process = start_two(folder, "--resume", "--steps", "100000")
    wait_for_step(folder, step + 7)
    # A signal to either process ends both after the same step.
    os.kill(workers(process)[1], signal.SIGINT)
    output, _ = process.communicate(timeout=100)
    state = checkpoint.load_state(folder)
    assert state["step"] > step + 5
    assert f"interrupted after {state['step']:,} steps" in output
    assert output.count("interrupted after") == 1  # one process talks


def test_a_batch_that_cannot_be_shared_is_refused():
    assert distributed.World(1, 4).share(8) == slice(2, 4)
    with pytest.raises(UserError, match="batch_size=9 cannot be shared evenly by 4 processes"):
        distributed.World(1, 4).share(9)


def test_processes_that_do_not_find_each_other(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # and nothing else that torchrun sets
    message = "the 2 processes did not find each other"
    with pytest.raises(UserError, match=message) as caught, distributed.join(torch.device("cpu")):
        pass
    assert "\n" not in str(caught.value)


def test_alone_nothing_is_joined_and_errors_keep_their_kind():
    with distributed.join(torch.device("cpu")) as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        assert world.wrap(networks()[0]).__class__.__name__ == "Generator"
        assert world.maximum(3) == 3
    with pytest.raises(RuntimeError, match=r"gloo/transport") as caught, distributed.lost_process("nothing"):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:1] Connection closed by peer")
    assert not isinstance(caught.value, UserError)
