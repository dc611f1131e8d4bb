"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gexinfer.methods import METHODS


class Adapt(StrEnum):
    """How a query is brought to the scale of the training rows."""

    NONE = "none"
    QUANTILE = "quantile"
    MOMENTS = "moments"


class Output(StrEnum):
    """What inferred values are written to."""

    LAYER = "layer"
    ANNDATA = "anndata"
    MUDATA = "mudata"
    DISK = "disk"


class Dtype(StrEnum):
    """What a store on disk holds."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


PANELS = {
    "l1000": "the landmarks of LINCS (Subramanian et al., Cell 2017)",
    "dgex943": "those of them that the D-GEX paper used (Chen et al., Bioinformatics 2016)",
}
# Under which titles a long --help lists its options.
DATA, NETWORKS, RESULT = "What is read", "Networks", "What is written"


def complete_panel(incomplete: str) -> list[str]:
    """Complete the name of a panel; a shell adds files by itself."""
    return [name for name in PANELS if name.startswith(incomplete)]


def complete_method(incomplete: str) -> list[str]:
    """Complete the name of a method."""
    return [name for name in METHODS if name.startswith(incomplete)]


def complete_methods(incomplete: str) -> list[str]:
    """Complete the last of several methods with commas between them."""
    before, comma, last = incomplete.rpartition(",")
    return [before + comma + name for name in complete_method(last)]


def check_methods(names: list[str]) -> list[str]:
    """Refuse what is no method, and one that is named twice, as a command line that cannot be read."""
    for name in names:
        if name not in METHODS:
            raise typer.BadParameter(f"{name!r} is not a method; choose of {', '.join(METHODS)}.")
        if names.count(name) > 1:
            raise typer.BadParameter(f"{name!r} is named twice; name it once.")
    return names


def methods_of(text: str) -> list[str]:
    """Return the methods that commas separate."""
    return [name.strip() for name in text.split(",")]


Input = Annotated[Path, typer.Argument(metavar="FILE", help="Input: .h5ad, .zarr, or a GCT or GCTX.")]
Layer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Layer with the values; X where not given.", rich_help_panel=DATA),
]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the split and of the training.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, or any torch device.")]
Panel = Annotated[
    str | None,
    typer.Option(
        metavar="PANEL",
        autocompletion=complete_panel,
        help="Landmarks where var['landmark'] is absent: l1000 (where not given), dgex943, or a file, one gene a line.",
        rich_help_panel=DATA,
    ),
]
IdColumn = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Column of var with the gene ids by which the panel is found; the names of the genes where not given.",
        rich_help_panel=DATA,
    ),
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN",
        help="Where obs['split'] is absent, split so that no group of this column of obs is divided, e.g. donor.",
        rich_help_panel=DATA,
    ),
]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the whole table as CSV.", rich_help_panel=RESULT)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document in place of the table.")]
