"""Ordinary least squares with intercept: the linear regression of LINCS and the LR of the D-GEX paper."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from gexinfer.engine.moments import cross_moments
from gexinfer.methods._contract import Method, Model, Task
from gexinfer.methods._linear import Spectrum, predict


@dataclass(frozen=True)
class OLS:
    """Least squares has no options."""


def fit(task: Task, config: OLS) -> Model:
    n, p = len(task.train), task.train.n_landmarks
    if n <= 2 * p:
        # With n near p the fit passes through the training rows and its error on new ones has no bound.
        solution = "the minimum-norm one of many solutions" if n <= p else "a solution that mostly fits noise"
        warnings.warn(
            f"ols: {n:,} training rows for {p:,} landmarks give {solution}; expect a large test error. "
            "Use method='ridge', which is made for this.",
            UserWarning,
            stacklevel=3,
        )
    spectrum = Spectrum.of(cross_moments(task.train.blocks()))
    return Model({"coefficients": spectrum.coefficients(penalty=0)})


METHOD = Method("ols", OLS, fit, predict, selects=lambda config: False)
