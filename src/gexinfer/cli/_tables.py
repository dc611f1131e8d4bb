"""What goes to stdout: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleRenderable
from rich.table import Table

from gexinfer.cli._files import check_out, whole, write

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

console = Console()


def put(shown: str | ConsoleRenderable) -> None:
    """Print to stdout: text as it is, anything else laid out for the terminal."""
    if not isinstance(shown, str):
        with console.capture() as caught:
            console.print(shown)
        shown = caught.get().removesuffix("\n")
    try:
        print(shown, flush=True)
    except BrokenPipeError:
        # Whoever reads, such as head, has seen enough, which is no error: files are written by now. The rest goes
        # nowhere, so that Python does not try once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document; what is undefined is null, because JSON knows no NaN."""
    put(json.dumps(plain(document), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """Return a value as what JSON knows."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def check_results(csv: Path | None, out: Path | None) -> None:
    """Refuse files for a table and its data that could not be written."""
    check_out(csv, ".csv")
    check_out(out, ".h5ad", ".zarr")


def hand_over(
    table: pd.DataFrame,
    csv: Path | None,
    adata: AnnData,
    out: Path | None,
    *,
    groups: pd.DataFrame | None = None,
    as_json: bool,
) -> None:
    """Write a table and its data where that was asked for, then print it."""
    if csv is not None:
        write_csv(table, csv)
    if out is not None:
        write(adata, out)
    show(table, groups, as_json=as_json)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table of models."""
    with whole(path) as partial:
        table.to_csv(partial, index_label="model")


def show(table: pd.DataFrame, groups: pd.DataFrame | None = None, *, as_json: bool) -> None:
    """Print a table of models, and one of groups of samples: all of it as JSON, or what fits."""
    if as_json:
        document = {"models": table.rename_axis("model").reset_index().to_dict("records")}
        if groups is not None:
            document["groups"] = groups.to_dict("records")
        print_json(document)
        return
    put(grid(table))
    if groups is not None:
        put(grid_of_groups(groups))


def grid(table: pd.DataFrame) -> Table:
    """Return what of the overall table fits 80 characters; the CSV has all of it."""
    n, split_by = table["n_samples"].iloc[0], table["split_by"].iloc[0]
    held = {"random": "drawn at random", "by hand": "chosen by hand"}.get(split_by, f"split {split_by}, none divided")
    # With few groups to draw there is no interval.
    spread = {"half": "± 95 %"} if table["mae_low"].notna().any() else {"mae_sd": "± sd"}
    told = "± 95 %: half its bootstrap interval." if "half" in spread else "± sd: over genes."
    grid = Table(
        title=f"Error on {n:,} test samples ({held})",
        caption=f"MAE: mean over genes, in standard deviations of the training rows; lower is better. {told}",
        title_justify="left",
        caption_justify="left",
    )
    table = table.assign(half=(table["mae_high"] - table["mae_low"]) / 2)
    columns = {"mae": "MAE", **spread, "pearson": "r", "r2": "R2"}
    baseline = "ridge" if "gain_over_ridge" in table else "ols"
    columns |= {f"gain_over_{baseline}": f"over {baseline}", f"better_than_{baseline}": "genes better"}
    columns |= {"fit_seconds": "fit, s"}
    columns = {name: title for name, title in columns.items() if name in table}
    grid.add_column("model", overflow="fold", min_width=9)
    for title in columns.values():
        grid.add_column(title, justify="right")
    for name, row in table.iterrows():
        cells = [
            f"{row[c]:.1%}" if c.startswith(("gain", "better")) else f"{row[c]:.{1 if c == 'fit_seconds' else 3}f}"
            for c in columns
        ]
        own = name == baseline
        grid.add_row(str(name), *("–" if c.startswith("nan") or own and c.endswith("%") else c for c in cells))
    return grid


def grid_of_groups(groups: pd.DataFrame) -> Table:
    """Return the MAE of each model in each group of samples."""
    grid = Table(title="MAE in groups of test samples", title_justify="left")
    models = list(dict.fromkeys(groups["model"]))
    for title in ("group", "samples"):
        grid.add_column(title, overflow="fold")
    for model in models:
        grid.add_column(model, justify="right", overflow="fold")
    for (column, group, n), rows in groups.groupby(["column", "group", "n_samples"], sort=False, observed=True):
        mae = dict(zip(rows["model"], rows["mae"], strict=True))
        grid.add_row(f"{column} {group}", f"{n:,}", *(f"{mae[m]:.3f}" if m in mae else "–" for m in models))
    return grid
