from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import fetch


def geuvadis(*, progress: bool = True) -> AnnData:
    """Download Geuvadis, RNA-seq of lymphoblastoid cell lines: 462 people of the 1000 Genomes x 23,722 genes (87 MB).

    The file that the D-GEX paper validated on. Its RPKM were corrected for hidden factors by PEER, which turns a few
    small ones into negative numbers; these are taken as 0.

    Parameters
    ----------
    progress
        Show a bar while downloading.

    Returns
    -------
    Samples x genes. `X` is float32, log2(RPKM + 1). `var` has the other columns of the file: `Gene_Symbol`, `Chr` and
    `Coord`; Ensembl ids with version are names, which `gexinfer.pp.landmarks` takes. Samples are called as in the 1000
    Genomes. `uns["origin"]` says where it comes from.

    Raises
    ------
    ConnectionError
        The file is not in the cache and cannot be downloaded; says how to put it there by hand.
    OSError
        The disk has no room for it.
    ValueError
        The file is not the one that was downloaded first.

    References
    ----------
    Lappalainen et al., Nature 2013, 501:506 :cite:p:`lappalainen2013` (Geuvadis); Chen et al., Bioinformatics 2016,
    32:1832 :cite:p:`chen2016` (D-GEX).

    Examples
    --------
    >>> cells = gx.datasets.geuvadis()  # doctest: +SKIP
    >>> gx.pp.landmarks(cells, panel="dgex943")  # doctest: +SKIP
    """
    table = pd.read_csv(fetch(registry.GEUVADIS, progress=progress), sep="\t", index_col=0)
    var, values = table.iloc[:, :3].rename_axis(None), table.iloc[:, 3:]
    X = np.log2(np.maximum(values.to_numpy(np.float32).T, 0) + 1)
    adata = AnnData(X=np.ascontiguousarray(X), obs=pd.DataFrame(index=values.columns), var=var.astype({"Chr": str}))
    adata.uns["origin"] = f"log2(RPKM + 1), RPKM corrected by PEER. {registry.GEUVADIS.origin}"
    return adata
