"""Fit, predict, evaluate."""

from gexinfer.tl._compare import compare
from gexinfer.tl._downstream import downstream
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._fit import fit
from gexinfer.tl._predict import predict
from gexinfer.tl._similar_samples import similar_samples

__all__ = ["compare", "downstream", "evaluate", "fit", "predict", "similar_samples"]
