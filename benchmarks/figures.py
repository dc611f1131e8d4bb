"""The figures of the documentation, on the bundled data.

Usage: python benchmarks/figures.py [figure_gene figure_sample ...]

Writes docs/figures/<name>.png, all where none is named.
"""

from __future__ import annotations

import argparse
import io
from functools import cache
from pathlib import Path

import anndata as ad
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


def main() -> None:
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
