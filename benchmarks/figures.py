"""The figures of the documentation, on the bundled data.

Usage: python benchmarks/figures.py [gene sample ...]

Writes docs/figures/<name>.png, all where none is named. What takes long to measure is read from benchmarks/results.
"""

from __future__ import annotations

import io
import sys
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
# Of a file, in bytes.
LIMIT = 60_000


def figure_error_density() -> Figure:
    ref = gx.datasets.bulk()
    gx.pp.landmarks(ref)
    gx.pp.split(ref)
    gx.tl.compare(ref, ["ridge", "knn", "kernel"], progress=False)
    return whole(gx.pl.error_density(ref))


def figure_error_scatter() -> Figure:
    """As in the demo."""
    ref = with_intervals()
    for method in ("knn", "dgex"):
        gx.tl.fit(ref, method, progress=False)
    gx.tl.predict(ref, key=["ridge", "knn", "dgex"], progress=False)
    gx.tl.evaluate(ref)
    figure, axes = plt.subplots(1, 2, figsize=(6.8, 3.1), layout="constrained")
    gx.pl.error_scatter(ref, "dgex", against=["ridge", "knn"], ax=axes)
    return figure


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
    return whole(gx.pl.coverage(with_intervals(), kind="samples by novelty"))


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
    return whole(gx.pl.novelty(adata, "samples"))


def figure_gene() -> Figure:
    return whole(gx.pl.gene(with_intervals(), "CDH1", "kernel", groupby="cohort"))


def figure_sample() -> Figure:
    adata = with_intervals()
    novel = adata.obs.query("split == 'test'")["gexinfer_novelty"].idxmax()
    return whole(gx.pl.sample(adata, novel, "kernel"))


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


@cache
def explained() -> ad.AnnData:
    """Return the bundled data with a ridge, a kernel and a network, and what they go by."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    for method in ("ridge", "kernel", "dgex"):
        gx.tl.fit(adata, method, progress=False)
    gx.tl.explain(adata, "dgex", progress=False)
    gx.tl.nonlinearity(adata, progress=False)
    return adata


def figure_terms() -> Figure:
    """Of a small network, which takes half a minute."""
    adata = tuning.bulk()
    gx.tl.fit(adata, "ggan", hidden=200, epochs=tuning.EPOCHS, progress=False)
    return whole(gx.pl.terms(adata))


def figure_influence() -> Figure:
    return whole(gx.pl.influence(explained(), "dgex"))


def figure_weights() -> Figure:
    return whole(gx.pl.weights(explained()))


def figure_nonlinearity() -> Figure:
    return whole(gx.pl.nonlinearity(explained()))


def figure_partial_dependence() -> Figure:
    gx.tl.partial_dependence(explained(), "IFI6", "HERC6", progress=False)
    return whole(gx.pl.partial_dependence(explained()))


def measured(tables: dict[str, dict]) -> ad.AnnData:
    """Return an object with the tables that the functions of `gexinfer.tl` wrote."""
    adata = ad.AnnData(np.zeros((1, 1), np.float32))
    adata.uns.update({slot: tuning.table_of(found) for slot, found in tables.items()})
    return adata


def whole(ax: Axes) -> Figure:
    return ax.get_figure()


def save(figure: Figure, name: str) -> None:
    """Write a figure to `FOLDER`, below `LIMIT`."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150)
    path = FOLDER / f"{name}.png"
    # Fewer colours tell the same in fewer bytes: as many as stay below the limit.
    for colours in (256, 128, 64, 32, 16):
        Image.open(drawn).convert("RGB").quantize(colours).save(path, optimize=True)
        if path.stat().st_size < LIMIT:
            break
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    mpl.use("Agg")
    there = {name.removeprefix("figure_"): f for name, f in globals().items() if name.startswith("figure_")}
    for name in sys.argv[1:] or there:
        save(there[name](), name)


if __name__ == "__main__":
    main()
