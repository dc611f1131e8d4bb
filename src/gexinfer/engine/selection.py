"""Which genes say most about all others: forward selection on the genes' covariance, which is never held."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Indices, Scale, Wide, dense, row_slices

# Of more rows than this not all are taken, unless there are fewer genes: 240 MB for 20,000 genes. On TCGA, panels of
# 153 genes chosen by 1,500, 3,000 or all 4,192 training rows have MAEs of .518 each, by 750 rows .521.
MOST_ROWS = 3000
# Two samples of a rare group that count for half of all make a panel that explains these two: on the bundled data, one
# that is worse than a random one.
HEAVIEST = 10
# A round explains what it can of the genes' variance, until what is left is noise; then the next starts from the whole
# variance again, since a gene picked for noise is worth no more than a random one. With 106 to 2,160 rows of real data,
# this beat one round, with a ridge penalty or without. A round ends when the best gene explains no more than this many
# times what chance lets any gene explain,
CHANCE = 1.5
# and at the latest after this many picks a row: by then, the best of many genes beats chance by chance.
PICKS_PER_ROW = 0.25
# A gene of whose variance no more than this share is left is a copy of what was picked. It comes after all others,
# since it has their noise, too.
COPY = 1e-3
# Genes are multiplied by as many at a time as the processor's cache holds for the second product.
CACHED_VALUES = 2**17


class Pick(NamedTuple):
    """A gene, the round that picked it, and the share of all genes' variance that this round has left after it."""

    gene: int
    round: int
    left: float


def drawn(groups: NDArray[np.intp], n_genes: int) -> tuple[Indices, Wide]:
    """Return which rows to take and their weights, which add up to 1: each group counts the same.

    But no row counts for more than `HEAVIEST` rows. Where there are too many rows, those of the largest groups are
    thinned out evenly.
    """
    sizes = np.bincount(groups)
    level = int(sizes.max())
    if n_genes > MOST_ROWS:
        level = max(bisect_right(range(1, level + 1), MOST_ROWS, key=lambda most: np.minimum(sizes, most).sum()), 1)
    quota = np.minimum(sizes, level)
    spread = [np.linspace(0, size - 1, some).round().astype(int) for size, some in zip(sizes, quota, strict=True)]
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    rows = np.sort(np.concatenate([members[some] for members, some in zip(by_group, spread, strict=True)]))
    weights = np.minimum(1 / (len(sizes) * quota[groups[rows]]), HEAVIEST / len(rows))
    return rows, weights / weights.sum()


def weighted_scale(source: Any, rows: Indices, weights: Wide) -> tuple[Scale, NDArray[np.intp]]:
    """Return each gene's weighted mean and standard deviation, and in how many of the rows it is NaN or inf."""
    # About the first row, so that a constant gene deviates by exactly 0.
    first = dense(source, rows[:1])[0].astype(np.float64)
    sums, squares, not_finite = np.zeros(len(first)), np.zeros(len(first)), np.zeros(len(first), np.intp)
    with np.errstate(invalid="ignore", over="ignore"):
        for part in row_slices(len(rows)):
            block = dense(source, rows[part])
            not_finite += (~np.isfinite(block)).sum(axis=0)
            away = block - first
            sums += weights[part] @ away
            squares += weights[part] @ away**2
        return Scale(first + sums, np.sqrt(np.maximum(squares - sums**2, 0))), not_finite


def factor(source: Any, rows: Indices, weights: Wide, scale: Scale) -> Float:
    """Return a (genes, at most rows) matrix F for which FF' is the weighted covariance of the standardised genes."""
    from scipy.linalg.lapack import dpstrf

    n_genes = len(scale.mean)

    def blocks() -> Iterator[tuple[slice, Float]]:
        for part in row_slices(len(rows)):
            z = scale.standardise(dense(source, rows[part]))
            z *= np.sqrt(weights[part, None]).astype(np.float32)
            yield part, z

    if len(rows) <= n_genes:
        F = np.empty((n_genes, len(rows)), np.float32)
        for part, z in blocks():
            F[:, part] = z.T
        return F
    covariance = np.zeros((n_genes, n_genes))
    for _, z in blocks():
        # In float64: rounding must not make the covariance indefinite.
        wide = z.astype(np.float64)
        covariance += wide.T @ wide
    lower, order, rank, _ = dpstrf(covariance.T, lower=1, overwrite_a=1)
    F = np.empty((n_genes, rank), np.float32)
    F[order - 1] = np.tril(lower)[:, :rank]
    return F


def forward(F: Float, first: Sequence[int], allowed: NDArray[np.bool_], n_rows: float) -> Iterator[Pick]:
    """Yield genes, the one that lowers the unexplained variance of all others most next, until none is left.

    With the covariance C = FF' of what the picks have not explained, gene j explains sum_i C_ij^2 / C_jj. That sum over
    all genes i is carried along: a pick costs two products of F with a vector, for all j together. `first` is picked
    before all others, all of it in the first round. `n_rows` is how many equal rows are worth as much as those of F.
    """
    gram = F.T @ F
    variance = np.einsum("ij,ij->i", F, F).astype(np.float64)
    covered = np.concatenate([np.einsum("ij,ij->i", F[part] @ gram, F[part]) for part in row_slices(len(F))])
    free, waiting = allowed & (variance > 0), list(first)
    free[waiting] = False
    copies = np.zeros(len(F), bool)
    # Rounded first: 168 equal rows must not count as 167.9999.
    per_round = max(min(int(round(PICKS_PER_ROW * n_rows, 6)), *F.shape), 1)
    number = 0
    while waiting or free.any():
        number += 1
        most = per_round + len(waiting)
        left, squares = variance.copy(), covered.astype(np.float64)
        # Orthonormal directions of the rows: what this round's picks explain lies in them.
        done = np.zeros((most, F.shape[1]))
        for k in range(most):
            if k == 0 and not (free & ~copies).any():
                copies[:] = False
            explains, open_to = np.full(len(F), -np.inf), free & ~copies
            explains[open_to] = squares[open_to] / left[open_to] - left[open_to]
            if waiting:
                gene = waiting.pop(0)
            # Over the n - k degrees of freedom that are left, noise explains as much of each gene as 1 / (n - k).
            elif k == 0 or (k < n_rows and explains.max() > CHANCE * left.sum() / (n_rows - k)):
                gene = int(explains.argmax())
            else:
                break
            free[gene] = False
            direction = F[gene] - done[:k].T @ (done[:k] @ F[gene])
            length = np.linalg.norm(direction)
            # One that is constant or a copy, which only `first` can hold, explains nothing more.
            done[k] = direction / length if length**2 > COPY * variance[gene] else 0
            turned = gram @ done[k].astype(np.float32)
            rest = turned - done[:k].T @ (done[:k] @ turned)
            own, shared = products(F, done[k], rest)
            squares += own * (own * (done[k] @ turned) - 2 * shared)
            left = np.maximum(left - own**2, 0)
            copies |= left <= COPY * variance
            yield Pick(gene, number, float(left.sum() / variance.sum()))


def products(F: Float, a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """Return Fa and Fb; F, which is too large for the cache, is read from memory once."""
    narrow = a.astype(np.float32), b.astype(np.float32)
    out = np.empty((2, len(F)))
    for part in row_slices(len(F), max(CACHED_VALUES // F.shape[1], 1)):
        out[0, part], out[1, part] = F[part] @ narrow[0], F[part] @ narrow[1]
    return out[0], out[1]
