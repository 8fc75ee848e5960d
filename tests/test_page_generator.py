"""What a page runs is what PyTorch runs: folding, steps, the document; and what is said of a latent space."""

import base64
import copy
import json
import zlib

import pytest
import torch
from latent_pages import BrightnessReader, trained
from tiny import networks

from dcgan_lib import checkpoint, latent, page_generator
from dcgan_lib.errors import UserError
from dcgan_lib.export import export_page
from dcgan_lib.page_description import choose_sum, describe, first_rows
from dcgan_lib.page_generator import Description, Direction, fold, pack, round_weights, unpack

WAYS = ("transposed", "transposed-5", "resize")


def z(count: int = 5) -> torch.Tensor:
    return latent.sample_latent(count, 6, seed=2)


# --- folding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [32, 64, 128])
def test_folded_layers_are_the_generator_to_float64(way, size):
    generator = trained(way, size)
    modes = [part.training for part in generator.modules()]
    folded = page_generator.PageGenerator(fold(generator), "", "", Description())
    assert [part.training for part in generator.modules()] == modes
    reference = copy.deepcopy(generator).eval().double()
    with torch.no_grad():
        expected = reference(z().double())
        found = folded(z().double())
        raw = copy.deepcopy(reference).train()(z().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.1
    assert (raw - expected).abs().max() > 0.1  # so the comparison can tell the modes apart


def test_a_network_that_has_diverged_is_refused():
    generator = trained()
    with torch.no_grad():
        generator.layers[0][0].weight[0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinity; its training has diverged"):
        fold(generator)


# --- the document -----------------------------------------------------------------------------------------------------


def described() -> Description:
    vectors = latent.sample_latent(2, 6, seed=4)
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    directions = (Direction(vectors[0], "fur", "café", 3, 90), Direction(vectors[1]))
    labels = torch.tensor([[0, 1], [1, 0], [0, 0]], dtype=torch.uint8)
    return Description(directions, {"body": ("a", "b"), "fur": ("café", "none")}, labels)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bits", [8, 11, 16])
def test_a_document_read_again_is_the_rounded_generator(way, bits):
    generator, description = trained(way), described()
    document = json.loads(json.dumps(pack(generator, "mine", "cats", description, bits)))
    found = unpack(document)
    assert (found.image_size, found.channels, found.latent_dim) == (32, 3, 6)
    assert (found.name, found.dataset) == ("mine", "cats")
    for layer, whole in zip(found.layers, fold(generator), strict=True):
        steps = whole.weight.abs().amax(dim=(0, 2, 3), keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((layer.weight - whole.weight).abs() <= 0.501 * steps + 1e-7 * whole.weight.abs()).all()
        torch.testing.assert_close(layer.bias, whole.bias, rtol=1e-6, atol=1e-7)
    assert found.description.factors == description.factors
    assert torch.equal(found.description.labels, description.labels)
    for one, other in zip(found.description.directions, description.directions, strict=True):
        torch.testing.assert_close(one.vector, other.vector, rtol=0, atol=2e-5)
        assert (one.factor, one.value, one.before, one.after) == (other.factor, other.value, other.before, other.after)


def test_steps_are_as_fine_as_the_images_need():
    generator = trained()
    found = unpack(pack(generator))
    mean, worst = page_generator.errors(found, generator, latent.sample_latent(256, 6, seed=5))
    assert mean <= page_generator.MEAN_ERROR
    assert worst <= page_generator.WORST_ERROR
    coarse = unpack(pack(generator, bits=8))
    finest = unpack(pack(generator, bits=16))
    errors = [page_generator.errors(one, generator, z(64))[1] for one in (coarse, finest)]
    assert errors[0] > 20 * errors[1]


@pytest.mark.parametrize("way", WAYS[:2])
def test_a_rounded_generator_needs_eight_bits(way):
    generator = trained(way)
    before = latent.generate(generator, z(64))
    round_weights(generator)
    assert 0.01 < (latent.generate(generator, z(64)) - before).abs().max() < 1
    document = pack(generator)
    assert {layer["bits"] for layer in document["layers"]} == {8}
    assert page_generator.errors(unpack(document), generator, z(64))[1] < 0.05
    once = copy.deepcopy(generator)
    round_weights(generator)
    for a, b in zip(once.parameters(), generator.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("bits", [7, 17, 8.5, "8"])
def test_other_numbers_of_bits_are_refused(bits):
    for call in (pack, round_weights):
        with pytest.raises(UserError, match="must be a whole number between 8 and 16"):
            call(trained(), bits=bits)


@pytest.fixture(scope="module")
def document():
    return pack(trained(), "mine", "cats", described(), 9)


def spoilt(document: dict, how: str) -> dict:
    numbers = base64.b64decode(document["numbers"])
    payload = bytearray(zlib.decompress(numbers))
    changed = json.loads(json.dumps(document))
    if how == "another bias":
        payload[5] ^= 1
        changed["numbers"] = base64.b64encode(zlib.compress(payload)).decode()
    elif how == "half of the numbers":
        changed["numbers"] = document["numbers"][: len(document["numbers"]) // 8 * 4]
    elif how == "no base64":
        changed["numbers"] = "?" + document["numbers"][1:]
    elif how == "no numbers":
        del changed["numbers"]
    elif how == "another stride":
        changed["layers"][1]["stride"] = 1
    elif how == "another name":
        changed["name"] = "yours"
    elif how == "another checksum":
        changed["crc32"] ^= 1
    return changed


DAMAGES = (
    "another bias",
    "half of the numbers",
    "no base64",
    "no numbers",
    "another stride",
    "another name",
    "another checksum",
)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_document_is_one_clear_line(document, how):
    unpack(document)
    with pytest.raises(UserError, match=r"this generator is damaged or truncated: .*; export it again"):
        unpack(spoilt(document, how))


@pytest.mark.parametrize("change", ["more bytes", "fewer bytes", "unlike channels"])
def test_a_document_that_does_not_fit_together_is_refused(document, change):
    """With a checksum that is right, as of a program that writes something else."""
    header = {key: value for key, value in json.loads(json.dumps(document)).items() if key not in ("crc32", "numbers")}
    payload = zlib.decompress(base64.b64decode(document["numbers"]))
    payload = {"more bytes": payload + b"12", "fewer bytes": payload[:-2]}.get(change, payload)
    if change == "unlike channels":
        header["layers"][1]["in"] += 1
    checksum = page_generator._checksum(header, payload)
    numbers = base64.b64encode(zlib.compress(payload)).decode()
    with pytest.raises(UserError, match=r"damaged or truncated: (it has|a layer of|buffer)"):
        unpack(header | {"crc32": checksum, "numbers": numbers})


@pytest.mark.parametrize("other", [None, [], {}, {"format": "something"}, "text"])
def test_what_is_no_generator_says_how_to_make_one(other):
    with pytest.raises(UserError, match="no generator for a page; dcgan export --run RUN --output NAME"):
        unpack(other)


def test_another_version_is_refused(document):
    with pytest.raises(UserError, match="has version 2 of the format, and 1 is read here; export it again"):
        unpack(document | {"version": 2})


def test_an_export_is_a_file_and_a_failed_one_none(tmp_path):
    path = tmp_path / "new folder" / "mine.json"
    written = export_page(trained(), path, "mine", bits=9)
    assert json.loads(path.read_text(encoding="utf-8")) == written
    assert len(unpack(written).description.directions) == 6  # principal ones: no reader knows the data set
    with pytest.raises(UserError, match="cannot write"):
        export_page(trained(), "/proc/nowhere/mine.json", "mine", bits=9)


# --- what is said of a latent space -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bright():
    generator = trained()
    return generator, describe(generator, BrightnessReader(generator), samples=300)


def test_labels_are_what_the_reader_finds_in_seed_0(bright):
    generator, description = bright
    expected, _ = BrightnessReader(generator).read(latent.sample(generator, 300, 0))
    assert torch.equal(description.labels.long(), expected)
    assert description.factors == {"left": ("dark", "light"), "right": ("dark", "light")}


def test_named_directions_do_what_their_numbers_say(bright):
    generator, description = bright
    named = [direction for direction in description.directions if direction.factor]
    assert named
    probes = latent.sample_latent(50, 6, seed=1)
    for direction in named:
        assert direction.vector.norm().item() == pytest.approx(1, abs=1e-5)
        column = ["left", "right"].index(direction.factor)
        number = ["dark", "light"].index(direction.value)
        moved, _ = BrightnessReader(generator).read(latent.generate(generator, probes + 3 * direction.vector))
        assert direction.after == round(100 * (moved[:, column] == number).double().mean().item())
        share = (description.labels[:, column] == number).double().mean().item()
        assert direction.before == round(100 * share)
        assert direction.after >= direction.before + 20
    principal = [direction.vector for direction in description.directions if not direction.factor]
    torch.testing.assert_close(torch.stack(principal), latent.principal_directions(generator, 500, 6))


def test_groups_are_the_first_rows_that_fit(bright):
    _, description = bright
    left, right = description.labels.T
    assert first_rows(description, {"left": "light"}) == (left == 1).nonzero()[:, 0].tolist()
    both = ((left == 1) & (right == 0)).nonzero()[:, 0].tolist()
    assert first_rows(description, {"left": "light"}, {"right": "light"}) == both


def factors(*columns: int) -> Description:
    labels = torch.tensor([[0, 1], [0, 0], [1, 0], [0, 1], [0, 0], [1, 0], [0, 1], [0, 0], [1, 0]], dtype=torch.uint8)
    names = {"body": ("grey", "red", "blue"), "hat": ("none", "top hat")}
    chosen = {name: values for i, (name, values) in enumerate(names.items()) if i in columns}
    return Description((), chosen, labels[:, list(columns)])


def test_a_sum_brings_a_value_from_one_to_another():
    found = choose_sum(factors(0, 1), ["top hat"])
    assert found.words == ("top hat", "grey", "red")
    assert found.titles == ("grey, top hat", "grey, without", "red, without")
    assert found.groups == ([0, 3, 6], [1, 4, 7], [2, 5, 8])


def test_a_sum_of_one_factor_takes_its_commonest_values():
    description = Description((), {"class": ("x", "y", "z")}, torch.tensor([[2], [2], [1], [0]] * 3, dtype=torch.uint8))
    found = choose_sum(description)
    assert found.words == found.titles
    assert found.words == ("z", "x", "y")
    assert found.groups == ([0, 1, 4], [3, 7, 11], [2, 6, 10])
    assert choose_sum(description, ["y", "x"]).words == ("y", "x", "z")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["wig"], "there is no hat 'wig'; known are none, top hat"),
        (["top hat", "green"], "there is no body 'green'; known are grey, red, blue"),
        (["top hat", "red"], "fewer than 3 of 9 samples are read as 'red, top hat'"),
    ],
)
def test_a_sum_that_cannot_be_is_one_clear_line(words, message):
    with pytest.raises(UserError, match=message):
        choose_sum(factors(0, 1), words)


def test_without_a_reader_there_is_nothing_to_add():
    assert [direction.factor for direction in describe(trained()).directions] == [""] * 6
    with pytest.raises(UserError, match="nothing to add and subtract"):
        choose_sum(describe(trained()))


# --- the released weights ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cats-64", "fashion-mnist-32"])
def test_released_weights_keep_to_the_bar_and_rounded_ones_are_small(name):
    generator = checkpoint.load_pretrained(name)
    vectors = latent.sample_latent(256, generator.latent_dim, seed=6)
    mean, worst = page_generator.errors(unpack(pack(generator)), generator, vectors)
    assert mean <= page_generator.MEAN_ERROR
    assert worst <= page_generator.WORST_ERROR
    round_weights(generator)
    document = pack(generator)
    assert {layer["bits"] for layer in document["layers"]} == {8}
    assert len(document["numbers"]) < 1_200_000
    mean, worst = page_generator.errors(unpack(document), generator, vectors)
    assert mean < 0.05
    assert worst < 3


def test_the_tiny_networks_of_other_tests_can_be_exported():
    generator, _ = networks()
    assert unpack(pack(generator, bits=8)).channels == 1
