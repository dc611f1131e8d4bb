"""Ridge regression: the whole penalty path from one eigendecomposition of the landmarks' moments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from gexinfer.engine.blocks import Wide
from gexinfer.engine.moments import moments
from gexinfer.methods._contract import Method, Model, Task, check_penalty
from gexinfer.methods._linear import (
    PENALTIES_PER_ROW,
    Spectrum,
    about_zero,
    cross_validation_errors,
    jacobian,
    predict,
)


@dataclass(frozen=True)
class Ridge:
    """Options of ridge regression."""

    # scikit-learn's alpha, on standardised landmarks and targets; None tries 25 and keeps the best.
    penalty: float | None = None
    # Whether each target keeps its own best penalty instead of that of all.
    per_gene: bool = False

    def __post_init__(self) -> None:
        check_penalty(self.penalty, "For none, method='ols'.")
        if self.penalty is not None and self.per_gene:
            raise ValueError(f"per_gene=True chooses a penalty for each gene; leave out penalty={self.penalty!r}.")


def fit(task: Task, config: Ridge) -> Model:
    spectrum = Spectrum.of(task.moments)
    if config.penalty is not None:
        penalties, errors = np.array([config.penalty]), np.zeros((1, task.train.n_targets))
    else:
        penalties = PENALTIES_PER_ROW * len(task.train)
        if len(task.validation):
            errors = validation_errors(task, spectrum, penalties)
        else:
            errors = cross_validation_errors(task.moments, spectrum, penalties)
    inverses = np.stack([spectrum.inverse(penalty) for penalty in penalties])
    if config.per_gene:
        best = errors.argmin(axis=0)
        chosen = penalties[best]
        coefficients = spectrum.coefficients(inverses[best].T)
        return Model({"coefficients": coefficients, "penalty": chosen}, {"penalty_median": float(np.median(chosen))})
    best = errors.sum(axis=1).argmin()
    return Model({"coefficients": spectrum.coefficients(inverses[best])}, {"penalty": float(penalties[best])})


def refit(task: Task, config: Ridge, model: Model) -> Model:
    """Return the solution with the validation rows, too, each row under as much of the penalty as before."""
    pairs = task.validation
    sums = moments((np.hstack(block) for block in pairs.blocks()), pairs.n_landmarks, len(pairs))
    # About the training rows' mean, which is 0, because a model has no intercept.
    both = about_zero(task.moments + sums)
    chosen = model.arrays["penalty"] if config.per_gene else np.array([model.notes["penalty"]], float)
    spectrum = Spectrum.of(both)
    inverses = [spectrum.inverse(value * both.n / len(task.train)) for value in chosen]
    return replace(model, arrays={**model.arrays, "coefficients": spectrum.coefficients(np.stack(inverses, axis=1))})


def validation_errors(task: Task, spectrum: Spectrum, penalties: Wide) -> Wide:
    """Return the (penalties, targets) absolute errors, summed over validation rows."""
    errors = np.zeros((len(penalties), task.train.n_targets))
    rotated = spectrum.rotated.astype(np.float32)
    for x, y in task.validation.blocks():
        # In the rotated space a penalty is only a rescaling of columns.
        turned = (x @ spectrum.vectors).astype(np.float32)
        away = np.empty_like(y)
        for i, penalty in enumerate(penalties):
            np.matmul(turned * spectrum.inverse(penalty).astype(np.float32), rotated, out=away)
            away -= y
            errors[i] += np.abs(away, out=away).sum(axis=0)
    return errors


METHOD = Method(
    "ridge",
    Ridge,
    fit,
    predict,
    selects=lambda config: False,
    products=True,
    jacobian=jacobian,
    refit=refit,
    per_gene=("penalty",),
)
