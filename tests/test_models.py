import copy

import numpy as np
import pytest
import torch
from torch import nn

from dcgan_lib.errors import UserError
from dcgan_lib.losses import r1
from dcgan_lib.models import (
    MinibatchStd,
    PartialBatchNorm2d,
    build_discriminator,
    build_generator,
    count_parameters,
    doubling_layer,
    init_weights,
    load_in_order,
)


def well_known_generator(latent_dim, width, channels):
    """The 64-pixel DCGAN generator of many tutorials, as one flat list of layers."""
    layers, before = [], latent_dim
    for factor, stride, padding in ((8, 1, 0), (4, 2, 1), (2, 2, 1), (1, 2, 1)):
        layers += [
            nn.ConvTranspose2d(before, width * factor, 4, stride, padding, bias=False),
            nn.BatchNorm2d(width * factor),
            nn.ReLU(True),
        ]
        before = width * factor
    return nn.Sequential(*layers, nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=False), nn.Tanh())


def well_known_discriminator(width, channels):
    """The 64-pixel DCGAN discriminator of many tutorials, without its final sigmoid."""
    layers = [nn.Conv2d(channels, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True)]
    for factor in (2, 4, 8):
        layers += [
            nn.Conv2d(width * factor // 2, width * factor, 4, 2, 1, bias=False),
            nn.BatchNorm2d(width * factor),
            nn.LeakyReLU(0.2, inplace=True),
        ]
    return nn.Sequential(*layers, nn.Conv2d(width * 8, 1, 4, 1, 0, bias=False))


def randomise(network, seed):
    """Give every parameter and running statistic a value that no initialisation would."""
    random = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=random)
        elif tensor.is_floating_point():
            tensor.normal_(0.1, 0.3, generator=random)
        else:
            tensor.fill_(7)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_shapes_for_every_size(size, channels):
    generator = build_generator(size, channels, latent_dim=7, width=4)
    discriminator = build_discriminator(size, channels, width=4)
    z = torch.randn(2, 7)
    images = generator(z)
    assert images.shape == (2, channels, size, size)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert discriminator(images).shape == (2,)
    assert discriminator(images[:1]).shape == (1,)

    resolutions = [r for r in (4, 8, 16, 32, 64, 128) if r <= size]
    # width is the channel count next to the image; towards the middle it doubles with every halving of the map.
    inner = {r: 4 * size // 2 // r for r in resolutions[:-1]}
    features = [tuple(map_.shape) for map_ in generator.features(z)]
    assert features == [(2, inner[r], r, r) for r in resolutions[:-1]] + [(2, channels, size, size)]
    features = [tuple(map_.shape) for map_ in discriminator.features(images)]
    assert features == [(2, inner[r], r, r) for r in resolutions[-2::-1]] + [(2,)]
    assert [n for n, _ in generator.layers.named_children()] == [f"{r}x{r}" for r in resolutions]
    assert [n for n, _ in discriminator.layers.named_children()] == [f"{r}x{r}" for r in resolutions[-2::-1]] + ["1x1"]


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_features_end_in_what_forward_returns(mode):
    generator, discriminator = build_generator(32, 3, 8, 4), build_discriminator(32, 3, 4)
    for network in (generator, discriminator):
        randomise(network, seed=1)
        getattr(network, mode)()
    z = torch.randn(3, 8)
    torch.testing.assert_close(generator.features(z)[-1], generator(z))
    images = generator(z)
    maps = discriminator.features(images)
    torch.testing.assert_close(maps[-1], discriminator(images))
    # Maps are what leaves a block, after its activation: LeakyReLU(0.2) of a fresh convolution.
    first = nn.functional.leaky_relu(discriminator.layers[0][0](images), 0.2)
    torch.testing.assert_close(maps[0], first)


FIRST_JUDGE = [0.005541994236409664, -0.019624991342425346, 0.017776930704712868, 0.031379904597997665]
FIRST_RELEASE = [-0.04975751414895058, -0.024371957406401634, -0.005132345948368311, 0.0279450211673975]
KERNELS = {"transposed": 4, "transposed-5": 5, "resize": 3}


@pytest.mark.parametrize("way", KERNELS)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_every_way_to_double_gives_the_same_maps_and_its_own_kernels(size, way):
    generator = build_generator(size, 3, latent_dim=7, width=4, upsampling=way).eval()
    z = torch.randn(2, 7)
    usual = build_generator(size, 3, 7, 4).eval()
    assert [m.shape for m in generator.features(z)] == [m.shape for m in usual.features(z)]
    assert generator(z).abs().max() <= 1
    kernels = [block[0].kernel_size for block in generator.layers]
    assert kernels == [(4, 4)] + [(KERNELS[way],) * 2] * (len(kernels) - 1)
    for (name, mine), (other, theirs) in zip(generator.state_dict().items(), usual.state_dict().items(), strict=True):
        assert name == other
        # Nothing but kernels differs, and a convolution that is not transposed has its two first axes swapped.
        assert mine.shape == theirs.shape or (mine.ndim == 4 and sorted(mine.shape[:2]) == sorted(theirs.shape[:2]))
    assert all(block[0].bias is None for block in generator.layers)
    rebuilt = build_generator(**generator.architecture)
    assert rebuilt.upsampling == way
    for name, tensor in rebuilt.state_dict().items():
        assert torch.equal(tensor, generator.state_dict()[name])  # the same initial weights again


def test_the_default_generator_is_the_one_with_transposed_convolutions():
    named, unnamed = (build_generator(32, 1, 6, 4, **options) for options in ({"upsampling": "transposed"}, {}))
    for name, tensor in named.state_dict().items():
        assert torch.equal(tensor, unnamed.state_dict()[name])
    # The very numbers of the first release: the same draws, in the same order.
    torch.testing.assert_close(unnamed.layers[1][0].weight[0, 0, 0], torch.tensor(FIRST_RELEASE), rtol=0, atol=0)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_doubling_layers_do_what_their_names_say(in_channels):
    functional, x = nn.functional, torch.randn(2, in_channels, 5, 6)
    layer = doubling_layer(in_channels, 2)
    torch.testing.assert_close(layer(x), functional.conv_transpose2d(x, layer.weight, stride=2, padding=1))
    layer = doubling_layer(in_channels, 2, "transposed-5")
    assert layer.weight.shape == (in_channels, 2, 5, 5)
    reference = functional.conv_transpose2d(x, layer.weight, stride=2, padding=2, output_padding=1)
    torch.testing.assert_close(layer(x), reference)
    layer = doubling_layer(in_channels, 2, "resize")
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(layer(x), functional.conv2d(repeated, layer.weight, padding=1))
    assert layer.weight.shape == (2, in_channels, 3, 3)


@pytest.mark.parametrize("way", ["nearest", "", None, 5, ["resize"], "Transposed"])
def test_unknown_ways_to_double_are_refused(way):
    for build in (lambda: doubling_layer(1, 1, way), lambda: build_generator(upsampling=way)):
        with pytest.raises(UserError, match=r"upsampling=.* is unknown; choose from transposed, transposed-5, resize"):
            build()


def test_initial_weights_of_a_resize_convolution_are_the_papers_too():
    weight = build_generator(32, 3, width=32, upsampling="resize").layers[1][0].weight.detach().double()
    assert abs(weight.mean()) < 5 * 0.02 / weight.numel() ** 0.5
    assert abs(weight.std() - 0.02) < 5 * 0.02 / (2 * weight.numel()) ** 0.5


def test_weights_in_order_go_only_where_the_kernels_fit():
    first, second = (build_generator(32, 1, 6, 4, "resize") for _ in range(2))
    randomise(first, 1)
    load_in_order(second, first.state_dict().values())
    z = torch.randn(3, 6)
    torch.testing.assert_close(second.eval()(z), first.eval()(z))
    with pytest.raises(UserError, match=r"layers.8x8.0.weight has shape \(16, 8, 4, 4\), .* \(8, 16, 3, 3\)"):
        load_in_order(build_generator(32, 1, 6, 4), first.state_dict().values())


def test_parameter_counts_of_the_familiar_networks():
    assert count_parameters(build_generator()) == 3_576_704
    assert count_parameters(build_discriminator()) == 2_765_568


def test_width_128_has_the_channels_of_the_papers_figure():
    with torch.device("meta"):
        generator, discriminator = build_generator(width=128), build_discriminator(width=128)
    assert [block[0].out_channels for block in generator.layers] == [1024, 512, 256, 128, 3]
    assert [block[0].out_channels for block in discriminator.layers] == [128, 256, 512, 1024, 1]


def test_batch_norm_and_biases_are_where_the_paper_has_them():
    generator, discriminator = build_generator(width=4), build_discriminator(width=4)
    normalised = [[isinstance(layer, nn.BatchNorm2d) for layer in block] for block in generator.layers]
    assert [any(block) for block in normalised] == [True, True, True, True, False]
    normalised = [[isinstance(layer, nn.BatchNorm2d) for layer in block] for block in discriminator.layers]
    assert [any(block) for block in normalised] == [False, True, True, True, False]
    for network in (generator, discriminator):
        assert all(block[0].bias is None for block in network.layers)
    assert [type(block[-1]) for block in generator.layers] == [nn.ReLU] * 4 + [nn.Tanh]
    slopes = [block[-1].negative_slope for block in discriminator.layers if isinstance(block[-1], nn.LeakyReLU)]
    assert slopes == [0.2] * 4


def test_discriminator_without_batch_norm_judges_each_image_alone():
    discriminator = build_discriminator(32, 1, 4, batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in discriminator.modules())
    # Batch norm's shift is gone, so the convolutions that had one get a bias; first and last never do.
    assert [block[0].bias is not None for block in discriminator.layers] == [False, True, True, False]
    randomise(discriminator, seed=2)
    images = torch.randn(4, 1, 32, 32)
    alone = torch.cat([discriminator(image[None]) for image in images])
    torch.testing.assert_close(discriminator(images), alone)


def variety_layer():
    """A layer that sees the variety of its batch, with weights that no initialisation would give."""
    layer = MinibatchStd(nn.Conv2d(3, 5, 4, 2, 1))
    randomise(layer, seed=4)
    return layer


def with_one_more_map(layer, x):
    """The same in double precision, as Karras et al. describe it: a constant map laid beside the others."""
    deviation = (x - x.mean(dim=0, keepdim=True)).pow(2).mean(dim=0).add(1e-8).sqrt().mean()
    maps = torch.cat([x, deviation.expand(len(x), 1, *x.shape[2:])], dim=1)
    weight = torch.cat([layer.convolution.weight, layer.variety.weight], dim=1)
    return nn.functional.conv2d(maps, weight, layer.convolution.bias, stride=2, padding=1)


def first_and_second_order(layer, x, forward):
    """Outputs, the gradients of a function of them, and those of that gradient's squared length, as R1 has it."""
    values = [*layer.parameters(), x]
    result = forward(x)
    first = torch.autograd.grad(result.pow(3).mean(), values, create_graph=True)
    return [result, *first, *torch.autograd.grad(first[-1].square().sum(), values, allow_unused=True)]


@pytest.mark.parametrize("training", [True, False])
def test_partial_batch_norm_normalises_the_first_channels_alone(training):
    layer, whole = PartialBatchNorm2d(3).train(training), nn.BatchNorm2d(5).train(training)
    x = 2 * torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(1)) + 3
    with torch.no_grad():
        layer.weight.normal_()
        whole.weight[:3] = layer.weight
        found, expected = layer(x), whole(x)
    assert torch.equal(found[:, 3:], x[:, 3:])
    torch.testing.assert_close(found[:, :3], expected[:, :3])
    torch.testing.assert_close(layer.running_mean, whole.running_mean[:3])
    assert bool(layer.running_mean.any()) == training


@pytest.mark.parametrize(
    ("share", "kinds"), [(1, nn.BatchNorm2d), (0.5, PartialBatchNorm2d), (0.25, PartialBatchNorm2d)]
)
def test_a_discriminator_normalises_a_share_of_its_inner_channels(share, kinds):
    discriminator = build_discriminator(64, 3, 8, batch_norm=share)
    norms = [layer for layer in discriminator.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [type(layer) for layer in norms] == [kinds] * 3
    assert [layer.num_features for layer in norms] == [share * channels for channels in (16, 32, 64)]
    assert not any(layer.bias is not None for layer in discriminator.modules() if isinstance(layer, nn.Conv2d))
    rebuilt = build_discriminator(**discriminator.architecture)
    assert rebuilt.state_dict().keys() == discriminator.state_dict().keys()


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan"), "half", None])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(UserError, match=r"batch_norm=.* must be a share from 0 to 1, True or False"):
        build_discriminator(32, 3, 4, batch_norm=share)


def test_half_batch_norm_lets_a_mean_pass_that_batch_norm_takes_away():
    """Brighter maps in all of a batch: whole batch norm gives the same logits, half of it does not."""
    maps = torch.randn(8, 6, 4, 4, generator=torch.Generator().manual_seed(2))
    for layer, moved in ((nn.BatchNorm2d(6), False), (PartialBatchNorm2d(3), True)):
        difference = (layer(maps + 1) - layer(maps)).abs().max().item()
        assert (difference > 0.5) == moved
        assert moved or difference < 1e-5


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_minibatch_std_is_a_convolution_over_one_more_map(batch):
    layer = variety_layer()
    x = torch.randn(batch, 3, 8, 6, generator=torch.Generator().manual_seed(5))
    x = (x * 2 + 1).requires_grad_()
    found = first_and_second_order(layer, x, layer)
    exact = copy.deepcopy(layer).double()
    y = x.detach().double().requires_grad_()
    expected = first_and_second_order(exact, y, lambda maps: with_one_more_map(exact, maps))
    assert found[0].shape == (batch, 5, 4, 3)
    for mine, reference in zip(found, expected, strict=True):
        assert bool(torch.isfinite(mine).all())
        torch.testing.assert_close(mine.double(), reference, rtol=1e-3, atol=1e-4 * reference.abs().max().item())


def test_one_image_alone_has_no_variety():
    layer = variety_layer()
    x = torch.randn(1, 3, 8, 8)
    nothing = 1e-4 * layer.variety(torch.ones(1, 1, 8, 8))  # the root of what keeps it away from a slope without end
    torch.testing.assert_close(layer(x), layer.convolution(x) + nothing)
    discriminator = build_discriminator(32, 1, 4, batch_norm=False, minibatch_std=True)
    image = torch.randn(1, 1, 32, 32, requires_grad=True)
    gradients = torch.autograd.grad(
        r1(discriminator(image), image), list(discriminator.parameters()), materialize_grads=True
    )
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert gradients[0].abs().max() > 0


def test_the_penalty_goes_through_the_variety():
    images = torch.randn(5, 1, 32, 32, generator=torch.Generator().manual_seed(6))
    discriminator = build_discriminator(32, 1, 4, batch_norm=False, minibatch_std=True)
    randomise(discriminator, seed=7)
    exact = copy.deepcopy(discriminator).double()
    block = exact.layers[-2]
    block[0].forward = lambda maps: with_one_more_map(block[0], maps)  # everything else stays as it is
    found = []
    for network, x in ((discriminator, images), (exact, images.double())):
        x.requires_grad_()
        found.append(torch.autograd.grad(r1(network(x), x), list(network.parameters()), materialize_grads=True))
    for (name, _), mine, reference in zip(discriminator.named_parameters(), *found, strict=True):
        scale = reference.abs().max().item()
        torch.testing.assert_close(mine.double(), reference, rtol=1e-3, atol=1e-4 * scale + 1e-12, msg=name)
        if name.endswith("variety.weight"):
            assert scale > 0


@pytest.mark.parametrize("batch_norm", [True, 0.5, False])
def test_only_with_minibatch_std_is_an_image_judged_with_its_batch(batch_norm):
    images = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(8))
    equal, varied = images[:1].repeat(4, 1, 1, 1), images
    for minibatch_std in (False, True):
        discriminator = build_discriminator(32, 1, 4, batch_norm, minibatch_std).eval()
        randomise(discriminator, seed=2)
        with torch.no_grad():
            difference = discriminator(varied)[0] - discriminator(equal)[0]
        assert (abs(difference.item()) > 0.1) == minibatch_std
        assert minibatch_std or abs(difference.item()) < 1e-4


@pytest.mark.parametrize("batch_norm", [True, 0.5, False])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_minibatch_std_changes_one_layer_and_no_shape(size, batch_norm):
    plain, discriminator = (build_discriminator(size, 3, 4, batch_norm, std).eval() for std in (False, True))
    assert discriminator.receptive_fields() == plain.receptive_fields()
    images = torch.randn(3, 3, size, size)
    assert [m.shape for m in discriminator.features(images)] == [m.shape for m in plain.features(images)]
    # One more map at the input of the block before the logit: 4 x 4 weights for each of its outputs.
    assert count_parameters(discriminator) - count_parameters(plain) == 4 * 4 * (4 * size // 8)
    assert [isinstance(block[0], MinibatchStd) for block in discriminator.layers][-2:] == [True, False]
    assert sum(isinstance(module, MinibatchStd) for module in discriminator.modules()) == 1
    rebuilt = build_discriminator(**discriminator.architecture)
    assert rebuilt.minibatch_std
    assert not build_discriminator(**plain.architecture).minibatch_std
    for (name, mine), (other, theirs) in zip(
        rebuilt.state_dict().items(), discriminator.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(mine, theirs)


BATCH_NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def test_without_minibatch_std_the_weights_are_named_and_drawn_as_before():
    state = build_discriminator(32, 1, 4).state_dict()
    inner = [[f"layers.{r}.0.weight", *(f"layers.{r}.1.{name}" for name in BATCH_NORM)] for r in ("8x8", "4x4")]
    assert list(state) == ["layers.16x16.0.weight", *inner[0], *inner[1], "layers.1x1.0.weight"]
    # The very numbers of the first release, so that older runs start and go on as they did.
    torch.testing.assert_close(state["layers.4x4.0.weight"][0, 0, 0], torch.tensor(FIRST_JUDGE), rtol=0, atol=0)
    added = set(build_discriminator(32, 1, 4, minibatch_std=True).state_dict()) - set(state)
    assert added == {"layers.4x4.0.convolution.weight", "layers.4x4.0.variety.weight"}


def test_initial_weights_have_the_papers_distributions():
    generator, discriminator = build_generator(), build_discriminator()
    for network in (generator, discriminator):
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                values, mean = module.weight.detach().double().numpy().ravel(), 0.0
            elif isinstance(module, nn.BatchNorm2d):
                values, mean = module.weight.detach().double().numpy(), 1.0
                assert torch.equal(module.bias, torch.zeros_like(module.bias))
                assert torch.equal(module.running_mean, torch.zeros_like(module.bias))
                assert torch.equal(module.running_var, torch.ones_like(module.bias))
            else:
                continue
            # Five standard errors of the mean and of the standard deviation of n normal numbers.
            assert abs(values.mean() - mean) < 5 * 0.02 / np.sqrt(len(values))
            assert abs(values.std(ddof=1) - 0.02) < 5 * 0.02 / np.sqrt(2 * len(values))


def test_initial_weights_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build_generator(32, 1, 8, 4).state_dict()
    torch.manual_seed(2)
    second = build_generator(32, 1, 8, 4)
    for name, tensor in second.state_dict().items():
        assert torch.equal(tensor, first[name]), name
    other = init_weights(build_generator(32, 1, 8, 4), seed=1)
    assert not torch.equal(other.layers[0][0].weight, second.layers[0][0].weight)
    torch.manual_seed(1)
    init_weights(other, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_of_the_well_known_layout_give_identical_outputs(mode, channels):
    foreign_g, foreign_d = well_known_generator(10, 4, channels), well_known_discriminator(4, channels)
    generator, discriminator = build_generator(64, channels, 10, 4), build_discriminator(64, channels, 4)
    for seed, (foreign, ours) in enumerate([(foreign_g, generator), (foreign_d, discriminator)]):
        randomise(foreign, seed)
        load_in_order(ours, foreign.state_dict().values())
        for network in (foreign, ours):
            getattr(network, mode)()
    z = torch.randn(5, 10, generator=torch.Generator().manual_seed(3))
    images = generator(z)
    assert torch.equal(images, foreign_g(z[:, :, None, None]))
    assert torch.equal(discriminator(images), foreign_d(images).flatten())
    # After a pass in train mode the running statistics have moved, and moved alike.
    for foreign, ours in ((foreign_g, generator), (foreign_d, discriminator)):
        for (name, mine), theirs in zip(ours.state_dict().items(), foreign.state_dict().values(), strict=True):
            assert torch.equal(mine, theirs), name


def test_load_in_order_refuses_other_layouts_and_changes_nothing():
    generator = build_generator(64, 3, 10, 4)
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    with pytest.raises(UserError, match="the network has 25 tensors and 24 were given"):
        load_in_order(generator, list(generator.state_dict().values())[:-1])
    with pytest.raises(UserError, match=r"layers.4x4.0.weight has shape \(10, 32, 4, 4\), the tensor given \(10, 40"):
        load_in_order(generator, well_known_generator(10, 5, 3).state_dict().values())
    wrong_at_the_end = [*[tensor + 1 for tensor in before.values()][:-1], torch.zeros(3)]
    with pytest.raises(UserError, match="has shape"):
        load_in_order(generator, wrong_at_the_end)
    for name, tensor in generator.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("size", [32, 64, 128])
def test_receptive_fields_are_those_of_a_backpropagated_delta(size):
    # Without batch norm, whose statistics let every pixel see every other; positive weights cannot cancel.
    discriminator = build_discriminator(size, 1, 2, batch_norm=False)
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter.fill_(0.1)
    image = torch.ones(1, 1, size, size, requires_grad=True)
    for (name, field), features in zip(
        discriminator.receptive_fields().items(), discriminator.features(image), strict=True
    ):
        features = features.reshape(1, -1, *(features.shape[2:] or (1, 1)))
        middle = features.shape[-1] // 2
        (gradient,) = torch.autograd.grad(features[0, 0, middle, middle], image, retain_graph=True)
        seen = gradient[0, 0].nonzero()
        # The window of output i begins at start + i * jump; what lies outside the image is padding.
        first = field.start + middle * field.jump
        assert seen.min() == max(first, 0), name
        assert seen.max() == min(first + field.size - 1, size - 1), name


def test_generator_uses_its_latent_vector_as_a_dense_projection():
    generator = build_generator(32, 1, 6, 4).eval()
    weight = generator.layers[0][0].weight.detach()  # (latent, channels, 4, 4)
    z = torch.randn(3, 6)
    dense = (z @ weight.flatten(1)).unflatten(1, weight.shape[1:])
    torch.testing.assert_close(generator.layers[0][0](z[:, :, None, None]), dense)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 48}, "image_size=48 is not supported; choose 32, 64 or 128"),
        ({"image_size": 64.0}, "image_size=64.0 is not supported"),
        ({"image_size": "64"}, "image_size='64' is not supported"),
        ({"image_size": -32}, "image_size=-32 is not supported"),
        ({"channels": 2}, "channels=2 is not supported"),
        ({"channels": 3.0}, "channels=3.0 is not supported"),
        ({"width": 0}, "width=0 must be a whole number between 1 and 1024"),
        ({"width": 10**9}, "width=1000000000 must be"),
        ({"width": 8.5}, "width=8.5 must be"),
    ],
)
def test_impossible_networks_are_refused_in_one_line(arguments, message):
    for build in (build_generator, build_discriminator):
        with pytest.raises(UserError, match=message):
            build(**arguments)


@pytest.mark.parametrize("latent_dim", [0, -1, 4097, 1.5, float("nan"), "8", None])
def test_impossible_latent_dimensions_are_refused(latent_dim):
    with pytest.raises(UserError, match=r"latent_dim=.* must be a whole number between 1 and 4096"):
        build_generator(latent_dim=latent_dim)
