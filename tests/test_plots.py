"""Figures, read back through matplotlib's objects and through their pixels."""

import base64
import io
import math
import subprocess
import sys
import threading
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.patches import Rectangle
from PIL import Image

from dcgan_lib import images, plots
from dcgan_lib.convolution import ReceptiveField
from dcgan_lib.data import to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.models import build_discriminator, build_generator


@pytest.fixture
def batch():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 3, 16, 16), dtype=np.uint8))


@pytest.fixture
def records():
    return [
        {"step": i, "images": 64 * i, "seconds": i / 2, "d_loss": 1.3, "g_loss": 0.1 * i, "d_real": 0.7, "d_fake": 0.2}
        for i in range(1, 21)
    ]


def shown(figure):
    """The picture a notebook stores."""
    bundle, _ = figure._repr_mimebundle_(include=None, exclude=None)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))))


def texts(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def lines(axis):
    return {line.get_label(): line for line in axis.lines}


def test_image_grid_shows_every_pixel_as_a_square_of_dots(batch):
    pixels = shown(plots.image_grid(batch, columns=3))
    grid = images.make_grid(batch, columns=3).permute(1, 2, 0).numpy()
    factor = pixels.shape[0] // grid.shape[0]
    assert factor > 1
    np.testing.assert_array_equal(pixels, grid.repeat(factor, axis=0).repeat(factor, axis=1))


def test_image_grid_of_grey_images_keeps_their_levels():
    # Neither value is 0 or 255: matplotlib would stretch them to black and white if it were left to it.
    grey = torch.tensor([100, 150], dtype=torch.uint8).reshape(1, 1, 1, 2)
    assert set(shown(plots.image_grid(grey)).flatten().tolist()) == {100, 150}


def test_titles_stand_above_their_images(batch):
    figure = plots.image_grid(batch, columns=4, titles=list("abcdef"))
    titled = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in titled] == list("abcdef")
    np.testing.assert_array_equal(titled[5].images[0].get_array(), batch[5].permute(1, 2, 0).numpy())
    with pytest.raises(UserError, match="6 titles"):
        plots.image_grid(batch, titles=["a"])


def test_image_rows_have_their_labels_and_pixels(batch):
    figure = plots.image_rows({"first": batch[:3], "second": batch[3:]}, titles=["0", "½", "1"])
    assert texts(figure) == ["first", "second", "0", "½", "1"]
    (axis,) = figure.axes
    expected = images.make_grid(batch, columns=3).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(axis.images[0].get_array(), expected)
    assert shown(figure).shape[1] > expected.shape[1]


def test_a_row_of_pixels_and_a_row_from_the_model_are_comparable(batch):
    figure = plots.image_rows({"real": batch, "from the model": to_model_range(batch)})
    pixels = figure.axes[0].images[0].get_array()
    np.testing.assert_array_equal(pixels[:16], pixels[-16:])


def test_rows_that_do_not_match_are_refused(batch):
    with pytest.raises(UserError, match="as many images"):
        plots.image_rows({"a": batch[:2], "b": batch[:3]})
    with pytest.raises(UserError, match="as many images"):
        plots.image_rows({})
    with pytest.raises(UserError, match="2 titles"):
        plots.image_rows({"a": batch[:2]}, titles=["x"])
    with pytest.raises(UserError, match="one size"):
        plots.image_rows({"a": batch[:2], "b": batch[:2, :1]})


@pytest.mark.parametrize("x", ["step", "images", "seconds"])
def test_history_draws_the_recorded_values_against_the_chosen_axis(records, x):
    losses, probabilities = plots.history(SimpleNamespace(records=records), x=x).axes
    for axis, label, name in [
        (losses, "loss of D", "d_loss"),
        (losses, "loss of G", "g_loss"),
        (probabilities, "D(x), real images", "d_real"),
        (probabilities, "D(G(z)), generated", "d_fake"),
    ]:
        line = lines(axis)[label]
        assert line.get_xdata().tolist() == [record[x] for record in records]
        assert line.get_ydata().tolist() == [record[name] for record in records]


def test_history_marks_the_equilibrium(records):
    def levels(axis):
        return sorted(line.get_ydata()[0] for line in axis.lines if line.get_linestyle() == ":")

    losses, probabilities = plots.history(records).axes
    assert levels(losses) == pytest.approx([math.log(2), math.log(4)])
    assert levels(probabilities) == [0.5]
    assert probabilities.get_ylim() == (0, 1)
    losses, probabilities = plots.history(records, references=False).axes
    assert levels(losses) == levels(probabilities) == []


def test_smoothing_is_the_mean_of_the_last_records(records):
    losses, _ = plots.history(records, smooth=4).axes
    line = lines(losses)["loss of G"]
    values = [record["g_loss"] for record in records]
    np.testing.assert_allclose(line.get_ydata(), [np.mean(values[i - 3 : i + 1]) for i in range(3, 20)])
    assert line.get_xdata().tolist() == [record["images"] for record in records[3:]]


def test_a_missing_value_is_a_gap(records):
    records[4]["g_loss"] = None
    del records[6]["g_loss"]
    losses, _ = plots.history(records).axes
    assert np.flatnonzero(np.isnan(lines(losses)["loss of G"].get_ydata())).tolist() == [4, 6]


def test_histories_that_cannot_be_drawn_are_refused(records):
    with pytest.raises(UserError, match="was anything trained"):
        plots.history([])
    with pytest.raises(UserError, match="d_fake"):
        plots.history([{k: v for k, v in record.items() if k != "d_fake"} for record in records])
    with pytest.raises(UserError, match="step, images, seconds"):
        plots.history(records, x="epoch")
    with pytest.raises(UserError, match="smooth"):
        plots.history(records, smooth=0)


def test_feature_maps_are_the_first_channels(batch):
    maps = [torch.randn(1, 12, 8, 8), torch.randn(1, 2, 4, 4)]
    figure = plots.feature_maps(maps, count=4)
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 4 + 2
    np.testing.assert_array_equal(drawn[3].images[0].get_array(), maps[0][0, 3].numpy())
    assert [axis.get_title(loc="left") for axis in (drawn[0], drawn[4])] == ["12×8×8", "2×4×4"]
    with pytest.raises(UserError, match="one image"):
        plots.feature_maps([torch.zeros(2, 3, 4, 4)])
    with pytest.raises(UserError, match="2 names"):
        plots.feature_maps(maps, names=["only one"])


def test_generator_diagram_states_the_shapes_and_kernels():
    found = texts(plots.network_diagram(build_generator(64, channels=3, latent_dim=100, width=8)))
    blocks = ["100\n1×1\nz", "64\n4×4\n", "32\n8×8\n", "16\n16×16\n", "8\n32×32\n", "3\n64×64\nimage"]
    assert [text for text in found if text in blocks] == blocks
    assert found.count("4×4\nstride 1\npad 0") == 1
    assert found.count("4×4\nstride 2\npad 1") == 4
    assert found.count("batch norm\nReLU") == 4
    assert found.count("tanh") == 1


def test_discriminator_diagram_states_the_shapes_and_kernels():
    found = texts(plots.network_diagram(build_discriminator(32, channels=1, width=8)))
    blocks = ["1\n32×32\nimage", "8\n16×16\n", "16\n8×8\n", "32\n4×4\n", "1\n1×1\nlogit"]
    assert [text for text in found if text in blocks] == blocks
    assert found.count("leaky ReLU") == 1  # no batch norm next to the image
    assert found.count("batch norm\nleaky ReLU") == 2


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("build", [build_generator, build_discriminator])
def test_no_label_of_a_diagram_is_cut_off_or_covers_another(size, build):
    figure = plots.network_diagram(build(size))
    figure.savefig(io.BytesIO())
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    width, height = figure.get_size_inches() * figure.dpi
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= width
        assert box.y0 >= 0
        assert box.y1 <= height
        assert not any(box.overlaps(other) for other in boxes[:index])


def test_diagram_of_something_else_is_refused():
    with pytest.raises(UserError, match="not Linear"):
        plots.network_diagram(torch.nn.Linear(2, 2))


def test_a_diagram_says_that_pixels_are_repeated():
    found = texts(plots.network_diagram(build_generator(32, 1, 6, 4, "resize")))
    assert found.count("repeat 2×2\n3×3\nstride 1\npad 1") == 3
    assert found.count("4×4\nstride 1\npad 0") == 1


def test_receptive_fields_are_drawn_where_they_look(batch):
    fields = {"a": ReceptiveField(4, 2, -1), "b": ReceptiveField(22, 8, -7)}
    (axis,) = plots.receptive_field_overlay(batch[0], fields, at={"a": (3, 0)}).axes
    first, second = (patch for patch in axis.patches if isinstance(patch, Rectangle))
    # Unit (3, 0): rows 2*3-1 = 5 to 8, columns -1 to 2. Pixel i covers i - 0.5 to i + 0.5.
    assert (first.get_x(), first.get_y(), first.get_width(), first.get_height()) == (-1.5, 4.5, 4, 4)
    # Of the units of b, at -7, 1, ..., unit 1's window is nearest the centre of 16 pixels, or as near as unit 0's.
    assert second.get_x() in (-7.5, 0.5)
    assert [first.get_label(), second.get_label()] == ["a: 4×4", "b: 22×22"]
    assert first.get_edgecolor() != second.get_edgecolor()


def test_receptive_field_of_the_real_discriminator_reaches_the_whole_image(batch):
    network = build_discriminator(64, width=4)
    picture = torch.zeros(3, 64, 64, dtype=torch.uint8)
    (axis,) = plots.receptive_field_overlay(picture, network.receptive_fields()).axes
    last = axis.patches[-1]
    assert last.get_x() == last.get_y() == -15.5
    assert last.get_width() == 94
    with pytest.raises(UserError, match="at least one"):
        plots.receptive_field_overlay(picture, {})


def test_a_figure_shows_itself_once_and_says_the_same_each_time(batch):
    figure = plots.image_grid(batch)
    bundle, metadata = figure._repr_mimebundle_()
    assert bundle["text/plain"] == repr(figure) == "<Figure of 2.9 × 0.4 inches>"
    picture = Image.open(io.BytesIO(base64.b64decode(bundle["image/png"])))
    assert picture.mode == "RGB"
    assert picture.width == pytest.approx(1.5 * metadata["image/png"]["width"], abs=1)
    again, _ = figure._repr_mimebundle_()
    assert again == bundle
    # pyplot does not know the figure, so a notebook's inline backend cannot show it a second time.
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_style_ends_with_its_block():
    before = mpl.rcParams["axes.spines.top"]
    with plots.style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert mpl.rcParams["axes.spines.top"] == before
    figure, axis = plots.subplots()
    assert not axis.spines["top"].get_visible()
    assert figure.get_facecolor() == (1, 1, 1, 1)


def test_a_widget_that_draws_in_a_thread_of_its_own_keeps_the_style_and_puts_the_settings_back():
    before, seen = mpl.rcParams["axes.spines.top"], []
    first_is_in, first_is_out = threading.Event(), threading.Event()

    def second():
        first_is_in.wait(10)
        with plots.style():
            first_is_out.wait(10)
            seen.append(mpl.rcParams["axes.spines.top"])

    drawing = threading.Thread(target=second)
    drawing.start()
    with plots.style():
        first_is_in.set()
        drawing.join(0.2)  # time to come in, if it may
    first_is_out.set()
    drawing.join(10)
    assert seen == [False]
    assert mpl.rcParams["axes.spines.top"] == before


def test_text_and_line_colours_are_readable_on_white():
    def luminance(colour):
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
        return float(np.dot(parts, [0.2126, 0.7152, 0.0722]))

    # WCAG 2.1, 1.4.3 for text and 1.4.11 for graphics.
    assert 1.05 / (luminance(plots.PALETTE["neutral"]) + 0.05) >= 4.5
    for role in ("generator", "discriminator", "real"):
        assert 1.05 / (luminance(plots.PALETTE[role]) + 0.05) >= 3


def test_image_files_need_no_matplotlib():
    names = "('matplotlib', 'IPython')"
    code = f"import sys; from dcgan_lib import images, latent; print([m for m in {names} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
