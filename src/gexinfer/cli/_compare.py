from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gexinfer.cli._arguments import (
    RESULT,
    Csv,
    Device,
    IdColumn,
    Json,
    Layer,
    Panel,
    Seed,
    SplitBy,
    check_methods,
    complete_methods,
    methods_of,
)
from gexinfer.cli._files import read
from gexinfer.cli._messages import told
from gexinfer.cli._steps import check_device, flag_and_split
from gexinfer.cli._tables import check_results, hand_over


def compare(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="Input: .h5ad, .zarr, or a GCT or GCTX; the bundled data where not given."),
    ] = None,
    *,
    methods: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            autocompletion=complete_methods,
            callback=lambda text: ", ".join(check_methods(methods_of(text))),
            help="Which to fit, separated by commas, as in gexinfer fit --help; auto, which puts several together, "
            "takes minutes.",
        ),
    ] = "mean, ols, ridge, rrr, lasso, knn, knn_genes, kernel, dgex",
    seed: Seed = 0,
    device: Device = "auto",
    panel: Panel = None,
    id_column: IdColumn = None,
    groupby: SplitBy = None,
    layer: Layer = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Write the data with models, predictions and scores, .h5ad or .zarr.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    csv: Csv = None,
    as_json: Json = False,
) -> None:
    """Fit several methods, predict, and print their errors on the test rows."""
    import gexinfer as gx

    with told("compare"):
        check_results(csv, out)
        check_device(device)
        adata = gx.datasets.bulk() if path is None else read(path)
        flag_and_split(adata, path or Path("the bundled data"), panel, id_column, groupby, layer, seed)
        table = gx.tl.compare(adata, methods_of(methods), layer=layer, rng=seed, device=device)
        hand_over(table, csv, adata, out, as_json=as_json)
