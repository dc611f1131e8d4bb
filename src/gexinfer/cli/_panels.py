from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from gexinfer.cli._arguments import PANELS, Json, complete_panel
from gexinfer.cli._contents import gene_table
from gexinfer.cli._messages import told
from gexinfer.cli._tables import print_json, put

if TYPE_CHECKING:
    import pandas as pd

    from gexinfer.pp._panels import Panel


def panels(
    panel: Annotated[
        str | None,
        typer.Argument(
            metavar="PANEL",
            autocompletion=complete_panel,
            help="l1000, dgex943, or a file with one gene a line. Without --in its genes are printed, separated by "
            "tabs.",
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            "--in",
            metavar="FILE",
            help="Say how many genes of each panel, or of PANEL, a .h5ad, .zarr, GCT or GCTX has, and by which ids.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the landmark panels of the package, the genes of one, or what a file has of them."""
    from gexinfer.pp._panels import load_panel

    with told("panels"):
        known = {name: load_panel(name) for name in ([panel] if panel else PANELS)}
        if data is not None:
            var = gene_table(data)
            found = [found_in(var, name, held) for name, held in known.items()]
            hand_over({"path": str(data), "panels": found}, grid_of_found(found, str(data)), as_json=as_json)
        elif panel is None:
            there = [{"panel": name, "n_genes": len(known[name].genes), "source": PANELS[name]} for name in known]
            hand_over({"panels": there}, grid_of_panels(there), as_json=as_json)
        else:
            genes = genes_of(known[panel])
            lines = [list(genes[0]), *(list(gene.values()) for gene in genes)]
            hand_over({"panel": panel, "genes": genes}, "\n".join(map("\t".join, lines)), as_json=as_json)


def hand_over(document: dict[str, Any], shown: Table | str, *, as_json: bool) -> None:
    """Print what was found, for programs or for people."""
    if as_json:
        print_json(document)
    else:
        put(shown)


def genes_of(panel: Panel) -> list[dict[str, str]]:
    """Return the genes of a panel with their ids; several of a kind with "|" between them."""
    ids = {
        kind: table.groupby("position")["id"].agg("|".join).to_dict()
        for kind, table in (("ensembl", panel.ensembl), ("entrez", panel.entrez))
    }
    return [
        {"symbol": gene, **{kind: by_place.get(place, "") for kind, by_place in ids.items()}}
        for place, gene in enumerate(panel.genes)
    ]


def found_in(var: pd.DataFrame, name: str, panel: Panel) -> dict[str, Any]:
    """Return by which ids, and for how many of its genes, a panel is found: the best first, and what that lacks."""
    import pandas as pd

    from gexinfer.pp._landmarks import match

    found: list[dict[str, Any]] = []
    lacking = panel.genes
    for column in (None, *var.columns):
        names = var.index if column is None else pd.Index(var[column])
        try:
            places, kind, _ = match(panel, names.astype(str), str(column))
        except ValueError:
            # Almost none, or numbers of rows.
            continue
        there = int((places >= 0).sum())
        if there > max((other["n_found"] for other in found), default=0):
            lacking = [gene for gene, place in zip(panel.genes, places, strict=True) if place < 0]
        found.append({"column": column, "ids": kind, "n_found": there})
    found.sort(key=lambda by: -by["n_found"])
    return {"panel": name, "n_genes": len(panel.genes), "found": found, "missing": lacking}


def grid_of_panels(panels: list[dict[str, Any]]) -> Table:
    """Return the panels there are."""
    grid = Table()
    grid.add_column("panel")
    grid.add_column("genes", justify="right")
    grid.add_column("what it is")
    for panel in panels:
        grid.add_row(panel["panel"], f"{panel['n_genes']:,}", panel["source"])
    return grid


def grid_of_found(panels: list[dict[str, Any]], path: str) -> Table:
    """Return what a file has of panels."""
    from gexinfer._names import listed

    grid = Table(title=f"Panels in {path}", title_justify="left")
    for title in ("panel", "ids", "in"):
        grid.add_column(title, overflow="fold")
    grid.add_column("genes", justify="right")
    grid.add_column("missing", overflow="fold")
    for panel in panels:
        rows = panel["found"] or [{"column": "–", "ids": "–", "n_found": 0}]
        for row in rows:
            column = "var_names" if row["column"] is None else row["column"]
            missing = listed(panel["missing"]) if row is rows[0] else ""
            grid.add_row(panel["panel"], row["ids"], column, f"{row['n_found']:,} of {panel['n_genes']:,}", missing)
    return grid
