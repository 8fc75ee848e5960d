"""Controls for a running notebook, built from ipywidgets: one function for each.

Every widget shows itself as the last expression of a cell. Its stored output carries a still picture beside the widget
view, so a page without a kernel shows the picture.
"""

from dcgan_lib.widgets.base import StillWidget
from dcgan_lib.widgets.convolution import ConvolutionExplorer, convolution_explorer
from dcgan_lib.widgets.latent import LatentExplorer, latent_explorer
from dcgan_lib.widgets.latent_arithmetic import LatentArithmetic, latent_arithmetic
from dcgan_lib.widgets.latent_grid import LatentGrid, latent_grid
from dcgan_lib.widgets.latent_view import MAX_SEED
from dcgan_lib.widgets.latent_walk import LatentWalk, latent_walk
from dcgan_lib.widgets.player import MOST_STEPS, GanPlayer, gan_player

__all__ = [
    "MAX_SEED",
    "MOST_STEPS",
    "ConvolutionExplorer",
    "GanPlayer",
    "LatentArithmetic",
    "LatentExplorer",
    "LatentGrid",
    "LatentWalk",
    "StillWidget",
    "convolution_explorer",
    "gan_player",
    "latent_arithmetic",
    "latent_explorer",
    "latent_grid",
    "latent_walk",
]
