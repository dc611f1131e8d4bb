"""KNN-GE of the D-GEX paper: a target is the plain mean of the landmark genes nearest to it in training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gexinfer.engine.blocks import Float
from gexinfer.methods._contract import Method, Model, Task
from gexinfer.methods._linear import jacobian_of

CANDIDATES = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50, 100)


@dataclass(frozen=True)
class KNNGenes:
    """Options of the nearest landmark genes."""

    # Number of landmark genes; None tries those of 1 to 100 and keeps the best on validation.
    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k={self.k!r} must be at least 1, or None to choose it.")


def fit(task: Task, config: KNNGenes) -> Model:
    p = task.train.n_landmarks
    if config.k is not None and config.k > p:
        raise ValueError(f"k={config.k} is more than the {p} landmarks; choose a smaller k.")
    # The squared distance of two genes over the samples, less the target's own part, which orders nothing.
    distance = np.diag(task.moments.xx)[:, None] - 2 * task.moments.xy
    nearest = np.argsort(distance, axis=0, kind="stable").astype(np.int32)
    k = config.k or choose_k(task, nearest)
    return Model({"nearest": nearest[:k]}, {"k": k})


def choose_k(task: Task, nearest: np.ndarray) -> int:
    candidates = [k for k in CANDIDATES if k <= len(nearest)]
    errors = dict.fromkeys(candidates, 0.0)
    for x, y in task.validation.blocks():
        total = np.zeros_like(y)
        for k in range(1, candidates[-1] + 1):
            total += x[:, nearest[k - 1]]
            if k in errors:
                errors[k] += float(np.abs(total / k - y).sum(dtype=np.float64))
    return min(candidates, key=errors.__getitem__)


def predict(model: Model, config: KNNGenes, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    nearest = model.arrays["nearest"]
    for x in blocks:
        total = np.zeros((len(x), nearest.shape[1]), np.float32)
        for landmarks in nearest:
            total += x[:, landmarks]
        yield total / np.float32(len(nearest))


def shares(model: Model, n_landmarks: int) -> Float:
    """Return the (landmarks, targets) share of each landmark in the mean that a target is."""
    nearest = model.arrays["nearest"]
    found = np.zeros((n_landmarks, nearest.shape[1]), np.float32)
    np.put_along_axis(found, nearest, 1 / len(nearest), axis=0)
    return found


METHOD = Method(
    "knn_genes",
    KNNGenes,
    fit,
    predict,
    selects=lambda config: config.k is None,
    products=True,
    jacobian=jacobian_of(shares),
)
