from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from gexinfer.cli._arguments import Json
from gexinfer.cli._files import check_out, whole, write
from gexinfer.cli._messages import told
from gexinfer.cli._tables import put, show, write_csv

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def demo(
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Folder for the h5ad, the figures and the table.")
    ] = Path("gexinfer-demo"),
    as_json: Json = False,
) -> None:
    """Do the whole job on bundled real data, in about two minutes."""
    import matplotlib.pyplot as plt

    import gexinfer as gx
    from gexinfer.engine.report import say

    with told("demo"):
        out.mkdir(parents=True, exist_ok=True)
        check_out(out / "demo.h5ad", ".h5ad")
        say("1,392 human RNA-seq samples of 33 cohorts: 978 landmark genes, 2,000 targets.")
        ref = gx.datasets.bulk()
        gx.pp.landmarks(ref, panel="l1000")
        gx.pp.split(ref, groupby="cohort")
        for method in ("mean", "ols", "ridge", "knn"):
            gx.tl.fit(ref, method=method)
        # Something to look at before the long fits.
        gx.tl.predict(ref, progress=False)
        gx.tl.evaluate(ref)
        first, ax = plt.subplots(figsize=(3.4, 3.1), layout="constrained")
        gx.pl.error_scatter(ref, "ridge", against="knn", ax=ax)
        save(first, out / "error_scatter.png")
        say(f"Wrote {out}/error_scatter.png: ridge against knn, for now. kernel, dgex and auto take longer.")
        for method in ("kernel", "dgex"):
            gx.tl.fit(ref, method=method)
        gx.tl.fit(ref, budget="45s")
        gx.tl.predict(ref)
        table = gx.tl.evaluate(ref)

        scatter, columns = plt.subplots(1, 2, figsize=(6.8, 3.1), layout="constrained")
        gx.pl.error_scatter(ref, "dgex", against=["ridge", "knn"], ax=columns)
        density, ax = plt.subplots(figsize=(3.4, 3.1), layout="constrained")
        gx.pl.error_density(ref, ax=ax)
        training, ax = plt.subplots(figsize=(3.4, 3.6), layout="constrained")
        gx.pl.training(ref, ax=ax)
        figures = {"error_scatter.png": scatter, "error_density.png": density, "training.png": training}
        for name, figure in figures.items():
            save(figure, out / name)
        write_csv(table, out / "evaluation.csv")
        write(ref, out / "demo.h5ad")
        show(table, as_json=as_json)
        if not as_json:
            put(Text(verdict(table, n_train=ref.uns["ols"]["params"]["n_train"])))
        say(f"Wrote {out}/: demo.h5ad, evaluation.csv, {', '.join(figures)}")


def save(figure: Figure, path: Path) -> None:
    """Write a figure, and free it."""
    import matplotlib.pyplot as plt

    with whole(path) as partial:
        figure.savefig(partial, dpi=200)
    plt.close(figure)


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
