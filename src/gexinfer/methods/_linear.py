"""What the linear methods share: one eigendecomposition of the landmarks' moments, one matrix product to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg

from gexinfer.engine.blocks import Float, Wide
from gexinfer.engine.moments import Moments
from gexinfer.methods._contract import Model


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

    def inverse(self, penalty: float) -> Wide:
        """Return 1 / (values + penalty), and 0 for directions in which the landmarks do not vary."""
        floor = self.values[-1] * len(self.values) * np.finfo(np.float64).eps
        return np.divide(1, self.values + penalty, out=np.zeros_like(self.values), where=self.values > floor)

    def coefficients(self, penalty: float) -> Float:
        """Return the (landmarks, targets) coefficients of the penalised, else the minimum-norm solution."""
        return (self.vectors @ (self.inverse(penalty)[:, None] * self.rotated)).astype(np.float32)


def predict(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    # No intercept: both sides are centred on the training rows. Summed in float64: over a thousand landmarks with
    # a weak penalty float32 strays by more than 1e-5 standard deviations from the exact solution.
    coefficients = model.arrays["coefficients"].astype(np.float64)
    for x in blocks:
        yield (x @ coefficients).astype(np.float32)
