"""How far inferred values are from measured ones: sums over blocks of rows, from which every measure follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numba import njit

from gexinfer.engine.blocks import (
    BLOCK_ROWS,
    CACHED_ROWS,
    Float,
    Indices,
    Wide,
    ahead,
    cheap_to_pick,
    dense,
    row_slices,
)
from gexinfer.engine.processors import processors
from gexinfer.engine.ranks import FEWEST_POINTS, rank_correlation

# What is always compared with the truth beside what was inferred: the training mean, and the nearest landmark.
BASELINES = 2
# Values of a block, enough for many processors to share the work, and genes whose sums stay in a processor's cache.
BLOCK_VALUES, CACHED_GENES = 2**21, 512
# Values of whole columns that are held at a time, 256 MB.
TILE_VALUES = 2**26
# Below this variance, in squared standard deviations of the training rows, a gene or its prediction counts as constant.
CONSTANT = 1e-12


@dataclass(frozen=True)
class Source:
    """Some rows and columns of a matrix, of any kind that `engine.blocks` reads."""

    matrix: Any
    rows: Indices
    columns: Indices

    def read(self, part: slice) -> Float:
        """Return some of the rows; what is beyond float32 becomes inf."""
        with np.errstate(over="ignore"):
            return dense(self.matrix, self.rows[part], self.columns).astype(np.float32, order="C", copy=False)

    def blocks(self, size: int) -> Iterator[Float]:
        return map(self.read, row_slices(len(self.rows), size))


@dataclass(frozen=True)
class Genes:
    """What is known of the q genes whose errors are measured, and of the landmarks nearest to them.

    `factor` brings a deviation from `mean` to standard deviations of the training rows; it is 0 for a gene that was
    constant there. `nearest` is the place of a gene's landmark among those of `landmark_mean`, which stand behind the
    genes in the measured matrix; times `weight` its standardised value is the prediction.
    """

    mean: Wide
    factor: Wide
    landmark_mean: Wide
    landmark_factor: Wide
    nearest: Indices
    weight: Wide

    def __len__(self) -> int:
        return len(self.mean)

    def only(self, part: slice) -> tuple[Genes, Indices]:
        """Return some of the genes, and which landmarks these need."""
        needed, nearest = np.unique(self.nearest[part], return_inverse=True)
        of_genes = self.mean[part], self.factor[part]
        of_landmarks = self.landmark_mean[needed], self.landmark_factor[needed]
        return Genes(*of_genes, *of_landmarks, nearest.reshape(-1), self.weight[part]), needed

    def standardised(self, block: Float) -> Float:
        """Return the genes that varied in training, in standard deviations from the mean."""
        varies = np.flatnonzero(self.factor)
        with np.errstate(invalid="ignore"):
            return ((block.take(varies, axis=1) - self.mean[varies]) * self.factor[varies]).astype(np.float32)

    def by_nearest(self, landmarks: Float, part: slice) -> Float:
        """Return what the nearest landmarks predict for some genes; one that is missing predicts the mean."""
        with np.errstate(invalid="ignore"):
            x = (landmarks - self.landmark_mean) * self.landmark_factor
        x[~np.isfinite(x)] = 0
        factor = self.factor[part]
        scale = self.weight[part] / np.where(factor > 0, factor, np.inf)
        predicted = x.astype(np.float32).take(self.nearest[part], axis=1)
        predicted *= scale.astype(np.float32)
        predicted += self.mean[part].astype(np.float32)
        return predicted


@dataclass(frozen=True)
class Sums:
    """What is summed up of each prediction: the mean's, that of the nearest landmark, then those of `inferred`.

    With e = inferred - measured and y = measured - training mean, in standard deviations of the training rows:
    `errors` are sums of |e| in data units, (predictions, batches of rows, genes); `classes` are those of |e| in data
    units, e, e^2 and ey, (predictions, classes of rows, 4, genes); `samples` are those over genes of |e| in data units,
    |e|, e, e^2 and ey, and the rank correlation, (predictions, rows, 6).
    """

    errors: Wide
    classes: Wide
    samples: Wide

    def __add__(self, other: Sums) -> Sums:
        samples = np.concatenate([self.samples, other.samples], axis=1)
        return Sums(self.errors + other.errors, self.classes + other.classes, samples)


def sums_of(
    measured: Source,
    inferred: Sequence[Source],
    genes: Genes,
    batch: Indices,
    classes: Indices,
    counts: tuple[int, int],
    ranks: bool,
) -> Sums:
    """Return the sums over all rows.

    The columns of `measured` are the genes, then their landmarks. `batch` says of each row to which batch it belongs,
    `classes`, (rows, k), to which k classes; `counts` how many of both there are. `ranks` asks for rank correlations.
    """
    n, q, predictions = len(measured.rows), len(genes), BASELINES + len(inferred)
    found = Sums(
        np.zeros((predictions, counts[0], q)),
        np.zeros((predictions, counts[1], 4, q)),
        np.full((predictions, n, 6), np.nan),
    )
    every = (measured, *inferred)
    # What is decoded in chunks is read in many rows at a time.
    in_memory = all(cheap_to_pick(source.matrix) for source in every)
    size = max(BLOCK_VALUES // max(q, 1), 32) if in_memory else BLOCK_ROWS
    cuts = list(row_slices(q, -(-q // processors()) if q else 1))
    middle = np.tile(genes.mean.astype(np.float32), (min(size, n), 1))
    near = np.empty_like(middle)
    with ThreadPoolExecutor(processors()) as threads:
        blocks = ahead(zip(*(source.blocks(size) for source in every), strict=True))
        for part, (y, *given) in zip(row_slices(n, size), blocks, strict=True):
            given = [middle[: len(y)], near[: len(y)], *given]

            def add(cut: slice, part: slice = part, y: Float = y, given: list[Float] = given) -> Wide:
                near[: len(y), cut] = genes.by_nearest(y[:, q:], cut)
                of_rows = batch[part], classes[part]
                of_genes = genes.mean, genes.factor, cut.start, cut.stop
                into = zip(given, found.errors, found.classes, strict=True)
                return np.stack([add_up(y, p, *of_genes, *of_rows, errors, sums) for p, errors, sums in into])

            found.samples[:, part, :5] = sum(threads.map(add, cuts))
            if ranks:
                # Not that of the mean, which predicts the same for all genes.
                found.samples[1:, part, 5] = rank_correlation(y, given[1:], threads, genes.standardised)
    return found


def part_sums(
    parts: Sequence[Any], columns: Sequence[Indices], genes: Genes, counts: tuple[int, int], ranks: bool
) -> Sums:
    """Return the sums over some rows of matrices: measured, inferred, and last the batch and classes of each row."""
    *matrices, rows = parts
    sources = [Source(m, np.arange(m.shape[0]), c) for m, c in zip(matrices, columns, strict=True)]
    return sums_of(sources[0], sources[1:], genes, rows[:, 0].copy(), rows[:, 1:].copy(), counts, ranks)


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def add_up(y, p, mean, factor, first, last, batch, classes, errors, sums):  # type: ignore[no-untyped-def]
    """Add the sums over rows of genes `first` to `last` into `errors` and `sums`, and return those over genes."""
    samples = np.zeros((len(y), 5))
    away, deviation = np.empty(CACHED_GENES), np.empty(CACHED_GENES)
    for start in range(first, last, CACHED_GENES):
        stop = min(start + CACHED_GENES, last)
        m, f = mean[start:stop], factor[start:stop]
        # Loops of few arrays each: with more of them no compiler puts several genes into one instruction.
        for i in range(len(y)):
            measured, inferred, into = y[i, start:stop], p[i, start:stop], errors[batch[i], start:stop]
            for j in range(len(m)):
                away[j] = np.float64(inferred[j]) - np.float64(measured[j])
            for j in range(len(m)):
                deviation[j] = np.float64(measured[j]) - m[j]
            for j in range(len(m)):
                into[j] += abs(away[j])
            data = size = signed = squared = crossed = 0.0
            for j in range(len(m)):
                e = away[j] * f[j]
                data += abs(away[j])
                size += abs(e)
                signed += e
                squared += e * e
                crossed += e * deviation[j] * f[j]
            samples[i, 0] += data
            samples[i, 1] += size
            samples[i, 2] += signed
            samples[i, 3] += squared
            samples[i, 4] += crossed
            for k in range(classes.shape[1]):
                of_class = sums[classes[i, k]]
                sizes, signs = of_class[0, start:stop], of_class[1, start:stop]
                squares, products = of_class[2, start:stop], of_class[3, start:stop]
                for j in range(len(m)):
                    sizes[j] += abs(away[j])
                    signs[j] += away[j]
                    squares[j] += away[j] * away[j]
                for j in range(len(m)):
                    products[j] += away[j] * deviation[j]
    return samples


def gene_ranks(measured: Source, inferred: Sequence[Source], genes: Genes, members: Sequence[Indices | slice]) -> Wide:
    """Return rank correlations over the rows of each class, (predictions, classes, genes).

    Ranks need whole columns: as many genes are read at a time as there is room for, each time over all rows.
    """
    n, q = len(measured.rows), len(genes)
    found = np.full((BASELINES + len(inferred), len(members), q), np.nan)
    width = max(TILE_VALUES // (max(n, 1) * (BASELINES + len(inferred))), 1)
    with ThreadPoolExecutor(processors()) as threads:
        for part in row_slices(q, width):
            tile, needed = genes.only(part)
            truth = replace(measured, columns=np.concatenate([measured.columns[part], measured.columns[q + needed]]))
            y, *given = (
                whole_columns(source)
                for source in (truth, *(replace(source, columns=source.columns[part]) for source in inferred))
            )
            near = y[len(tile) :]
            np.copyto(near, tile.landmark_mean[:, None], where=~np.isfinite(near))
            # Of what the nearest landmark predicts only the order counts.
            near = near.take(tile.nearest, axis=0)
            near *= np.sign(tile.weight).astype(np.float32)[:, None]
            for c, rows in enumerate(members):
                columns = [block[:, rows] for block in (y[: len(tile)], near, *given)]
                found[1:, c, part] = rank_correlation(columns[0], columns[1:], threads)
    return found


def whole_columns(source: Source) -> Float:
    """Return the columns one after another."""
    size = CACHED_ROWS if cheap_to_pick(source.matrix) else BLOCK_ROWS
    out = np.empty((len(source.columns), len(source.rows)), np.float32)
    for part, block in zip(row_slices(len(source.rows), size), ahead(source.blocks(size)), strict=True):
        out[:, part] = block.T
    return out


def measures(n: Any, size: Wide, e: Wide, ee: Wide, ey: Wide, y: Wide, yy: Wide) -> Mapping[str, Wide]:
    """Return every measure that follows from sums over n values: of |e|, e, e^2, ey, y and y^2, see `Sums`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p, pp, yp = y + e, yy + 2 * ey + ee, yy + ey
        # Of the measured values, of the inferred ones, and what they share, all times n.
        spread, of_inferred, shared = yy - y**2 / n, pp - p**2 / n, yp - y * p / n
        least = CONSTANT * (n + yy)
        # Undefined, not zero, where nothing varies.
        known = (spread > least) & (np.asarray(n) >= FEWEST_POINTS)
        varies = known & (of_inferred > least)
        agreement = spread + of_inferred + e**2 / n
        return {
            "mae": size / n,
            "rmse": np.sqrt(ee / n),
            "pearson": np.where(varies, shared / np.sqrt(np.where(varies, spread * of_inferred, 1)), np.nan),
            "r2": np.where(known, 1 - ee / spread, np.nan),
            "ccc": np.where(known, 2 * shared / agreement, np.nan),
        }
