import builtins
import copy

import numpy as np
import onnxruntime
import pytest
import torch
from tiny import networks

from dcgan_lib.errors import UserError
from dcgan_lib.export import export_onnx
from dcgan_lib.latent import sample_latent
from dcgan_lib.models import build_generator


@pytest.fixture(scope="module")
def trained():
    """A generator whose running statistics are not those of a fresh one, so that the mode of export matters."""
    generator, _ = networks(channels=3)
    with torch.no_grad():
        for block in generator.layers:
            block[0].weight.mul_(20)  # pictures of full contrast; at first they are grey to three digits
        generator(torch.randn(8, 6, generator=torch.Generator().manual_seed(1)) * 3)
    return generator


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "new folder" / "generator.onnx"
    assert trained.training
    export_onnx(trained, path)
    assert trained.training  # left as it was
    return path


@pytest.mark.parametrize("count", [1, 5])
def test_onnx_gives_the_images_of_torch(trained, exported, count):
    session = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    z = sample_latent(count, 6, seed=2)
    (images,) = session.run(["images"], {"z": z.numpy()})
    with torch.no_grad():
        expected = copy.deepcopy(trained).eval()(z)
        in_train_mode = copy.deepcopy(trained).train()(z)
    assert images.dtype == np.float32
    np.testing.assert_allclose(images, expected.numpy(), rtol=0, atol=1e-5)
    assert expected.std() > 0.1
    assert (expected - in_train_mode).abs().max() > 0.1  # so the comparison can tell the modes apart


@pytest.mark.parametrize("way", ["transposed-5", "resize"])
def test_onnx_of_the_other_ways_to_double(tmp_path, way):
    generator = build_generator(32, 3, latent_dim=6, width=4, upsampling=way).eval()
    with torch.no_grad():
        for block in generator.layers:
            block[0].weight.mul_(20)
    export_onnx(generator, tmp_path / "generator.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "generator.onnx", providers=["CPUExecutionProvider"])
    z = sample_latent(3, 6, seed=2)
    (images,) = session.run(["images"], {"z": z.numpy()})
    with torch.no_grad():
        expected = generator(z)
    assert expected.std() > 0.1
    np.testing.assert_allclose(images, expected.numpy(), rtol=0, atol=1e-5)


def test_one_file_is_written_and_nothing_else(exported):
    assert [path.name for path in exported.parent.iterdir()] == ["generator.onnx"]


def test_a_failed_export_leaves_the_file_before(trained, tmp_path, monkeypatch):
    path = tmp_path / "generator.onnx"
    path.write_text("before")

    def fails(_, arguments, target, **options):
        target.write_text("half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(UserError, match=r"cannot write .*generator.onnx: No space left on device"):
        export_onnx(trained, path)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_missing_packages_are_one_clear_line(trained, tmp_path, monkeypatch, missing):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == missing:
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match="ONNX needs two more packages: pip install onnx onnxscript"):
        export_onnx(trained, tmp_path / "generator.onnx")
    assert list(tmp_path.iterdir()) == []
