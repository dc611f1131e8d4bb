"""The main job from a shell: files in, files out."""

from __future__ import annotations

import ast
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from gexinfer._fitted import FittedModel

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

Input = Annotated[Path, typer.Argument(help="Input: .h5ad, .zarr, or a GCT or GCTX.")]
Layer = Annotated[str | None, typer.Option(help="Layer with the values; X where not given.")]
FittedLayer = Annotated[
    str | None, typer.Option(help="Layer with the landmarks; where not given, that of the fit, else X.")
]
Seed = Annotated[int, typer.Option(help="Seed of the split and of the training.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or any torch device.")]
Panel = Annotated[
    str | None, typer.Option(help="Landmarks where var['landmark'] is absent: l1000 (default), dgex943, a file.")
]
IdColumn = Annotated[str | None, typer.Option(help="Column of var with the gene ids of the panel.")]
Csv = Annotated[Path | None, typer.Option(help="Write the table as CSV.")]
GroupBy = Annotated[str | None, typer.Option(help="Column of obs not to divide where obs['split'] is absent.")]


@app.callback()
def main() -> None:
    """Infer a whole transcriptome from landmark genes, on AnnData."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the h5ad, the figures and the table.")] = Path(
        "gexinfer-demo"
    ),
) -> None:
    """Do the whole job on bundled real data, in about two minutes."""
    import matplotlib.pyplot as plt

    import gexinfer as gx

    with told():
        console.print("[bold]1,392 human RNA-seq samples of 33 cohorts: 978 landmark genes, 2,000 targets.[/]")
        ref = gx.datasets.bulk()
        gx.pp.landmarks(ref, panel="l1000")
        gx.pp.split(ref, groupby="cohort")
        for method in ("mean", "ols", "ridge", "knn", "kernel", "dgex"):
            gx.tl.fit(ref, method=method)
        gx.tl.fit(ref, budget="45s")
        gx.tl.predict(ref)
        table = gx.tl.evaluate(ref)
        show(table)
        console.print(verdict(table, n_train=ref.uns["ols"]["params"]["n_train"]))

        out.mkdir(parents=True, exist_ok=True)
        scatter, columns = plt.subplots(1, 2, figsize=(6.8, 3.1), layout="constrained")
        gx.pl.error_scatter(ref, "dgex", against=["ridge", "knn"], ax=columns)
        density, ax = plt.subplots(figsize=(3.4, 3.1), layout="constrained")
        gx.pl.error_density(ref, ax=ax)
        training, ax = plt.subplots(figsize=(3.4, 3.6), layout="constrained")
        gx.pl.training(ref, ax=ax)
        figures = {"error_scatter.png": scatter, "error_density.png": density, "training.png": training}
        for name, figure in figures.items():
            figure.savefig(out / name, dpi=200)
            plt.close(figure)
        table.to_csv(out / "evaluation.csv", index_label="model")
        write(ref, out / "demo.h5ad")
        console.print(f"Wrote {out}/: demo.h5ad, evaluation.csv, {', '.join(figures)}")


@app.command()
def fit(
    path: Input,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Output, .h5ad or .zarr, written whole or not at all; the input if not given."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            help="auto (where none is named: several of the others, weighed by their errors), mean, ols, ridge, lasso, "
            "rrr, knn, knn_genes, sample_lasso, kernel, dgex, residual, ggan, semigan; may be repeated.",
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="How long --method auto may take, e.g. 30s or 2h; 5min where not given.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the method, e.g. hidden=3000; may be repeated, for one method.")
    ] = None,
    panel: Panel = None,
    id_column: IdColumn = None,
    groupby: GroupBy = None,
    layer: Layer = None,
    seed: Seed = 0,
    device: Device = "auto",
    unlabeled: Annotated[
        Path | None,
        typer.Option(help="Samples of landmarks alone that take part in --method semigan: .h5ad, .zarr, GCT or GCTX."),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="A fitted .h5ad, .zarr or .safetensors whose network is the start.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Directory for the state of a network's training, to go on from.")
    ] = None,
    checkpoint_every: Annotated[
        str, typer.Option(help="Epochs, or a time, after which the state is written.")
    ] = "10min",
) -> None:
    """Flag landmarks, split, and fit models on whole transcriptomes.

    Under torchrun its processes train a network together: torchrun --nproc-per-node 4 -m gexinfer fit -m dgex ...
    """
    import gexinfer as gx
    from gexinfer.engine.report import is_first
    from gexinfer.methods import configure, get_method

    with told():
        out, names = out or path, method or ["auto"]
        check_out(out, ".h5ad", ".zarr")
        if option and len(names) > 1:
            raise ValueError(
                f"--option {option[0]} is for one method, but --method names {', '.join(names)}; fit them in turn."
            )
        if budget and "auto" not in names:
            raise ValueError(f"--budget is for --method auto, not for {', '.join(names)}; leave it out.")
        options = {name: parse(option or []) for name in names}
        if budget:
            options["auto"]["budget"] = budget
        for name in names:
            configure(get_method(name), options[name])
            if (init or checkpoint) and not get_method(name).by_epochs:
                raise ValueError(
                    f"--init and --checkpoint are for networks, and --method {name} is none; fit it apart."
                )
            if unlabeled and not get_method(name).takes_unlabeled:
                raise ValueError(f"--unlabeled is for --method semigan, not for {name}; fit it apart.")
        start = None if init is None else read_models(init)
        others = None if unlabeled is None else read(unlabeled)
        adata = read(path)
        flag_and_split(adata, path, panel, id_column, groupby, layer, seed)
        for name in names:
            gx.tl.fit(
                adata,
                method=name,
                layer=layer,
                rng=seed,
                device=device,
                unlabeled=others,
                init=start,
                checkpoint=checkpoint,
                checkpoint_every=int(checkpoint_every) if checkpoint_every.isdecimal() else checkpoint_every,
                **options[name],
            )
        if is_first():
            write(adata, out)


@app.command()
def predict(
    path: Input,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Output, .h5ad, .zarr, or .h5mu for mudata; written whole or not at all."),
    ],
    model: Annotated[
        Path | None, typer.Option(help="Fitted .h5ad, .zarr or .safetensors; the input itself where not given.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Name of the model; all where not given.")] = None,
    output: Annotated[
        str, typer.Option(help="layer, anndata, mudata, or disk: a .zarr of one model, in memory that does not grow.")
    ] = "layer",
    adapt: Annotated[
        str, typer.Option(help="none, quantile or moments: bring a query of another platform to the fit's scale.")
    ] = "none",
    dtype: Annotated[str, typer.Option(help="Of --output disk: float32, or float16 for half the size.")] = "float32",
    max_missing: Annotated[float, typer.Option(help="Largest share of the landmarks that a sample may lack.")] = 0.5,
    std: Annotated[
        bool, typer.Option("--std", help="Write standard deviations, too; kernel and ensembles know them.")
    ] = False,
    interval: Annotated[
        float | None, typer.Option(help="Write bounds that hold a value with this probability.")
    ] = None,
    layer: FittedLayer = None,
    device: Device = "auto",
) -> None:
    """Infer target genes from landmark genes."""
    import anndata as ad

    import gexinfer as gx

    with told():
        suffixes = {"layer": [".h5ad", ".zarr"], "anndata": [".h5ad", ".zarr"], "mudata": [".h5mu"], "disk": [".zarr"]}
        if output not in suffixes:
            raise ValueError(
                f"--output {output} is not known; choose one of {', '.join(suffixes)}. --out names the file."
            )
        check_out(out, *suffixes[output])
        lazily = output == "disk" and path.suffix == ".zarr" and path.exists()
        adata = ad.experimental.read_lazy(path) if lazily else read(path, in_place=output == "disk")
        source = None if model is None else read_models(model)
        asked: dict[str, Any] = {
            "key": key,
            "layer": layer,
            "adapt": adapt,
            "max_missing": max_missing,
            "std": std,
            "interval": interval,
            "dtype": dtype,
            "device": device,
        }
        if output == "disk":
            gx.tl.predict(adata, source, output=out, **asked)
        else:
            made = gx.tl.predict(adata, source, output=output, **asked)
            write(adata if made is None else made, out)


@app.command()
def evaluate(
    path: Input,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the data with its scores, .h5ad or .zarr.")
    ] = None,
    csv: Csv = None,
) -> None:
    """Measure predictions against measured values on the test rows."""
    import gexinfer as gx

    with told():
        check_results(csv, out)
        adata = read(path)
        table = gx.tl.evaluate(adata)
        hand_over(table, csv, adata, out)


@app.command()
def compare(
    path: Annotated[
        Path | None, typer.Argument(help="Input: .h5ad, .zarr, or a GCT or GCTX; the bundled data where not given.")
    ] = None,
    methods: Annotated[
        str, typer.Option(help="Which to fit, separated by commas; auto, which puts several together, takes minutes.")
    ] = "mean,ols,ridge,rrr,lasso,knn,knn_genes,kernel,dgex",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the data with models, predictions and scores, .h5ad or .zarr."),
    ] = None,
    csv: Csv = None,
    panel: Panel = None,
    id_column: IdColumn = None,
    groupby: GroupBy = None,
    layer: Layer = None,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Fit several methods, predict, and print their errors on the test rows."""
    import gexinfer as gx
    from gexinfer.methods import get_method

    with told():
        check_results(csv, out)
        names = [name.strip() for name in methods.split(",")]
        for name in names:
            get_method(name)
        adata = gx.datasets.bulk() if path is None else read(path)
        flag_and_split(adata, path or Path("the bundled data"), panel, id_column, groupby, layer, seed)
        table = gx.tl.compare(adata, names, layer=layer, rng=seed, device=device)
        hand_over(table, csv, adata, out)


@app.command()
def report(
    path: Input,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page, .html.")],
    model: Annotated[
        Path | None,
        typer.Option(
            help="Fitted .h5ad, .zarr or .safetensors, judged on all samples of the input; the input itself, judged "
            "on its test rows, where not given."
        ),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of the model; that with the lowest validation error where not given.")
    ] = None,
    groupby: Annotated[str | None, typer.Option(help="Column of obs by which errors are told apart.")] = None,
    device: Device = "auto",
) -> None:
    """Write one HTML page about a model: errors, intervals, trust, warnings, provenance."""
    import gexinfer as gx

    with told():
        check_out(out, ".html")
        source = None if model is None else read_models(model)
        gx.io.write_report(read(path), out, model=source, key=key, groupby=groupby, device=device)
        console.print(f"Wrote {out}")


@app.command()
def convert(
    path: Input,
    out: Annotated[Path, typer.Argument(help="Output, .h5ad, .zarr or .gctx; written whole or not at all.")],
) -> None:
    """Convert between GCT, GCTX, .h5ad and .zarr; a GCTX of any size, and any .h5ad to GCTX, in bounded memory.

    A gzipped GCTX is unpacked to a temporary file beside the output, which must have room for it.
    """
    import dask

    from gexinfer.io._cmap import kind_of
    from gexinfer.io._read_gctx import unpacked

    with told():
        check_out(out, ".h5ad", ".zarr", ".gctx")
        packed = path.suffix not in (".h5ad", ".zarr") and kind_of(path) == ("gctx", True)
        # The values come from one file, which is read by one block at a time; more of them would only take memory.
        with dask.config.set(num_workers=2), unpacked(path, out) if packed else nullcontext(path) as source:
            write(read(source, in_place=True), out)


def flag_and_split(
    adata: AnnData,
    path: Path,
    panel: str | None,
    id_column: str | None,
    groupby: str | None,
    layer: str | None,
    seed: int,
) -> None:
    """Flag landmarks and split, each where it is not done yet."""
    import gexinfer as gx
    from gexinfer._slots import split_by

    if "landmark" not in adata.var:
        gx.pp.landmarks(adata, panel=panel or "l1000", id_column=id_column)
    elif panel or id_column:
        raise ValueError(f"{str(path)!r} has var['landmark'] already; leave out --panel and --id-column, or drop it.")
    if "split" not in adata.obs:
        gx.pp.split(adata, groupby=groupby, layer=layer, rng=seed)
    elif groupby and split_by(adata) != f"by {groupby}":
        raise ValueError(f"{str(path)!r} has obs['split'] already; leave out --groupby, or drop that column.")


def show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Print a warning of ours; those of other packages are about their code, and no user of a shell can heed them."""
    from gexinfer.engine.report import is_first

    if Path(__file__).parent in Path(filename).parents and is_first():
        Console(stderr=True, soft_wrap=True).print(f"warning: {message}", style="yellow", highlight=False, markup=False)


@contextmanager
def told() -> Iterator[None]:
    """Print warnings without their source line, and errors that say what to do as one line with exit code 1."""
    screen = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show_warning
        try:
            yield
        except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
            # str() of a KeyError would be its repr.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            screen.print(f"error: {text}", style="red")
            raise typer.Exit(1) from error


def parse(options: list[str]) -> dict[str, Any]:
    """Turn `name=value` into keyword arguments; a value that is no Python literal is text."""
    parsed = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--option {option} must be written name=value.")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed


def read(path: Path, *, in_place: bool = False) -> AnnData:
    """Read an AnnData from .h5ad or .zarr, or else a GCT or GCTX; the values stay in the file where that can be."""
    import anndata as ad

    from gexinfer.io._cmap import kind_of

    if path.suffix == ".h5mu":
        raise ValueError(
            f"{str(path)!r} holds several modalities; write the one that is meant to a file of its own, in Python: "
            "mudata.read_h5mu(path)['rna'].write_h5ad(out)."
        )
    if path.suffix not in (".h5ad", ".zarr"):
        import gexinfer as gx

        return gx.io.read_gctx(path, lazy=in_place and kind_of(path) == ("gctx", False))
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        if path.suffix == ".zarr":
            return ad.read_zarr(path)
        return ad.read_h5ad(path, backed="r" if in_place else None)
    except OSError as error:
        raise OSError(f"{str(path)!r} cannot be read: {error}. It may be truncated or another kind of file.") from error


def read_models(path: Path) -> AnnData | FittedModel:
    """Read what holds models: a .safetensors, .h5ad or .zarr."""
    import gexinfer as gx

    return gx.io.read_model(path) if path.suffix == ".safetensors" else read(path)


def check_out(path: Path, *suffixes: str) -> None:
    """Refuse a file that could not be written, before anything is computed for it."""
    if path.suffix not in suffixes:
        raise ValueError(f"{str(path)!r} must end in {' or '.join(suffixes)}.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.absolute().parent)!r} to write {path.name} into.")


def check_results(csv: Path | None, out: Path | None) -> None:
    """Refuse files for a table and its data that could not be written."""
    if csv is not None:
        check_out(csv, ".csv")
    if out is not None:
        check_out(out, ".h5ad", ".zarr")


def hand_over(table: pd.DataFrame, csv: Path | None, adata: AnnData, out: Path | None) -> None:
    """Print a table, and write it and its data where that was asked for."""
    show(table)
    if csv is not None:
        table.to_csv(csv, index_label="model")
    if out is not None:
        write(adata, out)


def write(data: Any, path: Path) -> None:
    """Write an AnnData or a MuData beside its place and move it there, so that no reader sees half of it."""
    import anndata as ad
    from mudata import MuData

    import gexinfer as gx

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".gexinfer-") as folder:
        partial = Path(folder) / path.name
        if isinstance(data, MuData):
            data.write_h5mu(partial)
        elif path.suffix == ".zarr":
            with ad.settings.override(zarr_write_format=3):
                # dask's own blocks, so that none is written in parts.
                data.write_zarr(partial, chunks=getattr(data.X, "chunksize", None))
        elif path.suffix == ".gctx":
            gx.io.write_gctx(data, partial)
        else:
            data.write_h5ad(partial, compression="gzip")
        if path.is_dir():
            # A folder cannot be replaced, so the old one steps aside and goes with the temporary folder.
            path.rename(Path(folder) / "old")
        partial.replace(path)


def show(table: pd.DataFrame) -> None:
    """Print what of the overall table fits 80 characters; the CSV has all of it."""
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
    console.print(grid)


def verdict(table: pd.DataFrame, n_train: int) -> str:
    """Say in words what the demo's table shows, the unwelcome part included."""
    mae = table["mae"]
    lines = [
        f"On cohorts never seen {table.index[0]} ({mae.iloc[0]:.3f}) and {table.index[1]} ({mae.iloc[1]:.3f}) are "
        "best. One split of a few cohorts decides nothing between models a few percent apart; look at R2, too.",
        f"OLS ({mae['ols']:.3f}; the mean alone has {mae['mean']:.3f}) is nonsense here: it fits 979 coefficients for "
        f"each gene from {n_train:,} training samples. Do not judge a method against it; ridge is the linear baseline.",
    ]
    return "\n".join(lines)
