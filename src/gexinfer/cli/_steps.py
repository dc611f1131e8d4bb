"""What several commands do before they fit or infer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anndata import AnnData


def check_device(device: str) -> None:
    """Refuse a device that is not there, whether or not a model will need it."""
    from gexinfer.engine.device import pick_device

    for name in device.split(","):
        pick_device(name)


def flag_and_split(
    adata: AnnData,
    path: Path,
    panel: str | None,
    id_column: str | None,
    groupby: str | None,
    layer: str | None,
    seed: int,
) -> None:
    """Flag landmarks and split, each where it is not done yet."""
    import gexinfer as gx
    from gexinfer._slots import split_by

    if "landmark" not in adata.var:
        gx.pp.landmarks(adata, panel=panel or "l1000", id_column=id_column)
    elif panel or id_column:
        raise ValueError(f"{str(path)!r} has var['landmark'] already; leave out --panel and --id-column, or drop it.")
    if "split" not in adata.obs:
        gx.pp.split(adata, groupby=groupby, layer=layer, rng=seed)
    elif groupby and split_by(adata) != f"by {groupby}":
        raise ValueError(f"{str(path)!r} has obs['split'] already; leave out --groupby, or drop that column.")
