"""Lasso for all targets at once, from the moments: each target follows a few landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from gexinfer.engine.blocks import Float, Wide
from gexinfer.methods._contract import Method, Model, Task, check_penalty
from gexinfer.methods._descent import ROUGH, descend

# In units of the correlation of standardised genes: at 1 no landmark is used. Downward, each from the one before.
PENALTIES = np.logspace(-0.5, -3, 11)


@dataclass(frozen=True)
class Lasso:
    """Options of the lasso."""

    # scikit-learn's alpha, on standardised landmarks and targets; None goes down from .32 and keeps the best.
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty, "For none, method='ols'.")


def fit(task: Task, config: Lasso) -> Model:
    gram, targets = task.moments.xx / task.moments.n, np.ascontiguousarray(task.moments.xy.T) / task.moments.n
    weights = np.zeros_like(targets)
    penalty = config.penalty
    if penalty is None:
        penalty, weights = choose(task, gram, targets, weights)
    descend(gram, targets, penalty, weights)
    sparse = sp.csr_array(weights.astype(np.float32))
    used = np.diff(sparse.indptr)
    arrays = {"coefficients.data": sparse.data, "coefficients.indices": sparse.indices.astype(np.int32)}
    arrays |= {"coefficients.indptr": sparse.indptr.astype(np.int64), "n_landmarks": used.astype(np.int32)}
    return Model(
        arrays, {"penalty": penalty, "landmarks_median": float(np.median(used)), "landmarks_most": int(used.max())}
    )


def choose(task: Task, gram: Wide, targets: Wide, weights: Wide) -> tuple[float, Wide]:
    """Follow the path until the validation error rises, and return its best penalty and about its weights."""
    best_error, best = np.inf, (0.0, weights)
    for penalty in PENALTIES:
        descend(gram, targets, penalty, weights, ROUGH)
        coefficients = weights.T.astype(np.float32)
        error = sum(float(np.abs(x @ coefficients - y).sum(dtype=np.float64)) for x, y in task.validation.blocks())
        if error > best_error:
            break
        best_error, best = error, (float(penalty), weights.copy())
    return best


def predict(model: Model, config: Lasso, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    a = {name: model.arrays[f"coefficients.{name}"] for name in ("data", "indices", "indptr")}
    coefficients = None
    for x in blocks:
        if coefficients is None:
            shape = (len(a["indptr"]) - 1, x.shape[1])
            coefficients = sp.csr_array((a["data"].astype(np.float64), a["indices"], a["indptr"]), shape=shape)
        yield (coefficients @ x.T.astype(np.float64)).T.astype(np.float32)


METHOD = Method(
    "lasso",
    Lasso,
    fit,
    predict,
    selects=lambda config: config.penalty is None,
    products=True,
    per_gene=("n_landmarks",),
)
