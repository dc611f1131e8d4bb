"""Figures of what `gexinfer.tl` has measured. Each takes `ax` and returns what it drew on."""

from gexinfer.pl._coverage import coverage
from gexinfer.pl._error_density import error_density
from gexinfer.pl._error_scatter import error_scatter
from gexinfer.pl._gene import gene
from gexinfer.pl._novelty import novelty
from gexinfer.pl._sample import sample
from gexinfer.pl._terms import terms
from gexinfer.pl._training import training

__all__ = ["coverage", "error_density", "error_scatter", "gene", "novelty", "sample", "terms", "training"]
