"""Fit, predict, evaluate."""

from gexinfer.tl._compare import compare
from gexinfer.tl._coverage import coverage
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._fit import fit
from gexinfer.tl._predict import predict
from gexinfer.tl._similar_samples import similar_samples
from gexinfer.tl._trust import trust

__all__ = ["compare", "coverage", "evaluate", "fit", "predict", "similar_samples", "trust"]
