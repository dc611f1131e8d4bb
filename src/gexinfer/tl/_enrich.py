from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed, locate
from gexinfer._slots import ENRICHMENT, check_in_memory
from gexinfer.tl._explained import chosen, explained

# A set with fewer landmarks could not pass whatever they are.
FEWEST = 5


def enrich(
    adata: AnnData,
    gene_sets: Mapping[str, Sequence[str]],
    key: str | None = None,
    *,
    genes: str | Sequence[str] | None = None,
    top: int = 50,
    symbols: str | None = None,
) -> pd.DataFrame:
    """Test which gene sets hold more of a gene's most influential landmarks than chance would.

    Run it after `gexinfer.tl.explain(adata, key)`. A gene's top landmarks are those that move it most, up or down, per
    standard deviation of theirs over the training rows. The universe is the model's landmarks: a panel is no random
    part of the genome, and against the genome every set that it is rich in would pass. The test is Fisher's exact
    test, one-sided, for each gene and each set of 5 landmarks or more.

    Parameters
    ----------
    adata
        Explained data; reads `varm["gexinfer_influence_" + key]` and `uns["gexinfer_explained"]`.
    gene_sets
        The genes of each set by its name, e.g. from `gexinfer.io.read_gmt`.
    key
        Name of the model; the only one explained where it is not given.
    genes
        The targets to test: a bool column of `var`, or names; all that were explained where it is not given.
    top
        How many landmarks of each target; fewer where fewer move it at all.
    symbols
        Column of `var` with the names by which the sets know genes, e.g. `"symbol"` where `var_names` are Ensembl ids;
        `var_names` where it is not given.

    Returns
    -------
    One row for each target and set that share a top landmark, ordered by p within the target; `uns` gets it, too, as
    `uns["gexinfer_enrichment"]`:

    `gene`, `gene_set`
        The target and the set.
    `overlap`, `in_set`, `expected`
        Top landmarks in the set, landmarks in the set, and how many of the top ones would be by chance.
    `odds_ratio`
        Odds that a top landmark is in the set, over those of the other landmarks; inf where none of them is.
    `p`, `fdr`
        Of the test, and after Benjamini and Hochberg over all sets tested for this target. It holds within a target; of
        many targets some will pass by chance.
    `landmarks`
        The top landmarks in the set, the most influential first.

    Raises
    ------
    KeyError
        The model was not explained, or `var` has no such column or gene.
    TypeError
        `gene_sets` is a path or anything else that is no mapping.
    ValueError
        No set holds 5 landmarks, `top` is not less than the landmarks, or a gene was not explained.

    References
    ----------
    Benjamini, Hochberg, Journal of the Royal Statistical Society B 1995, 57:289 :cite:p:`benjamini1995`.

    Examples
    --------
    >>> influence = gx.tl.explain(ref, "ridge")
    >>> sets = {"cell cycle": ["CCNF", "CDC25A", "CDK7", "CHEK2", "GMNN", "LIG1", "POLE2", "RFC5", "TIMELESS"]}
    >>> table = gx.tl.enrich(ref, sets, "ridge", genes=["CLSPN", "NEK2"], top=10)
    >>> table[["gene", "gene_set", "overlap", "expected", "p"]].round(3)
        gene    gene_set  overlap  expected      p
    0  CLSPN  cell cycle        4     0.957  0.007
    1   NEK2  cell cycle        4     0.957  0.007
    """
    check_in_memory(adata)
    if not isinstance(gene_sets, Mapping):
        raise TypeError(
            f"gene_sets is a {type(gene_sets).__name__}; pass the sets by name, of a file gexinfer.io.read_gmt(path)."
        )
    name, entry, influence = explained(adata, key)
    influence = influence.loc[chosen(genes, adata, influence.index, name)]
    n = influence.shape[1]
    if isinstance(top, bool) or not isinstance(top, int | np.integer) or not 1 <= top < n:
        raise ValueError(f"top={top!r} must be a whole number of at least 1 and below the {n:,} landmarks.")
    members = membership(gene_sets, names_in_sets(adata, influence.columns, symbols))
    members = members.loc[members.sum(axis=1) >= FEWEST]
    if members.empty:
        raise ValueError(
            f"None of the {len(gene_sets):,} gene sets holds {FEWEST} or more of the {n:,} landmarks, which start with "
            f"{listed(list(influence.columns), 3)}. If the sets know genes by another kind of id, name the column of "
            "adata.var that holds it: symbols=."
        )
    table = tested(influence * entry["landmarks"]["sd"].to_numpy(), members, int(top))
    adata.uns[ENRICHMENT] = table
    return table.copy()


def names_in_sets(adata: AnnData, landmarks: pd.Index, symbols: str | None) -> list[str]:
    """Return the name of each landmark in gene sets, empty where `var` has none."""
    if symbols is None:
        return list(landmarks)
    if symbols not in adata.var:
        raise KeyError(f"adata.var has no column {symbols!r}; it has {listed(list(adata.var.columns), 20)}.")
    places = locate(list(landmarks), adata.var_names)
    known = adata.var[symbols].astype(object).fillna("").astype(str).to_numpy()
    return [known[at] if at >= 0 else "" for at in places]


def membership(gene_sets: Mapping[str, Sequence[str]], names: list[str]) -> pd.DataFrame:
    """Return sets x landmarks, whether each landmark is in each set."""
    held = {str(name): set(genes) for name, genes in gene_sets.items()}
    return pd.DataFrame([[gene in genes for gene in names] for genes in held.values()], list(held), dtype=bool)


def tested(strength: pd.DataFrame, members: pd.DataFrame, top: int) -> pd.DataFrame:
    """Return the table of all targets and sets with an overlap."""
    from scipy.stats import false_discovery_control, hypergeom

    n, landmarks = strength.shape[1], strength.columns.to_numpy().astype(str)
    order = np.argsort(-np.abs(strength.to_numpy()), axis=1, kind="stable")
    # What does not move a gene is none of its top landmarks, however few there are.
    drawn = np.minimum((strength != 0).sum(axis=1).to_numpy(), top)
    best = [places[:k] for places, k in zip(order, drawn, strict=True)]
    held = members.to_numpy()
    in_set = held.sum(axis=1)
    overlap = np.stack([held[:, places].sum(axis=1) for places in best])
    # Fisher's one-sided test is the tail of this distribution.
    p = hypergeom.sf(overlap - 1, n, in_set, drawn[:, None])
    fdr = false_discovery_control(p, axis=1)
    gene, of = np.nonzero(overlap)
    both, only_top = overlap[gene, of], drawn[gene] - overlap[gene, of]
    only_set = in_set[of] - both
    with np.errstate(divide="ignore"):
        odds = both * (n - drawn[gene] - only_set) / (only_top * only_set).astype(float)
    table = pd.DataFrame(
        {
            "gene": strength.index.to_numpy().astype(str)[gene],
            "gene_set": members.index.to_numpy().astype(str)[of],
            "overlap": both,
            "in_set": in_set[of],
            "expected": drawn[gene] * in_set[of] / n,
            "odds_ratio": odds,
            "p": p[gene, of],
            "fdr": fdr[gene, of],
            "landmarks": [", ".join(landmarks[best[g][held[s, best[g]]]]) for g, s in zip(gene, of, strict=True)],
        }
    )
    order_of = pd.DataFrame({"gene": gene, "p": table["p"], "overlap": -both})
    return table.loc[order_of.sort_values(["gene", "p", "overlap"], kind="stable").index].reset_index(drop=True)
