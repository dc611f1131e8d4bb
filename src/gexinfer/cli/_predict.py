from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gexinfer.cli._arguments import DATA, RESULT, Adapt, Device, Dtype, Input, Output
from gexinfer.cli._files import check_out, check_there, read, read_models, write
from gexinfer.cli._messages import told
from gexinfer.cli._steps import check_device

if TYPE_CHECKING:
    from anndata import AnnData

SUFFIXES = {
    Output.LAYER: (".h5ad", ".zarr"),
    Output.ANNDATA: (".h5ad", ".zarr"),
    Output.MUDATA: (".h5mu",),
    Output.DISK: (".zarr",),
}


def predict(
    path: Input,
    *,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Fitted .h5ad, .zarr or .safetensors; the input itself where not given."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Name of a model; may be repeated. All where not given."),
    ] = None,
    device: Device = "auto",
    layer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Layer with the landmarks; where not given, that of the fit, else X.",
            rich_help_panel=DATA,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of var with the names that the model's genes go by; it names the genes of the output, too.",
            rich_help_panel=DATA,
        ),
    ] = None,
    adapt: Annotated[
        Adapt,
        typer.Option(
            metavar="HOW",
            help="none, quantile or moments: bring a query of another platform to the fit's scale.",
            rich_help_panel=DATA,
        ),
    ] = Adapt.NONE,
    max_missing: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Largest share of the landmarks that a sample may lack.", rich_help_panel=DATA
        ),
    ] = 0.5,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="Output, .h5ad, .zarr, or .h5mu for mudata; written whole or not at all.",
            rich_help_panel=RESULT,
        ),
    ],
    output: Annotated[
        Output,
        typer.Option(
            metavar="KIND",
            help="layer, beside the input's values; anndata, of landmarks and targets; mudata, of measured and "
            "inferred; disk, a .zarr of one model, in memory that does not grow.",
            rich_help_panel=RESULT,
        ),
    ] = Output.LAYER,
    genes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Text file with the genes to write, one a line, where --output is another than layer.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    trusted_only: Annotated[
        bool,
        typer.Option(
            "--trusted-only",
            help="Leave out inferred genes that gexinfer evaluate --trust did not find recognisable.",
            rich_help_panel=RESULT,
        ),
    ] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Write bounds that hold a value with this probability, e.g. .9.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    std: Annotated[
        bool,
        typer.Option(
            "--std",
            help="Write standard deviations, too; kernel and ensembles know them.",
            rich_help_panel=RESULT,
        ),
    ] = False,
    dtype: Annotated[
        Dtype,
        typer.Option(
            metavar="KIND",
            help="Of --output disk: float32, or float16 for half the size.",
            rich_help_panel=RESULT,
        ),
    ] = Dtype.FLOAT32,
) -> None:
    """Infer target genes from landmark genes."""
    import gexinfer as gx
    from gexinfer.pp._panels import read_ids

    with told("predict"):
        check_out(out, *SUFFIXES[output])
        check_device(device)
        wanted = None
        if genes is not None:
            check_there(genes)
            wanted = read_ids(genes)
        adata = query(path, in_place=output is Output.DISK)
        if id_column is not None:
            rename(adata, id_column)
        source = None if model is None else read_models(model)
        asked: dict[str, Any] = {
            "key": key,
            "layer": layer,
            "adapt": str(adapt),
            "max_missing": max_missing,
            "genes": wanted,
            "trusted_only": trusted_only,
            "std": std,
            "interval": interval,
            "dtype": str(dtype),
            "device": device,
        }
        if output is Output.DISK:
            gx.tl.predict(adata, source, output=out, **asked)
        else:
            made = gx.tl.predict(adata, source, output=str(output), **asked)
            write(adata if made is None else made, out)


def query(path: Path, *, in_place: bool) -> AnnData:
    """Read the samples to infer, or leave their values in the file where that can be."""
    import anndata as ad

    if in_place and path.suffix == ".zarr" and path.exists():
        adata = ad.experimental.read_lazy(path)
        adata.var = adata.var.to_memory()
        return adata
    return read(path, in_place=in_place)


def rename(adata: AnnData, id_column: str) -> None:
    """Name the genes by a column of `var`; those without an entry keep their names."""
    from gexinfer.pp._panels import names_of

    names, _ = names_of(adata, id_column)
    adata.var_names = names.where(adata.var[id_column].notna().to_numpy(), adata.var_names)
