"""How sure a mean error is: batches of rows that stand for independent samples, drawn again and compared in pairs."""

from __future__ import annotations

import numpy as np

from gexinfer.engine.blocks import Indices, Wide

# More batches than these would say hardly more, and cost memory: each has a sum for each gene.
MOST_BATCHES = 100
# With fewer nothing can be said of how they vary.
FEWEST_BATCHES = 5
RESAMPLES = 2000
INTERVAL = 0.95


def batches(clusters: Indices, rng: np.random.Generator) -> tuple[Indices, int]:
    """Return the batch of each row, and how many there are: clusters at random into batches, none of them divided."""
    count = int(clusters.max(initial=-1)) + 1
    batch = np.empty(count, np.intp)
    batch[rng.permutation(count)] = np.arange(count) % MOST_BATCHES
    return batch[clusters], min(count, MOST_BATCHES)


def draws(sizes: Indices, rng: np.random.Generator) -> Wide:
    """Return how often each batch is drawn in each resample, (resamples, batches)."""
    return rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), RESAMPLES).astype(float)


def resampled(errors: Wide, sizes: Indices, drawn: Wide) -> Wide:
    """Return the mean error of each model in each resample, (resamples, models).

    `errors` are sums over a batch's rows, (batches, models), `sizes` how many rows it has.
    """
    return drawn @ errors / (drawn @ sizes)[:, None]


def interval(values: Wide, sizes: Indices) -> tuple[Wide, Wide]:
    """Return the ends of the 95 % interval over resamples of batches of these sizes.

    Quantiles of resamples are too close together where batches are few or uneven: they know the batches' spread no
    better than a normal distribution would. So they are taken as far out as Student's t would be.
    """
    from scipy.stats import norm, t

    count = len(sizes)
    outside = norm.cdf(np.sqrt(count / (count - 1)) * t.ppf((1 - INTERVAL) / 2, freedom(sizes)))
    low, high = np.quantile(values, [outside, 1 - outside], axis=0)
    return low, high


def paired_test(apart: Wide, sizes: Indices) -> Wide:
    """Return the p-value of each column of `apart`, differences summed over each batch's rows, to be 0 on average.

    A t test by the jackknife: how far the mean moves when a batch is left out says how sure it is. Of two equal models
    3 to 6 % of the p-values are below 0.05, be there 5 uneven batches or 100 equal ones (benchmarks/evaluate.py). With
    the batches' residuals, and one degree of freedom for each, it would be up to 14 % where they are few and uneven.
    """
    from scipy.stats import t

    count, n = len(sizes), sizes.sum()
    mean = apart.sum(axis=0) / n
    moves = (apart - sizes[:, None] * mean) / (n - sizes[:, None])
    error = np.sqrt((count - 1) / count * (moves**2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Two models that agree everywhere differ by nothing.
        return np.where(mean == 0, 1.0, 2 * t.sf(np.abs(mean) / error, freedom(sizes)))


def freedom(sizes: Indices) -> float:
    """Return the degrees of freedom of a variance over batches: as those of equal ones that weigh as much."""
    return float(sizes.sum() ** 2 / (sizes.astype(float) ** 2).sum() - 1)
