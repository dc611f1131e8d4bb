from __future__ import annotations

import os
from pathlib import Path

import h5py
import zarr
from anndata import AnnData
from anndata.io import read_elem

from gexinfer._names import listed
from gexinfer._record import FittedModel, from_bytes, is_record, records, to_bytes


def read_model(source: AnnData | str | os.PathLike[str], *, key: str | None = None) -> FittedModel:
    """Read one model from a `.safetensors`, `.h5ad` or `.zarr` file, or from an AnnData.

    Parameters
    ----------
    source
        The file, or an AnnData that was fitted.
    key
        Name of the model, needed where there are several.

    Returns
    -------
    The model, for `gexinfer.tl.predict(query, model=...)`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        There is no model, or none of that key.
    ValueError
        There are several models and no key, or the model is damaged or of a newer version.
    """
    if isinstance(source, AnnData):
        return only(source, key, "adata")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if path.suffix == ".safetensors":
        return from_bytes(path.read_bytes(), str(path))
    if path.suffix == ".zarr":
        return only(AnnData(uns=read_elem(zarr.open_group(path, mode="r")["uns"])), key, str(path))
    if path.suffix == ".h5ad":
        with h5py.File(path) as file:
            return only(AnnData(uns=read_elem(file["uns"])), key, str(path))
    raise ValueError(f"{str(path)!r} ends in {path.suffix!r}; a model is read from .safetensors, .h5ad or .zarr.")


def only(adata: AnnData, key: str | None, where: str) -> FittedModel:
    """Return the model of that key, or the only one there is."""
    names = [name for name, entry in adata.uns.items() if is_record(entry)]
    if key is None and len(names) > 1:
        raise ValueError(f"{where} holds {len(names)} models, {listed(names, 20)}; name one with key=.")
    (fitted,) = records(adata, key).values()
    return fitted


def write_model(
    model: AnnData | FittedModel,
    path: str | os.PathLike[str],
    *,
    key: str | None = None,
    include_samples: bool = False,
) -> None:
    """Write one model to a `.safetensors` file, the same bytes that `uns` holds.

    Parameters
    ----------
    model
        A model, or an AnnData that was fitted.
    path
        The file, ending in `.safetensors`. It is replaced in one step, so a reader never sees half of it.
    key
        Name of the model, needed where an AnnData holds several.
    include_samples
        Needed for methods that keep their training samples (`knn`): whoever gets the file gets the expression profiles
        of those people.

    Raises
    ------
    ValueError
        The path has another ending, or the model holds training samples and `include_samples` was not given.
    """
    fitted = only(model, key, "adata") if isinstance(model, AnnData) else model
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r} must end in '.safetensors'.")
    if fitted.holds_samples and not include_samples:
        raise ValueError(
            f"A {fitted.method!r} model holds its {fitted.provenance['n_train']:,} training samples, and expression "
            "profiles identify people. Pass include_samples=True to write them all the same, or share a model that "
            "holds none, e.g. ridge."
        )
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(to_bytes(fitted))
    partial.replace(path)
