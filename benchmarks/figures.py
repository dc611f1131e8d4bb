"""The figures of the documentation, on the bundled data.

Usage: python benchmarks/figures.py [figure_gene figure_sample ...]

Writes docs/figures/<name>.png, all where none is named. What takes long to measure is read from benchmarks/results.
"""

from __future__ import annotations

import argparse
import io
from functools import cache
from pathlib import Path

import anndata as ad
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import tuning
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

import gexinfer as gx

FOLDER = Path(__file__).parents[1] / "docs" / "figures"


@cache
def with_intervals() -> ad.AnnData:
    """Return the bundled data, split by cohort, with the intervals of two models."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata, groupby="cohort")
    for method in ("ridge", "kernel"):
        gx.tl.fit(adata, method, progress=False)
    gx.tl.predict(adata, interval=0.9, progress=False)
    gx.tl.coverage(adata, groupby="cohort")
    return adata


def figure_coverage() -> Figure:
    return gx.pl.coverage(with_intervals(), kind="samples by novelty").figure


def figure_novelty() -> Figure:
    """The test cohorts of the split by cohort stay unseen; the others are split at random."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    unseen = (with_intervals().obs["split"] == "test").to_numpy()
    gx.pp.split(adata)
    adata.obs["samples"] = adata.obs["split"].astype(str)
    adata.obs.loc[unseen, "samples"] = "unseen " + adata.obs["cohort"].astype(str)
    adata.obs.loc[unseen, "split"] = None
    gx.tl.fit(adata, "mean", progress=False)
    gx.tl.predict(adata, progress=False)
    return gx.pl.novelty(adata, "samples").figure


def figure_gene() -> Figure:
    return gx.pl.gene(with_intervals(), "CDH1", "kernel", groupby="cohort").figure


def figure_sample() -> Figure:
    adata = with_intervals()
    novel = adata.obs.query("split == 'test'")["gexinfer_novelty"].idxmax()
    return gx.pl.sample(adata, novel, "kernel").figure


def figure_learning_curve() -> Figure:
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), layout="constrained")
    for ax, side in zip(axes, tuning.SIDES, strict=True):
        adata = measured({"gexinfer_learning_curve": tuning.results()["curves"][side]})
        gx.pl.learning_curve(adata, ax=ax)
        ax.set_title(f"split {'at random' if side == 'random' else side}", fontsize=8)
    low, high = zip(*(ax.get_ylim() for ax in axes), strict=True)
    for ax in axes:
        ax.set_ylim(min(low), max(high))
    return figure


def figure_error_by_size() -> Figure:
    return whole(gx.pl.error_by_size(measured({"gexinfer_sweep": tuning.results()["size"]})))


def figure_training() -> Figure:
    found = tuning.results()["dropout"]
    tables = {"gexinfer_sweep": found["table"], "gexinfer_sweep_curves": found["curves"]}
    return whole(gx.pl.training(measured(tables), sweep=True))


def measured(tables: dict[str, dict]) -> ad.AnnData:
    """Return an object with the tables that the functions of `gexinfer.tl` wrote."""
    adata = ad.AnnData(np.zeros((1, 1), np.float32))
    adata.uns.update({slot: tuning.table_of(found) for slot, found in tables.items()})
    return adata


def whole(ax: Axes) -> Figure:
    return ax.get_figure()


def main() -> None:
    mpl.use("Agg")
    figures = {name: make for name, make in globals().items() if name.startswith("figure_")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *figures], help="which to draw")
    for name in parser.parse_args().names or figures:
        path = FOLDER / f"{name.removeprefix('figure_')}.png"
        drawn = io.BytesIO()
        figures[name]().savefig(drawn, dpi=150)
        # A palette: a third of the size.
        Image.open(drawn).convert("RGB").quantize(128).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
