"""Fit, predict, evaluate, explain."""

from gexinfer.tl._compare import compare
from gexinfer.tl._coverage import coverage
from gexinfer.tl._downstream import downstream
from gexinfer.tl._enrich import enrich
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._explain import explain
from gexinfer.tl._fit import fit
from gexinfer.tl._learning_curve import learning_curve
from gexinfer.tl._nonlinearity import nonlinearity
from gexinfer.tl._partial_dependence import partial_dependence
from gexinfer.tl._predict import predict
from gexinfer.tl._similar_samples import similar_samples
from gexinfer.tl._sweep import sweep
from gexinfer.tl._trust import trust
from gexinfer.tl._tune import tune

__all__ = [
    "compare",
    "coverage",
    "downstream",
    "enrich",
    "evaluate",
    "explain",
    "fit",
    "learning_curve",
    "nonlinearity",
    "partial_dependence",
    "predict",
    "similar_samples",
    "sweep",
    "trust",
    "tune",
]
