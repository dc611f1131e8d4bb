"""Blocks of rows: the only code that knows how a matrix is stored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Float = NDArray[np.float32]
Wide = NDArray[np.float64]
Indices = NDArray[np.intp]

T = TypeVar("T")

# A block of 1,024 rows of 12,000 genes takes 50 MB.
BLOCK_ROWS = 1024
# Few enough to stay in the processor's cache between one step and the next.
CACHED_ROWS = 64
# On disk without chunks, rows that are no further apart are read in one go and the ones between them dropped.
GAP = 16


def in_row_order(source: Any) -> Any:
    """Return a matrix whose rows are cheap to read, `source` itself wherever they already are.

    Columns of a sparse matrix are turned into rows in memory, also those of one on disk, never into a dense one.
    """
    if getattr(source, "format", "csr") == "csr":
        return source
    return (source if sp.issparse(source) else source.to_memory()).tocsr()


def dense(source: Any, rows: slice | Indices, columns: Indices | None = None) -> NDArray[np.floating]:
    """Return some rows, and some columns, of any kind of matrix as a dense floating array; see `taken`."""
    block = taken(source, rows, columns)
    block = block.toarray() if sp.issparse(block) else block
    return block.astype(np.result_type(block.dtype, np.float32), copy=False)


def taken(source: Any, rows: slice | Indices, columns: Indices | None = None) -> Any:
    """Return some rows, and some columns, of any kind of matrix: an ndarray, or scipy's where it is sparse.

    Understands ndarrays, scipy's sparse matrices and arrays, HDF5 and zarr arrays, backed sparse matrices and dask.
    Rows given by their numbers must ascend.
    """
    if not isinstance(rows, slice) and not cheap_to_pick(source):
        return picked(source, rows, columns)
    if not isinstance(rows, slice) and columns is not None and len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        # Rows that follow each other are copied once, with their columns.
        rows = slice(rows[0], rows[-1] + 1)
    block = source[rows]
    return only(block.compute() if hasattr(block, "compute") else block, columns)


def only(block: Any, columns: Indices | None) -> Any:
    """Return some columns of an ndarray or a sparse matrix, or all."""
    if sp.issparse(block):
        return block if columns is None else block[:, columns]
    block = np.asarray(block)
    return block if columns is None else block.take(columns, axis=1)


def cheap_to_pick(source: Any) -> bool:
    """Whether single rows cost no more than runs of them."""
    return isinstance(source, np.ndarray) or sp.issparse(source)


def picked(source: Any, rows: Indices, columns: Indices | None = None) -> Any:
    """Return some rows of a matrix on disk, read in runs: row by row takes many times longer.

    Of each run only the columns wanted are kept: a file may hold many more.
    """
    per_chunk = chunk_rows(source)
    # A chunk is decoded whole, so all that is wanted of it is taken at once.
    window = max(BLOCK_ROWS // per_chunk, 1) * per_chunk if per_chunk else BLOCK_ROWS
    new_run = np.diff(rows // window) > 0
    new_run |= np.diff(rows // per_chunk) > 1 if per_chunk else np.diff(rows) > GAP
    parts = []
    for run in np.split(rows, np.flatnonzero(new_run) + 1):
        part = source[run[0] : run[-1] + 1] if len(run) else source[:0]
        parts.append(only((part.compute() if hasattr(part, "compute") else part)[run - run[:1]], columns))
    return sp.vstack(parts, format="csr") if sp.issparse(parts[0]) else np.concatenate(parts)


def chunk_rows(source: Any) -> int:
    """Return the rows of a chunk of HDF5, zarr or dask, 0 where rows stand one after another."""
    chunks = getattr(source, "chunks", None)
    if not chunks:
        return 0
    return int(max(chunks[0]) if isinstance(chunks[0], tuple) else chunks[0])


def windows(source: Any, rows: slice, least: int = BLOCK_ROWS) -> Iterator[slice]:
    """Cut rows into stretches of whole chunks of at least so many rows: a chunk is decoded whole, so all is taken."""
    start, stop, _ = rows.indices(source.shape[0])
    chunks = getattr(source, "chunks", None)
    if chunks and isinstance(chunks[0], tuple):
        ends = np.cumsum(chunks[0])
    else:
        ends = np.arange(1, -(-stop // max(chunk_rows(source), 1)) + 1) * max(chunk_rows(source), 1)
    while start < stop:
        end = int(ends[np.searchsorted(ends, min(start + least, stop))]) if len(ends) else stop
        yield slice(start, min(end, stop))
        start = min(end, stop)


def ahead(blocks: Iterable[T]) -> Iterator[T]:
    """Prepare each block in a thread of its own while the one before it is worked on."""
    source, end = iter(blocks), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, source, end)
        while (block := coming.result()) is not end:
            coming = thread.submit(next, source, end)
            yield block  # type: ignore[misc]


def row_slices(n: int, size: int = BLOCK_ROWS) -> Iterator[slice]:
    """Cut `range(n)` into slices of `size`."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def evenly(n: int, most: int) -> Indices:
    """Return at most so many of n places, evenly spaced from the first to the last: what stands together is alike."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.intp))


@dataclass(frozen=True)
class Scale:
    """What brings genes to mean 0 and standard deviation 1, and back.

    The standard deviation gets the 1e-3 of the D-GEX preparation. A gene that is constant in the training rows carries
    no information: as a landmark it enters as 0 whatever its value, as a target it comes out as its mean.
    """

    mean: Wide
    sd: Wide

    @property
    def unit(self) -> Wide:
        """The value of one standardised unit, in data units."""
        return self.sd + 1e-3

    @property
    def factor(self) -> Wide:
        """What a deviation from the mean is multiplied by: 1 / unit, or 0 for a constant gene."""
        return np.where(self.sd > 0, 1 / self.unit, 0)

    def standardise(self, block: NDArray[np.floating]) -> Float:
        near = np.empty(block.shape, np.float32)
        for part in row_slices(len(block), CACHED_ROWS):
            near[part] = (block[part] - self.mean) * self.factor
        return near

    def restore(self, block: Float) -> Float:
        # In float32 and in place: with fresh memory for each step this takes as long as a matrix product.
        values = block * np.where(self.sd > 0, self.unit, 0).astype(np.float32)
        values += self.mean.astype(np.float32)
        return values


@dataclass(frozen=True)
class Rows:
    """Some rows of the landmark and target columns of one matrix, dense only one block at a time."""

    source: Any
    rows: Indices
    landmarks: Indices
    targets: Indices

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """Yield blocks of the landmark columns followed by the target columns, in data units."""
        columns = np.concatenate([self.landmarks, self.targets])
        for part in row_slices(len(self)):
            yield dense(self.source, self.rows[part], columns)


@dataclass(frozen=True)
class Pairs:
    """Standardised (landmarks, targets) of some rows."""

    rows: Rows
    scale: Scale

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_landmarks(self) -> int:
        return len(self.rows.landmarks)

    @property
    def n_targets(self) -> int:
        return len(self.rows.targets)

    def blocks(self) -> Iterator[tuple[Float, Float]]:
        """Yield (block rows, landmarks) and (block rows, targets)."""
        for block in self.rows.blocks():
            block = self.scale.standardise(block)
            yield block[:, : self.n_landmarks], block[:, self.n_landmarks :]

    def select(self, picks: Indices) -> Pairs:
        """Return some of the rows; `picks` must ascend."""
        return replace(self, rows=replace(self.rows, rows=self.rows.rows[picks]))

    def only(self, targets: Indices) -> Pairs:
        """Return the same rows with some of the targets."""
        columns = np.concatenate([np.arange(self.n_landmarks), self.n_landmarks + targets])
        scale = Scale(self.scale.mean[columns], self.scale.sd[columns])
        return Pairs(replace(self.rows, targets=self.rows.targets[targets]), scale)

    def arrays(self) -> tuple[Float, Float]:
        """Return all rows at once, for methods that need them together."""
        X = np.empty((len(self), self.n_landmarks), np.float32)
        Y = np.empty((len(self), self.n_targets), np.float32)
        for part, (x, y) in zip(row_slices(len(self)), self.blocks(), strict=True):
            X[part], Y[part] = x, y
        return X, Y
