"""Figures of what `gexinfer.tl` has measured. Each takes `ax` and returns what it drew on."""

from gexinfer.pl._coverage import coverage
from gexinfer.pl._error_by_size import error_by_size
from gexinfer.pl._error_density import error_density
from gexinfer.pl._error_scatter import error_scatter
from gexinfer.pl._gene import gene
from gexinfer.pl._influence import influence
from gexinfer.pl._learning_curve import learning_curve
from gexinfer.pl._nonlinearity import nonlinearity
from gexinfer.pl._novelty import novelty
from gexinfer.pl._partial_dependence import partial_dependence
from gexinfer.pl._sample import sample
from gexinfer.pl._terms import terms
from gexinfer.pl._training import training
from gexinfer.pl._weights import weights

__all__ = [
    "coverage",
    "error_by_size",
    "error_density",
    "error_scatter",
    "gene",
    "influence",
    "learning_curve",
    "nonlinearity",
    "novelty",
    "partial_dependence",
    "sample",
    "terms",
    "training",
    "weights",
]
