import os
import subprocess
import sys

import pytest
import torch
from tiny import configure, images, networks
from torch import nn

from dcgan_lib import acceleration, device, training
from dcgan_lib.acceleration import accelerated, adam, keep_freed_memory, uncompiled

CPU = torch.device("cpu")


def test_adam_is_fused_and_agrees_with_the_plain_one():
    weights = []
    for make in (adam, lambda p, c: torch.optim.Adam(p, lr=c.learning_rate, betas=(c.beta1, c.beta2))):
        parameter = nn.Parameter(torch.linspace(-1, 1, 10))
        optimizer = make([parameter], configure(learning_rate=0.01, beta1=0.4, beta2=0.9))
        for _ in range(5):
            parameter.grad = parameter.detach() ** 2
            optimizer.step()
        weights.append(parameter.detach())
    assert adam([nn.Parameter(torch.zeros(1))], configure()).defaults["fused"]
    torch.testing.assert_close(*weights)


def test_adam_without_a_fused_kernel(monkeypatch):
    original = torch.optim.Adam

    def no_kernel(*arguments, fused=None, **options):
        if fused:
            raise RuntimeError("`fused=True` requires all the params to be on supported devices")
        return original(*arguments, **options)

    monkeypatch.setattr(torch.optim, "Adam", no_kernel)
    assert not adam([nn.Parameter(torch.zeros(1))], configure()).defaults["fused"]


@pytest.mark.parametrize(("precision", "fast"), [("bfloat16", True), ("float32", False)])
def test_convolutions_are_fast_in_bfloat16_on_a_cpu(precision, fast):
    generator, _ = networks()
    with accelerated(configure(precision=precision), CPU, generator):
        assert ("forward" in vars(generator.layers[0][0])) == fast
    assert "forward" not in vars(generator.layers[0][0])


def test_deterministic_algorithms_are_asked_for_and_given_back():
    def failing():
        with accelerated(configure(deterministic=True), CPU):
            assert torch.are_deterministic_algorithms_enabled()
            raise KeyError

    assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(KeyError):
        failing()
    assert not torch.are_deterministic_algorithms_enabled()


def test_auto_compiles_on_a_gpu_only(monkeypatch):
    asked = []

    def compiled(device, *networks):
        asked.append(device.type)
        return acceleration.nullcontext()

    monkeypatch.setattr(acceleration, "_compiled", compiled)
    for choice, kind in (("auto", "cpu"), ("no", "cuda"), ("auto", "cuda"), ("yes", "cpu")):
        with accelerated(configure(compile=choice), torch.device(kind)):
            pass
    assert asked == ["cuda", "cpu"]


def train_in_a_process(tmp_path, environment) -> subprocess.CompletedProcess:
    code = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from tiny import configure, images, networks
from dcgan_lib import training
options = {"steps": 4, "r1_gamma": 1.0, "r1_every": 2}
for choice in ("no", "yes"):
    pair = networks(batch_norm=False)
    history = training.train(*pair, images(), configure(compile=choice, **options), progress=False)
    assert not any(module._compiled_call_impl for network in pair for module in network.modules())
    print(choice, *history.column("d_loss"), *history.column("g_loss"))
import torch._dynamo.utils
print("graphs", torch._dynamo.utils.counters["stats"].get("unique_graphs", 0))
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "c")} | environment
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_without_a_compiler_training_goes_on(tmp_path):
    finished = train_in_a_process(tmp_path, {"CXX": "/nonexistent/c++", "PATH": str(tmp_path)})
    assert finished.returncode == 0, finished.stderr
    plain, compiled, graphs = finished.stdout.splitlines()
    assert plain.split()[1:] == compiled.split()[1:]
    assert graphs == "graphs 0"
    assert finished.stderr.count("no compiler works here") == 1
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_compiled_networks_train_alike_also_where_a_penalty_needs_second_derivatives(tmp_path):
    finished = train_in_a_process(tmp_path, {})
    assert finished.returncode == 0, finished.stderr
    if "no compiler works here" in finished.stderr:
        pytest.skip("no C++ compiler on this machine")
    plain, compiled, graphs = (line.split() for line in finished.stdout.splitlines())
    assert int(graphs[1]) >= 3  # G, D with gradients of its weights, and D without
    numbers = [torch.tensor(list(map(float, line[1:]))) for line in (plain, compiled)]
    torch.testing.assert_close(*numbers, rtol=1e-4, atol=1e-5)


def test_uncompiled_leaves_ordinary_networks_alone():
    generator, _ = networks()
    with uncompiled(generator):
        assert generator(torch.zeros(2, 6)).shape == (2, 1, 32, 32)


def test_keeping_freed_memory_is_harmless_and_quiet_where_it_is_not_to_be_had(monkeypatch, capfd):
    keep_freed_memory()

    def none(_):
        raise OSError("no such library")

    monkeypatch.setattr(acceleration.ctypes, "CDLL", none)
    keep_freed_memory()
    monkeypatch.setattr(acceleration.ctypes, "CDLL", lambda _: object())
    keep_freed_memory()
    assert capfd.readouterr() == ("", "")


def test_of_several_processes_each_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device.get_device("auto") == device.get_device("cuda") == torch.device("cuda:3")
    assert device.get_device("cuda:1") == torch.device("cuda:1")
    assert device.get_device("cpu") == CPU


def test_the_networks_are_ordinary_again_after_training():
    history = training.train(*networks(), images(), configure(precision="bfloat16", steps=2), progress=False)
    assert not any("forward" in vars(layer) for layer in history.generator.modules())
