from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

# What GCT and GCTX files write for a missing value.
MISSING = -666


def read_gctx(path: str | os.PathLike[str]) -> AnnData:
    """Read a GCTX file, the format of LINCS and CMap, whole into memory.

    Parameters
    ----------
    path
        The file: HDF5, whatever its name.

    Returns
    -------
    Samples x genes: the columns of the file become `obs`, its rows `var`, with their ids as names and their metadata as
    columns. `X` is float32, in the units of the file. A value of -666 is missing: NaN.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is no GCTX, or it is truncated.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        with h5py.File(path) as file:
            X = file["0/DATA/0/matrix"][:].astype(np.float32)
            obs, var = table(file["0/META/COL"]), table(file["0/META/ROW"])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{str(path)!r}, {path.stat().st_size:,} bytes, cannot be read as GCTX: {error}. It may be truncated, "
            "or of another kind: download it again and compare its size."
        ) from error
    if X.shape != (len(obs), len(var)):
        raise ValueError(
            f"{str(path)!r} is damaged: it names {len(obs):,} samples and {len(var):,} genes, but its matrix has shape "
            f"{X.shape}. Download it again."
        )
    X[X == MISSING] = np.nan
    return AnnData(X=X, obs=obs, var=var)


def table(group: h5py.Group) -> pd.DataFrame:
    """Return metadata with its ids as names; text may be stored as bytes or as str."""
    columns = {name: column(dataset) for name, dataset in group.items() if name != "id"}
    return pd.DataFrame(columns, index=names(group["id"]))


def names(dataset: h5py.Dataset) -> pd.Index:
    """Return ids as text; Entrez ids may be stored as numbers."""
    return pd.Index(text(dataset) if h5py.check_string_dtype(dataset.dtype) else dataset[:].astype(int).astype(str))


def text(dataset: h5py.Dataset) -> np.ndarray:
    return dataset.asstr(errors="replace")[:].astype(object)


def column(dataset: h5py.Dataset) -> np.ndarray | pd.Categorical:
    """Return one column, missing values as NaN; text as categories, which a file can hold with missing values, too."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        values = dataset[:]
        return np.where(values == MISSING, np.nan, values) if (values == MISSING).any() else values
    values = text(dataset)
    return pd.Categorical(np.where(values == str(MISSING), np.nan, values))
