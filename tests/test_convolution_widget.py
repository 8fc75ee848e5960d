"""The convolution explorer of a notebook, driven through the events its controls send."""

import base64
import html
import io
import re

import numpy as np
import pytest
from PIL import Image

from dcgan_lib.convolution import ConvolutionSetting, explain_impossible
from dcgan_lib.convolution_examples import LIMITS, ConvolutionExample
from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import DPI
from dcgan_lib.widgets import convolution_explorer


@pytest.fixture
def explorer():
    made = convolution_explorer()
    yield made
    made.close()


def shown(explorer) -> np.ndarray:
    with Image.open(io.BytesIO(explorer.picture.value)) as picture:
        return np.asarray(picture.convert("RGB"))


def assert_shows(explorer):
    """The picture is the figure of what the controls say."""
    file = io.BytesIO()
    explorer.figure().savefig(file, format="png", dpi=DPI)
    with Image.open(file) as picture:
        np.testing.assert_array_equal(shown(explorer), np.asarray(picture.convert("RGB")))


def words(explorer) -> list[str]:
    inside = re.fullmatch(r"<div [^>]*>(.*)</div>", explorer.words.value).group(1)
    return [html.unescape(line) for line in inside.split("<br>")]


def test_it_opens_on_a_layer_of_the_generator(explorer):
    setting = ConvolutionSetting(4, 4, 2, 1, transposed=True)
    assert explorer.example == ConvolutionExample(setting, 2, 1)
    assert (explorer.side.value, explorer.cell) == ("input", (1, 1))
    assert words(explorer) == [
        "Output size = (size − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1",
        "<b>(4 − 1)·2 − 2·1 + 1·(4 − 1) + 0 + 1 = 8</b>",
        "In the letters of Dumoulin and Visin: o′ = s(i′ − 1) + a + k + (k − 1)(d − 1) − 2p",
        "<code>nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)</code>",
        explorer.example.sentence("input", (1, 1)),
    ]
    assert_shows(explorer)


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 7), ("kernel", 3), ("stride", 3), ("padding", 0), ("dilation", 2), ("output_padding", 1)],
)
def test_a_slider_changes_the_setting_and_the_picture(explorer, name, value):
    before = shown(explorer)
    explorer.sliders[name].set_state({"value": value})  # what the page sends
    numbers = {"size": 4, "kernel": 4, "stride": 2, "padding": 1} | {name: value}
    assert explorer.example.setting == ConvolutionSetting(**numbers, transposed=True)
    assert explorer.example.setting.size_formula in words(explorer)[1]
    after = shown(explorer)
    assert (after != before).any()
    assert_shows(explorer)


def test_sliders_reach_what_the_page_reaches(explorer):
    assert {name: (slider.min, slider.max) for name, slider in explorer.sliders.items()} == LIMITS


@pytest.mark.parametrize(
    ("direction", "values", "sentence"),
    [
        ("transposed", {"stride": 0}, "stride=0 must be at least 1"),
        ("transposed", {"output_padding": 2}, "output_padding=2 must be smaller than stride=2 or dilation=1"),
        (
            "transposed",
            {"size": 1, "padding": 2},
            "padding=2 cuts 4 pixels from an output of 4; it must leave at least 1",
        ),
        (
            "convolution",
            {"size": 1, "padding": 1},
            "kernel=4 with dilation=1 spans 4 pixels; it must not span more than "
            "the padded input, 3 pixels (size=1, padding=1)",
        ),
        ("convolution", {"output_padding": 1}, "output_padding=1 must be 0: only a transposed convolution has one"),
    ],
)
def test_an_impossible_setting_explains_itself_and_keeps_the_picture(explorer, direction, values, sentence):
    explorer.direction.value = direction
    *first, last = values.items()
    for name, value in first:
        explorer.sliders[name].value = value
    before, example = explorer.picture.value, explorer.example
    explorer.sliders[last[0]].value = last[1]
    assert explorer.problem == explain_impossible(**explorer.setting) == sentence
    assert words(explorer)[1] == f"<b>Impossible: {sentence}.</b> The picture shows the last possible setting."
    assert explorer.picture.value == before
    assert explorer.example is example
    explorer.sliders[last[0]].value = {"stride": 1, "padding": 6}.get(last[0], 0) if direction == "convolution" else 1
    assert explorer.problem is None
    assert_shows(explorer)


def test_direction_and_axes_change_the_operation(explorer):
    explorer.direction.value = "convolution"
    assert explorer.example.setting == ConvolutionSetting(4, 4, 2, 1)
    assert (explorer.side.value, explorer.cell, explorer.step.max) == ("output", (1, 1), 3)
    explorer.axes.value = 1
    assert (explorer.example.axes, explorer.cell, explorer.step.max) == (1, (1,), 1)
    assert words(explorer)[3:] == [
        "<code>nn.Conv1d(1, 1, 4, stride=2, padding=1, bias=False)</code>",
        explorer.example.sentence("output", (1,)),
    ]
    assert_shows(explorer)


def test_the_lit_cell_goes_over_the_cells_of_a_side(explorer):
    explorer.step.value = 7
    assert explorer.cell == (1, 3)
    assert words(explorer)[-1] == explorer.example.sentence("input", (1, 3))
    explorer.side.value = "output"
    assert (explorer.cell, explorer.step.max) == ((1, 1), 63)
    explorer.step.value = 63
    assert words(explorer)[-1] == explorer.example.sentence("output", (7, 7))
    assert_shows(explorer)
    explorer.sliders["size"].value = 2  # the output has 4 x 4 cells now: the lit one is the nearest there is
    assert explorer.cell == (3, 3)


def test_play_moves_the_lit_cell(explorer):
    explorer.play.set_state({"value": 9})
    assert explorer.step.value == 9
    assert explorer.cell == (2, 1)
    assert explorer.play.max == 15
    explorer.side.value = "output"
    assert explorer.play.max == 63


def test_numbers_overlap_and_what_is_done_so_far(explorer):
    pictures = [shown(explorer)]
    explorer.seed.value = 4
    assert explorer.example.seed == 4
    pictures.append(shown(explorer))
    explorer.overlap.value = True
    pictures.append(shown(explorer))
    explorer.overlap.value, explorer.partial.value = False, True
    pictures.append(shown(explorer))
    assert len({picture.tobytes() for picture in pictures}) == 4
    assert_shows(explorer)


def test_reset_goes_back_to_the_beginning(explorer):
    beginning = shown(explorer)
    explorer.direction.value, explorer.axes.value, explorer.sliders["size"].value = "convolution", 1, 9
    explorer.overlap.value = explorer.partial.value = True
    explorer.step.value = 3
    explorer.reset.click()
    np.testing.assert_array_equal(shown(explorer), beginning)
    assert (explorer.side.value, explorer.cell) == ("input", (1, 1))


def test_one_change_draws_once(explorer, monkeypatch):
    drawn = []
    monkeypatch.setattr(explorer, "figure", lambda figure=explorer.figure: drawn.append(1) or figure())
    for change in (
        lambda: setattr(explorer.sliders["size"], "value", 3),
        lambda: setattr(explorer.direction, "value", "convolution"),
        lambda: setattr(explorer.side, "value", "input"),
        lambda: setattr(explorer.step, "value", 8),
        explorer.reset.click,
    ):
        drawn.clear()
        change()
        assert drawn == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stride": 0}, "stride=0 must be at least 1"),
        ({"size": 17}, "size=17 must be between 1 and 16"),
        ({"kernel": 8}, "kernel=8 must be between 1 and 7"),
        ({"direction": "backwards"}, "direction='backwards' must be 'convolution' or 'transposed'"),
        ({"axes": 3}, "axes=3 must be 1 or 2"),
        ({"seed": 10}, "seed=10 must be between 0 and 9"),
        ({"seed": 1.5}, "seed=1.5 must be a whole number"),
        ({"output_padding": 2}, "output_padding=2 must be smaller than stride=2 or dilation=1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(UserError) as caught:
        convolution_explorer(**arguments)
    assert str(caught.value) == message


def test_the_stored_output_has_a_still_picture_and_a_view(explorer):
    bundle = explorer._repr_mimebundle_()
    still = base64.b64decode(bundle["image/png"])
    with Image.open(io.BytesIO(still)) as picture:
        difference = np.abs(np.asarray(picture.convert("RGB")).astype(int) - shown(explorer))
    assert difference.mean() < 2  # fewer colours, but hardly to be seen
    assert len(still) < 50_000
    assert bundle["text/plain"] == "ConvolutionExplorer()"
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.view.model_id


def test_close_leaves_no_widget_behind():
    made = convolution_explorer(size=2, axes=1)
    controls = made._controls
    made.close()
    made.close()
    assert all(control.comm is None for control in controls)
    assert "application/vnd.jupyter.widget-view+json" not in made._repr_mimebundle_()


def test_controls_have_names_and_hints(explorer):
    for control in explorer._controls:
        assert control.description
    assert explorer.picture.tooltip is None  # with one, ipywidgets 8.1 shows an error instead of the picture
