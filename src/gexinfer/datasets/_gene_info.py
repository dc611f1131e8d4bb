from __future__ import annotations

import pandas as pd

from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import fetch


def gene_info(*, progress: bool = True) -> pd.DataFrame:
    """Download the table of the 12,328 genes of L1000: 978 landmarks and 11,350 inferred genes (GSE92742; 0.2 MB).

    Parameters
    ----------
    progress
        Show a bar while downloading.

    Returns
    -------
    One row a gene, Entrez ids as names. The columns are those of the file: `pr_gene_symbol`, `pr_gene_title`, and, 1 or
    0, `pr_is_lm` for landmarks and `pr_is_bing` for genes that are landmarks or inferred well.

    Raises
    ------
    ConnectionError
        The file is not in the cache and cannot be downloaded; says how to put it there by hand.
    ValueError
        The file does not have the checksum that its owner lists.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017`.

    Examples
    --------
    >>> table = gx.datasets.gene_info()  # doctest: +SKIP
    >>> well_inferred = table.index[table["pr_is_bing"] == 1]  # doctest: +SKIP
    """
    path = fetch(registry.GSE92742_GENES, progress=progress)
    return table(path, "pr_gene_id")


def table(path: object, index: str) -> pd.DataFrame:
    """Return a table of LINCS by its ids; text as categories, which h5ad can hold with missing values."""
    # A gene may be called "NA"; LINCS writes -666 for a missing value.
    columns = pd.read_csv(
        path, sep="\t", dtype={index: str}, na_values=["-666"], keep_default_na=False, low_memory=False
    ).set_index(index)
    texts = columns.columns[[not pd.api.types.is_numeric_dtype(kind) for kind in columns.dtypes]]
    return columns.astype(dict.fromkeys(texts, "category"))
