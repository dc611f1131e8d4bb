"""What the linear methods share: solutions from the landmarks' moments, one matrix product to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.linalg
from scipy.linalg import blas, lapack

from gexinfer.engine.blocks import Float, Wide
from gexinfer.engine.moments import Moments
from gexinfer.methods._contract import Model

# Per training row, because the sums that the penalty competes with grow with the rows.
PENALTIES_PER_ROW = np.logspace(-4, 2, 25)
# Coefficients of a target of up to this length are multiplied in float32, which was seen to be 5e-6 off at most.
SHORT = 2.0


@dataclass(frozen=True)
class Spectrum:
    """X'X = V diag(values) V', and V'X'Y."""

    values: Wide
    vectors: Wide
    rotated: Wide

    @classmethod
    def of(cls, moments: Moments) -> Spectrum:
        values, vectors = scipy.linalg.eigh(moments.xx, driver="evd")
        return cls(np.maximum(values, 0), vectors, vectors.T @ moments.xy)

    @property
    def varies(self) -> np.ndarray:
        """Whether the landmarks vary in each direction, beyond the float32 rounding of their values."""
        return self.values > self.values[-1] * len(self.values) * np.finfo(np.float32).eps ** 2

    def inverse(self, penalty: float) -> Wide:
        """Return 1 / (values + penalty), and 0 for directions in which the landmarks do not vary."""
        return np.divide(1, self.values + penalty, out=np.zeros_like(self.values), where=self.varies)

    def coefficients(self, inverse: Wide) -> Float:
        """Return (landmarks, targets) coefficients for the inverse of one penalty, or one column of it a target."""
        return (self.vectors @ (inverse.reshape(len(self.values), -1) * self.rotated)).astype(np.float32)


def unpenalised(moments: Moments) -> Wide | None:
    """Return the (landmarks, targets) coefficients of least squares where they are well determined."""
    factor, failed = lapack.dpotrf(moments.xx)
    if failed:
        return None
    reciprocal_condition, _ = lapack.dpocon(factor, np.abs(moments.xx).sum(axis=0).max())
    if reciprocal_condition < 1e-10:
        return None
    # From the right, of the transpose: that is how X'Y lies in memory.
    half = blas.dtrsm(1, factor, moments.xy.T, side=1)
    return blas.dtrsm(1, factor, half, side=1, trans_a=1, overwrite_b=1).T


def about_zero(sums: Moments) -> Moments:
    """Return sums of products about zero instead of about the mean, for what has no intercept."""
    k, n, mean = len(sums.xx), sums.n, sums.mean
    xx, xy = sums.xx + n * np.outer(mean[:k], mean[:k]), sums.xy + n * np.outer(mean[:k], mean[k:])
    return replace(sums, xx=xx, xy=xy)


def cross_validation_errors(moments: Moments, spectrum: Spectrum, penalties: Wide) -> Wide:
    """Return the (penalties, targets) errors of generalised cross-validation, which reads no row again."""
    n, squared = moments.n, spectrum.rotated**2
    errors = np.zeros((len(penalties), squared.shape[1]))
    for i, penalty in enumerate(penalties):
        inverse = spectrum.inverse(penalty)
        left = moments.yy - (2 * inverse - spectrum.values * inverse**2) @ squared
        # One degree of freedom is the mean's.
        freedom = 1 + (spectrum.values * inverse).sum()
        errors[i] = left / n / (1 - freedom / n) ** 2
    return errors


def best_by_cross_validation(moments: Moments, spectrum: Spectrum) -> float:
    """Return the penalty with the lowest of these errors over all targets."""
    penalties = PENALTIES_PER_ROW * moments.n
    return float(penalties[cross_validation_errors(moments, spectrum, penalties).sum(axis=1).argmin()])


def jacobian_of(
    coefficients: Callable[[Model, int], Float],
) -> Callable[[Model, Any, Float, Float, str], Float]:
    """Return the `jacobian` of a method with these (landmarks, targets) coefficients, which are those of every row."""

    def jacobian(model: Model, config: Any, X: Float, weights: Float, device: str) -> Float:
        return weights.sum(axis=0)[:, None] * coefficients(model, X.shape[1])

    return jacobian


jacobian = jacobian_of(lambda model, p: model.arrays["coefficients"])


def predict(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    # No intercept: both sides are centred on the training rows.
    coefficients = model.arrays["coefficients"]
    # With coefficients as long as a weak penalty leaves them, float32 strays by more than 1e-5 standard deviations from
    # the exact solution; it takes half the time of float64.
    if np.linalg.norm(coefficients, axis=0).max(initial=0) > SHORT:
        coefficients = coefficients.astype(np.float64)
    for x in blocks:
        yield (x @ coefficients).astype(np.float32, copy=False)
