"""How targets are learned from landmarks: one file a method, one line of this registry each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gexinfer.methods._contract import Method, Model, Task, configure

__all__ = ["METHODS", "Method", "Model", "Task", "configure", "get_method"]

# Names only: a method's module, and what it imports, is loaded when the method is first used.
METHODS = {
    "auto": "several of these, as many as data and time allow, weighed per target on validation rows",
    "mean": "the training mean of each target: the floor",
    "ols": "ordinary least squares with intercept, as LINCS infers",
    "ridge": "least squares with an L2 penalty",
    "lasso": "least squares with an L1 penalty: each target follows a few landmarks",
    "rrr": "reduced-rank ridge: the targets follow the landmarks through a few shared directions",
    "knn": "the mean of the nearest training samples",
    "knn_genes": "the mean of the landmark genes nearest to a target, the KNN-GE of the D-GEX paper",
    "sample_lasso": "per query sample a lasso over the training samples, for panels that change (Mancuso et al. 2020)",
    "kernel": "kernel ridge regression, or Gaussian process: arc-cosine, RBF or Laplace kernel",
    "dgex": "the feed-forward network of Chen et al. 2016, with a modern or the paper's recipe",
    "residual": "the ridge solution, and a network that learns what it leaves",
    "ggan": "the conditional GAN of Wang et al. 2018: L1, adversarial and consistency terms",
    "semigan": "the semi-supervised GAN of Ghasedi Dizaji et al. 2018: samples with landmarks alone take part",
}


def get_method(name: str) -> Method:
    """Return the method of that name."""
    if not isinstance(name, str):
        raise TypeError(f"method={name!r} must be the name of one method; gexinfer.tl.compare fits several.")
    if name not in METHODS:
        raise ValueError(f"method={name!r} is not a method of gexinfer; choose one of {', '.join(METHODS)}.")
    return import_module(f"gexinfer.methods.{name}").METHOD


def __getattr__(name: str) -> Any:
    # The command line takes METHODS from here for --help and completion, which must not wait for numpy.
    if name in __all__:
        return getattr(import_module("gexinfer.methods._contract"), name)
    raise AttributeError(f"module 'gexinfer.methods' has no attribute {name!r}")
