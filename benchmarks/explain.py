"""What models go by on the bundled data, and what it costs: the tables of docs/explanation.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/explain.py [--part speed,bulk,cohort]

Random and by-cohort split of seed 0. `speed` explains a network of the size of the D-GEX paper's with random weights:
what it costs does not depend on them. Gene sets are read from the folder's genesets/h.all.v5.1.symbols.gmt; without it
the part of the enrichment is skipped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
from anndata import AnnData

import gexinfer as gx
from gexinfer._record import records
from gexinfer.engine.moments import moments
from gexinfer.engine.processors import processors
from gexinfer.methods import get_method
from gexinfer.methods._contract import Model
from gexinfer.methods._linear import Spectrum
from gexinfer.methods.dgex import DGEX, METHOD, Regression

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "explain.json"
MODELS: dict[str, tuple[str, dict[str, object]]] = {
    "ridge": ("ridge", {}),
    "knn_genes": ("knn_genes", {}),
    "kernel": ("kernel", {"huber": 0.0}),
    "dgex": ("dgex", {}),
    # Without a linear path; narrower than the paper's, for units to be fewer than samples.
    "paper": ("dgex", {"recipe": "paper", "hidden": 500}),
}
# To average over.
SAMPLES = {"gradient": 300, "integrated": 50}
HALLMARK = "genesets/h.all.v5.1.symbols.gmt"
# The paper's: landmarks, one half of the targets, samples to average over.
SIZE = (943, 4760, 300)


def speed() -> dict[str, object]:
    """Explain a network of 2 x 3,000 hidden units, all pairs."""
    n_in, n_out, n = SIZE
    config = DGEX(recipe="paper", layers=2, hidden=3000)
    drawn = Regression.drawn(config, n_in, n_out, torch.Generator().manual_seed(0))
    arrays = {f"0.{name}": p.numpy() for name, p in drawn.items()} | {"block": np.zeros(n_out, np.int32)}
    model = Model(arrays)
    X = np.random.default_rng(0).standard_normal((n, n_in)).astype(np.float32)
    started = time.perf_counter()
    found = METHOD.jacobian(model, config, X, np.full(X.shape, 1 / n, np.float32), "cpu")
    seconds = time.perf_counter() - started
    # Some pairs against finite differences in float64, which the time does not count.
    wide = Regression(config, {name: p.double() for name, p in drawn.items()}, {})
    errors = []
    with torch.no_grad():
        for landmark in (0, 400, 942):
            step = torch.zeros(n_in, dtype=torch.float64)
            step[landmark] = 1e-4
            x = torch.from_numpy(X).double()
            slope = ((wide.infer(x + step) - wide.infer(x - step)) / 2e-4).mean(0).numpy()
            errors.append(float(np.abs(found[landmark] - slope).max() / np.abs(slope).max()))
    return {
        "landmarks": n_in,
        "targets": n_out,
        "samples": n,
        "threads": torch.get_num_threads(),
        "processors": processors(),
        "seconds": round(seconds, 1),
        "error": float(f"{max(errors):.1e}"),
    }


def explained(groupby: str | None) -> dict[str, object]:
    """Fit, evaluate and explain models on the bundled data."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata, groupby=groupby)
    for name, (method, options) in MODELS.items():
        gx.tl.fit(adata, method, key_added=name, progress=False, **options)
    gx.tl.predict(adata, progress=False)
    table = gx.tl.evaluate(adata)
    found: dict[str, object] = {"n_train": int((adata.obs["split"] == "train").sum()), "models": {}}
    for name in MODELS:
        of_model = {"mae": round(float(table.loc[name, "mae"]), 4)}
        for how in ("integrated", "gradient"):
            started = time.perf_counter()
            gx.tl.explain(adata, name, how=how, n_samples=SAMPLES[how], progress=False)
            entry = adata.uns["gexinfer_explained"][name]
            of_model[how] = {
                "seconds": round(time.perf_counter() - started, 1),
                "agreement": [round(float(q), 3) for q in entry["genes"]["agreement"].quantile([0.05, 0.5, 0.95])],
                "incomplete": round(float(entry.get("incomplete", 0)), 4),
            }
            found["agreement_with"], of_model[how]["n_samples"] = entry["agreement_with"], entry["n_samples"]
        strength = influence_per_sd(adata, name)
        size = np.sort(np.abs(strength), axis=0)[::-1]
        of_model["landmarks for half"] = int(np.median((np.cumsum(size, 0) < size.sum(0) / 2).sum(axis=0) + 1))
        found["models"][name] = of_model
        if (DATA / HALLMARK).exists():
            of_model["enrichment"] = enrichment(adata, name)
        else:
            print(f"enrichment: skipped, {HALLMARK} is not in {DATA}")
    found["nonlinearity"] = {name: nonlinear(adata, name) for name in ("dgex", "paper")}
    found["least squares on test rows"] = least_squares(adata)
    return found


def influence_per_sd(adata: AnnData, name: str) -> np.ndarray:
    """Return (landmarks, targets) change of a target per sd of a landmark."""
    slopes = adata.varm[f"gexinfer_influence_{name}"]
    sd = adata.uns["gexinfer_explained"][name]["landmarks"]["sd"].to_numpy()
    return (slopes[~np.isnan(slopes).any(axis=1)] * sd).T


def enrichment(adata: AnnData, name: str) -> dict[str, object]:
    """Return how often a target's top landmarks are enriched in the sets that it is in itself, and in others."""
    sets = gx.io.read_gmt(DATA / HALLMARK)
    table = gx.tl.enrich(adata, sets, name)
    own = np.array([gene in sets[of] for gene, of in zip(table["gene"], table["gene_set"], strict=True)])
    entry = adata.uns["gexinfer_explained"][name]
    targets, landmarks = set(entry["genes"].index), set(entry["landmarks"].index)
    tested = [of for of in sets if len(landmarks & set(sets[of])) >= 5]
    n_own = sum(len(targets & set(sets[of])) for of in tested)
    n_other = len(targets) * len(tested) - n_own
    passed = (table["fdr"] < 0.05).to_numpy()
    by_set = table[passed & own]["gene_set"].value_counts()
    return {
        "sets": len(tested),
        "own": n_own,
        "own passed": round(float((passed & own).sum() / n_own), 4),
        "others passed": round(float((passed & ~own).sum() / n_other), 5),
        "targets with any": int(table.loc[passed, "gene"].nunique()),
        "most": {of: [int(n), len(targets & set(sets[of]))] for of, n in by_set.head(5).items()},
    }


def nonlinear(adata: AnnData, name: str) -> dict[str, object]:
    """Return medians over targets, and in how many hidden units explain more."""
    table = gx.tl.nonlinearity(adata, name, progress=False)
    return {
        **{column: round(float(table[column].median()), 3) for column in table},
        "above_train": round(float((table["hidden_train"] > table["linear_train"]).mean()), 3),
        "above_test": round(float((table["hidden_test"] > table["linear_test"]).mean()), 3),
    }


def least_squares(adata: AnnData) -> dict[str, float]:
    """Return the median R2 over test rows of least squares without a penalty, on landmarks and on dgex's units."""
    fitted = records(adata)["dgex"]
    landmark = adata.var_names.isin(fitted.landmarks)
    X = fitted.landmark_scale.standardise(adata.X[:, landmark])
    Y = fitted.target_scale.standardise(adata.X[:, ~landmark])
    (units,) = next(iter(get_method("dgex").hidden(fitted.model, fitted.config, [X], "cpu")))
    train, test = ((adata.obs["split"] == side).to_numpy() for side in ("train", "test"))
    found = {}
    for kind, seen in (("landmarks", X), ("hidden units", units)):
        k = seen.shape[1]
        sums = moments([np.hstack([seen[train], Y[train]])], k, int(train.sum()))
        spectrum = Spectrum.of(sums)
        inferred = (seen[test] - sums.mean[:k]) @ spectrum.coefficients(spectrum.inverse(0)) + sums.mean[k:]
        left, spread = ((Y[test] - inferred) ** 2).sum(0), ((Y[test] - Y[test].mean(0)) ** 2).sum(0)
        found[kind] = round(float(np.median(1 - left / spread)), 3)
    return found


def markdown(results: dict[str, dict]) -> dict[str, str]:
    """Return the tables of docs/explanation.md; a test compares them."""
    tables = {}
    for part, title in (("bulk", "random"), ("cohort", "by cohort")):
        found = results[part]
        rows = []
        for name, of in found["models"].items():
            cells = [f"{of['mae']:.3f}"]
            for how in ("gradient", "integrated"):
                low, middle, high = of[how]["agreement"]
                cells.append(f"{middle:.2f} ({low:.2f} to {high:.2f})")
            rows.append([f"`{name}`", *cells, str(of["landmarks for half"])])
        head = [f"split {title}", "MAE", "agreement, gradient", "agreement, integrated", "landmarks for half"]
        tables[part] = table_of(head, rows)
        rows = []
        for name, of in found["models"].items():
            e = of["enrichment"]
            shares = [f"{e['own passed']:.1%}", f"{e['others passed']:.1%}"]
            rows.append([f"`{name}`", *shares, f"{e['targets with any']:,}"])
        head = [f"split {title}", "own sets that pass", "others that pass", "targets with any"]
        tables[f"{part} enrichment"] = table_of(head, rows)
        rows = []
        for name, n in found["nonlinearity"].items():
            cells = []
            for side in ("train", "test"):
                cells += [f"{n[f'linear_{side}']:.3f}", f"{n[f'hidden_{side}']:.3f}", f"{n[f'above_{side}']:.0%}"]
            rows.append([f"`{name}`", *cells])
        sides = [f"{side}: {what}" for side in ("training", "test") for what in ("landmarks", "units", "units better")]
        tables[f"{part} nonlinearity"] = table_of([f"split {title}", *sides], rows)
    return tables


def table_of(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join([line(head), "|---" * len(head) + "|", *map(line, rows)])


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default="speed,bulk,cohort")
    parts = {"speed": speed, "bulk": lambda: explained(None), "cohort": lambda: explained("cohort")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in parser.parse_args().part.split(","):
        results[part] = parts[part]()
        print(part, json.dumps(results[part], indent=1))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if set(parts) <= set(results):
        print(*(f"{name}\n{table}\n" for name, table in markdown(results).items()), sep="\n")


if __name__ == "__main__":
    main()
