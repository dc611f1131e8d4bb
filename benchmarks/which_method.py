"""Every method on every data set, split at random and by cohort: the tables of docs/which_method.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/which_method.py [--only bulk,tcga] [--seeds 1]

Data sets that are not there are skipped. At most 2,000 targets of each, drawn at random (seed 0).
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table

import gexinfer as gx

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "which_method.json"
METHODS = ["mean", "ols", "ridge", "rrr", "lasso", "knn", "knn_genes", "sample_lasso", "kernel", "dgex"]
TARGETS = 2000
# How pages older than the kernel's `huber` have measured it; a page says so.
AS_MEASURED: dict[str, dict[str, float]] = {"kernel": {"huber": 0.0}}


def bulk() -> tuple[ad.AnnData, str]:
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    return adata, "cohort"


def compendium() -> tuple[ad.AnnData, str]:
    adata = ad.read_h5ad(DATA / "rnaseq_compendium_counts.h5ad")
    counts = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    adata.X = np.log2(counts / counts.sum(axis=1, keepdims=True) * 1e6 + 1).astype(np.float32)
    return fewer_targets(adata), "cohort"


def affymetrix() -> tuple[ad.AnnData, str]:
    adata = ad.read_h5ad(DATA / "affy_u133_dgex.h5ad")
    return fewer_targets(adata, ~adata.var["same_symbol_as_landmark"].to_numpy(bool)), "study"


def tcga() -> tuple[ad.AnnData, str]:
    adata = ad.read_h5ad(DATA / "tcga_pancan_z_1526genes.h5ad")
    values = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    adata.X = (np.sign(values) * np.log1p(np.abs(values))).astype(np.float32)
    return fewer_targets(adata), "cohort"


def pbmc() -> tuple[ad.AnnData, None]:
    adata = ad.read_h5ad(DATA / "pbmc3k_raw.h5ad")
    detected = np.asarray((adata.X > 0).mean(axis=0)).ravel() >= 0.05
    per_cell = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.X = sp.csr_matrix(sp.diags(1e4 / per_cell) @ adata.X, dtype=np.float32).log1p()
    return fewer_targets(adata, detected), None


SETS = {"bulk": bulk, "compendium": compendium, "affymetrix": affymetrix, "tcga": tcga, "pbmc": pbmc}


def fewer_targets(adata: ad.AnnData, wanted: np.ndarray | None = None) -> ad.AnnData:
    """Keep the landmarks and at most 2,000 of the wanted targets that vary."""
    landmark = adata.var["is_landmark"].to_numpy(bool)
    X = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    varies = X.std(axis=0) > 0
    pool = np.flatnonzero(~landmark & varies & (True if wanted is None else wanted))
    targets = np.random.default_rng(0).choice(pool, min(TARGETS, len(pool)), replace=False)
    adata = adata[:, np.sort(np.concatenate([np.flatnonzero(landmark & varies), targets]))].copy()
    adata.var["landmark"] = adata.var["is_landmark"].astype(bool)
    return adata


def there(names: str) -> Iterator[tuple[str, ad.AnnData, str | None]]:
    """Yield the data sets of these names whose files are there, with the column of their groups."""
    for name in names.split(","):
        try:
            yield name, *SETS[name]()
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not in {DATA}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(SETS))
    parser.add_argument("--methods", default=",".join(METHODS), help="ridge among them; others keep their results")
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    methods = options.methods.split(",")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, adata, groups in there(options.only):
        for groupby in [None] if groups is None else [None, groups]:
            tables = []
            for seed in range(options.seeds):
                gx.pp.split(adata, groupby=groupby, rng=seed)
                tables.append(gx.tl.compare(adata, methods, rng=seed, progress=False))
                for method in methods:  # the next split must not find this one's predictions
                    del adata.uns[method], adata.layers[method]
            side = "random" if groupby is None else f"by {groupby}"
            before = results.setdefault(name, {}).get(side, {"methods": {}})
            found = before["methods"] | summary(tables, methods)
            results[name][side] = {
                "seeds": options.seeds,
                "methods": dict(sorted(found.items(), key=lambda item: item[1]["mae"])),
                "n_landmarks": int(adata.var["landmark"].sum()),
                "n_targets": int((~adata.var["landmark"]).sum()),
                "n_train": int((adata.obs["split"] == "train").sum()),
            }
            show(name, side, results[name][side])
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def summary(tables: list[pd.DataFrame], methods: list[str]) -> dict[str, dict[str, object]]:
    """Return each method's figures, averaged over seeds, and its MAE with each."""
    columns = ["mae", "pearson", "r2", "gain_over_ridge", "better_than_ridge", "fit_seconds"]
    mean = sum(table.loc[methods, columns] for table in tables) / len(tables)
    summary = {m: {c: round(float(mean.loc[m, c]), 4) for c in columns} for m in methods}
    for method, found in summary.items():
        found["mae_by_seed"] = [round(float(table.loc[method, "mae"]), 4) for table in tables]
    return summary


def markdown(results: dict[str, dict[str, object]], name: str, side: str) -> list[str]:
    """Return the table of docs/which_method.md, a test compares them."""
    lines = [
        "| method | MAE | r | R2 | over ridge | genes better than ridge | fit, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, found in results[name][side]["methods"].items():
        cells = [f"{found[c]:.3f}" for c in ("mae", "pearson", "r2")]
        cells += [f"{found[c]:.1%}" for c in ("gain_over_ridge", "better_than_ridge")]
        cells = ["–" if cell == "nan" or (method == "ridge" and "%" in cell) else cell for cell in cells]
        lines.append(f"| `{method}` | {' | '.join(cells)} | {found['fit_seconds']:.1f} |")
    return lines


def show(name: str, side: str, result: dict[str, object]) -> None:
    grid = Table("method", "MAE", "r", "R2", "over ridge", "genes better", "fit, s", title=f"{name}, {side}")
    for method, found in result["methods"].items():
        cells = [f"{found[c]:.3f}" for c in ("mae", "pearson", "r2")]
        cells += [f"{found[c]:.1%}" for c in ("gain_over_ridge", "better_than_ridge")]
        grid.add_row(method, *cells, f"{found['fit_seconds']:.1f}")
    Console(width=100).print(grid)


if __name__ == "__main__":
    main()
