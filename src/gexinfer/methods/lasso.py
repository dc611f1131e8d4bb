"""Lasso for all targets at once, from the moments: each target follows a few landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from gexinfer.engine.blocks import Float, Wide
from gexinfer.engine.report import warn
from gexinfer.methods._contract import Method, Model, Task, check_penalty
from gexinfer.methods._descent import PENALTIES, ROUGH, best_on_path, descend
from gexinfer.methods._linear import jacobian_of

# The penalty is one for all targets, and so many of them know it as well as all.
CHOOSING_TARGETS = 500


@dataclass(frozen=True)
class Lasso:
    """Options of the lasso."""

    # scikit-learn's alpha, on standardised landmarks and targets; None goes down from .32 and keeps the best.
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty, "For none, method='ols'.")


def fit(task: Task, config: Lasso) -> Model:
    n = task.moments.n
    gram, targets = task.moments.xx / n, np.ascontiguousarray(task.moments.xy.T) / n
    penalty = config.penalty or choose_penalty(task, gram, targets)
    weights = np.zeros_like(targets)
    for above in PENALTIES[2 * penalty < PENALTIES]:
        descend(gram, targets, above, weights, ROUGH)
    unsolved = descend(gram, targets, penalty, weights)
    if unsolved:
        warn(
            f"lasso: {unsolved:,} of {len(targets):,} targets are not solved exactly at penalty={penalty:.2g}, because "
            "landmarks are nearly collinear. Use a larger penalty=, or method='ridge'.",
        )
    sparse = sp.csr_array(weights.astype(np.float32))
    used = np.diff(sparse.indptr)
    arrays = {
        "coefficients.data": sparse.data,
        "coefficients.indices": sparse.indices.astype(np.int32),
        "coefficients.indptr": sparse.indptr.astype(np.int64),
        "n_landmarks": used.astype(np.int32),
    }
    notes = {"penalty": penalty, "landmarks_median": float(np.median(used)), "landmarks_most": int(used.max())}
    return Model(arrays, notes)


def choose_penalty(task: Task, gram: Wide, targets: Wide) -> float:
    """Return the penalty with the lowest validation error of some targets."""
    shown = np.sort(task.rng.choice(len(targets), min(len(targets), CHOOSING_TARGETS), replace=False))

    def error(weights: Wide) -> float:
        coefficients = weights.T.astype(np.float32)
        return sum(float(np.abs(x @ coefficients - y[:, shown]).sum()) for x, y in task.validation.blocks())

    return best_on_path(gram, targets[shown], error)


def coefficients_of(model: Model, n_landmarks: int) -> sp.csr_array:
    """Return the (targets, landmarks) coefficients."""
    data, *places = (model.arrays[f"coefficients.{name}"] for name in ("data", "indices", "indptr"))
    return sp.csr_array((data.astype(np.float64), *places), shape=(len(places[1]) - 1, n_landmarks))


def predict(model: Model, config: Lasso, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    coefficients = None
    for x in blocks:
        if coefficients is None:
            coefficients = coefficients_of(model, x.shape[1])
        yield (coefficients @ x.T.astype(np.float64)).T.astype(np.float32)


METHOD = Method(
    "lasso",
    Lasso,
    fit,
    predict,
    selects=lambda config: config.penalty is None,
    products=True,
    jacobian=jacobian_of(lambda model, p: coefficients_of(model, p).toarray().T.astype(np.float32)),
    per_gene=("n_landmarks",),
)
