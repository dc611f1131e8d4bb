"""What a file holds for gexinfer, as plain values, without reading its matrices where that can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gexinfer.cli._files import UNREADABLE, check_there, read, unreadable

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from gexinfer._fitted import FittedModel


def contents(path: Path) -> dict[str, Any]:
    """Return what there is to say of a file of any kind that gexinfer reads."""
    import gexinfer as gx

    found: dict[str, Any] = {"path": str(path)}
    if path.suffix == ".safetensors":
        return found | {"models": [of_model(None, gx.io.read_model(path))]}
    if path.suffix not in (".h5ad", ".zarr", ".h5mu"):
        adata = read(path, in_place=True)
        return found | of_tables(adata, []) | {"models": []}
    with opened(path) as group:
        if "mod" in group:
            return found | {"modalities": {name: of_group(part) for name, part in group["mod"].items()}}
        return found | of_group(group)


def gene_table(path: Path) -> pd.DataFrame:
    """Return what a file says of its genes."""
    from anndata.io import read_elem

    if path.suffix not in (".h5ad", ".zarr"):
        return read(path, in_place=True).var
    with opened(path) as group:
        return read_elem(group["var"])


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open a store for reading, and say so where it is none that anndata or mudata wrote."""
    import h5py
    import zarr

    check_there(path)
    with ExitStack() as stack:
        try:
            group = zarr.open_group(path, mode="r") if path.suffix == ".zarr" else stack.enter_context(h5py.File(path))
        except UNREADABLE as error:
            raise unreadable(path, error) from error
        if not ("mod" in group or ("obs" in group and "var" in group)):
            raise unreadable(path, "it holds no tables obs and var")
        yield group


def of_group(group: Any) -> dict[str, Any]:
    """Return what an AnnData in a file holds; of `uns` only what gexinfer wrote is read."""
    from anndata import AnnData
    from anndata.io import read_elem

    from gexinfer._slots import PREDICTED, SPLIT_INFO

    uns = group.get("uns", {})
    ours = {name: read_elem(uns[name]) for name in (PREDICTED, SPLIT_INFO) if name in uns}
    bare = AnnData(obs=read_elem(group["obs"]), var=read_elem(group["var"]), uns=ours)
    layers = list(group.get("layers", {}).keys())
    return of_tables(bare, layers) | {"models": [found for name in uns if (found := of_entry(uns, name))]}


def of_tables(adata: AnnData, layers: list[str]) -> dict[str, Any]:
    """Return what the tables of an AnnData say."""
    from gexinfer._slots import LANDMARK, PREDICTED, ROLE, ROLES, SIDES, SPLIT, split_by

    flags, sides, roles = adata.var.get(LANDMARK), adata.obs.get(SPLIT), adata.var.get(ROLE)
    split = None
    if sides is not None:
        split = {side: int((sides == side).sum()) for side in SIDES} | {"by": split_by(adata)}
    inferred = [str(name) for name in adata.uns.get(PREDICTED, [])]
    return {
        "n_samples": adata.n_obs,
        "n_genes": adata.n_vars,
        "n_landmarks": None if flags is None or flags.dtype != bool else int(flags.sum()),
        "split": split,
        "roles": None if roles is None else {role: int((roles == role).sum()) for role in reversed(ROLES)},
        "layers": [{"name": name, "inferred": name in inferred} for name in layers],
    }


def of_entry(uns: Any, name: str) -> dict[str, Any] | None:
    """Return what there is to say of an entry of `uns` if it is a model, one that cannot be read included."""
    from anndata.io import read_elem

    from gexinfer._record import from_uns, is_record

    if not (hasattr(uns[name], "keys") and "state" in uns[name]):
        return None
    entry = read_elem(uns[name])
    if not is_record(entry):
        return None
    try:
        return of_model(name, from_uns(entry, f"uns[{name!r}]"))
    except ValueError as error:
        return {"key": name, "error": str(error)}


def of_model(key: str | None, fitted: FittedModel) -> dict[str, Any]:
    """Return what there is to say of a model."""
    from gexinfer.methods import get_method
    from gexinfer.tl._trusted import is_trusted

    recall = fitted.known.get("recall")
    return {
        "key": key,
        "method": fitted.method,
        "n_landmarks": len(fitted.landmarks),
        "n_targets": len(fitted.targets),
        "n_trusted": None if recall is None else int(is_trusted(recall).sum()),
        "n_train": fitted.provenance["n_train"],
        "n_validation": fitted.provenance["n_validation"],
        "split_by": fitted.provenance["split_by"],
        "validation_mae": fitted.model.notes.get("validation_mae"),
        "layer": fitted.input["layer"],
        "counts": fitted.input["counts"],
        "has_std": get_method(fitted.method).has_std(fitted.config),
        "holds_samples": fitted.holds_samples,
        "gexinfer": fitted.provenance["gexinfer"],
        "options": {name: value for name, value in asdict(fitted.config).items() if value is not None},
    }
