"""Landmark panels: the bundled table, files and lists, as one table of ids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed, without_version

# The header names under which panel files in circulation keep their ids.
HEADERS = {
    *("symbol", "gene_symbol", "hgnc_symbol", "pr_gene_symbol", "gene", "genes", "gene_name", "name"),
    *("ensembl", "ensembl_id", "gene_id", "gene_ids", "entrez", "entrez_id", "pr_gene_id", "id"),
}
# Below this share, what matched did so by accident.
FEWEST = 0.02


@dataclass(frozen=True)
class Panel:
    """Genes in order, and every id by which each may be called: (position, id, rank), rank 0 the first choice."""

    name: str
    genes: list[str]
    symbols: pd.DataFrame
    ensembl: pd.DataFrame
    entrez: pd.DataFrame


def bundled() -> pd.DataFrame:
    """Return the 978 L1000 landmarks with symbol, aliases, Ensembl and Entrez ids."""
    with (files("gexinfer.pp") / "panels.tsv").open() as file:
        return pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False)


def as_ids(names: pd.Index, source: str) -> pd.Index:
    """Return names as ids are written: no version, no ".0"; row numbers are refused."""
    if len(names) > 1 and names.str.isdecimal().all() and (np.diff(names.astype(int)) == 1).all():
        raise ValueError(
            f"{source} holds row numbers {names[0]} to {names[-1]}, not gene ids (as Entrez ids they would match by "
            f"accident). Set adata.var_names to the gene ids, or name their column with id_column=."
        )
    # "7157.0" is what an integer column with missing values turns into.
    return without_version(names).str.replace(r"^(\d+)\.0$", r"\1", regex=True)


def names_of(adata: AnnData, id_column: str | None) -> tuple[pd.Index, str]:
    """Return the names of the genes, and for messages where they stand."""
    if id_column is None:
        return adata.var_names.astype(str), "var_names"
    if id_column not in adata.var:
        raise KeyError(f"adata.var has no column {id_column!r}; it has {listed(adata.var.columns, 20)}.")
    return pd.Index(adata.var[id_column]).astype(str), f"var[{id_column!r}]"


def load_panel(panel: str | Path | Iterable[str]) -> Panel:
    """Return a panel from its name, a file, or a list of ids."""
    table = bundled()
    if isinstance(panel, str) and panel in ("l1000", "dgex943"):
        chosen = table if panel == "l1000" else table[table["dgex943"] == "True"]
        return from_table(panel, chosen)
    if isinstance(panel, str | Path):
        if not Path(panel).is_file():
            raise ValueError(
                f"panel={str(panel)!r} is neither 'l1000', 'dgex943' nor a file; a list of genes works too."
            )
        ids, name = read_ids(Path(panel)), Path(panel).name
    else:
        given = list(panel)
        if not all(isinstance(gene, str | int) and not isinstance(gene, bool) for gene in given):
            raise TypeError(
                f"panel starts with {given[:3]}; it must list gene ids. For a mask write adata.var['landmark'] = mask."
            )
        ids, name = [str(gene).strip() for gene in given], "the given list"
    ids = list(dict.fromkeys(gene for gene in ids if gene))
    if not ids:
        raise ValueError(f"panel={name!r} holds no gene.")
    return from_table(name, described(ids, table))


def read_ids(path: Path) -> list[str]:
    """Return the first column of a text file, its header left out."""
    separator = "," if path.suffix == ".csv" else "\t"
    rows = [
        line.split(separator) for line in path.read_text("utf-8-sig").splitlines() if line.strip() and line[0] != "#"
    ]
    ids = [row[0].strip().strip('"') for row in rows]
    return ids[1:] if ids and ids[0].lower() in HEADERS else ids


def described(ids: list[str], table: pd.DataFrame) -> pd.DataFrame:
    """Return a panel table for bare ids, with what the bundled table knows of them."""
    known: dict[str, int] = {}
    for column in ("entrez", "ensembl", "aliases", "symbol"):
        for row, names in enumerate(table[column]):
            known |= dict.fromkeys((name for name in names.split("|") if name), row)
    rows = []
    for gene, stem in zip(ids, without_version(pd.Index(ids)), strict=True):
        if stem in known:
            row = table.iloc[known[stem]].to_dict()
            aliases = [row["symbol"], *row["aliases"].split("|")]
            rows.append(row | {"symbol": gene, "aliases": "|".join(a for a in aliases if a and a != gene)})
        else:
            ensembl, entrez = stem if stem.startswith("ENS") else "", gene if gene.isdigit() else ""
            rows.append({"symbol": gene, "aliases": "", "ensembl": ensembl, "entrez": entrez})
    return pd.DataFrame(rows)


def from_table(name: str, table: pd.DataFrame) -> Panel:
    def ids(*columns: str) -> pd.DataFrame:
        found = [
            (position, gene, rank)
            for position, cells in enumerate(zip(*(table[column] for column in columns), strict=True))
            for rank, gene in enumerate(gene for cell in cells for gene in cell.split("|") if gene)
        ]
        return pd.DataFrame(found, columns=["position", "id", "rank"])

    return Panel(name, table["symbol"].tolist(), ids("symbol", "aliases"), ids("ensembl"), ids("entrez"))
