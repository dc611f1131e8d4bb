"""Queries of another platform: how to know one, and how to bring its landmarks to the scale of the training rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gexinfer._fitted import FittedModel
from gexinfer._values import FEW_ROWS
from gexinfer.engine.blocks import Float, Indices, Wide
from gexinfer.engine.gaussian import unpacked
from gexinfer.engine.quantiles import to_profile

if TYPE_CHECKING:
    from gexinfer.tl._query import Query

ADAPT = ("none", "quantile", "moments")
# Brings (rows, landmarks) to the scale of the training rows; NaN stays NaN.
Adapt = Callable[[Float], Float]

# The median over landmarks of the distance between the query's mean and the training rows', in standard deviations.
# Cohorts of the platform of the fit were seen at .03 to 1.4, cohorts of microarrays against RNA-seq at 2.0 to 3.2.
FAR = 1.75
# Cohorts of so many samples had correlations between landmarks that agree with the training rows' by .10 and more.
MANY_ROWS, ALIKE = 50, 0.04


def as_they_are(block: Float) -> Float:
    return block


@dataclass(frozen=True)
class ToProfile:
    """Each sample's landmarks get the training rows' mean sorted profile by their ranks; ties get one value.

    Where some are missing, the others get the part of the profile that they stand for: `places` says which place each
    landmark holds among all by its training mean.
    """

    profile: Wide
    places: Indices

    def __call__(self, block: Float) -> Float:
        measured = np.isfinite(block)
        values = np.full(block.shape, np.nan, np.float32)
        for pattern in np.unique(measured, axis=0):
            these = np.ix_((measured == pattern).all(axis=1), pattern)
            values[these] = to_profile(block[these], self.profile[np.sort(self.places[pattern])])
        return values


@dataclass(frozen=True)
class ToMoments:
    """Each landmark's mean and standard deviation over the query become those over the training rows."""

    mean: Wide
    factor: Wide
    wanted: Wide

    def __call__(self, block: Float) -> Float:
        return ((block - self.mean) * self.factor + self.wanted).astype(np.float32)


def to_ranks(fitted: FittedModel) -> ToProfile:
    """Return the map by ranks, which needs no more than the sample itself."""
    return ToProfile(fitted.landmark_profile, np.argsort(np.argsort(fitted.landmark_scale.mean)))


def to_moments(query: Query, source: Any) -> ToMoments:
    """Return the map from the query's moments, for which it is read once."""
    n = source.shape[0]
    if n < FEW_ROWS:
        raise ValueError(
            f"adapt='moments' needs each landmark's mean and standard deviation over the query, which has {n} samples; "
            f"at least {FEW_ROWS} are needed. adapt='quantile' takes each sample by itself."
        )
    scale = query.fitted.landmark_scale
    sums, squares, counts = (np.zeros(len(scale.mean)) for _ in range(3))
    for block in query.blocks(source):
        away = np.nan_to_num(block - scale.mean)
        sums += away.sum(axis=0)
        squares += (away**2).sum(axis=0)
        counts += np.isfinite(block).sum(axis=0)
    offset = sums / np.maximum(counts, 1)
    sd = np.sqrt(np.maximum(squares / np.maximum(counts, 1) - offset**2, 0))
    # What does not vary in the query comes to the training mean.
    factor = np.where(sd > 0, scale.unit / (sd + 1e-3), 0)
    return ToMoments(scale.mean + offset, factor, scale.mean)


def other_platform(fitted: FittedModel, values: NDArray[np.floating], there: Indices) -> str | None:
    """Return why a query's landmarks look like those of another platform, with what to try.

    `values` are some samples of the landmarks that are `there`.
    """
    varies = fitted.landmark_scale.sd[there] > 0
    there, values = there[varies], values[:, varies].astype(np.float32)
    if len(there) == 0:
        return None
    apart = shift(fitted, there, values)
    alike = correlations_alike(fitted, there, values)
    if apart < FAR:
        if len(values) >= MANY_ROWS and alike < ALIKE:
            return (
                f"the query's landmarks correlate with each other unlike the training rows' (agreement {alike:.2f} of "
                "1). Their names may be mixed up, or the values are no log expression."
            )
        return None
    whole = np.full((len(values), len(fitted.landmarks)), np.nan, np.float32)
    whole[:, there] = values
    by_profile = shift(fitted, there, to_ranks(fitted)(whole)[:, there])
    mean = fitted.landmark_scale.mean[there]
    ratio = np.median(np.where(np.isfinite(values), values, mean).std(axis=0) / fitted.landmark_scale.unit[there])
    told = (
        f"the query looks like another platform: its landmarks' means are {apart:.1f} standard deviations of the "
        "training rows away from theirs (median)"
    )
    if len(values) < FEW_ROWS:
        return f"{told}. Try adapt='quantile', after which they are {by_profile:.1f} away."
    told += (
        f", their standard deviations {ratio:.2g} times as large, and their correlations with each other agree by "
        f"{alike:.2f} of 1. "
    )
    if by_profile < max(1.0, apart / 2):
        return told + (
            f"Try adapt='quantile', after which the means are {by_profile:.1f} away. Where only differences between "
            "the query's samples matter, compare adapt='moments'."
        )
    return told + (
        "Try adapt='moments', if the query's samples are as mixed as the training rows; adapt='quantile' would leave "
        f"the means {by_profile:.1f} away."
    )


def shift(fitted: FittedModel, there: Indices, values: Float) -> float:
    """Return the median distance of the landmarks' means from the training rows', in standard deviations."""
    scale = fitted.landmark_scale
    mean = np.where(np.isfinite(values), values, scale.mean[there]).mean(axis=0)
    return float(np.median(np.abs(mean - scale.mean[there]) / scale.unit[there]))


def correlations_alike(fitted: FittedModel, there: Indices, values: Float) -> float:
    """Return the correlation of the landmarks' correlations in the query with those in the training rows."""
    mean = fitted.landmark_scale.mean[there]
    away = np.where(np.isfinite(values), values, mean)
    away = away - away.mean(axis=0)
    varies = (away != 0).any(axis=0)
    trained = unpacked(fitted.landmark_covariance)[np.ix_(there[varies], there[varies])]
    away = away[:, varies] / np.sqrt((away[:, varies] ** 2).sum(axis=0))
    pairs = np.triu_indices(varies.sum(), 1)
    if len(pairs[0]) < 2:
        return 1.0
    return float(np.nan_to_num(np.corrcoef((away.T @ away)[pairs], trained[pairs])[0, 1]))
