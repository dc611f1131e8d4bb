"""The landmarks as one Gaussian: what those that were measured say of those that are missing."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Wide

# Weights of so many patterns of missing landmarks are kept: samples of one panel share one.
KEPT_PATTERNS = 16


def packed(covariance: Wide) -> Float:
    """Return the upper triangle of a symmetric matrix, row by row."""
    return covariance[np.triu_indices(len(covariance))].astype(np.float32)


def unpacked(triangle: Float) -> Wide:
    p = int((np.sqrt(8 * len(triangle) + 1) - 1) / 2)
    full = np.zeros((p, p))
    full[np.triu_indices(p)] = triangle
    return full + np.triu(full, 1).T


def shrunk(covariance: Wide, n: int) -> Wide:
    """Return the oracle approximating shrinkage of a covariance of n rows (Chen et al. 2010): it has an inverse."""
    p = len(covariance)
    level = np.trace(covariance) / p
    squared = np.mean(covariance**2)
    spread = (n + 1) * (squared - level**2 / p)
    weight = 1.0 if spread <= 0 else min((squared + level**2) / spread, 1.0)
    return (1 - weight) * covariance + weight * (level or 1.0) * np.eye(p)


class Gaussian:
    """Standardised landmarks with mean 0 and this covariance, estimated from n rows."""

    def __init__(self, covariance: Wide, n: int):
        self.covariance = shrunk(covariance, n)
        self.weights: dict[bytes, Float] = {}

    @cached_property
    def precision(self) -> NDArray[np.floating]:
        return np.linalg.inv(self.covariance)

    @cached_property
    def whitening(self) -> Float:
        """What brings (rows, landmarks) to the identity as covariance."""
        return np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(self.covariance)).T, np.float32)

    def squared_distances(self, block: Float) -> Float:
        """Return (rows,) squared Mahalanobis distances from the mean, of rows that lack nothing or were filled in.

        What is filled in by its conditional mean adds nothing: the distance is that of the landmarks measured.
        """
        white = block @ self.whitening
        return np.einsum("ij,ij->i", white, white)

    def fill(self, block: Float) -> Float:
        """Return (rows, landmarks) with what is NaN replaced by its mean given the row's other landmarks."""
        missing = np.isnan(block)
        filled = block.copy()
        for row in np.flatnonzero(missing.any(axis=1)):
            # Row by row, so that the last bit does not depend on the samples that stand beside it.
            filled[row, missing[row]] = block[row, ~missing[row]] @ self.weights_of(missing[row])
        return filled

    def weights_of(self, missing: NDArray[np.bool_]) -> Float:
        """Return (measured, missing) weights: one solve for each pattern, of the smaller of the two systems."""
        pattern = missing.tobytes()
        weights = self.weights.get(pattern)
        if weights is None:
            given, lost = np.flatnonzero(~missing), np.flatnonzero(missing)
            if len(lost) < len(given):
                among = self.precision[np.ix_(lost, lost)], -self.precision[np.ix_(lost, given)]
                weights = np.linalg.solve(*among).T
            else:
                among = self.covariance[np.ix_(given, given)], self.covariance[np.ix_(given, lost)]
                weights = np.linalg.solve(*among)
            weights = np.ascontiguousarray(weights, np.float32)
            # A new dict each time, so that threads need not wait for each other.
            self.weights = dict([*self.weights.items()][1 - KEPT_PATTERNS :]) | {pattern: weights}
        return weights
