from __future__ import annotations

from importlib.resources import as_file, files

import anndata as ad
import numpy as np


def bulk() -> ad.AnnData:
    """Load 1,392 human bulk RNA-seq samples x 2,978 genes; bundled, so no network is needed.

    All 978 L1000 landmarks, and 2,000 of the genes that L1000 infers, drawn at random among those with 10 or more reads
    in a tenth of the samples. 33 cohorts: normal and tumour tissue of GTEx and TCGA (RNAseqDB, open-tier values) and
    seven blood studies of GEO (curatedTBData, MIT licence).

    Returns
    -------
    `X` is float32, log2(counts per million + 1), kept to the 11 significant bits of float16. `obs` has cohort, tissue,
    subject, source and pipeline; 59 subjects are in more than one cohort. `var` has symbol, ensembl and entrez, and
    symbols as names; `uns["origin"]` says where it comes from.

    References
    ----------
    Wang et al., Sci Data 2018, 5:180061 :cite:p:`wang2018rnaseqdb` (RNAseqDB).

    Examples
    --------
    >>> bulk = gx.datasets.bulk()
    >>> bulk.shape
    (1392, 2978)
    >>> bulk.obs["tissue"].value_counts().head(3).to_dict()
    {'blood': 352, 'read': 97, 'kich': 85}
    """
    with as_file(files("gexinfer.datasets") / "bulk.h5ad") as path:
        adata = ad.read_h5ad(path)
    adata.X = adata.X.astype(np.float32)
    return adata
