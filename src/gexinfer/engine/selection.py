"""Which genes say most about all others: forward selection on the genes' covariance, which is never held."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import Float, Indices, Scale, Wide, dense, row_slices

# Of more rows than this not all are taken, unless there are fewer genes: 330 MB for 20,000 genes.
MOST_ROWS = 4096
# A round explains what it can of the genes' variance, and ends after this many picks a row: what is left by then is
# more and more the noise of few rows, and genes picked for it are worth no more than random ones. The next round starts
# from the whole variance again. On real data, 106 to 1,422 rows, this beat one round, with a ridge penalty or without.
PICKS_PER_ROW = 0.25
# A gene of whose variance no more than this share is left is a copy of what was picked.
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

    Where there are too many rows, those of the largest groups are thinned out evenly.
    """
    sizes = np.bincount(groups)
    level = int(sizes.max())
    if n_genes > MOST_ROWS:
        level = max(bisect_right(range(1, level + 1), MOST_ROWS, key=lambda most: np.minimum(sizes, most).sum()), 1)
    quota = np.minimum(sizes, level)
    spread = [np.linspace(0, size - 1, some).round().astype(int) for size, some in zip(sizes, quota, strict=True)]
    by_group = np.split(np.argsort(groups, kind="stable"), np.cumsum(sizes)[:-1])
    rows = np.sort(np.concatenate([members[some] for members, some in zip(by_group, spread, strict=True)]))
    return rows, 1 / (len(sizes) * quota[groups[rows]])


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

    def blocks() -> Iterator[tuple[slice, Wide]]:
        for part in row_slices(len(rows)):
            yield part, (dense(source, rows[part]) - scale.mean) * scale.factor * np.sqrt(weights[part, None])

    if len(rows) <= n_genes:
        F = np.empty((n_genes, len(rows)), np.float32)
        for part, z in blocks():
            F[:, part] = z.T
        return F
    covariance = np.zeros((n_genes, n_genes))
    for _, z in blocks():
        covariance += z.T @ z
    lower, order, rank, _ = dpstrf(covariance, lower=1)
    F = np.empty((n_genes, rank), np.float32)
    F[order - 1] = np.tril(lower)[:, :rank]
    return F


def forward(F: Float, first: Sequence[int], allowed: NDArray[np.bool_], per_round: int) -> Iterator[Pick]:
    """Yield genes, the one that lowers the unexplained variance of all others most next, until none is left.

    With the covariance C = FF' of what the picks have not explained, gene j explains sum_i C_ij^2 / C_jj. That sum over
    all genes i is carried along: a pick costs two products of F with a vector, for all j together. `first` is picked
    before all others, in its order.
    """
    gram = F.T @ F
    variance = np.einsum("ij,ij->i", F, F).astype(np.float64)
    covered = np.concatenate([np.einsum("ij,ij->i", F[part] @ gram, F[part]) for part in row_slices(len(F))])
    free, waiting = allowed & (variance > 0), list(first)
    free[waiting] = False
    number = 0
    while waiting or free.any():
        number += 1
        left, squares = variance.copy(), covered.astype(np.float64)
        # Orthonormal directions of the rows: what this round's picks explain lies in them.
        done = np.empty((per_round, F.shape[1]))
        for k in range(per_round):
            open_to = free & (left > COPY * variance)
            if waiting:
                gene = waiting.pop(0)
            elif open_to.any():
                gene = int(np.argmax(np.where(open_to, squares / np.maximum(left, 1e-12) - left, -np.inf)))
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
            yield Pick(gene, number, float(left.sum() / variance.sum()))


def products(F: Float, a: Wide, b: Wide) -> tuple[Wide, Wide]:
    """Return Fa and Fb; F, which is too large for the cache, is read from memory once."""
    narrow = a.astype(np.float32), b.astype(np.float32)
    out = np.empty((2, len(F)))
    for part in row_slices(len(F), max(CACHED_VALUES // F.shape[1], 1)):
        out[0, part], out[1, part] = F[part] @ narrow[0], F[part] @ narrow[1]
    return out[0], out[1]
