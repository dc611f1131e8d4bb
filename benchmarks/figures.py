"""The figures of the documentation, on the bundled data, as PNG under docs/figures.

Usage: python benchmarks/figures.py [error_density ...]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

import gexinfer as gx

FIGURES = Path(__file__).parents[1] / "docs" / "figures"


def figure_error_density() -> Figure:
    ref = gx.datasets.bulk()
    gx.pp.landmarks(ref)
    gx.pp.split(ref)
    gx.tl.compare(ref, ["ridge", "knn", "kernel"], progress=False)
    return gx.pl.error_density(ref).figure


def main() -> None:
    drawing = {name.removeprefix("figure_"): draw for name, draw in globals().items() if name.startswith("figure_")}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(drawing)}; all where not given")
    mpl.use("Agg")
    for name in parser.parse_args().names or drawing:
        path = FIGURES / f"{name}.png"
        drawing[name]().savefig(path, dpi=150)
        # A palette takes a third of the space, and nobody sees the difference.
        Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
