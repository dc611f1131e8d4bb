"""Spearman's rank correlation of many pairs of rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Wide, row_slices

# Values that are sorted at a time, which then stay in the processor's cache.
SORTED_VALUES = 2**17
# Two points always lie on a line.
FEWEST_POINTS = 3


def rank_correlation(
    measured: Float,
    inferred: Sequence[Float],
    threads: ThreadPoolExecutor,
    prepare: Callable[[Float], Float] = lambda block: block,
) -> Wide:
    """Return (predictions, rows) Spearman's rho of each row with that of each prediction; NaN where one is constant.

    `prepare` is what is done to some rows before they are ranked.
    """
    n, length = measured.shape
    found = np.full((len(inferred), n), np.nan)

    def correlate(part: slice) -> None:
        y = ranks(prepare(measured[part]))
        if y.shape[1] < FEWEST_POINTS:
            return
        for values, into in zip(inferred, found, strict=True):
            p = ranks(prepare(values[part]))
            spread = np.sqrt(np.einsum("ij,ij->i", y, y) * np.einsum("ij,ij->i", p, p))
            np.divide(np.einsum("ij,ij->i", y, p), spread, out=into[part], where=spread > 0)

    list(threads.map(correlate, row_slices(n, max(SORTED_VALUES // max(length, 1), 1))))
    return found


def ranks(values: Float) -> Wide:
    """Return each value's rank in its row, counted from the middle; equal values share the mean of theirs."""
    # A value and its place in one whole number, the value on top: numpy sorts such numbers several at a time, and both
    # are there in the end. + 0.0 turns -0.0 into 0.0.
    bits = np.ascontiguousarray(values + np.float32(0)).view(np.int32)
    # Negative floats have their largest bits where they are smallest.
    keys = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).astype(np.int64) << 32
    keys |= np.arange(values.shape[1])
    keys.sort(axis=1)
    return ranked(keys)


@njit(cache=True, nogil=True)
def ranked(keys: NDArray[np.int64]) -> Wide:
    n, length = keys.shape
    out = np.empty((n, length))
    middle = (length - 1) / 2
    for i in range(n):
        first = 0
        while first < length:
            last = first
            while last + 1 < length and keys[i, last + 1] >> 32 == keys[i, first] >> 32:
                last += 1
            for j in range(first, last + 1):
                out[i, keys[i, j] & 0xFFFFFFFF] = (first + last) / 2 - middle
            first = last + 1
    return out
