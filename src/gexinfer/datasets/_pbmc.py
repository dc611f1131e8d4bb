from __future__ import annotations

import warnings

from anndata import AnnData

from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import fetch


def pbmc(*, progress: bool = True) -> AnnData:
    """Download single-cell RNA-seq of about 10,000 blood cells of one healthy donor (10x Genomics, v3 chemistry).

    Parameters
    ----------
    progress
        Show a bar while downloading.

    Returns
    -------
    Cells x genes. `X` is sparse, float32: raw UMI counts of the cells that Cell Ranger called. Take logarithms before a
    fit: `sc.pp.normalize_total(adata)`, `sc.pp.log1p(adata)`. `var` has symbol, and what 10x says of a gene; Ensembl
    ids are names, which `gexinfer.pp.landmarks` takes. `uns["origin"]` says where it comes from.

    Raises
    ------
    ConnectionError
        The file is not in the cache and cannot be downloaded; says how to put it there by hand.
    OSError
        The disk has no room for it.
    ValueError
        The file does not have the known checksum.

    Examples
    --------
    >>> cells = gx.datasets.pbmc()  # doctest: +SKIP
    >>> sc.pp.normalize_total(cells)  # doctest: +SKIP
    >>> sc.pp.log1p(cells)  # doctest: +SKIP
    >>> gx.pp.landmarks(cells)  # doctest: +SKIP
    """
    import scanpy as sc

    path = fetch(registry.PBMC, progress=progress)
    with warnings.catch_warnings():
        # Symbols repeat; they are not the names below.
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        adata = sc.read_10x_h5(path)
    adata.var = adata.var.assign(symbol=adata.var_names).set_index("gene_ids").rename_axis(None)
    adata.uns["origin"] = f"UMI counts. {registry.PBMC.origin}"
    return adata
