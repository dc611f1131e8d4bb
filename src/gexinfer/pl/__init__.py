"""Figures of what `gexinfer.tl` has measured. Each takes `ax` and returns what it drew on."""

from gexinfer.pl._error_by_size import error_by_size
from gexinfer.pl._error_density import error_density
from gexinfer.pl._error_scatter import error_scatter
from gexinfer.pl._learning_curve import learning_curve
from gexinfer.pl._terms import terms
from gexinfer.pl._training import training

__all__ = ["error_by_size", "error_density", "error_scatter", "learning_curve", "terms", "training"]
