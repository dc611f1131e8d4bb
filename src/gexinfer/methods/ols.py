"""Ordinary least squares with intercept: the linear regression of LINCS and the LR of the D-GEX paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.report import warn
from gexinfer.methods._contract import Method, Model, Task
from gexinfer.methods._linear import Spectrum, jacobian, predict, unpenalised


@dataclass(frozen=True)
class OLS:
    """Least squares has no options."""


def fit(task: Task, config: OLS) -> Model:
    n, p = len(task.train), task.train.n_landmarks
    trouble = ""
    if n <= 2 * p:
        # With n near p the fit passes through the training rows and its error on new ones has no bound.
        solution = "the minimum-norm one of many solutions" if n <= p else "a solution that mostly fits noise"
        trouble = f"{n:,} training rows for {p:,} landmarks give {solution}; expect a large test error"
    coefficients: NDArray[np.floating] | None = unpenalised(task.moments)
    if coefficients is None:
        spectrum = Spectrum.of(task.moments)
        rank, varying = spectrum.varies.sum(), (task.moments.squares[:p] > 0).sum()
        if rank < varying < n:
            trouble = trouble or (
                f"the {varying:,} landmarks that vary are collinear, with {rank:,} independent directions, and give "
                "the minimum-norm one of many solutions"
            )
        elif not trouble and spectrum.values[spectrum.varies].min() < 1e-10 * spectrum.values[-1]:
            trouble = (
                f"the {varying:,} landmarks that vary are nearly collinear, so that rounding decides about coefficients"
            )
        coefficients = spectrum.coefficients(spectrum.inverse(0))
    if trouble:
        warn(
            f"ols: {trouble}. Use method='ridge', which is made for this.",
        )
    return Model({"coefficients": coefficients.astype(np.float32)})


METHOD = Method("ols", OLS, fit, predict, selects=lambda config: False, products=True, jacobian=jacobian)
