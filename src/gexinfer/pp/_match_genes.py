from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._names import listed
from gexinfer._slots import MATCHED_FROM, check_loaded, layer_names
from gexinfer.engine.blocks import in_row_order, row_slices, taken
from gexinfer.engine.report import say, warn
from gexinfer.pp._panels import FEWEST, as_ids, names_of

# What a name is looked up as, the first choice first, and the column of the table that holds it.
KINDS = {"symbol": "symbol", "alias": "aliases", "Ensembl id": "ensembl", "Entrez id": "entrez", "probe": "probes"}
# More unmatched columns than this share are a table of another kind rather than a few odd names.
MANY_UNMATCHED = 0.1
# Numbers of which fewer are Entrez ids are more likely numbers of rows.
FEWEST_NUMBERS = 0.5


def match_genes(
    adata: AnnData,
    to: Literal["symbol", "ensembl", "entrez"] = "symbol",
    *,
    id_column: str | None = None,
    aggregate: Literal["mean", "sum"] = "mean",
    unmatched: Literal["drop", "keep"] = "drop",
    copy: bool = False,
) -> AnnData | None:
    """Name the genes by one kind of id, one column for each gene.

    Each name is recognised by itself as the symbol, an alias, the Ensembl id (a version suffix is ignored) or the
    Entrez id of a human gene, or as a probe of the Affymetrix U133A array, so names may be mixed. A symbol goes
    before an alias: an alias does not match where another column bears the gene's own symbol. What several genes go
    by, as some probes do, matches none of them.

    Columns of one gene, such as its probes, become one. It stands where the first of them stood and has its `var` and
    `varm`; bool columns of `var`, such as the landmarks, are True where they are for any of them. A NaN in one of them
    makes the sample's value NaN.

    The table in the package holds 40,133 human genes, with symbols and Ensembl ids of about 2014 and today's symbols
    of the L1000 landmarks; newer names of other genes do not match.

    Parameters
    ----------
    adata
        Annotated data, samples x genes, in any units.
    to
        The kind of id that `var_names` shall hold: `"symbol"`, `"ensembl"` or `"entrez"`.
    id_column
        Column of `var` with gene ids; `var_names` where it is not given.
    aggregate
        `"mean"` averages columns of one gene, as the D-GEX paper did with log2 values of probes; `"sum"` adds them up,
        which is right for counts: those of integers and bools are int64 at least, of float16 float32.
    unmatched
        `"drop"` leaves out columns that match no gene, or a gene without an id of the kind wanted; `"keep"` keeps
        them as they are, under their own names.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes `var_names`; `X` and each layer, averaged or summed, with as many columns as there are
    genes (sparse stays sparse); and `var["gexinfer_matched_from"]`, the names that each column had before, with "|"
    between them. `varm`, `varp` and `var`, but for its bool columns, keep the rows of the first columns; `raw` is left
    alone.

    Raises
    ------
    KeyError
        `id_column` is not in `var`.
    ValueError
        An option is none of those above, almost no name matches, the names are numbers of which fewer than half
        match, a column that is kept has the name of another, or the data are on disk.

    Warns
    -----
    UserWarning
        More than a tenth of the columns match no gene and are dropped; names the first.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> ref.var_names = ref.var["ensembl"].to_list()
    >>> gx.pp.match_genes(ref, to="symbol")
    >>> ref.var["gexinfer_matched_from"].head(2).to_dict()
    {'A2M': 'ENSG00000175899', 'ABCC5': 'ENSG00000114770'}
    """
    check_loaded(adata)
    for name, value, allowed in (
        ("to", to, ("symbol", "ensembl", "entrez")),
        ("aggregate", aggregate, ("mean", "sum")),
        ("unmatched", unmatched, ("drop", "keep")),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}.")
    names, source = names_of(adata, id_column)
    table = genes()
    found = look_up(as_ids(names, source))
    ids = table[to].str.split("|").str[0].to_numpy(object)
    wanted = np.where(found["gene"] >= 0, ids[found["gene"]], "")
    matched = wanted != ""
    refuse_accidents(names, source, found["gene"].to_numpy() >= 0, matched, to)
    kept = np.flatnonzero(matched | (unmatched == "keep"))
    # One group for each gene, and one for each column that is kept under its own name.
    of_one = np.where(matched, pd.factorize(wanted)[0], len(names) + np.arange(len(names)))[kept]
    group, first = pd.factorize(of_one)[0], ~pd.Series(of_one).duplicated().to_numpy()
    new_names = pd.Index(np.where(matched, wanted, adata.var_names.astype(str))[kept][first])
    if not new_names.is_unique:
        twice = new_names[new_names.duplicated()].unique()
        raise ValueError(
            f"unmatched='keep' would call several columns {listed(twice)}: columns that match no gene have that name "
            "already. Rename those in adata.var_names, or pass unmatched='drop'."
        )
    before = pd.Series(names[kept]).groupby(group).agg("|".join).to_numpy(object)
    # Whichever of a gene's columns is flagged, the gene is: no matter which of them comes first.
    flags = adata.var.select_dtypes(["bool", "boolean"]).iloc[kept].groupby(group).max()
    matrices = {layer: joined(adata.layers[layer], kept, group, aggregate) for layer in layer_names(adata)}
    X = None if adata.X is None else joined(adata.X, kept, group, aggregate)

    adata = adata.copy() if copy else adata
    adata._inplace_subset_var(kept[first])
    adata.var_names = new_names
    for column in flags:
        adata.var[column] = flags[column].array
    adata.var[MATCHED_FROM] = before
    adata.X = X
    for layer, values in matrices.items():
        adata.layers[layer] = values

    n_genes = len(np.unique(wanted[matched]))
    line = result_line(names, source, found, matched, to, n_genes, "kept" if unmatched == "keep" else "dropped")
    if (~matched).mean() > MANY_UNMATCHED and unmatched == "drop":
        warn(f"{line}. unmatched='keep' leaves them as they are.")
    else:
        say(line)
    return adata if copy else None


def refuse_accidents(
    names: pd.Index, source: str, known: NDArray[np.bool_], matched: NDArray[np.bool_], to: str
) -> None:
    """Refuse names of which so few match that they do so by accident; `known` are those of a human gene."""
    if not matched.any() or matched.mean() < FEWEST:
        raise ValueError(
            f"{matched.sum():,} of the {len(names):,} names in {source} match a human gene that has a known {to}. "
            f"{source} starts with {listed(names, 3)}. Pass the column of adata.var that holds symbols, Ensembl ids, "
            "Entrez ids or probes of U133A as id_column=."
        )
    if known.mean() < FEWEST_NUMBERS and as_ids(names, source).str.isdecimal().all():
        raise ValueError(
            f"{source} holds numbers only, of which {known.sum():,} of {len(names):,} are Entrez ids of human genes: "
            f"{listed(names, 3)}. Row numbers match so by accident. Set adata.var_names to the gene ids, or name their "
            "column with id_column=. If these are Entrez ids, leave out those of no human gene first."
        )


def result_line(
    names: pd.Index, source: str, found: pd.DataFrame, matched: NDArray[np.bool_], to: str, n_genes: int, others: str
) -> str:
    """Return how many names matched as what, and which did not and what became of them."""
    kinds = ", ".join(f"{n:,} by {kind}" for kind, n in found.loc[matched, "kind"].value_counts().items())
    line = f"match_genes: {matched.sum():,} of {len(names):,} names in {source} found ({kinds}), which are "
    line += f"{n_genes:,} genes"
    if not matched.all():
        reasons = {"ambiguous": found["ambiguous"], f"without a known {to}": (found["gene"] >= 0) & ~matched}
        counts = [f"{mask.sum():,} {reason}" for reason, mask in reasons.items() if mask.any()]
        line += f"; {(~matched).sum():,} others {others}"
        line += (f" ({', '.join(counts)})" if counts else "") + f": {listed(names[~matched])}"
    return line


@cache
def genes() -> pd.DataFrame:
    """Return the bundled table: symbol, aliases, Ensembl and Entrez ids and probes of each gene, "|" between them."""
    with (files("gexinfer.pp") / "genes.tsv.gz").open("rb") as file:
        return pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, compression="gzip")


@cache
def ids_of_genes() -> tuple[pd.DataFrame, pd.Index]:
    """Return each id of one gene, with the gene's row and the rank of its kind, and the ids of several genes."""
    table = genes()
    columns = [table[column].str.split("|") for column in KINDS.values()]
    found = [
        (name, gene, rank) for rank, column in enumerate(columns) for gene, names in enumerate(column) for name in names
    ]
    ids = pd.DataFrame(found, columns=["id", "gene", "rank"]).query("id != ''")
    # Of an id that is a symbol here and an alias there, the symbol counts: ranks ascend.
    best = ids.drop_duplicates("id").set_index("id")
    ids = ids[ids["rank"].to_numpy() == best["rank"][ids["id"]].to_numpy()]
    several = pd.Index(ids.loc[ids["id"].duplicated(), "id"].unique())
    return best[~best.index.isin(several)], several


def look_up(names: pd.Index) -> pd.DataFrame:
    """Return for each name the row of its gene (-1: none), as which kind of id it was found, and if it is ambiguous."""
    best, several = ids_of_genes()
    known = best.reindex(names)
    gene = known["gene"].fillna(-1).to_numpy(int)
    rank = known["rank"].to_numpy()
    aliases = rank == list(KINDS).index("alias")
    yields = aliases & np.isin(gene, gene[rank == 0])
    return pd.DataFrame(
        {
            "gene": np.where(yields, -1, gene),
            "kind": pd.Series(rank).map(dict(enumerate(KINDS))),
            "ambiguous": names.isin(several) | yields,
        }
    )


def joined(X: Any, kept: np.ndarray, group: np.ndarray, aggregate: str) -> Any:
    """Return a matrix whose columns are the means or sums of groups of columns; sparse stays sparse."""
    n = group.max() + 1
    if n == len(kept):
        return taken(X, slice(None), kept)
    whole = aggregate == "sum" and X.dtype.kind in "biu"
    # A sum of uint8 does not fit into uint8; uint64 and int64 have no integer in common.
    dtype = X.dtype if X.dtype == np.uint64 and whole else np.result_type(X.dtype, np.int64 if whole else np.float32)
    counts = np.bincount(group).astype(dtype)
    to_genes = sp.csr_matrix((np.ones(len(group), dtype), (kept, group)), shape=(X.shape[1], n))
    if sp.issparse(X):
        total = in_row_order(X.astype(dtype, copy=False)) @ to_genes
        if aggregate == "mean":
            total.data /= counts[total.indices]
        return total
    joint = np.empty((X.shape[0], n), dtype)
    for part in row_slices(X.shape[0]):
        block = taken(X, part)
        total = (block.toarray() if sp.issparse(block) else block).astype(dtype, copy=False) @ to_genes
        joint[part] = total / counts if aggregate == "mean" else total
    return joint
