"""Tensors, histories and games in, matplotlib figures out.

A figure is shown by making it the last expression of a cell, or by ``display(figure)``; nothing here opens windows or
touches pyplot's list of figures, so nothing is shown twice and nothing needs closing. ``figure.savefig(path)`` writes
it to a file. Functions named ``draw_...`` draw on axes of a figure that ``subplots`` made.
"""

from dcgan_lib.plots.convolution import draw_connections, draw_matrix, draw_numbers
from dcgan_lib.plots.curves import history
from dcgan_lib.plots.diagrams import network_diagram, receptive_field_overlay
from dcgan_lib.plots.games import draw_phase_plane
from dcgan_lib.plots.images import feature_maps, image_grid, image_rows
from dcgan_lib.plots.look import PALETTE, SERIES, BookFigure, style, subplots
from dcgan_lib.plots.ring import ring_frame, ring_frames, ring_history

__all__ = [
    "PALETTE",
    "SERIES",
    "BookFigure",
    "draw_connections",
    "draw_matrix",
    "draw_numbers",
    "draw_phase_plane",
    "feature_maps",
    "history",
    "image_grid",
    "image_rows",
    "network_diagram",
    "receptive_field_overlay",
    "ring_frame",
    "ring_frames",
    "ring_history",
    "style",
    "subplots",
]
