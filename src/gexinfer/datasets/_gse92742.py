from __future__ import annotations

from collections.abc import Sequence

from anndata import AnnData

from gexinfer import io
from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import fetch, unpack
from gexinfer.datasets._gene_info import gene_info, table
from gexinfer.io._cmap import flag_genes


def gse92742(
    *,
    rows: Sequence[str] | None = None,
    cols: Sequence[str] | None = None,
    lazy: bool = False,
    progress: bool = True,
) -> AnnData:
    """Download LINCS phase I, level 3: 1,319,138 profiles x 12,328 genes of L1000 (GSE92742; about 52 GB).

    978 genes are measured; the other 11,350 were inferred from them by the linear regression of LINCS, so they are no
    truth to judge a method by. The file is unpacked in the cache (65 GB more; the packed one may be deleted then), and
    read from there. Whole it needs 65 GB of memory: take a part with `rows` and `cols`, or read it `lazy`.

    Parameters
    ----------
    rows
        Genes to read, as for `gexinfer.io.read_gctx`: Entrez ids, as text.
    cols
        Samples to read, as for `gexinfer.io.read_gctx`.
    lazy
        Leave the values on disk, as for `gexinfer.io.read_gctx`.
    progress
        Show bars while downloading and unpacking.

    Returns
    -------
    Samples x genes. `X` is float32, log2 of fluorescence, quantile-normalised (level 3). `obs` is what the series says
    of each profile: `cell_id`, `pert_id`, `pert_iname`, `pert_type`, dose, time, plate and well. `var` is
    `gexinfer.datasets.gene_info()`, with Entrez ids as names, and the bool columns `landmark` and `bing`.
    `uns["origin"]` says where it comes from.

    Raises
    ------
    ConnectionError
        A file is not in the cache and cannot be downloaded; says how to put it there by hand.
    OSError
        The disk has no room for it.
    ValueError
        A file does not have the checksum that its owner lists.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017`.

    Examples
    --------
    >>> profiles = gx.datasets.gse92742(lazy=True)  # doctest: +SKIP
    >>> measured = profiles[:1000, profiles.var["landmark"]].to_memory()  # doctest: +SKIP
    """
    # The small ones first: who has no network learns it before 52 GB are asked for.
    genes = gene_info(progress=progress)
    samples = table(fetch(registry.GSE92742_SAMPLES, progress=progress), "inst_id")
    adata = io.read_gctx(unpack(registry.GSE92742_LEVEL3, progress=progress), rows=rows, cols=cols, lazy=lazy)
    adata.obs = samples.reindex(adata.obs_names)
    adata.var = genes.reindex(adata.var_names)
    flag_genes(adata.var)
    adata.uns["origin"] = registry.GSE92742_LEVEL3.origin
    return adata
