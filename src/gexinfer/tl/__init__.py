"""Fit, predict, evaluate."""

from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._fit import fit
from gexinfer.tl._predict import predict

__all__ = ["evaluate", "fit", "predict"]
