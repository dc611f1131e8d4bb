from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gexinfer.cli._arguments import DATA, RESULT, Csv, Input, Json
from gexinfer.cli._files import read
from gexinfer.cli._messages import told
from gexinfer.cli._tables import check_results, hand_over


def evaluate(
    path: Input,
    *,
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Name of a model; may be repeated. All that have predictions where not given.",
            rich_help_panel=DATA,
        ),
    ] = None,
    groupby: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Also tell errors apart by the groups of this column of obs, e.g. tissue; may be repeated.",
            rich_help_panel=DATA,
        ),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Also find the genes that a model infers well enough to be recognised, for gexinfer predict "
            "--trusted-only. Needs --out, and --key where there are several models.",
        ),
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of the bootstrap intervals.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the data with the scores of each gene and sample, .h5ad or .zarr.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    csv: Csv = None,
    as_json: Json = False,
) -> None:
    """Measure predictions against measured values on the test rows."""
    import gexinfer as gx
    from gexinfer._slots import GROUPS

    with told("evaluate"):
        check_results(csv, out)
        if trust and out is None:
            raise ValueError("--trust writes into the model; say with --out where the data with it go.")
        if trust and key and len(key) > 1:
            raise ValueError(f"--trust is for one model, but --key names {', '.join(key)}; evaluate them in turn.")
        adata = read(path)
        if trust:
            gx.tl.trust(adata, key=key[0] if key else None)
        table = gx.tl.evaluate(adata, key=key, groupby=groupby, rng=seed)
        groups = adata.uns[GROUPS] if groupby else None
        hand_over(table, csv, adata, out, groups=groups, as_json=as_json)
