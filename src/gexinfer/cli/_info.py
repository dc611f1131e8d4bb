from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gexinfer.cli._arguments import Json
from gexinfer.cli._contents import contents
from gexinfer.cli._messages import told
from gexinfer.cli._tables import print_json, put


def info(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="A .h5ad, .zarr, .h5mu or .safetensors, or a GCT or GCTX.")
    ],
    *,
    as_json: Json = False,
) -> None:
    """Say what a file holds: samples, genes, landmarks, split, layers and models.

    Matrices are not read, but those of a GCT and of a gzipped GCTX.
    """
    with told("info"):
        found = contents(path)
        if as_json:
            print_json(found)
            return
        for name, part in found.get("modalities", {"": found}).items():
            show(part, str(path) + (f", {name}" if name else ""))


def show(found: dict[str, Any], title: str) -> None:
    """Print what was found in a file, or in one modality of it."""
    from gexinfer._slots import SIDES

    lines = [title]
    if "n_samples" in found:
        split, n = found["split"], found["n_landmarks"]
        lines = [f"{title}: {found['n_samples']:,} samples x {found['n_genes']:,} genes"]
        lines.append(f"landmarks: {'not flagged' if n is None else f'{n:,}'}")
        sides = ", ".join(f"{split[side]:,} {side}" for side in SIDES) + f" ({split['by']})" if split else "none"
        lines.append(f"split: {sides}")
        if found["roles"]:
            lines.append("predicted: " + ", ".join(f"{n:,} {role}" for role, n in found["roles"].items()))
        names = [layer["name"] + " (inferred)" * layer["inferred"] for layer in found["layers"]]
        lines.append(f"layers: {', '.join(names) or 'none'}")
    if not found["models"]:
        lines.append("models: none")
    put("\n".join(lines))
    models = [model for model in found["models"] if "error" not in model]
    if models:
        put(grid(models))
    for model in found["models"]:
        if "error" in model:
            put(f"{model['key']}: {model['error']}")


def grid(models: list[dict[str, Any]]) -> Table:
    """Return what of the models fits 80 characters; the JSON has all of it."""
    notes = "From so many landmarks to so many targets. MAE: on validation rows, in standard deviations."
    if any(model["holds_samples"] for model in models):
        notes += " A model with samples holds expression profiles, which identify people: mind whom it goes to."
    grid = Table(caption=notes, caption_justify="left")
    grid.add_column("model", overflow="fold", min_width=8)
    for title in ("from", "to", "trusted", "rows", "MAE"):
        grid.add_column(title, justify="right")
    for title in ("layer", "samples", "version"):
        grid.add_column(title, overflow="fold")
    for model in models:
        key, method = model["key"] or model["method"], model["method"]
        trusted, mae = model["n_trusted"], model["validation_mae"]
        grid.add_row(
            key if key == method else f"{key} ({method})",
            f"{model['n_landmarks']:,}",
            f"{model['n_targets']:,}",
            "–" if trusted is None else f"{trusted:,}",
            f"{model['n_train']:,}",
            "–" if mae is None else f"{mae:.3f}",
            model["layer"] + ", counts" * model["counts"],
            "yes" if model["holds_samples"] else "no",
            model["gexinfer"],
        )
    return grid
