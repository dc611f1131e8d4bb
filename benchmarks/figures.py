"""The figures of the documentation, on the bundled data.

Usage: python benchmarks/figures.py [name of a figure, ...]

Each function draws one; what takes long to measure is read from benchmarks/results.
"""

from __future__ import annotations

import sys
from io import BytesIO
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

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


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


def main(names: list[str]) -> None:
    mpl.use("Agg")
    for name in names or [name for name in globals() if name.startswith("figure_")]:
        name = name.removeprefix("figure_")
        drawn = BytesIO()
        globals()[f"figure_{name}"]().savefig(drawn, dpi=150)
        # A palette of 64 colours: the same to the eye, and a third of the bytes.
        Image.open(drawn).convert("RGB").quantize(64).save(FIGURES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
