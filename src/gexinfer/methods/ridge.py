"""Ridge regression: the whole penalty path from one eigendecomposition, the penalty chosen on validation rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gexinfer.engine.moments import cross_moments
from gexinfer.methods._contract import Method, Model, Task, mean_absolute_error
from gexinfer.methods._linear import Spectrum, predict

# Per training row, because the sums that the penalty competes with grow with the rows.
PENALTIES_PER_ROW = np.logspace(-4, 2, 25)


@dataclass(frozen=True)
class Ridge:
    """Options of ridge regression."""

    # scikit-learn's alpha, on standardised landmarks and targets; None tries 25 and keeps the best on validation.
    penalty: float | None = None

    def __post_init__(self) -> None:
        if self.penalty is not None and not 0 < self.penalty < np.inf:
            raise ValueError(
                f"penalty={self.penalty!r} must be positive and finite, or None to choose it. For none, method='ols'."
            )


def fit(task: Task, config: Ridge) -> Model:
    spectrum = Spectrum.of(cross_moments(task.train.blocks()))
    penalty = config.penalty or choose_penalty(task, spectrum)
    return Model({"coefficients": spectrum.coefficients(penalty)}, {"penalty": penalty})


def choose_penalty(task: Task, spectrum: Spectrum) -> float:
    penalties = PENALTIES_PER_ROW * len(task.train)
    errors = np.zeros(len(penalties))
    rotated = spectrum.rotated.astype(np.float32)
    for x, y in task.validation.blocks():
        # In the rotated space a penalty is only a rescaling of columns.
        turned = (x @ spectrum.vectors).astype(np.float32)
        for i, penalty in enumerate(penalties):
            predicted = (turned * spectrum.inverse(penalty).astype(np.float32)) @ rotated
            errors[i] += mean_absolute_error(predicted, y) * len(x)
    return float(penalties[errors.argmin()])


METHOD = Method("ridge", Ridge, fit, predict, selects=lambda config: config.penalty is None)
