from __future__ import annotations

from typing import Literal

from anndata import AnnData

from gexinfer import io
from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import unpack


def gse92743(platform: Literal["rnaseq", "l1000"] = "rnaseq", *, progress: bool = True) -> AnnData:
    """Download 3,176 GTEx samples x 12,320 genes, by RNA-seq or by L1000 (GSE92743; 157 MB unpacked each).

    LINCS chose its well-inferred genes by these pairs. By L1000 only the landmarks are measured, and the others
    inferred; by RNA-seq all are measured. Which sample of one file is which of the other says the table of the series
    (`GSE92743_Broad_GTEx_inst_info.txt.gz`); gexinfer does not pair them.

    Parameters
    ----------
    platform
        `"rnaseq"`: log2 of RPKM, quantile-normalised. `"l1000"`: level 3, log2 of fluorescence, quantile-normalised.
    progress
        Show bars while downloading and unpacking.

    Returns
    -------
    Samples x genes, `X` float32. Names are those of the file: for genes Entrez ids, which `gexinfer.pp.landmarks`
    takes. `uns["origin"]` says where it comes from.

    Raises
    ------
    ConnectionError
        The file is not in the cache and cannot be downloaded; says how to put it there by hand.
    OSError
        The disk has no room for it.
    ValueError
        The platform is another, or the file is not the one that was downloaded first.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017`.

    Examples
    --------
    >>> measured = gx.datasets.gse92743("rnaseq")  # doctest: +SKIP
    >>> gx.pp.landmarks(measured)  # doctest: +SKIP
    """
    remotes = {"rnaseq": registry.GSE92743_RNASEQ, "l1000": registry.GSE92743_L1000}
    if platform not in remotes:
        raise ValueError(f"platform={platform!r} is unknown; GSE92743 has 'rnaseq' and 'l1000'.")
    adata = io.read_gctx(unpack(remotes[platform], progress=progress))
    adata.uns["origin"] = remotes[platform].origin
    return adata
