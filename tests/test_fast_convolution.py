import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from dcgan_lib import fast_convolution, models
from dcgan_lib.fast_convolution import correlate, dense, fast_convolutions, strided

CONVOLUTIONS = {False: F.conv2d, True: F.conv_transpose2d}


def tensors(random, *shapes):
    return [torch.randn(*shape, generator=random, dtype=torch.float64, requires_grad=True) for shape in shapes]


def compare(form, ordinary, x, weight, bias, transposed):
    """Values, gradients and gradients of gradients, in float64 against PyTorch's own layer."""
    inputs = [x, weight] if bias is None else [x, weight, bias]
    ours, theirs = form(x, weight, bias, transposed), ordinary(x, weight, bias)
    torch.testing.assert_close(ours, theirs)
    direction = torch.randn_like(theirs)
    first = [torch.autograd.grad(y, inputs, direction, create_graph=True) for y in (ours, theirs)]
    torch.testing.assert_close(*first)
    # As in the R1 penalty: the squared gradient of the images is differentiated by the weights.
    second = [torch.autograd.grad(gradients[0].square().sum(), weight) for gradients in first]
    torch.testing.assert_close(*second)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 6), st.booleans(), st.booleans(),
    st.integers(0, 2**32),
)  # fmt: skip
def test_forms_of_stride_two_agree_with_pytorch(images, few, many, half, transposed, biased, seed):
    random = torch.Generator().manual_seed(seed)
    size, channels_in, channels_out = (half, many, few) if transposed else (2 * half, few, many)
    x, weight, bias = tensors(random, (images, channels_in, size, size), (many, few, 4, 4), (channels_out,))
    bias = bias if biased else None
    compare(strided, lambda *a: CONVOLUTIONS[transposed](*a, stride=2, padding=1), x, weight, bias, transposed)


def test_the_weights_gradient_is_a_sum_over_patches():
    random = torch.Generator().manual_seed(0)
    for half in (2, 6):  # by one matrix product, and by PyTorch
        large, small = tensors(random, (2, 3, 2 * half, 2 * half), (2, 5, half, half))
        patches = F.unfold(large, 4, padding=1, stride=2)  # (2, 3 * 16, half * half)
        expected = torch.einsum("nkp,ncp->kc", small.flatten(2), patches).unflatten(1, (3, 4, 4))
        torch.testing.assert_close(correlate(large, small), expected)


@pytest.mark.parametrize("wanted", [True, False])
def test_where_no_form_gains_a_layer_stays_ordinary(wanted, spied):
    """At the image D gains only where its input needs a gradient, in G's step; inside where its weights need one."""
    discriminator = models.build_discriminator(32, 3, 16).requires_grad_(not wanted)
    with torch.autocast("cpu", torch.bfloat16), fast_convolutions(discriminator):
        first, inner = discriminator.layers[0][0], discriminator.layers[2][0]
        first(torch.zeros(2, 3, 32, 32, requires_grad=wanted))
        assert (spied == ["strided"]) == wanted
        spied.clear()
        inner(torch.zeros(2, 32, 8, 8, requires_grad=True))
        assert (spied == ["strided"]) != wanted


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_dense_form_agrees_with_pytorch(images, channels_in, channels_out, transposed, biased, seed):
    random = torch.Generator().manual_seed(seed)
    size = 1 if transposed else 4
    shape = (channels_in, channels_out) if transposed else (channels_out, channels_in)
    x, weight, bias = tensors(random, (images, channels_in, size, size), (*shape, 4, 4), (channels_out,))
    bias = bias if biased else None
    compare(dense, CONVOLUTIONS[transposed], x, weight, bias, transposed)


def chosen(network) -> list[str]:
    return [getattr(fast_convolution._form(block[0]), "__name__", "none") for block in network.layers]


def test_every_layer_of_a_dcgan_has_its_form():
    assert chosen(models.build_generator(64, 3)) == ["dense", *["strided"] * 4]
    assert chosen(models.build_discriminator(64, 1)) == [*["strided"] * 4, "dense"]
    # other ways to double are left alone
    assert chosen(models.build_generator(32, 3, upsampling="transposed-5")) == ["dense", *["none"] * 3]
    assert chosen(models.build_generator(32, 3, upsampling="resize")) == ["dense", *["none"] * 3]


@pytest.fixture
def spied(monkeypatch):
    """Names of the forms that are used."""
    used = []

    def spy(name, form):
        def call(*arguments):
            used.append(name)
            return form(*arguments)

        return call

    forms = {name: getattr(fast_convolution, name) for name in ("dense", "strided")}
    for name, form in forms.items():
        monkeypatch.setattr(fast_convolution, name, spy(name, form))
    return used


@pytest.mark.parametrize("batch_norm", [True, 0.5, False])
def test_networks_are_as_near_to_float32_as_with_ordinary_layers_in_bfloat16(batch_norm, spied):
    generator = models.build_generator(32, 3, latent_dim=8, width=16)
    discriminator = models.build_discriminator(32, 3, 16, batch_norm)
    z = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for kind in ("float32", "ordinary", "fast"):
        networks = [generator, discriminator] if kind == "fast" else []
        with torch.autocast("cpu", torch.bfloat16, enabled=kind != "float32"), fast_convolutions(*networks):
            logits = discriminator(generator(z)).float()
        gradients = torch.autograd.grad(logits.sum(), [*generator.parameters(), *discriminator.parameters()])
        results.append([logits.detach(), *gradients])
        assert bool(spied) == (kind == "fast")
    # the dense layers, the innermost ones and those at the image, but none between
    assert sorted(spied) == ["dense"] * 2 + ["strided"] * 4
    for exact, ordinary, fast in zip(*results, strict=True):
        usual, found = ((values - exact).norm() / exact.norm() for values in (ordinary, fast))
        # How far bfloat16 itself is off depends on the processor: up to a fifth in some layers of some of them.
        assert found < 1.5 * usual + 0.01
        assert usual < 0.3


def test_weights_are_rounded_again_after_a_step_of_the_optimizer():
    """A copy kept by the version of the weights would go stale: the fused Adam does not count it up."""
    discriminator = models.build_discriminator(32, 3, 4)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.1, fused=True)
    images = torch.rand(2, 3, 32, 32)
    with fast_convolutions(discriminator):
        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16):
                logits, again = discriminator(images), discriminator(images)
            assert torch.equal(logits, again)
            expected = discriminator(images)  # in float32, from the weights of this moment
            torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)
            optimizer.zero_grad()
            (logits.sum() + again.sum()).backward()
            optimizer.step()
            assert not torch.allclose(discriminator(images), expected, rtol=0.2, atol=0.2)
    discriminator.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16), fast_convolutions(discriminator):
        assert not discriminator(images).requires_grad


def test_elsewhere_layers_are_the_ordinary_ones(spied):
    generator = models.build_generator(32, 3, latent_dim=8, width=4)
    z = torch.randn(2, 8)
    expected = generator.eval()(z)
    with fast_convolutions(generator):
        assert torch.equal(generator(z), expected)  # float32
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            generator(z)  # sampling
    assert not spied
    assert not any("forward" in vars(layer) for layer in generator.modules())
    with torch.autocast("cpu", torch.bfloat16):
        generator(z)
    assert not spied


def test_an_error_inside_takes_the_forms_away_too():
    generator = models.build_generator(32, 3, latent_dim=8, width=4)
    with pytest.raises(KeyError), fast_convolutions(generator):
        raise KeyError
    assert not any("forward" in vars(layer) for layer in generator.modules())


def test_layers_of_another_kind_are_none_of_ours():
    class Own(nn.Conv2d):
        pass

    for layer in (nn.Linear(2, 2), Own(4, 4, 4, 2, 1), nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 4, 2, 0)):
        assert fast_convolution._form(layer) is None
