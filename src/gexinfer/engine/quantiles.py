"""Values by their ranks in a sorted profile: what brings samples to one distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Wide


def to_profile(block: NDArray[np.floating], profile: NDArray[np.floating]) -> Float:
    """Return the profile at the average rank of each value in its row; NaN stays NaN."""
    from scipy.stats import rankdata

    measured = np.isfinite(block)
    # What is not measured ranks last, so that the ranks of the others are those among themselves.
    ranks = rankdata(np.where(measured, block, np.inf), axis=1) - 1
    values = np.empty(block.shape, np.float32)
    for i, row in enumerate(ranks):
        values[i] = at(profile, row, max(int(measured[i].sum()), 1))
    values[~measured] = np.nan
    return values


def at(profile: NDArray[np.floating], ranks: NDArray[Any], n: int) -> Wide:
    """Return a sorted profile at ranks from 0 to n - 1.

    Rank r stands for the share (r + 1/2) / n of the values, so that of few values the lowest does not get the lowest of
    the many in the profile. With as many values as the profile has, rank r is exactly its place.
    """
    return np.interp((ranks + 0.5) * (len(profile) / n) - 0.5, np.arange(len(profile)), profile)
