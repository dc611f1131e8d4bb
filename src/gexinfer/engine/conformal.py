"""Split-conformal intervals: how far off held-out rows were says how far off the next row may be.

Of each gene some order statistics of the held-out rows' absolute residuals are kept. If the next row is exchangeable
with them, the k-th smallest of n is not exceeded with a probability of at least k / (n + 1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, row_slices

# The levels that are exact; one in between gets the next one's interval, which is wider.
LEVELS = np.array([*range(5, 50, 5), *range(50, 100), 99.5, 99.9]) / 100
# Residuals of more held-out rows would take memory, and say little more.
MOST_ROWS = 2000
# Genes whose residuals are sorted at a time.
TILE = 256


def rank_of(level: float, n: int) -> int:
    """Return which residual, by rank from 1, an interval of this level takes; above n there is none that large."""
    # .9 * 140 is a little more than 126 in floating point.
    return int(np.ceil(level * (n + 1) - 1e-9))


def rows_needed(level: float) -> int:
    """Return how many held-out rows give an interval of this level that ends."""
    return int(np.ceil(level / (1 - level) - 1e-9))


def ranks(n: int) -> NDArray[np.int32]:
    """Return the ranks that are kept of n residuals, the last of them n."""
    return np.unique([*(min(rank_of(level, n), n) for level in LEVELS), n]).astype(np.int32)


def order_statistics(residuals: Float, kept: NDArray[np.int32]) -> NDArray[np.float16]:
    """Return (ranks, genes) of (rows, genes) residuals, rounded up, so that no interval loses its level by it."""
    found = np.empty((len(kept), residuals.shape[1]), np.float16)
    for part in row_slices(residuals.shape[1], TILE):
        ordered = np.ascontiguousarray(residuals[:, part].T)
        ordered.sort(axis=1)
        found[:, part] = rounded_up(ordered[:, kept - 1].T)
    return found


def rounded_up(values: Float) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        near = values.astype(np.float16)
    return np.where(near < values, np.nextafter(near, np.float16(np.inf)), near)


def half_widths(statistics: NDArray[np.float16], kept: NDArray[np.int32], level: float) -> Float:
    """Return (genes,) half widths of intervals of at least this level."""
    return statistics[np.searchsorted(kept, rank_of(level, int(kept[-1])))].astype(np.float32)
