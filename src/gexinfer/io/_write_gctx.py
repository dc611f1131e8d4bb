from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData
from pandas.api.types import infer_dtype

from gexinfer._names import listed
from gexinfer._slots import check_adata, layer_names, matrix
from gexinfer.engine.blocks import dense, in_row_order, row_slices
from gexinfer.engine.report import say, warn
from gexinfer.io._cmap import MISSING, NO_VALUE
from gexinfer.io._gctx import ENTRIES, GENES, MATRIX, SAMPLES

# The chunks of CMap's own files: at most 1,000 genes, and as many samples as make up a MiB of float32.
CHUNK_GENES, CHUNK_VALUES = 1000, 2**18
NUMBERS = ("boolean", "integer", "floating", "mixed-integer-float")


def write_gctx(adata: AnnData, path: str | os.PathLike[str], *, layer: str | None = None) -> None:
    """Write a GCTX file, the format of LINCS and CMap, which `gexinfer.io.read_gctx` and cmapPy read.

    Values, ids and the columns of `obs` and `var` are written: the values as float32, numbers and flags of the columns
    as they are, text and categories as text. Categories that are numbers become numbers, and come back as such. Of
    missing values, numbers stay NaN and text becomes -666. What else there is, such as `uns` and other layers, is left
    out and named. The values are read and written in blocks of samples, so a sparse, backed or dask matrix is
    never dense as a whole; as in CMap's own files they are not compressed.

    Parameters
    ----------
    adata
        Annotated data, samples x genes.
    path
        The file, ending in `.gctx`. It is replaced in one step, so a reader never sees half of it.
    layer
        Layer with the values; `X` where not given.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    KeyError
        There is no such layer.
    TypeError
        `adata` is none, its tables were read lazily, or a column holds something other than numbers or text.
    ValueError
        The path has another ending, names of samples or genes are not unique, or a column has a name that GCTX cannot
        hold: `id`, `.`, one with a slash, or that of another column.

    Warns
    -----
    UserWarning
        Values are beyond float32, so they became inf; or there are values, such as -666, that will be read as missing.

    Examples
    --------
    >>> gx.io.write_gctx(ref, "inferred.gctx", layer="ridge")
    >>> gx.io.read_gctx("inferred.gctx").shape
    (696, 298)
    """
    path = Path(path)
    check_adata(adata)
    source = matrix(adata, layer)
    if path.suffix != ".gctx":
        raise ValueError(f"path={str(path)!r} must end in '.gctx'; other tools know the format by its name.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.absolute().parent)!r} to write {path.name} into.")
    sides = {"obs": (SAMPLES, adata.obs), "var": (GENES, adata.var)}
    tables = {where: (group, columns_of(frame, where)) for where, (group, frame) in sides.items()}
    lost = not_kept(adata, layer)
    if lost:
        say(f"write_gctx: a GCTX holds one matrix and the columns of obs and var; left out of {path.name}: {lost}")

    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".gexinfer-") as folder:
        partial = Path(folder) / path.name
        with h5py.File(partial, "w") as file:
            file.attrs["version"] = np.bytes_("GCTX1.0")
            n_large, n_missing = write_matrix(file, source, adata.shape)
            slot = "X" if layer in (None, "X") else f"layers[{layer!r}]"
            as_missing = [slot] if n_missing else []
            for where, (group, columns) in tables.items():
                # In the order of the columns, not of their names.
                made = file.create_group(group, track_order=True)
                for name, values in columns.items():
                    if write_column(made, name, values) and name != "id":
                        as_missing.append(f"{where}[{name!r}]")
        partial.replace(path)
    if n_large:
        warn(f"{n_large:,} values of {slot} are beyond float32, which a GCTX holds: they are inf in {path.name}.")
    if as_missing:
        warn(
            f"{', '.join(as_missing)} will be read from {path.name} with more missing values than they have: "
            f"{MISSING}, and text such as 'NA' or '', stand for those there. Recode them first, if they are measured."
        )


def write_matrix(file: h5py.File, source: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """Write the values; return how many are beyond float32, and how many will be read as missing."""
    n_samples, n_genes = shape
    if not n_samples or not n_genes:
        file.create_dataset(MATRIX, shape, np.float32)
        return 0, 0
    per_chunk = min(CHUNK_GENES, n_genes)
    chunks = (min(CHUNK_VALUES // per_chunk, n_samples), per_chunk)
    target = file.create_dataset(MATRIX, shape, np.float32, chunks=chunks)
    source = in_row_order(source)
    n_large = n_missing = 0
    for rows in row_slices(n_samples, chunks[0]):
        block = dense(source, rows)
        with np.errstate(over="ignore"):
            target[rows] = single = block.astype(np.float32, copy=False)
        n_large += int((np.isinf(single) & np.isfinite(block)).sum())
        n_missing += int((single == MISSING).sum())
    return n_large, n_missing


def columns_of(frame: pd.DataFrame, where: str) -> dict[str, pd.Series]:
    """Return the ids and the columns of a table, having checked that a GCTX can hold them."""
    if not isinstance(frame, pd.DataFrame):
        raise TypeError(
            f"adata was read lazily, its tables too. Load those; the values may stay where they are: "
            f"adata.{where} = adata.{where}.to_memory()."
        )
    if not frame.index.is_unique:
        twice = frame.index[frame.index.duplicated()].unique()
        raise ValueError(
            f"adata.{where}_names holds {len(twice):,} names more than once: {listed(twice)}. Run "
            f"adata.{where}_names_make_unique() first."
        )
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()].unique()
        raise ValueError(f"adata.{where} has more than one column {listed(twice)}; rename or drop the others.")
    columns = {"id": pd.Series(frame.index.astype(str), dtype=object)}
    for name in frame:
        if not isinstance(name, str) or name in ("", ".", "id") or {"/", "\0"} & set(name):
            raise ValueError(
                f"adata.{where} has a column {name!r}, and a GCTX cannot hold one of that name; rename it."
            )
        values = frame[name]
        kind = infer_dtype(
            values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else values, skipna=True
        )
        if kind not in (*NUMBERS, "string", "empty"):
            raise TypeError(
                f"adata.{where}[{name!r}] holds {kind} values, and a GCTX holds numbers or text. Convert it: "
                f"adata.{where}[{name!r}] = adata.{where}[{name!r}].astype(str)."
            )
        columns[name] = values
    return columns


def write_column(group: h5py.Group, name: str, values: pd.Series) -> bool:
    """Write one column; return whether some of it will be read as missing and is not."""
    missing = values.isna().to_numpy()
    plain = values.astype(object) if isinstance(values.dtype, pd.CategoricalDtype) else values
    kind = infer_dtype(plain, skipna=True)
    if kind in NUMBERS:
        if missing.any():
            numbers = plain.to_numpy(np.float64, na_value=np.nan)
        else:
            numbers = plain.to_numpy(bool) if kind == "boolean" else pd.to_numeric(plain).to_numpy()
        make(group, name, len(numbers), numbers.dtype)[:] = numbers
        return bool((numbers == MISSING).any())
    # A stretch at a time: text takes the room of the longest in every entry.
    texts = np.where(missing, str(MISSING), plain.astype(object))
    longest = max((len(text.encode()) for text in texts), default=1)
    # Of a fixed length, as in CMap's own files: cmapPy reads no other.
    target = make(group, name, len(texts), np.dtype(f"S{max(longest, 1)}"))
    for part in row_slices(len(texts), ENTRIES):
        target[part] = np.array([text.encode() for text in texts[part]], target.dtype)
    return bool(np.isin(texts[~missing], NO_VALUE).any())


def make(group: h5py.Group, name: str, n: int, dtype: np.dtype) -> h5py.Dataset:
    return group.create_dataset(
        name, (n,), dtype, compression="gzip" if n else None, chunks=(min(n, ENTRIES),) if n else None
    )


def not_kept(adata: AnnData, layer: str | None) -> str:
    """Name what a GCTX has no place for."""
    others = [f"layers[{name!r}]" for name in layer_names(adata) if name != layer]
    if layer not in (None, "X") and adata.X is not None:
        others.append("X")
    for slot in ("obsm", "varm", "obsp", "varp", "uns"):
        others += [f"{slot}[{name!r}]" for name in getattr(adata, slot)]
    return ", ".join([*others, *(["raw"] if adata.raw is not None else [])])
