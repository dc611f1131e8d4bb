"""The paper's recipe beside the modern one on the bundled data: the figure of docs/networks.md.

Usage: python benchmarks/recipe_curves.py

The paper's network of 3,000 units is trained for its 200 epochs; random split, seed 0.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from figures import save

import gexinfer as gx

ROOT = Path(__file__).parents[1]


def main() -> None:
    mpl.use("Agg")
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge")
    gx.tl.fit(adata, "dgex", key_added="modern")
    gx.tl.fit(adata, "dgex", recipe="paper", key_added="paper")
    gx.tl.predict(adata)
    table = gx.tl.evaluate(adata)
    found = {
        name: {
            "test MAE": round(float(table.loc[name, "mae"]), 4),
            "validation MAE": round(adata.uns[name]["params"]["validation_mae"], 4),
            "best epoch": adata.uns[name]["params"].get("best_epoch"),
        }
        for name in ("modern", "paper", "ridge")
    }
    print(json.dumps(found, indent=1))
    (ROOT / "benchmarks" / "results" / "recipe_curves.json").write_text(json.dumps(found, indent=1) + "\n")
    figure, ax = plt.subplots(figsize=(5, 4), layout="constrained")
    gx.pl.training(adata, ["modern", "paper"], against="ridge", ax=ax)
    save(figure, "recipe_curves")


if __name__ == "__main__":
    main()
