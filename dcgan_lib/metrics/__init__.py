"""Numbers for generated images: distances, coverage, copies, and the values of known factors.

Every score says how many samples it used and which feature extractor, what the same score is between two halves of the
real images, and how far another choice of samples would move it. Scores with another extractor or another number of
samples do not compare.
"""

from dcgan_lib.metrics.distances import frechet_distance, kernel_distance
from dcgan_lib.metrics.evaluation import COMPARED_PIXELS, DEFAULT_SAMPLES, PIXELS, Evaluation, evaluate, pixel_features
from dcgan_lib.metrics.factors import Coverage, FactorCoverage, PairCoverage, coverage, pair_coverage
from dcgan_lib.metrics.inception import inception_distance
from dcgan_lib.metrics.intervals import Floor, Score, chance_share, floor_of, jackknife, poisson_limit, share_of
from dcgan_lib.metrics.manifold import DensityCoverage, Neighbourhoods, density_coverage
from dcgan_lib.metrics.memory import (
    FEWEST_HELD_OUT,
    Birthday,
    Copies,
    Neighbours,
    birthday,
    birthday_by_distance,
    copies,
    nearest_neighbours,
)

__all__ = [
    "COMPARED_PIXELS",
    "DEFAULT_SAMPLES",
    "FEWEST_HELD_OUT",
    "PIXELS",
    "Birthday",
    "Copies",
    "Coverage",
    "DensityCoverage",
    "Evaluation",
    "FactorCoverage",
    "Floor",
    "Neighbourhoods",
    "Neighbours",
    "PairCoverage",
    "Score",
    "birthday",
    "birthday_by_distance",
    "chance_share",
    "copies",
    "coverage",
    "density_coverage",
    "evaluate",
    "floor_of",
    "frechet_distance",
    "inception_distance",
    "jackknife",
    "kernel_distance",
    "nearest_neighbours",
    "pair_coverage",
    "pixel_features",
    "poisson_limit",
    "share_of",
]
