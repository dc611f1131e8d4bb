"""Fit, predict, evaluate."""

from gexinfer.tl._compare import compare
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._fit import fit
from gexinfer.tl._learning_curve import learning_curve
from gexinfer.tl._predict import predict
from gexinfer.tl._similar_samples import similar_samples
from gexinfer.tl._sweep import sweep
from gexinfer.tl._tune import tune

__all__ = ["compare", "evaluate", "fit", "learning_curve", "predict", "similar_samples", "sweep", "tune"]
