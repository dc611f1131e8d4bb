"""Panels of the same size, chosen in different ways, by what ridge infers from them: the tables of docs/panels.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/select_landmarks.py [--only affymetrix] [--seeds 1]
       GEXINFER_DATA=<folder of the data sets> python benchmarks/select_landmarks.py --timing

Data sets that are not there are skipped. Every panel of a data set infers the same genes, drawn at random (seed 0)
among those that are no landmarks of L1000; no panel may hold them. Panels are chosen on training rows, with those
genes' values there in view; "targets unseen" is chosen without.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
import time
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import psutil
import scanpy as sc
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

import gexinfer as gx

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "select_landmarks.json"
TARGETS, THREADS = 1000, 2
PANELS = {
    "greedy": "`select_landmarks`",
    "unseen": "the same, targets unseen",
    "own": "L1000's own",
    "random": "random",
    "variable": "highly variable",
    "correlated": "most correlated",
}


def counts(name: str) -> ad.AnnData:
    adata = ad.read_h5ad(DATA / name)
    adata.X = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    return adata


def in_logs(adata: ad.AnnData, keep: np.ndarray, target: float = 1e6) -> ad.AnnData:
    """Keep some genes as log2(counts per million + 1)."""
    adata.X = np.log2(adata.X / adata.X.sum(axis=1, keepdims=True) * target + 1).astype(np.float32)
    return adata[:, keep].copy()


def compendium() -> tuple[ad.AnnData, str]:
    adata = counts("rnaseq_compendium_counts.h5ad")
    return in_logs(adata, (adata.X >= 10).mean(axis=0) >= 0.1), "cohort"


def affymetrix() -> tuple[ad.AnnData, str]:
    adata = ad.read_h5ad(DATA / "affy_u133_dgex.h5ad")
    return adata[:, ~adata.var["same_symbol_as_landmark"].to_numpy(bool)].copy(), "study"


def cells() -> tuple[ad.AnnData, None]:
    adata = counts("pbmc3k_raw.h5ad")
    return in_logs(adata, (adata.X > 0).mean(axis=0) >= 0.03, 1e4), None


def pools() -> tuple[ad.AnnData, None]:
    """Sum the counts of 20 cells of a type each."""
    adata, rng = counts("pbmc3k_raw.h5ad"), np.random.default_rng(0)
    rows = pd.Series(np.arange(adata.n_obs)).groupby(adata.obs["cell_type"].to_numpy(str))
    of_a_type = [rng.permutation(places) for _, places in rows]
    parts = [part for places in of_a_type for part in np.array_split(places, max(len(places) // 20, 1))]
    pooled = ad.AnnData(np.array([adata.X[part].sum(axis=0) for part in parts]), var=adata.var)
    return in_logs(pooled, (pooled.X > 0).mean(axis=0) >= 0.5), None


SETS = {"compendium": compendium, "affymetrix": affymetrix, "cells": cells, "pools": pools}
SIZES = {"compendium": (100, 300), "affymetrix": (100, 300), "cells": (100, 300), "pools": (30, 100)}


def panels(adata: ad.AnnData, targets: np.ndarray, own: np.ndarray, sizes: list[int], seed: int) -> dict[str, object]:
    """Return the genes of each panel, best first, by training rows; panels of one size alone have that size."""
    most, rng = max(sizes), np.random.default_rng(seed)
    open_to = np.setdiff1d(np.arange(adata.n_vars), targets)
    open_to = open_to[adata.X[adata.obs["split"] == "train"][:, open_to].std(axis=0) > 1e-3]
    train = adata[adata.obs["split"] == "train"].copy()
    unseen = train[:, open_to].copy()
    gx.pp.select_landmarks(train, most, exclude=list(train.var_names[targets]), progress=False)
    gx.pp.select_landmarks(unseen, most, progress=False)
    found = {"greedy": train.uns["landmark_picks"].index, "unseen": unseen.uns["landmark_picks"].index}
    found["own"] = adata.var_names[own]
    found["random"] = adata.var_names[rng.permutation(open_to)[:most]]
    unseen.uns["log1p"] = {"base": 2}
    sc.pp.highly_variable_genes(unseen, n_top_genes=most)
    found["variable"] = unseen.var["dispersions_norm"].sort_values(ascending=False).index[:most]
    z = (train.X - train.X.mean(axis=0)) / (train.X.std(axis=0) + 1e-3) / np.sqrt(train.n_obs)
    squared = ((z.T @ (z @ z.T).astype(np.float32)) * z.T).sum(axis=1)
    found["correlated"] = adata.var_names[open_to[np.argsort(-squared[open_to], kind="stable")[:most]]]
    return found


def scores(adata: ad.AnnData, panel: pd.Index, targets: pd.Index) -> tuple[float, float]:
    """Return MAE and median R2 of ridge on test rows."""
    part = adata[:, panel.append(targets)].copy()
    part.var["landmark"] = part.var_names.isin(panel)
    gx.tl.fit(part, "ridge", progress=False)
    gx.tl.predict(part, progress=False)
    table = gx.tl.evaluate(part)
    return round(float(table.loc["ridge", "mae"]), 4), round(float(table.loc["ridge", "r2"]), 4)


def compared(name: str, seeds: int) -> dict[str, object]:
    """Return what was compared, and {side: {panel: {size: {"mae", "r2": a value a seed}}}}."""
    adata, groups = SETS[name]()
    own = np.flatnonzero(adata.var["is_landmark"].to_numpy(bool) & (adata.X.std(axis=0) > 1e-3))
    pool = np.setdiff1d(np.flatnonzero(adata.X.std(axis=0) > 1e-3), own)
    targets = np.random.default_rng(0).choice(pool, min(TARGETS, len(pool) // 4), replace=False)
    sizes = [*SIZES[name], len(own)]
    found: dict[str, object] = {"genes": adata.n_vars, "targets": len(targets), "sizes": sizes, "sides": {}}
    for groupby in [None] if groups is None else [None, groups]:
        side = found["sides"].setdefault("random" if groupby is None else f"by {groupby}", {})
        for seed in range(seeds):
            gx.pp.split(adata, groupby=groupby, rng=seed)
            for key, panel in panels(adata, targets, own, sizes, seed).items():
                for size in sizes if key != "own" else [len(own)]:
                    mae, r2 = scores(adata, pd.Index(panel[:size]), adata.var_names[targets])
                    cell = side.setdefault(key, {}).setdefault(str(size), {"mae": [], "r2": []})
                    cell["mae"].append(mae)
                    cell["r2"].append(r2)
        found["train"] = int((adata.obs["split"] == "train").sum())
    return found


def markdown(results: dict[str, object], name: str, side: str) -> list[str]:
    """Return a table of docs/panels.md, a test compares them."""
    found = results["scores"][name]
    titles = [f"{metric}, {size}" for metric in ("MAE", "R2") for size in found["sizes"]]
    lines = [f"| panel | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for key, title in PANELS.items():
        of_size = found["sides"][side][key]
        cells = [
            f"{np.mean(of_size[str(size)][metric]):.3f}" if str(size) in of_size else "–"
            for metric in ("mae", "r2")
            for size in found["sizes"]
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def show(results: dict[str, object], name: str) -> None:
    for side in results["scores"][name]["sides"]:
        header, _, *rows = [[c.strip() for c in line.strip("|").split("|")] for line in markdown(results, name, side)]
        grid = Table(*header, title=f"{name}, {side}")
        for row in rows:
            grid.add_row(*row)
        Console(width=120).print(grid)


def generated() -> ad.AnnData:
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((200, 20_000)) * np.linspace(0.2, 0.01, 200)[:, None]).astype(np.float32)
    values = rng.standard_normal((5000, 200), np.float32) @ weights
    values += 0.5 * rng.standard_normal(values.shape, np.float32)
    return ad.AnnData(values)


def whole_compendium() -> ad.AnnData:
    adata = counts("rnaseq_compendium_counts.h5ad")
    return in_logs(adata, np.ones(adata.n_vars, bool))


def timing() -> dict[str, dict[str, float]]:
    """Return what 1,000 picks cost, the whole call on an AnnData in memory: seconds, and memory above the data's."""
    found = {}
    for what, read in (("generated", generated), ("compendium", whole_compendium)):
        try:
            adata = read()
        except FileNotFoundError:
            print(f"{what}: skipped, its file is not in {DATA}")
            continue
        process, most, done = psutil.Process(), [0], threading.Event()

        def watch(process=process, most=most, done=done) -> None:
            while not done.wait(0.02):
                most.append(process.memory_info().rss)

        before, watcher = process.memory_info().rss, threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        with threadpool_limits(THREADS):
            gx.pp.select_landmarks(adata, 1000, progress=False)
        seconds = time.perf_counter() - start
        done.set()
        watcher.join()
        found[what] = {
            "samples": adata.n_obs,
            "genes": adata.n_vars,
            "seconds": round(seconds, 1),
            "megabytes": round((max(most) - before) / 2**20),
        }
        print(what, found[what], f"{THREADS} threads")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--timing", action="store_true", help="measure the time alone")
    options = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)
    logging.getLogger("gexinfer").setLevel(logging.WARNING)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"scores": {}, "timing": {}}
    if options.timing:
        results["timing"] = timing()
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        return
    for name in options.only.split(","):
        try:
            results["scores"][name] = compared(name, options.seeds)
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not in {DATA}")
            continue
        show(results, name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
