"""GCTX: HDF5, samples x genes. Read in boxes that touch no more of the file than what is asked for lies in."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer.engine.blocks import Float, Indices
from gexinfer.engine.report import warn
from gexinfer.io._cmap import (
    MISSING,
    MOST_PER_GZIP_BYTE,
    REDO,
    Asked,
    annotated,
    ask,
    check_fits,
    damaged,
    decoded,
    decoded_one,
    metadata,
    text_column,
)
from gexinfer.io._heaps import check_heaps

MATRIX, SAMPLES, GENES = "0/DATA/0/matrix", "0/META/COL", "0/META/ROW"
# What is read at a time, in bytes; a chunk of the file that is larger is read whole.
BUFFER = 2**23
# A call to HDF5 takes as long as reading this many bytes.
CALL = 100_000
# Entries of metadata that are read at a time, at most.
ENTRIES = 2**16
# Blocks of a lazy matrix, in bytes as float32.
LAZY_BLOCK = 2**25
# What h5py raises for files that are not what they should be.
H5PY_ERRORS = (
    OSError,
    zlib.error,
    RuntimeError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    MemoryError,
)


def load_gctx(path: Path, rows: Any, cols: Any, lazy: bool) -> AnnData:
    """Read a GCTX, its matrix as a dask array where it is to be lazy."""
    with opened(path) as file:
        matrix, n_samples, n_genes = checked(path, file)
        asked_genes, asked_samples = ask(rows, n_genes, "rows", path), ask(cols, n_samples, "cols", path)
        genes, samples = places(asked_genes, file[GENES]["id"]), places(asked_samples, file[SAMPLES]["id"])
        obs, var = table(file[SAMPLES], asked_samples), table(file[GENES], asked_genes)
        if not lazy:
            check_fits(len(samples), len(genes), path)
            return annotated(values(matrix, samples, genes), obs, var)
        per_block = block_rows(matrix, len(genes))
    import dask.array as da

    source = OnDisk(path.resolve(), stamp(path), samples, genes)
    X = da.from_array(source, chunks=(per_block, -1), fancy=False, meta=np.empty((0, 0), np.float32))
    return annotated(X, obs, var)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a GCTX; truncated ones are told with the bytes they have and should have."""
    try:
        # Without a cache for chunks HDF5 reads of an uncompressed one only what is asked for.
        file = h5py.File(path, "r", rdcc_nbytes=0)
    except H5PY_ERRORS as error:
        whole = re.search(r"stored_eof = (\d+)", str(error))
        what = f"its header announces {int(whole[1]):,} bytes, so it is truncated" if whole else error
        raise damaged(path, what, "Download it again and compare its size." if whole else REDO) from error
    with file:
        yield file


def checked(path: Path, file: h5py.File) -> tuple[h5py.Dataset, int, int]:
    """Return the matrix and its numbers of samples and genes, having checked that ids and values are all there."""
    found = {}
    try:
        for name in (MATRIX, f"{SAMPLES}/id", f"{GENES}/id"):
            found[name] = file[name]
            if not isinstance(found[name], h5py.Dataset):
                raise TypeError(f"{name} is no data set")
            found[name].dtype  # noqa: B018  # raises for types that NumPy does not have
    except H5PY_ERRORS as error:
        if is_h5ad(file):
            raise ValueError(f"{str(path)!r} is an .h5ad, not a GCTX: read it with anndata.read_h5ad(path).") from error
        raise damaged(path, f"it has no {name!r}, as a GCTX has ({error})") from error
    matrix, samples, genes = found.values()
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu":
        raise damaged(
            path, f"its matrix has shape {matrix.shape} and type {matrix.dtype}, and should be a table of numbers"
        )
    if matrix.shape != (samples.size, genes.size) or samples.ndim != 1 or genes.ndim != 1:
        raise damaged(
            path,
            f"it names {samples.size:,} samples and {genes.size:,} genes, but its matrix has shape {matrix.shape}",
        )
    for dataset in found.values():
        check_stored(dataset)
    return matrix, samples.size, genes.size


def is_h5ad(file: h5py.File) -> bool:
    """Whether anndata wrote this; its mark is looked up by name, because to list what a damaged file holds can fail."""
    try:
        return file.attrs.get("encoding-type") == "anndata"
    except H5PY_ERRORS:
        return False


def check_stored(dataset: h5py.Dataset) -> None:
    """Refuse data that were never written, or lie elsewhere: HDF5 would hand out zeros for them without a word."""
    path, itemsize = dataset.file.filename, dataset.id.get_type().get_size()
    plan = dataset.id.get_create_plist()
    try:
        if not plan.get_nfilters():
            steps = dataset.chunks or [1] * dataset.ndim
            whole = [-(-n // step) * step for n, step in zip(dataset.shape, steps, strict=True)]
            stored, needed = dataset.id.get_storage_size(), math.prod(whole) * itemsize
            if stored < needed:
                raise damaged(path, f"{dataset.name} holds {stored:,} of its {needed:,} bytes")
            return
        # Only of deflate is known how little it can make of much.
        deflated = plan.get_nfilters() == 1 and plan.get_filter(0)[0] == h5py.h5z.FILTER_DEFLATE
        least = math.prod(dataset.chunks) * itemsize // MOST_PER_GZIP_BYTE if deflated else 0
        chunks: list[Any] = []
        # append() returns None, which has the iteration go on.
        dataset.id.chunk_iter(chunks.append)
    except RuntimeError as error:
        raise damaged(path, f"{dataset.name}: {error}") from error
    needed = math.prod(-(-n // step) for n, step in zip(dataset.shape, dataset.chunks, strict=True))
    starts = {chunk.chunk_offset for chunk in chunks if chunk.size >= least}
    there = sum(
        all(at < n and at % step == 0 for at, n, step in zip(start, dataset.shape, dataset.chunks, strict=True))
        for start in starts
    )
    if there < needed:
        raise damaged(path, f"{dataset.name} holds {there:,} of its {needed:,} chunks")


def read(dataset: h5py.Dataset, *where: slice) -> np.ndarray:
    """Return a part of a data set; each slice has a start."""
    try:
        if dataset.dtype.kind == "O":
            check_heaps(dataset, where[0].start, min(where[0].stop, len(dataset)))
        found = dataset[where]
        if dataset.chunks is not None:
            check_found(dataset, found, [part.start for part in where])
    except H5PY_ERRORS as error:
        raise damaged(dataset.file.filename, f"{dataset.name}: {error}") from error
    return found


def check_found(dataset: h5py.Dataset, found: np.ndarray, starts: list[int]) -> None:
    """Have HDF5 raise for chunks that are there but that a damaged index does not lead to: it read nothing for them."""
    nothing = found == (b"" if found.dtype.kind in "SO" else 0)
    if not nothing.any():
        return
    axes = list(zip(starts, found.shape, dataset.chunks, strict=True))
    for corner in product(*(range(start // step * step, start + size, step) for start, size, step in axes)):
        inside = (
            slice(max(at - start, 0), at + step - start) for at, (start, _, step) in zip(corner, axes, strict=True)
        )
        if nothing[tuple(inside)].all():
            dataset.id.read_direct_chunk(corner)


def spans(places: Indices, unit: int, most: int, n: int) -> list[tuple[int, int, slice]]:
    """Cut ascending places into stretches (start, stop, which places) of whole units, at most `most` long.

    Units without a place are left out.
    """
    units, per = places // unit, max(most // unit, 1)
    cuts = np.flatnonzero((np.diff(units) > 1) | (np.diff(units // per) > 0)) + 1
    ends = zip([0, *cuts], [*cuts, len(places)], strict=True) if len(places) else []
    return [
        (int(units[first]) * unit, min((int(units[last - 1]) + 1) * unit, n), slice(first, last))
        for first, last in ends
    ]


def picking(indices: Indices) -> Any:
    """Return indices as a slice where they follow one another, which needs no copy."""
    together = len(indices) > 0 and (len(indices) == 1 or bool((np.diff(indices) == 1).all()))
    return slice(int(indices[0]), int(indices[-1]) + 1) if together else indices


def across(rows: Any, columns: Any) -> Any:
    """Return what picks rows and columns of an array at once."""
    return np.ix_(rows, columns) if not isinstance(rows, slice) and not isinstance(columns, slice) else (rows, columns)


def values(matrix: h5py.Dataset, samples: Indices, genes: Indices) -> Float:
    """Return some samples x some genes, in the order asked for, missing values as NaN."""
    X = np.empty((len(samples), len(genes)), np.float32)
    by_row, by_column = np.argsort(samples, kind="stable"), np.argsort(genes, kind="stable")
    rows, columns = samples[by_row], genes[by_column]
    n_rows, n_columns = matrix.shape
    size = matrix.dtype.itemsize
    width = min(n_columns, max(BUFFER // size, 1))
    height, width = matrix.chunks or (max(BUFFER // (width * size), 1), width)
    # The longest row of a box, and the bytes of all boxes of whole chunks.
    longest = len(np.unique(columns // width)) * width
    plain = matrix.id.get_create_plist().get_nfilters() == 0
    if plain and len(rows) * CALL < len(np.unique(rows // height)) * height * longest * size:
        height = 1
    widest = max(BUFFER // (height * size), width)
    highest = BUFFER // (max(min(widest, longest), 1) * size)
    side_by_side = [
        (left, right, picking(columns[these] - left), picking(by_column[these]))
        for left, right, these in spans(columns, width, widest, n_columns)
    ]
    for top, bottom, these in spans(rows, height, highest, n_rows):
        from_rows, to_rows = picking(rows[these] - top), picking(by_row[these])
        for left, right, from_columns, to_columns in side_by_side:
            box = read(matrix, slice(top, bottom), slice(left, right))[across(from_rows, from_columns)]
            # Beyond float32 is inf, as in a file of float32.
            with np.errstate(over="ignore"):
                box = box.astype(np.float32, copy=False)
            box[box == MISSING] = np.nan
            X[across(to_rows, to_columns)] = box
    return X


def places(asked: Asked, ids: h5py.Dataset) -> Indices:
    """Return where what is asked for stands, looking through the ids a stretch at a time."""
    if asked.ids is not None:
        for start in range(0, asked.n, ENTRIES):
            some = read(ids, slice(start, start + ENTRIES))
            asked.look(some.tolist() if some.dtype.kind in "SO" else names(ids, some))
    return asked.found()


def names(dataset: h5py.Dataset, entries: np.ndarray) -> list[str]:
    """Return ids as text; Entrez ids may be stored as numbers."""
    if h5py.check_string_dtype(dataset.dtype):
        return decoded(entries.tolist())
    if entries.dtype.kind in "iu" or (entries.dtype.kind == "f" and (entries == np.floor(entries)).all()):
        return [str(int(entry)) for entry in entries]
    raise damaged(
        dataset.file.filename,
        f"{dataset.name} holds {listed(entries.tolist(), 3)}, which are neither text nor whole numbers",
    )


def entries(dataset: h5py.Dataset, picks: Indices) -> np.ndarray:
    """Return some entries of a column, in the order asked for."""
    order = np.argsort(picks, kind="stable")
    ascending = picks[order]
    unit = dataset.chunks[0] if dataset.chunks else min(ENTRIES, 1024)
    most = min(ENTRIES, BUFFER // dataset.dtype.itemsize)
    there = [
        read(dataset, slice(start, stop))[ascending[these] - start]
        for start, stop, these in spans(ascending, unit, most, dataset.size)
    ]
    found = np.concatenate([np.empty(0, dataset.dtype), *there])
    return found[np.argsort(order, kind="stable")]


def table(group: h5py.Group, asked: Asked) -> pd.DataFrame:
    """Return metadata of what is asked for, with its ids as names."""
    path = group.file.filename
    columns, strange = {}, []
    try:
        # A name that is no UTF-8 comes as bytes.
        members = {name if isinstance(name, str) else decoded_one(name): member for name, member in group.items()}
    except H5PY_ERRORS as error:
        raise damaged(path, f"{group.name}: {error}") from error
    ids = members.pop("id")
    for name, dataset in members.items():
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 1 or not readable(dataset):
            strange.append(name)
            continue
        if dataset.size != asked.n:
            raise damaged(path, f"{dataset.name} has {dataset.size:,} entries for {asked.n:,} ids")
        check_stored(dataset)
        columns[name] = column(dataset, entries(dataset, asked.places))
    if strange:
        warn(
            f"{Path(path).name!r}: {group.name} holds {listed(strange)}, which are no columns of numbers or text; "
            "left out."
        )
    return metadata(columns, names(ids, entries(ids, asked.places)) if asked.ids is None else list(asked.ids))


def readable(dataset: h5py.Dataset) -> bool:
    """Whether a column holds numbers, flags or text."""
    try:
        return dataset.dtype.kind in "biufS" or h5py.check_string_dtype(dataset.dtype) is not None
    except H5PY_ERRORS:
        return False  # a type that NumPy does not have


def column(dataset: h5py.Dataset, found: np.ndarray) -> np.ndarray | pd.Categorical:
    """Return one column, missing values as NaN."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        return np.where(found == MISSING, np.nan, found) if (found == MISSING).any() else found
    return text_column(decoded(found.tolist()))


def block_rows(matrix: h5py.Dataset, n_genes: int) -> int:
    """Return how many samples a lazy block holds: whole chunks of the file."""
    unit = matrix.chunks[0] if matrix.chunks else 1
    return max(LAZY_BLOCK // (max(n_genes, 1) * 4) // unit, 1) * unit


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written again."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True)
class OnDisk:
    """A part of a GCTX that opens its file whenever values are wanted: it holds no handle, so it can be pickled."""

    path: Path
    stamp: tuple[int, int]
    samples: Indices
    genes: Indices

    dtype = np.dtype(np.float32)
    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.samples), len(self.genes)

    def __getitem__(self, key: tuple[slice, slice]) -> Float:
        if not self.path.exists() or stamp(self.path) != self.stamp:
            raise ValueError(
                f"{str(self.path)!r} was changed or moved since it was read with lazy=True; read it again."
            )
        with opened(self.path) as file:
            return values(file[MATRIX], self.samples[key[0]], self.genes[key[1]])
