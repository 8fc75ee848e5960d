import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from dcgan_lib import plots
from dcgan_lib.convolution import ConvolutionSetting
from dcgan_lib.errors import UserError
from dcgan_lib.plots.convolution import draw_connections, draw_matrix, draw_numbers, place_colour

SETTINGS = [
    ConvolutionSetting(8, 4, 2, 1),
    ConvolutionSetting(7, 3, 1, 2, dilation=2),
    ConvolutionSetting(4, 4, 2, 1, transposed=True),
    ConvolutionSetting(3, 3, 2, 1, output_padding=1, transposed=True),
]


def texts(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_line_for_every_product_in_the_colour_of_its_place(setting):
    _, axis = plots.subplots()
    draw_connections(axis, setting)
    products = [tap.kernel for output in range(setting.output_size) for tap in setting.touched_inputs(output)]
    colours = [to_hex(line.get_color()) for line in axis.lines]
    assert sorted(colours) == sorted(place_colour(place).lower() for place in products)
    squares = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert len(squares) == setting.size + setting.output_size + 2 * setting.padding
    assert sum(square.get_linestyle() == "--" for square in squares) == 2 * setting.padding
    assert {"input", "output"} <= set(texts(axis))


@pytest.mark.parametrize("setting", SETTINGS)
def test_lines_of_one_place_are_parallel(setting):
    """The two rows lie to scale: a weight always points in one direction."""
    _, axis = plots.subplots()
    draw_connections(axis, setting)
    slopes = {}
    for line in axis.lines:
        (above, below), (top, bottom) = line.get_data()
        assert (top, bottom) == (1, 0)
        slopes.setdefault(line.get_color(), set()).add(round(float(below - above), 9))
    assert all(len(found) == 1 for found in slopes.values())
    assert len(set().union(*slopes.values())) == len(slopes)


def test_the_lines_of_one_cell_stand_out():
    setting = SETTINGS[0]
    for cells in ({"output": 0}, {"cell": 4}):
        _, axis = plots.subplots()
        draw_connections(axis, setting, **cells)
        taps = setting.touched_inputs(0) if "output" in cells else setting.touched_outputs(4)
        lit = [line for line in axis.lines if line.get_alpha() == 1]
        assert sorted(line.get_color() for line in lit) == sorted(place_colour(tap.kernel) for tap in taps)
        assert 0 < len(lit) < len(axis.lines)


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_matrix_has_the_weights_at_the_touched_cells(setting):
    _, axis = plots.subplots()
    draw_matrix(axis, setting, output=1, cell=0)
    written = {tuple(map(round, text.get_position())): text.get_text() for text in axis.texts}
    assert len(written) == setting.size * setting.output_size
    for output in range(setting.output_size):
        found = {cell: f"w{place}" for cell, place in setting.touched_inputs(output)}
        for cell in range(setting.size):
            assert written[cell, output].translate(str.maketrans("₀₁₂₃", "0123")) == found.get(cell, "0")
    frames = [patch for patch in axis.patches if not patch.get_fill()]
    assert [(frame.get_width(), frame.get_height()) for frame in frames] == [
        (setting.size, 1),
        (1, setting.output_size),
    ]


def test_numbers_in_rows():
    _, axis = plots.subplots()
    draw_numbers(axis, {"x": ["1", "", "3"], "y": ["", "5", "6"]}, {"y": [None, 2, None]})
    assert sorted(texts(axis)) == ["1", "3", "5", "6", "x", "y"]
    assert len(axis.patches) == 4
    assert [to_hex(patch.get_facecolor()) for patch in axis.patches].count(place_colour(2).lower()) == 1


def test_wrong_cells_are_refused():
    _, axis = plots.subplots()
    with pytest.raises(UserError, match="output=4 must be between 0 and 3"):
        draw_connections(axis, SETTINGS[0], output=4)
    with pytest.raises(UserError, match="cell=8 must be between 0 and 7"):
        draw_connections(axis, SETTINGS[0], cell=8)
    with pytest.raises(UserError, match="output=4 must be between 0 and 3"):
        draw_matrix(axis, SETTINGS[0], output=4)
    with pytest.raises(UserError, match=r"rows of \[1, 2\]"):
        draw_numbers(axis, {"a": ["1"], "b": ["1", "2"]}, {})
