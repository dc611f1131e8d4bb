"""The figures of the documentation, on the bundled data: docs/figures/<name>.png.

Usage: python benchmarks/figures.py [name ...]
"""

from __future__ import annotations

import io
import sys
from functools import cache
from pathlib import Path

import matplotlib as mpl
from anndata import AnnData
from matplotlib.figure import Figure
from PIL import Image

import gexinfer as gx

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
# Of a file, in bytes.
LIMIT = 60_000


@cache
def explained() -> AnnData:
    """Return the bundled data with a ridge, a kernel and a network, and what they go by."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    for method in ("ridge", "kernel", "dgex"):
        gx.tl.fit(adata, method, progress=False)
    gx.tl.explain(adata, "dgex", progress=False)
    gx.tl.nonlinearity(adata, progress=False)
    return adata


def figure_influence() -> Figure:
    return gx.pl.influence(explained(), "dgex").figure


def figure_weights() -> Figure:
    return gx.pl.weights(explained()).figure


def figure_nonlinearity() -> Figure:
    return gx.pl.nonlinearity(explained()).figure


def figure_partial_dependence() -> Figure:
    gx.tl.partial_dependence(explained(), "IFI6", "HERC6", progress=False)
    return gx.pl.partial_dependence(explained()).figure


def main() -> None:
    mpl.use("Agg")
    there = {name.removeprefix("figure_"): f for name, f in globals().items() if name.startswith("figure_")}
    for name in sys.argv[1:] or there:
        drawn = io.BytesIO()
        there[name]().savefig(drawn, dpi=150)
        path = FIGURES / f"{name}.png"
        # Fewer colours tell the same in fewer bytes: as many as stay below the limit.
        for colours in (256, 128, 64, 32):
            Image.open(drawn).convert("RGB").quantize(colours).save(path, optimize=True)
            if path.stat().st_size < LIMIT:
                break
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
