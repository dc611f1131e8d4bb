"""Does analysis of inferred values agree with that of measured ones? The tables of docs/downstream.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/downstream.py [--only "bulk random,tuberculosis new"]

Tasks whose data are not there are skipped. Data sets are those of which_method.py, with at most 2,000 targets.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from which_method import AS_MEASURED, DATA, TARGETS, bulk, compendium

import gexinfer as gx
from gexinfer._slots import write_split

RESULTS = Path(__file__).parent / "results" / "downstream.json"
METHODS = ["mean", "knn_genes", "knn", "ridge", "kernel", "dgex"]
# Tissues with tumours and normal samples of one pipeline, and studies with patients and controls.
TUMOURS = ["read", "kich", "chol"]
STUDIES = ["GSE107991", "GSE84076", "GSE107104"]
COLUMNS = {
    "balanced_accuracy": "accuracy",
    "shared": "neighbours",
    "top_overlap": "top genes",
    "sensitivity": "sensitivity",
    "false_discovery": "false discovery",
    "pearson": "r of changes",
    "slope": "slope",
    "relative_error": "error over no change",
    "gene_pearson": "r of a gene",
}


@dataclass(frozen=True)
class Task:
    """One question to one data set; `split` marks training, validation and test rows with a seed."""

    data: Callable[[], ad.AnnData]
    split: Callable[[ad.AnnData, int], None]
    options: dict[str, object]
    seeds: int = 3


def of_bulk() -> ad.AnnData:
    adata = bulk()[0]
    adata.obs["status"] = adata.obs["source"].astype(str).where(adata.obs["tissue"].isin(TUMOURS), None)
    return adata


def of_compendium() -> ad.AnnData:
    adata = compendium()[0]
    status = adata.obs["subtype"].astype(str)
    adata.obs["status"] = status.where(status.isin(["Control", "LTBI", "PTB"]), None)
    return adata


def at_random(adata: ad.AnnData, seed: int) -> None:
    gx.pp.split(adata, rng=seed)


def by_cohort(adata: ad.AnnData, seed: int) -> None:
    # A larger test side than by default, so that it has several tissues.
    gx.pp.split(adata, groupby="cohort", fractions=(0.6, 0.1, 0.3), rng=seed)


def half_of_subjects(adata: ad.AnnData, seed: int) -> None:
    gx.pp.split(adata, groupby="subject", fractions=(0.4, 0.1, 0.5), rng=seed)


def held_out(column: str, names: list[str]) -> Callable[[ad.AnnData, int], None]:
    """Hold some groups out for testing, and choose others for validation by the seed."""

    def split(adata: ad.AnnData, seed: int) -> None:
        groups = adata.obs[column].astype(str)
        others = np.random.default_rng(seed).permutation(sorted(set(groups) - set(names)))
        side = np.where(groups.isin(names), 2, groups.isin(others[: len(others) // 8]).astype(int))
        write_split(adata, side.astype(np.int8), column)

    return split


OF_TUMOURS = {"groupby": "status", "control": "TCGA normal", "within": "tissue", "min_samples": 4}
OF_PATIENTS = {"groupby": "status", "control": "Control", "within": "cohort", "min_samples": 4}
TASKS = {
    "bulk random": Task(of_bulk, at_random, {"groupby": "tissue"}),
    "bulk by cohort": Task(of_bulk, by_cohort, {"groupby": "tissue"}),
    "compendium random": Task(of_compendium, at_random, {"groupby": "tissue"}, seeds=1),
    "compendium by cohort": Task(of_compendium, by_cohort, {"groupby": "tissue"}, seeds=1),
    "tumours known": Task(of_bulk, half_of_subjects, OF_TUMOURS),
    "tumours new": Task(of_bulk, held_out("tissue", TUMOURS), OF_TUMOURS, seeds=1),
    "tuberculosis known": Task(of_compendium, half_of_subjects, OF_PATIENTS),
    "tuberculosis new": Task(of_compendium, held_out("cohort", STUDIES), OF_PATIENTS, seeds=1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only.split(","):
        task = TASKS[name]
        try:
            adata = task.data()
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not in {DATA}")
            continue
        tables, n_test = [], []
        for seed in range(task.seeds):
            adata.uns.clear()
            adata.layers.clear()
            task.split(adata, seed)
            for method in options.methods.split(","):
                gx.tl.fit(adata, method, rng=seed, progress=False, **AS_MEASURED.get(method, {}))
            gx.tl.predict(adata, progress=False)
            tables.append(gx.tl.downstream(adata, **task.options, rng=seed))
            n_test.append(int((adata.obs["split"] == "test").sum()))
        results[name] = {"seeds": task.seeds, "n_test": n_test} | summary(tables)
        show(name, results[name])
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def summary(tables: list[pd.DataFrame]) -> dict[str, object]:
    """Return the mean over seeds of each measure over all groups, how many seeds have it, and how far they differ."""
    whole = pd.concat([table.assign(seed=seed) for seed, table in enumerate(tables)])
    overall = whole[(whole["group"] == "all") & whole["measure"].isin(list(COLUMNS))]
    found = overall.groupby(["values", "measure"], sort=False)["value"].agg(["mean", "min", "max", "count"])
    contrasts = whole[(whole["measure"] == "slope") & (whole["group"] != "all")].groupby("seed")["group"].nunique()
    rows: dict[str, dict[str, object]] = {}
    for (values, measure), row in found[found["count"] > 0].iterrows():
        numbers = {statistic: round(float(row[statistic]), 4) for statistic in ("mean", "min", "max")}
        rows.setdefault(values, {})[measure] = numbers | {"seeds": int(row["count"])}
    classified = overall[overall["measure"] == "balanced_accuracy"].drop_duplicates("seed")["n"]
    called = tables[0][(tables[0]["measure"] == "called") & (tables[0]["group"] != "all")]
    groups = whole[whole["measure"] == "recall"].groupby("seed")["group"].nunique()
    return {
        "contrasts": contrasts.tolist(),
        "classified": classified.tolist(),
        "classes": groups.tolist(),
        "called": {v: dict(zip(t["group"], t["value"].round(4), strict=True)) for v, t in called.groupby("values")},
        "values": rows,
    }


def cell(result: dict[str, object], values: str, measure: str) -> str:
    """Return a mean that all seeds took part in."""
    found = result["values"][values].get(measure, {"seeds": 0})
    return f"{found['mean']:.3f}" if found["seeds"] == result["seeds"] else "–"


def markdown(result: dict[str, object]) -> str:
    """Return a table of docs/downstream.md; a test compares them."""
    rows = {values: {m: cell(result, values, m) for m in COLUMNS} for values in result["values"]}
    rows = {values: cells for values, cells in rows.items() if set(cells.values()) != {"–"}}
    measures = [m for m in COLUMNS if any(cells[m] != "–" for cells in rows.values())]
    lines = ["| values | " + " | ".join(COLUMNS[m] for m in measures) + " |", "|---" * (len(measures) + 1) + "|"]
    return "\n".join(lines + [f"| {v} | " + " | ".join(cells[m] for m in measures) + " |" for v, cells in rows.items()])


def short(results: dict[str, dict[str, object]]) -> list[str]:
    """Return the phrases of docs/downstream.md that hold numbers; a test looks for them."""

    def of(task: str, measure: str) -> str:
        """Return the lowest and the highest of the models that are good."""
        found = [results[task]["values"][model][measure]["mean"] for model in ("ridge", "kernel", "dgex")]
        low, high = f"{min(found):.2f}", f"{max(found):.2f}"
        return low if low == high else f"{low} to {high}"

    def count(values: str) -> int:
        return round(TARGETS * results["tuberculosis new"]["called"][values]["PTB, GSE107104"])

    known, new, patients, studies = "tumours known", "tumours new", "tuberculosis known", "tuberculosis new"
    landmarks = f"{results['bulk random']['values']['landmarks']['shared']['mean']:.2f}"
    return [
        f"changes have an r of {of(known, 'pearson')} with the measured ones and {of(known, 'slope')} of their size",
        f"an r of {of(new, 'pearson')} and {of(new, 'slope')} of the size",
        f"an r of {of(patients, 'pearson')} and {of(patients, 'slope')} of the size",
        f"{of(known, 'top_overlap')} of the 100 top genes are found, in new ones {of(new, 'top_overlap')}",
        f"{of(known, 'false_discovery')} of the genes called in inferred values are not called in measured ones",
        f"new tissues {of(new, 'false_discovery')}, for tuberculosis {of(studies, 'false_discovery')}",
        f"{count('measured')} of 2,000 genes are called in measured values and {count('ridge')} in those of `ridge`",
        f"find {landmarks} of the neighbours, with inferred targets {of('bulk random', 'shared')}",
    ]


def show(name: str, result: dict[str, object]) -> None:
    grid = Table("values", *COLUMNS.values(), title=f"{name}: {result['n_test']} test samples")
    for values in result["values"]:
        grid.add_row(values, *(cell(result, values, m) for m in COLUMNS))
    Console(width=140).print(grid)


if __name__ == "__main__":
    main()
