"""Sums over blocks of rows, from which every linear method follows without a second look at the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gexinfer.engine.blocks import CACHED_ROWS, Float, Indices, Rows, Scale, Wide, ahead, row_slices
from gexinfer.engine.processors import processors

# Up to this many rows X'Y is multiplied in float64, which is then a matter of a second: rounding to float32 moves
# what a weak penalty predicts by up to 1e-3 standard deviations. With more rows it is multiplied in float32, twice as
# fast, and rounding averages out.
EXACT_ROWS = 4096


@dataclass(frozen=True)
class Moments:
    """Sums over rows of p landmarks x and q targets y, about their means; those of two halves add up to the whole's.

    `mean` and `squares` (sums of squares, so x'x and y'y of each column) run over the landmarks, then the targets;
    `xx` is (p, p), `xy` (p, q), or (p, 0) where nobody asked for it. `profile` is the mean over rows of their sorted
    landmarks. `not_finite` counts the rows of each column that hold NaN or inf.
    """

    n: int
    mean: Wide
    squares: Wide
    xx: Wide
    xy: Wide
    profile: Wide
    not_finite: NDArray[np.intp]

    @property
    def yy(self) -> Wide:
        """The sum of squares of each target."""
        return self.squares[len(self.xx) :]

    @property
    def scale(self) -> Scale:
        """Mean and standard deviation (dividing by n) of each column."""
        return Scale(self.mean, np.sqrt(self.squares / self.n))

    def __add__(self, other: Moments) -> Moments:
        p, n = len(self.xx), self.n + other.n
        apart = other.mean - self.mean
        # What the two means add to the spread about the common one.
        weight = self.n * other.n / n
        crossed = apart[len(apart) - self.xy.shape[1] :]
        return Moments(
            n,
            self.mean + apart * other.n / n,
            self.squares + other.squares + weight * apart**2,
            self.xx + other.xx + weight * np.outer(apart[:p], apart[:p]),
            self.xy + other.xy + weight * np.outer(apart[:p], crossed),
            (self.n * self.profile + other.n * other.profile) / n,
            self.not_finite + other.not_finite,
        )

    def standardised(self) -> Moments:
        """Return the moments of the same rows after `scale.standardise`; the profile stays in the units of the data."""
        p, factor = len(self.xx), self.scale.factor
        return Moments(
            self.n,
            np.zeros_like(self.mean),
            self.squares * factor**2,
            self.xx * factor[:p, None] * factor[:p],
            self.xy * factor[:p, None] * factor[len(factor) - self.xy.shape[1] :],
            self.profile,
            self.not_finite,
        )


def moments(
    blocks: Iterable[NDArray[np.floating]], n_landmarks: int = 0, n_rows: int = 0, *, cross: bool = True
) -> Moments:
    """Return the moments of rows whose first columns are the landmarks, in one pass.

    Without landmarks only columns are summed up, without `cross` no products of landmarks and targets. `n_rows` is
    about how many rows there will be.
    """
    p = n_landmarks
    products = np.float64 if n_rows <= EXACT_ROWS else np.float32
    xx, xy, profile = np.zeros((p, p)), np.zeros((p, 0)), np.zeros(p)
    with ThreadPoolExecutor(processors()) as threads:
        columns = ColumnSums(threads)
        # The next block is read while this one is multiplied.
        for block in ahead(blocks):
            near = columns.add(block)
            if cross and xy.shape[1] == 0:
                xy = np.zeros((p, near.shape[1] - p))
                product = np.empty(xy.shape, products)
            if p == 0:
                continue
            profile += np.sort(block[:, :p], axis=1).sum(axis=0, dtype=np.float64)
            wide = near[:, :p].astype(np.float64)
            with np.errstate(invalid="ignore", over="ignore"):
                xx += wide.T @ wide
                if cross:
                    left = wide if products is np.float64 else near[:, :p]
                    xy += np.matmul(left.T, near[:, p:].astype(products, copy=False), out=product)
    return columns.about_the_mean(xx, xy, profile)


def part_moments(parts: Sequence[Any], landmarks: Indices, targets: Indices, n_rows: int, cross: bool) -> Moments:
    """Return the moments of the only one of some parts of matrices: those of `n_rows` rows are added up elsewhere."""
    (part,) = parts
    rows = Rows(part, np.arange(part.shape[0]), landmarks, targets)
    return moments(rows.blocks(), len(landmarks), n_rows, cross=cross)


class ColumnSums:
    """What is summed up of each column on the way, about a provisional mean and in units of a provisional sd.

    By the first block they are close to the truth, so that float32 loses nothing of a gene at level 14 with sd 0.1; of
    a constant column exactly the constant and 1, so that its deviations are exactly 0.
    """

    n = 0

    def __init__(self, threads: ThreadPoolExecutor):
        self.threads = threads

    def add(self, block: NDArray[np.floating]) -> Float:
        """Add a block's columns to the sums and return its deviations, which the next call overwrites."""
        if self.n == 0:
            self.start(block)
        near = self.near[: len(block)] if len(block) <= len(self.near) else np.empty(block.shape, np.float32)

        def sums_of(part: slice) -> tuple[Wide, Wide]:
            with np.errstate(invalid="ignore", over="ignore"):
                away = block[part] - self.shift
                away *= self.inverse
                near[part] = away
                return away.sum(axis=0), np.einsum("ij,ij->j", away, away)

        total = np.zeros(block.shape[1])
        for sums, squares in self.threads.map(sums_of, row_slices(len(block), CACHED_ROWS)):
            total += sums
            self.squares += squares
        if not np.isfinite(total).all():
            self.not_finite += (~np.isfinite(block)).sum(axis=0)
        self.sums += total
        self.n += len(block)
        return near

    def start(self, block: NDArray[np.floating]) -> None:
        genes = block.shape[1]
        finite = block if np.isfinite(block).all() else np.where(np.isfinite(block), block, 0)
        constant, sd = (finite == finite[0]).all(axis=0), finite.std(axis=0)
        self.shift = np.where(constant, finite[0], finite.mean(axis=0)).astype(np.float64)
        self.unit = np.where(constant | (sd == 0), 1, sd).astype(np.float64)
        self.inverse = 1 / self.unit
        self.sums, self.squares, self.not_finite = np.zeros(genes), np.zeros(genes), np.zeros(genes, np.intp)
        # Written again and again: asking the system for fresh memory costs as much as the sums themselves.
        self.near = np.empty(block.shape, np.float32)

    def about_the_mean(self, xx: Wide, xy: Wide, profile: Wide) -> Moments:
        """Return the moments about the true mean, in the units of the data."""
        p, n, unit = len(xx), self.n, self.unit
        with np.errstate(invalid="ignore", over="ignore"):
            offset = self.sums / n
            squares = np.maximum(self.squares - n * offset**2, 0) * unit**2
            xx = (xx - n * np.outer(offset[:p], offset[:p])) * unit[:p, None] * unit[:p]
            if xy.shape[1]:
                xy = (xy - n * np.outer(offset[:p], offset[p:])) * unit[:p, None] * unit[p:]
        return Moments(n, self.shift + offset * unit, squares, xx, xy, profile / n, self.not_finite)
