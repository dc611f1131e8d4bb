from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import LANDMARK, check_in_memory
from gexinfer.engine.report import say, warn
from gexinfer.pp._panels import FEWEST, Panel, as_ids, load_panel, names_of


def landmarks(
    adata: AnnData,
    panel: str | Path | Iterable[str] = "l1000",
    *,
    id_column: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Flag the landmark genes: those measured, from which the others are inferred.

    Symbols (with their known aliases), Ensembl ids (a version suffix is ignored) and Entrez ids are tried, and the kind
    that finds most genes is used. Where a landmark matches several genes, the one under its own symbol, else the first,
    is flagged.

    Parameters
    ----------
    adata
        Annotated data, samples x genes.
    panel
        `"l1000"`, the 978 landmarks of LINCS; `"dgex943"`, the 943 of them that the D-GEX paper used; the path of a
        text file, one gene a line or in its first column; or a list of genes.
    id_column
        Column of `var` with gene ids; `var_names` where it is not given.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes `var["landmark"]`, bool.

    Raises
    ------
    KeyError
        `id_column` is not in `var`.
    TypeError
        The panel lists something other than ids.
    ValueError
        The panel is unknown, or almost none of its genes match.

    Warns
    -----
    UserWarning
        Some landmarks are missing, or match several genes; names them.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017` (L1000); Chen et al., Bioinformatics 2016, 32:1832
    :cite:p:`chen2016` (D-GEX).

    Examples
    --------
    >>> bulk = gx.datasets.bulk()
    >>> gx.pp.landmarks(bulk, panel="l1000")
    >>> bulk.var["landmark"].value_counts().to_dict()
    {False: 2000, True: 978}
    >>> gx.pp.landmarks(bulk, panel=["TP53", "MYC", "EGFR"])
    >>> bulk.var_names[bulk.var["landmark"]].tolist()
    ['EGFR', 'MYC', 'TP53']
    """
    check_in_memory(adata)
    wanted = load_panel(panel)
    names, source = names_of(adata, id_column)
    places, kind, shared = match(wanted, names, source)

    adata = adata.copy() if copy else adata
    flagged = np.zeros(adata.n_vars, bool)
    flagged[places[places >= 0]] = True
    adata.var[LANDMARK] = flagged

    found = f"landmarks: {(places >= 0).sum():,} of {len(places):,} genes of {wanted.name} found by {kind} in {source}"
    missing = [gene for gene, place in zip(wanted.genes, places, strict=True) if place < 0]
    if missing:
        warn(f"{found}; missing: {listed(missing, 50)}.")
    else:
        say(found)
    if shared:
        warn(
            f"{len(shared):,} landmarks match more than one gene by {kind} in {source}: {listed(shared)}. One of "
            "each is flagged; the others are the same gene and as targets would copy an input: sum or drop them.",
        )
    return adata if copy else None


def match(panel: Panel, names: pd.Index, source: str) -> tuple[np.ndarray, str, list[str]]:
    """Return the place of each landmark (-1: none), the kind of id that found most, and landmarks found twice."""
    names = as_ids(names, source)
    tries = {"symbol": panel.symbols, "Ensembl id": panel.ensembl, "Entrez id": panel.entrez}
    hits = {kind: find(ids, names) for kind, ids in tries.items()}
    kind = max(hits, key=lambda k: hits[k]["position"].nunique())
    best = hits[kind]
    found = best["position"].nunique()
    if found == 0 or found < FEWEST * min(len(panel.genes), len(names)):
        raise ValueError(
            f"{found} of the {len(panel.genes):,} landmarks of {panel.name} match {source}. {source} starts with "
            f"{listed(names, 3)}; the panel with {listed(panel.genes, 3)}. Pass the column of adata.var that holds "
            f"symbols, Ensembl ids or Entrez ids as id_column=."
        )
    places = np.full(len(panel.genes), -1)
    first = best.drop_duplicates("position")
    places[first["position"]] = first["place"]
    shared = best["position"][best["position"].duplicated()].unique()
    return places, kind, [panel.genes[i] for i in shared]


def find(ids: pd.DataFrame, names: pd.Index) -> pd.DataFrame:
    """Return all (position in the panel, place among names), the preferred id of a landmark first."""
    genes = pd.DataFrame({"id": names, "place": np.arange(len(names))})
    return ids.merge(genes, on="id").sort_values(["position", "rank", "place"], kind="stable")
