"""How good is it? Every split of every data set: the tables of docs/accuracy.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/accuracy.py [--only bulk,tcga] [--methods ridge,auto]

Five random splits, and five folds of whole cohorts in which each cohort is held out once. Data sets are those of
which_method.py, at most 2,000 targets of each. Each row is written as soon as it is there, and those that are there
are not run again, so that a run can be ended and taken up; --again runs them anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import anndata as ad
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from which_method import SETS, fewer_targets

import gexinfer as gx

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
METHODS = {
    "ridge": ("ridge", {}),
    "mean": ("mean", {}),
    "ols": ("ols", {}),
    "knn": ("knn", {}),
    "kernel": ("kernel", {}),
    "dgex": ("dgex", {}),
    "dgex paper": ("dgex", {"recipe": "paper"}),
    "residual": ("residual", {}),
    "auto": ("auto", {}),
}
SEEDS = 5
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="bulk,compendium,affymetrix,tcga")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--splits", default="random,cohort")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    for name in options.only.split(","):
        try:
            adata, groups = SETS[name]()
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not there")
            continue
        if name == "bulk":
            adata.var["is_landmark"] = adata.var["landmark"]
            adata = fewer_targets(adata)
        for kind, split in splits(adata, groups, options.seeds):
            if kind.partition(" ")[0] in options.splits.split(","):
                measure(adata, split, name, kind, options.methods.split(","), options.again)
    show(json.loads(RESULTS.read_text()))


def splits(adata: ad.AnnData, groups: str, seeds: int) -> Iterator[tuple[str, pd.Series]]:
    """Yield names and sides: at random; then folds of whole cohorts, an eighth of the others' cohorts to validate."""
    for seed in range(seeds):
        yield f"random {seed}", gx.pp.split(adata, rng=seed, copy=True).obs["split"]
    sizes = adata.obs[groups].value_counts(sort=False)
    sizes = sizes[sizes > 0].sample(frac=1, random_state=0)
    fold = pd.Series(fill(sizes, np.full(FOLDS, 1 / FOLDS)), sizes.index)
    for k in range(seeds):
        rest = sizes[fold != k].sample(frac=1, random_state=k)
        side = pd.Series("test", sizes.index)
        side[rest.index] = np.array(["train", "validation"])[fill(rest, np.array([7 / 8, 1 / 8]))]
        yield f"cohort {k}", adata.obs[groups].astype(str).map(side)


def fill(sizes: pd.Series, shares: np.ndarray) -> np.ndarray:
    """Return a part for each cohort in turn: the one that lacks most of its share."""
    lacking, part = shares * sizes.sum(), []
    for size in sizes:
        part.append(int(lacking.argmax()))
        lacking[part[-1]] -= size
    if len(set(part)) < len(shares):
        # Large cohorts can leave none.
        part[int(sizes.to_numpy().argmin())] = len(shares) - 1
    return np.array(part)


def measure(adata: ad.AnnData, split: pd.Series, name: str, kind: str, methods: list[str], again: bool) -> None:
    """Fit what is not there yet on one split, ridge first, and write its row."""
    there = read().get(name, {}).get(kind, {})
    missing = [method for method in methods if again or method not in there]
    if not missing:
        return
    adata.obs["split"] = pd.Categorical(split)
    for method in dict.fromkeys(["ridge", *missing]):
        kind_of, given = METHODS[method]
        started = perf_counter()
        gx.tl.fit(adata, kind_of, key_added=method, progress=False, **given)
        seconds = perf_counter() - started
        gx.tl.predict(adata, key=method, progress=False)
        table = gx.tl.evaluate(adata, key=list(dict.fromkeys(["ridge", method])))
        better = adata.varm["gexinfer_mae"]
        found = {
            "mae": round(float(table.loc[method, "mae"]), 5),
            "better_than_ridge": round(float((better[method] < better["ridge"])[better["ridge"].notna()].mean()), 4),
            "seconds": round(seconds, 1),
        }
        if method in missing:
            # Read again each time: several of these may run at once.
            results = read()
            of_set = results.setdefault(name, {})
            of_set["n_train"] = int((adata.obs["split"] == "train").sum())
            of_set["n_landmarks"] = int(adata.var["landmark"].sum())
            of_set["n_targets"] = int((~adata.var["landmark"]).sum())
            of_set.setdefault(kind, {})[method] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name}, {kind}: {method} {found}", flush=True)
        if method != "ridge":
            del adata.uns[method], adata.layers[method]
    # The next split must not find this one's.
    del adata.uns["ridge"], adata.layers["ridge"]


def read() -> dict[str, dict[str, object]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def table(results: dict, side: str) -> pd.DataFrame:
    """Return the mean MAE over splits of a kind, data sets x methods."""
    return pd.DataFrame(
        {
            name: pd.DataFrame({k: {m: f["mae"] for m, f in v.items()} for k, v in of.items() if k.startswith(side)})
            .reindex(list(METHODS))
            .mean(axis=1)
            for name, of in results.items()
        }
    ).T


def show(results: dict) -> None:
    for side in ("random", "cohort"):
        found = table(results, side)
        grid = Table("data", *found.columns, title=side)
        for name, row in found.iterrows():
            grid.add_row(str(name), *(f"{v:.4f} {1 - v / row['ridge']:+.1%}" for v in row))
        Console(width=160).print(grid)


if __name__ == "__main__":
    main()
