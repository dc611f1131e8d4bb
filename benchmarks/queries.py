"""Queries that lack landmarks, and queries of another platform: the tables of docs/queries.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/queries.py [--part missing|platforms] [--threads 2]

`missing` runs on the bundled data, too; `platforms` needs the microarrays and the RNA-seq compendium, and is skipped
without them.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits
from which_method import AS_MEASURED

import gexinfer as gx

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
RESULTS = Path(__file__).parent / "results" / "queries.json"
FILES = {"microarrays": DATA / "affy_u133_dgex.h5ad", "RNA-seq": DATA / "rnaseq_compendium_counts.h5ad"}
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9)
METHODS = ("mean", "ridge", "knn", "sample_lasso", "kernel", "dgex")
SELECTED = ("ridge", "knn", "kernel", "dgex")
ADAPT = ("none", "quantile", "moments")
TEXTS = {"": "mae", ", single": "mae_single", ", mean": "mae_mean"}


def missing() -> list[dict[str, object]]:
    """Return the MAE on test samples of which a share of the landmarks is taken away, and of filling in the mean."""
    rows = []
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    for by in (None, "cohort"):
        gx.pp.split(adata, groupby=by)
        test, landmark = (adata.obs["split"] == "test").to_numpy(), adata.var["landmark"].to_numpy()
        truth = np.asarray(adata.X)[test][:, ~landmark]
        for method in ("ridge", "kernel"):
            gx.tl.fit(adata, method, progress=False, **AS_MEASURED.get(method, {}))
            model = gx.io.read_model(adata, key=method)
            order = np.random.default_rng(0).permutation(landmark.sum())
            for share in SHARES:
                lost = order[: round(share * len(order))]
                X = np.array(adata.X[test][:, landmark])
                X[:, lost] = model.landmark_scale.mean[lost]
                of_mean = error(model, X, truth)
                X[:, lost] = np.nan
                filled = error(model, X, truth)
                X = np.array(adata.X[test][:, landmark])
                X[np.random.default_rng(1).random(X.shape) < share] = np.nan
                scores = {"mae": filled, "mae_single": error(model, X, truth), "mae_mean": of_mean}
                rows.append({"split": by or "random", "method": method, "share": share, **scores})
    return rows


def error(model: gx.io.FittedModel, X: np.ndarray, truth: np.ndarray) -> float:
    return float((np.abs(model.predict(X, device="cpu") - truth) / model.target_scale.unit).mean())


def platforms() -> list[dict[str, object]]:
    """Return the MAE and the median r over genes, for each direction, method and choice of `adapt`."""
    rows = []
    sets = on_common_genes()
    for trained, queried in (("microarrays", "RNA-seq"), ("RNA-seq", "microarrays")):
        ref, query = sets[trained].copy(), sets[queried]
        gx.pp.split(ref, groupby="cohort", fractions=(0.85, 0.15, 0.0))
        for method in METHODS:
            gx.tl.fit(ref, method, progress=False, **AS_MEASURED.get(method, {}))
        # The truth is known on its own scale alone, so whole profiles are brought to the reference's quantiles.
        truth = query.copy()
        gx.pp.quantile_normalize(truth, ref)
        panel = query[:, ref.var["landmark"].to_numpy()].copy()
        ranked = truth[:, ref.var["landmark"].to_numpy()].copy()
        for method in METHODS:
            for adapt in (*ADAPT, "whole"):
                given, choice = (ranked, "none") if adapt == "whole" else (panel, adapt)
                model = gx.io.read_model(ref, key=method)
                rows += scored(trained, method, adapt, model, given, truth, choice)
        # As the paper selects on 1000 Genomes: a fifth of the other platform's cohorts chooses, the others judge.
        gx.pp.split(truth, groupby="cohort", fractions=(0.0, 0.2, 0.8))
        chooses = (truth.obs["split"] == "validation").to_numpy()
        for method in SELECTED:
            for name, validation in (("own", None), ("other", truth[chooses].copy())):
                options = AS_MEASURED.get(method, {})
                gx.tl.fit(ref, method, key_added="chosen", validation=validation, progress=False, **options)
                model = gx.io.read_model(ref, key="chosen")
                judged = ranked[~chooses].copy()
                rows += scored(trained, method, f"validated on {name}", model, judged, truth[~chooses].copy(), "none")
    return rows


def scored(
    trained: str,
    method: str,
    adapt: str,
    model: gx.io.FittedModel,
    query: ad.AnnData,
    truth: ad.AnnData,
    choice: str,
) -> list[dict[str, object]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = gx.tl.predict(query, model, adapt=choice, output="anndata", device="cpu", progress=False)
    inferred, measured = made[:, list(model.targets)].X, np.asarray(truth[:, list(model.targets)].X)
    errors = (np.abs(inferred - measured) / model.target_scale.unit).mean(axis=0)
    a, b = inferred - inferred.mean(axis=0), measured - measured.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    shared = truth.var.loc[list(model.targets), "shares_gene"].to_numpy()
    return [
        {
            "trained": trained,
            "method": method,
            "adapt": adapt,
            "targets": name,
            "n_targets": int(keep.sum()),
            "mae": float(errors[keep].mean()),
            "r": None if method == "mean" else float(np.nanmedian(r[keep])),
        }
        for name, keep in (("all", np.ones(len(shared), bool)), ("no gene of a landmark", ~shared))
    ]


def on_common_genes() -> dict[str, ad.AnnData]:
    """Return both platforms with the same genes, by Ensembl id; probes of one gene averaged but for a landmark's."""
    arrays, counts = (ad.read_h5ad(path) for path in FILES.values())
    values = counts.X.toarray() if sp.issparse(counts.X) else counts.X
    counts.X = np.log2(values / values.sum(axis=1, keepdims=True) * 1e6 + 1).astype(np.float32)
    ensembl = arrays.var["ensembl"].astype(str)
    # A probe that measures a landmark's gene, but is not the landmark, stays a target of its own.
    shares = arrays.var["same_symbol_as_landmark"].to_numpy(bool)
    names = ensembl.where(~shares, ensembl + " again").to_numpy()
    keep = ensembl.isin(counts.var["ensembl"]).to_numpy()
    table = pd.DataFrame(np.asarray(arrays.X)[:, keep].T).groupby(names[keep], sort=False).mean()
    landmark = set(ensembl[arrays.var["is_landmark"].to_numpy(bool)])
    var = pd.DataFrame({"landmark": [n in landmark for n in table.index]}, index=table.index)
    var["shares_gene"] = var.index.str.endswith(" again")
    column = pd.Series(np.arange(counts.n_vars), counts.var["ensembl"].astype(str))
    places = column[~column.index.duplicated()][var.index.str.removesuffix(" again")].to_numpy()
    microarrays = ad.AnnData(table.to_numpy(np.float32).T, arrays.obs[[]].assign(cohort=arrays.obs["study"]), var)
    sequenced = ad.AnnData(counts.X[:, places], counts.obs[["cohort"]], var)
    return {"microarrays": microarrays, "RNA-seq": sequenced}


def markdown(results: dict[str, list[dict[str, object]]]) -> dict[str, str]:
    """Return the tables of docs/queries.md by name."""
    tables = {}
    for split in ("random", "cohort"):
        found = pd.DataFrame(results["missing"]).query("split == @split")
        columns = {f"{m}{text}": (m, c) for m in ("ridge", "kernel") for text, c in TEXTS.items()}
        lines = header(["missing", *columns])
        for share, rows in found.groupby("share"):
            cells = [f"{rows.loc[rows['method'] == m, c].item():.3f}" for m, c in columns.values()]
            lines.append(line([f"{share:.0%}", *cells]))
        tables[f"missing {split}"] = "\n".join(lines)
    every = pd.DataFrame(results["platforms"])
    for trained in FILES:
        for targets in ("no gene of a landmark", "all"):
            found = every.query("trained == @trained and targets == @targets").set_index(["method", "adapt"])
            choices = (*ADAPT, "whole")
            lines = header(["method", *(f"{c}, {score}" for c in choices for score in ("MAE", "r"))])
            for method in METHODS:
                cells = [text(found.loc[(method, c), score]) for c in choices for score in ("mae", "r")]
                lines.append(line([method, *cells]))
            tables[f"{trained} {targets}"] = "\n".join(lines)
    found = every.query("targets == 'no gene of a landmark'").set_index(["trained", "method", "adapt"])
    lines = header(["trained on", "method", *(f"{c}, {score}" for c in ("own", "other") for score in ("MAE", "r"))])
    for trained in FILES:
        for method in SELECTED:
            cells = [
                text(found.loc[(trained, method, f"validated on {c}"), score])
                for c in ("own", "other")
                for score in ("mae", "r")
            ]
            lines.append(line([trained, method, *cells]))
    tables["validation"] = "\n".join(lines)
    return tables


def header(cells: list[str]) -> list[str]:
    return [line(cells), "|" + "---|" * len(cells)]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def text(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.3f}"


def show(rows: list[dict[str, object]]) -> None:
    grid = Table(*rows[0])
    for row in rows:
        grid.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=120).print(grid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=["missing", "platforms"])
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(args.threads)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with threadpool_limits(args.threads):
        for name, part in (("missing", missing), ("platforms", platforms)):
            if args.part not in (None, name):
                continue
            if name == "platforms" and not all(path.exists() for path in FILES.values()):
                print(f"platforms: skipped, {DATA} does not hold {', '.join(p.name for p in FILES.values())}")
                continue
            results[name] = part()
            show(results[name])
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
