"""Learning curves, sweeps and a search of options on the bundled data: the numbers of docs/tuning.md.

Usage: python benchmarks/tuning.py [--only curves,size,dropout,tune]

Networks are trained for 30 epochs, a third of the default, so that all takes about ten minutes on one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd

import gexinfer as gx

RESULTS = Path(__file__).parent / "results" / "tuning.json"
EPOCHS = 30
SIZES = [50, 100, 200, 400, 800]
METHODS = {"ridge": {}, "kernel": {"huber": 0.0}, "knn": {}, "dgex": {"epochs": EPOCHS}}
SIDES = {"random": None, "by cohort": "cohort"}
SEEDS = (0, 1, 2)


def bulk(groupby: str | None = None) -> ad.AnnData:
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata, groupby=groupby)
    return adata


def curves() -> dict[str, Any]:
    found = {}
    for side, groupby in SIDES.items():
        adata = bulk(groupby)
        n = int((adata.obs["split"] == "train").sum())
        found[side] = stored(gx.tl.learning_curve(adata, METHODS, sizes=[*SIZES, n]))
    return found


def size() -> dict[str, Any]:
    adata = bulk()
    grid = {"layers": [1, 2, 3], "hidden": [250, 500, 1000]}
    against = {"mean": {}, **{name: METHODS[name] for name in ("ridge", "kernel")}}
    return stored(gx.tl.sweep(adata, "dgex", grid, against=against, epochs=EPOCHS))


def dropout() -> dict[str, Any]:
    """The network without noise on the landmarks, because that holds it back, too."""
    adata = bulk()
    table = gx.tl.sweep(adata, "dgex", {"dropout": [0.0, 0.1, 0.25, 0.5]}, input_noise=0.0, epochs=EPOCHS)
    return {"table": stored(table), "curves": stored(adata.uns["gexinfer_sweep_curves"])}


def tune() -> dict[str, Any]:
    adata = bulk()
    best = gx.tl.tune(adata, "dgex", n_trials=20, epochs=EPOCHS)
    trials = stored(adata.uns["gexinfer_tune"])
    models = {"default": {"method": "dgex", "epochs": EPOCHS}, "tuned": {"method": "dgex", **best}}
    scores: dict[str, Any] = {}
    for seed in SEEDS:
        table = gx.tl.compare(adata, models, rng=seed)
        for name in models:
            found = scores.setdefault(name, {"validation": [], "test": []})
            found["validation"].append(round(adata.uns[name]["params"]["validation_mae"], 4))
            found["test"].append(round(float(table.loc[name, "mae"]), 4))
    return {"best": best, "trials": trials, "scores": scores}


PARTS = {"curves": curves, "size": size, "dropout": dropout, "tune": tune}


def stored(table: pd.DataFrame) -> dict[str, Any]:
    """Return a table as JSON can hold it."""
    return json.loads(table.to_json(orient="split", double_precision=6))


def table_of(found: dict[str, Any]) -> pd.DataFrame:
    """Return the table again."""
    return pd.DataFrame(found["data"], index=found["index"], columns=found["columns"])


def results() -> dict[str, Any]:
    """Return what was measured so far."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def markdown(found: dict[str, Any]) -> dict[str, str]:
    """Return the tables of docs/tuning.md, a test compares them."""
    tables = {}
    for side in SIDES:
        table = table_of(found["curves"][side])
        means = table.groupby(["model", "size"])["mae"].agg(["mean", "std"])
        at = table.groupby("size")[[c for c in ("n_train", "n_groups") if c in table]].mean()
        models = ["mean", *METHODS]
        lines = [f"| samples{' (cohorts)' if 'n_groups' in at else ''} | {' | '.join(f'`{m}`' for m in models)} |"]
        lines.append("|---" * (len(models) + 1) + "|")
        for size, row in at.iterrows():
            name = f"{row['n_train']:,.0f}" + (f" ({row['n_groups']:.1f})" if "n_groups" in at else "")
            cells = [f"{means.loc[(m, size), 'mean']:.3f} ± {means.loc[(m, size), 'std']:.3f}" for m in models]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        tables[f"curves {side}"] = "\n".join(lines)
    table = table_of(found["size"])
    lines = ["| | weights | validation MAE | test MAE |", "|---|---|---|---|"]
    for name, row in table.iterrows():
        weights = "–" if np.isnan(row["n_parameters"]) else f"{row['n_parameters']:,.0f}"
        lines.append(f"| {name} | {weights} | {row['validation_mae']:.4f} | {row['mae']:.4f} |")
    tables["size"] = "\n".join(lines)
    lines = ["| | validation MAE | test MAE | best epoch |", "|---|---|---|---|"]
    for name, row in table_of(found["dropout"]["table"]).iterrows():
        epoch = "–" if np.isnan(row["best_epoch"]) else f"{row['best_epoch']:.0f}"
        lines.append(f"| {name} | {row['validation_mae']:.4f} | {row['mae']:.4f} | {epoch} |")
    tables["dropout"] = "\n".join(lines)
    lines = ["| | validation MAE | test MAE |", "|---|---|---|"]
    for name, scores in found["tune"]["scores"].items():
        cells = [", ".join(f"{value:.4f}" for value in scores[side]) for side in ("validation", "test")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    tables["tune"] = "\n".join(lines)
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS))
    for name in parser.parse_args().only.split(","):
        found = {**results(), name: PARTS[name]()}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if set(found) == set(PARTS):
        for name, table in markdown(found).items():
            print(f"\n{name}\n{table}")


if __name__ == "__main__":
    main()
