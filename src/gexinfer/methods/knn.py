"""Nearest training samples in landmark space; a target is the plain mean of its values in the k nearest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from sklearn.neighbors import NearestNeighbors

from gexinfer.engine.blocks import Float
from gexinfer.methods._contract import Method, Model, Task

CANDIDATES = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)


@dataclass(frozen=True)
class KNN:
    """Options of the nearest neighbours."""

    # Number of neighbours; None tries those of 1 to 50 and keeps the best on validation.
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k={self.k!r} must be at least 1, or None to choose it.")


def search(landmarks: Float) -> NearestNeighbors:
    # With about a thousand landmarks no tree beats comparing with every sample.
    return NearestNeighbors(algorithm="brute").fit(landmarks)


def fit(task: Task, config: KNN) -> Model:
    X, Y = task.train.arrays()
    if config.k is not None and config.k > len(X):
        raise ValueError(f"k={config.k} is more than the {len(X)} training rows; choose a smaller k.")
    k = config.k or choose_k(task, X, Y)
    return Model({"landmarks": X, "targets": Y}, {"k": k})


def choose_k(task: Task, X: Float, Y: Float) -> int:
    candidates = [k for k in CANDIDATES if k <= len(X)]
    errors = dict.fromkeys(candidates, 0.0)
    index = search(X)
    for x, y in task.validation.blocks():
        nearest = index.kneighbors(x, candidates[-1], return_distance=False)
        total = np.zeros_like(y)
        for k in range(1, candidates[-1] + 1):
            total += Y[nearest[:, k - 1]]
            if k in errors:
                errors[k] += float(np.abs(total / k - y).sum(dtype=np.float64))
    return min(candidates, key=errors.__getitem__)


def predict(model: Model, config: KNN, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    Y, k = model.arrays["targets"], int(model.notes["k"])
    index = search(model.arrays["landmarks"])
    for x in blocks:
        nearest = index.kneighbors(x, k, return_distance=False)
        total = np.zeros((len(x), Y.shape[1]), np.float32)
        for neighbour in nearest.T:
            total += Y[neighbour]
        yield total / np.float32(k)


METHOD = Method("knn", KNN, fit, predict, selects=lambda config: config.k is None, holds_samples=True)
