"""Sums over blocks of rows, from which every linear method follows without a second look at the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Scale, Wide


@dataclass(frozen=True)
class Columns:
    """Per-column scale over rows, and how many rows of each column were not finite."""

    n: int
    scale: Scale
    not_finite: NDArray[np.intp]


def column_moments(blocks: Iterable[NDArray[np.floating]]) -> Columns:
    """Return the mean and standard deviation (dividing by n) of each column, in one pass."""
    n, shift = 0, np.zeros(0)
    for block in blocks:
        if n == 0:
            # Deviations from the first row: exact zeros for a constant gene, no cancellation at level 14 with sd 0.1.
            shift = np.nan_to_num(block[0].astype(np.float64), nan=0, posinf=0, neginf=0)
            sums, squares = np.zeros_like(shift), np.zeros_like(shift)
            not_finite = np.zeros(len(shift), np.intp)
        finite = np.isfinite(block)
        not_finite += len(block) - finite.sum(axis=0)
        away = np.where(finite, block - shift, 0)
        sums += away.sum(axis=0)
        squares += np.einsum("ij,ij->j", away, away)
        n += len(block)
    offset = sums / n
    sd = np.sqrt(np.maximum(squares / n - offset**2, 0))
    return Columns(n, Scale(shift + offset, sd), not_finite)


@dataclass(frozen=True)
class Moments:
    """Sums of products over rows of standardised landmarks x and targets y."""

    n: int
    xx: Wide
    xy: Wide


def cross_moments(pairs: Iterable[tuple[Float, Float]]) -> Moments:
    """Return X'X (landmarks, landmarks) and X'Y (landmarks, targets) in one pass over blocks of rows."""
    n, xx, xy = 0, np.zeros((0, 0)), np.zeros((0, 0))
    for x, y in pairs:
        if n == 0:
            xx = np.zeros((x.shape[1], x.shape[1]))
            xy = np.zeros((x.shape[1], y.shape[1]))
        # In float64: float32 products moved a ridge prediction by 5e-5 standard deviations, weaker penalties far more.
        wide = x.astype(np.float64)
        xx += wide.T @ wide
        xy += wide.T @ y.astype(np.float64)
        n += len(x)
    return Moments(n, xx, xy)
