from __future__ import annotations

import os
from pathlib import Path

import h5py
import zarr
from anndata import AnnData
from anndata.io import read_elem

from gexinfer._fitted import FittedModel
from gexinfer._names import listed
from gexinfer._record import from_bytes, is_record, records, to_bytes


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
        There are several models and no key, or the file or the model is damaged or of a newer version.

    Examples
    --------
    >>> gx.io.write_model(ref, "ridge.safetensors", key="ridge")
    >>> model = gx.io.read_model("ridge.safetensors")
    >>> model.method, len(model.landmarks), len(model.targets)
    ('ridge', 94, 204)
    >>> query = ref[:3, ref.var["landmark"]].copy()
    >>> gx.tl.predict(query, model=model, output="anndata").shape
    (3, 298)
    """
    if isinstance(source, AnnData):
        return only(source, key, "adata")
    path = Path(source)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if path.suffix == ".safetensors":
        if key is not None:
            raise ValueError(f"{str(path)!r} holds one model without a name; leave out key={key!r}.")
        return from_bytes(path.read_bytes(), str(path))
    if path.suffix not in (".h5ad", ".zarr"):
        raise ValueError(f"{str(path)!r} ends in {path.suffix!r}; a model is read from .safetensors, .h5ad or .zarr.")
    try:
        if path.suffix == ".zarr":
            uns = read_elem(zarr.open_group(path, mode="r")["uns"])
        else:
            with h5py.File(path) as file:
                uns = read_elem(file["uns"])
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{str(path)!r} cannot be read as {path.suffix}: {error}. It may be truncated or another kind of file; "
            "get it again, or write it with adata.write_h5ad."
        ) from error
    return only(AnnData(uns=uns), key, str(path))


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
        Needed for methods that keep samples that they were fitted to (`auto`, `knn`, `sample_lasso`, `kernel`): whoever
        gets the file gets the expression profiles of those people.

    Raises
    ------
    FileNotFoundError
        There is no such folder.
    TypeError
        `model` is neither.
    ValueError
        The path has another ending, or the model holds samples and `include_samples` was not given.

    Examples
    --------
    >>> gx.io.write_model(ref, "ridge.safetensors", key="ridge")
    >>> gx.tl.fit(ref, method="knn")
    >>> gx.io.write_model(ref, "knn.safetensors", key="knn", include_samples=True)
    """
    path = Path(path)
    if not isinstance(model, AnnData | FittedModel):
        raise TypeError(f"model is a {type(model).__name__}; pass an AnnData that was fitted, or a FittedModel.")
    if path.suffix != ".safetensors":
        raise ValueError(f"path={str(path)!r} must end in '.safetensors'.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.absolute().parent)!r} to write {path.name} into.")
    fitted = only(model, key, "adata") if isinstance(model, AnnData) else model
    if fitted.holds_samples and not include_samples:
        raise ValueError(
            f"A {fitted.method!r} model holds its {fitted.samples_held}, and expression profiles "
            "identify people. Pass include_samples=True to write them all the same, or share a model that "
            "holds none, e.g. ridge."
        )
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(to_bytes(fitted))
    partial.replace(path)
