from __future__ import annotations

import gzip
from collections.abc import Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer import io
from gexinfer._names import listed
from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import fetch


def gtex(*, tissue: str | Sequence[str] | None = None, progress: bool = True) -> AnnData:
    """Download GTEx v8, bulk RNA-seq: 17,382 samples of 948 donors x 56,200 genes (1.5 GB).

    Whole it needs 4 GB of memory for the values, and minutes to read; name tissues to read only these.

    Parameters
    ----------
    tissue
        One or several tissues, as GTEx calls them (`"Liver"`, `"Brain - Cortex"`); all where it is not given.
    progress
        Show a bar while downloading.

    Returns
    -------
    Samples x genes. `X` is float32, log2(TPM + 1). `obs` has tissue, organ and subject: give the donor,
    `groupby="subject"`, to `gexinfer.pp.split`. `var` has symbol; Ensembl ids with version are names, which
    `gexinfer.pp.landmarks` takes. `uns["origin"]` says where it comes from.

    Raises
    ------
    ConnectionError
        A file is not in the cache and cannot be downloaded; says how to put it there by hand.
    OSError
        The disk has no room for it.
    ValueError
        No sample is of that tissue, or a file is not the one that was downloaded first.

    References
    ----------
    GTEx Consortium, Science 2020, 369:1318 :cite:p:`gtex2020`.

    Examples
    --------
    >>> liver = gx.datasets.gtex(tissue="Liver")  # doctest: +SKIP
    >>> gx.pp.landmarks(liver)  # doctest: +SKIP
    >>> gx.pp.split(liver, groupby="subject")  # doctest: +SKIP
    """
    attributes = pd.read_csv(
        fetch(registry.GTEX_SAMPLES, progress=progress),
        sep="\t",
        usecols=["SAMPID", "SMTS", "SMTSD"],
        index_col="SAMPID",
        dtype="category",
    )
    path = fetch(registry.GTEX_TPM, progress=progress)
    with gzip.open(path, "rt") as lines:
        # GCT 1.2: a version, a shape, a header; the first two columns are the gene.
        samples = [next(lines) for _ in range(3)][-1].rstrip("\n").split("\t")[2:]
    obs = attributes.reindex(pd.Index(samples)).rename(columns={"SMTSD": "tissue", "SMTS": "organ"})
    obs = obs[["tissue", "organ"]].assign(subject=["-".join(sample.split("-")[:2]) for sample in samples])
    if tissue is not None:
        wanted = [tissue] if isinstance(tissue, str) else list(tissue)
        there = sorted(obs["tissue"].dropna().unique())
        if not wanted:
            raise ValueError(f"tissue={tissue!r} names none. Leave it out for all; GTEx has {listed(there, 60)}.")
        absent = [name for name in wanted if name not in there]
        if absent:
            raise ValueError(f"tissue={tissue!r}: GTEx has no {listed(absent)}; it has {listed(there, 60)}.")
        obs = obs[obs["tissue"].isin(wanted)]
    # The table of samples has tissues that were not sequenced, or not asked for.
    obs = obs.assign(**{column: obs[column].cat.remove_unused_categories() for column in ("tissue", "organ")})
    adata = io.read_gct(path, cols=None if tissue is None else list(obs.index))
    adata.obs = obs.loc[adata.obs_names]
    adata.var = adata.var.set_axis(["symbol"], axis=1)
    adata.X += 1
    np.log2(adata.X, out=adata.X)
    adata.uns["origin"] = f"log2(TPM + 1). {registry.GTEX_TPM.origin}"
    return adata
