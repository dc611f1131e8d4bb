from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gexinfer.cli._arguments import Device, Input
from gexinfer.cli._files import check_out, read, read_models
from gexinfer.cli._messages import told
from gexinfer.cli._steps import check_device


def report(
    path: Input,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The page, .html.")],
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Fitted .h5ad, .zarr or .safetensors, judged on all samples of the input; the input itself, judged "
            "on its test rows, where not given.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model; that with the lowest validation error where not given."),
    ] = None,
    groupby: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Tell errors apart by the groups of this column of obs, e.g. tissue."),
    ] = None,
    device: Device = "auto",
) -> None:
    """Write one HTML page about a model: errors, intervals, trust, warnings, provenance."""
    import gexinfer as gx
    from gexinfer.engine.report import say

    with told("report"):
        check_out(out, ".html")
        check_device(device)
        source = None if model is None else read_models(model)
        gx.io.write_report(read(path), out, model=source, key=key, groupby=groupby, device=device)
        say(f"Wrote {out}")
