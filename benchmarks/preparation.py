"""The D-GEX preparation on real files: what is matched, what is dropped, what quantile normalisation moves.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/preparation.py

Files that are not there are skipped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.spatial.distance import pdist

import gexinfer as gx
from gexinfer.pp._match_genes import look_up
from gexinfer.pp._panels import as_ids, names_of

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "preparation.json"
FILES = {
    "L1000 example, probes": "l1000/qnorm_n27x22268.gctx",
    "Affymetrix": "affy_u133_dgex.h5ad",
    "compendium": "rnaseq_compendium_counts.h5ad",
    "PBMC 3k": "pbmc3k_raw.h5ad",
    "TCGA": "tcga_pancan_z_1526genes.h5ad",
}
IDS = {"Affymetrix": "symbol", "PBMC 3k": "ensembl"}


def read(name: str) -> ad.AnnData:
    path = DATA / FILES[name]
    if not path.exists():
        raise FileNotFoundError(path)
    return gx.io.read_gctx(path) if path.suffix == ".gctx" else ad.read_h5ad(path)


def on_log_scale(counts: ad.AnnData) -> ad.AnnData:
    counts.X = np.log2(counts.X / counts.X.sum(axis=1, keepdims=True) * 1e6 + 1).astype(np.float32)
    return counts


def matched(name: str) -> dict[str, float]:
    """Return how many names are found and how many genes and landmarks they are."""
    adata = read(name)
    column = IDS.get(name)
    names, source = names_of(adata, column)
    kinds = look_up(as_ids(names, source)).query("gene >= 0")
    start = time.perf_counter()
    gx.pp.match_genes(adata, id_column=column, aggregate="mean" if name in ("Affymetrix", "TCGA") else "sum")
    seconds = time.perf_counter() - start
    gx.pp.landmarks(adata)
    return {
        "names": len(names),
        "found": len(kinds),
        "by": {str(kind): int(n) for kind, n in kinds["kind"].value_counts().items()},
        "genes": adata.n_vars,
        "landmarks": int(adata.var["landmark"].sum()),
        "seconds": round(seconds, 1),
    }


def duplicates(name: str) -> dict[str, float]:
    """Return how many samples repeat another, exactly and within the paper's distance."""
    adata = on_log_scale(read(name)) if name == "compendium" else read(name)
    n, start = adata.n_obs, time.perf_counter()
    near = n - gx.pp.drop_duplicates(adata, copy=True).n_obs
    seconds = time.perf_counter() - start
    exact = n - gx.pp.drop_duplicates(adata, "exact", copy=True).n_obs
    nearest = pdist(adata.X).min()
    return {
        "samples": n,
        "near": near,
        "exact": exact,
        "nearest": round(float(nearest), 1),
        "seconds": round(seconds, 1),
    }


def affymetrix_again() -> dict[str, float]:
    """Return how far the unnormalised layer of the Affymetrix file comes to the file's normalised values.

    They were normalised by probe and averaged for each gene then; the layer was averaged first.
    """
    adata = read("Affymetrix")
    published = np.sort(adata.X, axis=1).mean(axis=0)
    start = time.perf_counter()
    again = gx.pp.quantile_normalize(adata, published, layer="log2_unnormalised", copy=True)
    seconds = time.perf_counter() - start
    before = np.abs(adata.layers["log2_unnormalised"] - adata.X)
    after = np.abs(again.layers["log2_unnormalised"] - adata.X)
    return {
        "median_before": round(float(np.median(before)), 3),
        "median_after": round(float(np.median(after)), 3),
        "largest_before": round(float(before.max()), 2),
        "largest_after": round(float(after.max()), 2),
        "r_of_samples": round(
            float(
                np.mean(
                    [np.corrcoef(a, b)[0, 1] for a, b in zip(again.layers["log2_unnormalised"], adata.X, strict=True)]
                )
            ),
            4,
        ),
        "seconds": round(seconds, 1),
    }


def across_platforms() -> dict[str, float]:
    """Return what GEO's quantiles do for RNA-seq: how far the genes' means are from those on microarrays."""
    array, rna = read("Affymetrix"), on_log_scale(read("compendium"))
    array.var_names = array.var["symbol"].astype(str)
    array = array[:, ~array.var_names.duplicated()].copy()
    for adata in (array, rna):
        gx.pp.match_genes(adata)
    shared = array.var_names.intersection(rna.var_names)
    array, rna = array[:, shared].copy(), rna[:, shared].copy()
    gx.pp.quantile_normalize(array)
    levels = array.X.mean(axis=0)
    found = {"genes": len(shared), "zeros": round(float((rna.X == 0).mean()), 3)}
    zeros = rna.X == 0
    found["median_apart_before"] = round(float(np.median(np.abs(rna.X.mean(axis=0) - levels))), 3)
    start = time.perf_counter()
    gx.pp.quantile_normalize(rna, array)
    found["seconds"] = round(time.perf_counter() - start, 1)
    found["median_apart_after"] = round(float(np.median(np.abs(rna.X.mean(axis=0) - levels))), 3)
    lowest = [row[mask].max() for row, mask in zip(rna.X, zeros, strict=True) if mask.any()]
    found["zeros_become"] = [round(float(q), 2) for q in np.quantile(lowest, [0, 0.5, 1])]
    return found


def main() -> None:
    found: dict[str, dict[str, object]] = {"matched": {}, "duplicates": {}}
    jobs: list[tuple[str, str, Callable[[str], dict[str, float]]]] = [("matched", name, matched) for name in FILES]
    jobs += [("duplicates", name, duplicates) for name in ("L1000 example, probes", "Affymetrix", "compendium")]
    for table, name, job in jobs:
        try:
            found[table][name] = job(name)
        except FileNotFoundError:
            print(f"{name}: skipped, {FILES[name]} is not in {DATA}")
    try:
        found["affymetrix again"], found["across platforms"] = affymetrix_again(), across_platforms()
    except FileNotFoundError as error:
        print(f"skipped, there is no {error}")
    for title, rows in found.items():
        grid = Table("", "", title=title)
        for key, value in rows.items():
            grid.add_row(key, str(value))
        Console(width=120).print(grid)
    if all(found["matched"].get(name) for name in FILES):
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def markdown(results: dict[str, dict[str, dict[str, object]]]) -> list[str]:
    """Return the table of docs/preparation.md, a test compares them."""
    lines = ["| data | names | found | as | genes | landmarks |", "|---|---|---|---|---|---|"]
    for name, found in results["matched"].items():
        by = ", ".join(f"{kind} {n:,}" for kind, n in found["by"].items())
        cells = [f"{found[column]:,}" for column in ("names", "found")] + [by]
        cells += [f"{found[column]:,}" for column in ("genes", "landmarks")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
