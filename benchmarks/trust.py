"""What intervals hold, what novelty sees and which genes are trusted: the tables of docs/trust.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/trust.py [--only bulk,tcga] [--seeds 3]

Data sets that are not there are skipped. At most 2,000 targets of each, drawn at random (seed 0). `dgex` is fitted with
the first seed alone.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import anndata as ad
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from which_method import AS_MEASURED, there

import gexinfer as gx
from gexinfer._fitted import PREDICT_ROWS, FittedModel
from gexinfer._record import to_bytes

RESULTS = Path(__file__).parent / "results" / "trust.json"
METHODS = ("ridge", "kernel", "dgex")
NAMES = ("bulk", "compendium", "affymetrix", "tcga")
LEVELS = (0.9, 0.5)
# Groups of fewer test samples say little by themselves.
LARGE = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name, adata, groups in there(options.only):
        found: dict[str, object] = {"n_samples": adata.n_obs, "groups": groups}
        for side, groupby in (("random", None), ("by group", groups)):
            found[side] = of_split(adata, groupby, groups, options.seeds)
            show(name, side, found[side])
        found["unseen"] = unseen(adata, groups)
        results[name] = found
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    results["cost"] = cost()
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def of_split(adata: ad.AnnData, groupby: str | None, groups: str, seeds: int) -> dict[str, object]:
    """Return coverage, trust and ways to scale intervals, of one way to split."""
    coverage, trust, ways = [], {}, []
    for seed in range(seeds):
        gx.pp.split(adata, groupby=groupby, rng=seed)
        for method in METHODS if seed == 0 else METHODS[:2]:
            gx.tl.fit(adata, method, rng=seed, progress=False, **AS_MEASURED.get(method, {}))
            for level in LEVELS:
                for scaled in (True, False):
                    gx.tl.predict(adata, key=method, interval=level, interval_scaled=scaled, progress=False)
                    table = gx.tl.coverage(adata, key=method, groupby=groups)
                    coverage.append(
                        {"method": method, "level": level, "scaled": scaled, "seed": seed, **summary(table, groups)}
                    )
            if method != "dgex":
                ways += [{"method": method, "seed": seed, **way} for way in scalings(adata, method)]
            if seed == 0:
                trust[method] = trusted(adata, method)
            del adata.uns[method]
            for layer in (method, f"{method}_lower", f"{method}_upper"):
                del adata.layers[layer]
    frame = pd.DataFrame(coverage)
    averaged = frame.drop(columns="seed").groupby(["method", "level", "scaled"], sort=False).mean().round(4)
    by_seed = frame.groupby(["method", "level", "scaled"], sort=False)["coverage"].agg(list)
    rows = [
        {
            "method": m,
            "level": lv,
            "scaled": bool(sc),
            **plain(row),
            "by_seed": [round(c, 4) for c in by_seed[m, lv, sc]],
        }
        for (m, lv, sc), row in averaged.to_dict("index").items()
    ]
    of_ways = pd.DataFrame(ways).drop(columns="seed").groupby(["method", "by"], sort=False).mean().round(4)
    return {
        "n_train": int((adata.obs["split"] == "train").sum()),
        "n_validation": int((adata.obs["split"] == "validation").sum()),
        "n_test": int((adata.obs["split"] == "test").sum()),
        "coverage": rows,
        "trust": trust,
        "scalings": [{"method": m, "by": by, **row} for (m, by), row in of_ways.to_dict("index").items()],
    }


def plain(row: dict[str, float]) -> dict[str, float | None]:
    """Return None for what is not there: JSON has no NaN. No group may have had enough test samples."""
    return {name: None if np.isnan(value) else value for name, value in row.items()}


def summary(table: pd.DataFrame, groups: str) -> dict[str, float]:
    """Return overall coverage and the worst and best part of each kind."""
    whole = table[table["kind"] == "all"].iloc[0]
    found = {"coverage": whole["coverage"], "width": whole["width"]}
    for label, kind in (("genes", "genes by error"), ("novelty", "samples by novelty"), ("group", groups)):
        parts = table[(table["kind"] == kind) & ((kind != groups) | (table["n_samples"] >= LARGE))]["coverage"]
        found |= {f"{label}_lowest": parts.min(), f"{label}_highest": parts.max()}
    return found


def scalings(adata: ad.AnnData, key: str) -> list[dict[str, object]]:
    """Return what intervals of 90 % hold where they grow with one thing or another, computed the obvious way."""
    fitted = gx.io.read_model(adata, key=key)
    X, Y = (np.asarray(adata[:, list(names)].X, np.float64) for names in (fitted.landmarks, fitted.targets))
    residuals = np.abs(adata[:, list(fitted.targets)].layers[key] - Y) / fitted.target_scale.unit
    novelty = fitted.novelty(X).astype(np.float64)
    precision = fitted.gaussian.precision
    turned = fitted.landmark_scale.standardise(X) @ precision
    # How far each landmark is off when it is inferred from the others.
    own = np.abs(turned / np.sqrt(np.diag(precision))).mean(axis=1)
    ways = {
        "nothing": np.ones(len(X)),
        "root of 1 + novelty": np.sqrt(1 + novelty),
        "root of novelty": np.sqrt(novelty),
    }
    ways["landmarks inferred from each other"] = own
    if key == "kernel":
        blocks = (X[i : i + PREDICT_ROWS] for i in range(0, len(X), PREDICT_ROWS))
        std = np.concatenate([*fitted.std_blocks(blocks, device="cpu")])
        ways["the kernel's sd"] = (std / fitted.target_scale.unit).mean(axis=1)
    validation, test = (np.flatnonzero(adata.obs["split"] == side) for side in ("validation", "test"))
    rank = int(np.ceil(0.9 * (len(validation) + 1) - 1e-9)) - 1
    tenths = np.array_split(np.argsort(novelty[test]), 10)
    found = []
    for by, scale in ways.items():
        width = scale[test, None] * np.sort(residuals[validation] / scale[validation, None], axis=0)[rank]
        held = (residuals[test] <= width).mean(axis=1)
        of_tenths = [held[t].mean() for t in tenths]
        found.append(
            {
                "by": by,
                "coverage": held.mean(),
                "width": 2 * width.mean(),
                "lowest": min(of_tenths),
                "highest": max(of_tenths),
            }
        )
    return found


def trusted(adata: ad.AnnData, key: str) -> dict[str, float]:
    """Return the share of genes that are trusted, and how those called on one half of the test rows do on the other."""
    gx.tl.trust(adata, key=key)
    fitted = gx.io.read_model(adata, key=key)
    recall = adata.var.loc[list(fitted.targets), "gexinfer_recall"].to_numpy()
    test = np.flatnonzero(adata.obs["split"] == "test")
    first, second = adata.copy(), test[1::2]
    first.obs.iloc[second, first.obs.columns.get_loc("split")] = np.nan
    gx.tl.trust(first, key=key)
    half = first.var.loc[list(fitted.targets), "gexinfer_trusted"].to_numpy(bool)
    Y = np.asarray(adata[second, list(fitted.targets)].X, np.float64)
    P = np.asarray(adata[second, list(fitted.targets)].layers[key], np.float64)
    mae = np.abs(Y - P).mean(axis=0) / fitted.target_scale.unit
    y, p = Y - Y.mean(axis=0), P - P.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = (y * p).sum(axis=0) / np.sqrt((y * y).sum(axis=0) * (p * p).sum(axis=0))
    other = adata.copy()
    other.obs.iloc[test[::2], other.obs.columns.get_loc("split")] = np.nan
    gx.tl.trust(other, key=key)
    again = other.var.loc[list(fitted.targets), "gexinfer_trusted"].to_numpy(bool)
    found = {
        "trusted": np.mean(recall <= 0.05),
        "within_1_percent": np.mean(recall <= 0.01),
        "agree": np.mean(half == again),
        "mae_trusted": mae[half].mean(),
        "mae_others": mae[~half].mean() if (~half).any() else None,
        "r_trusted": np.nanmedian(r[half]),
        "r_others": np.nanmedian(r[~half]) if (~half).any() else None,
        "n_others": int((~half).sum()),
    }
    return {name: value if value is None else round(float(value), 4) for name, value in found.items()}


def unseen(adata: ad.AnnData, groups: str) -> dict[str, dict[str, float]]:
    """Leave each group out, split the others at random, and return how novel its samples are."""
    found = {}
    for group, n in adata.obs[groups].value_counts().items():
        if n < LARGE:
            continue
        left_out = (adata.obs[groups] == group).to_numpy()
        gx.pp.split(adata)
        adata.obs.loc[left_out, "split"] = np.nan
        # Novelty is of the landmarks alone, whatever the method.
        gx.tl.fit(adata, "mean", progress=False)
        gx.tl.predict(adata, key="mean", progress=False)
        percentile = adata.obs["gexinfer_novelty_percentile"]
        seen = percentile[(adata.obs["split"] == "test").to_numpy()]
        found[str(group)] = {
            "n": int(n),
            "median": round(float(percentile[left_out].median()), 1),
            "beyond_95": round(float((percentile[left_out] > 95).mean()), 3),
            "seen_median": round(float(seen.median()), 1),
            "seen_beyond_95": round(float((seen > 95).mean()), 3),
        }
        del adata.uns["mean"], adata.layers["mean"]
    return found


def cost() -> dict[str, float]:
    """Return what novelty and intervals cost on the bundled data with ridge: time, and share of the record."""
    adata = gx.datasets.bulk()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge", progress=False)
    fitted = gx.io.read_model(adata)
    X = np.asarray(adata[:, list(fitted.landmarks)].X)
    fitted.novelty(X[:1])
    times = {"predict": best(lambda: fitted.predict(X)), "novelty": best(lambda: fitted.novelty(X))}
    tables = sum(array.nbytes for array in fitted.known.values())
    return {
        "predict_seconds": round(times["predict"], 4),
        "novelty_seconds": round(times["novelty"], 4),
        "prepare_seconds": round(best(lambda: gaussian_of(fitted).whitening), 4),
        "share_of_record": round(tables / len(to_bytes(fitted)), 4),
    }


def gaussian_of(fitted: FittedModel) -> object:
    fitted.__dict__.pop("gaussian", None)
    return fitted.gaussian


def best(function: object) -> float:
    times = []
    for _ in range(5):
        started = perf_counter()
        function()  # type: ignore[operator]
        times.append(perf_counter() - started)
    return min(times)


def markdown(results: dict[str, object]) -> dict[str, str]:
    """Return the tables of docs/trust.md, a test compares them."""
    tables = {
        "coverage": [
            "data",
            "split",
            "model",
            "scaled",
            "held",
            "width",
            "genes, by error",
            "samples, by novelty",
            "groups",
        ],
        "scalings": ["data", "split", "intervals grow with", "held", "width", "samples, by novelty"],
        "trust": [
            "data",
            "split",
            "model",
            "first 5 %",
            "first 1 %",
            "halves agree",
            "MAE",
            "others' MAE",
            "r",
            "others' r",
        ],
        "novelty": ["data", "groups", "above 95", "75 to 95", "below 75", "seen samples above 95"],
    }
    rows: dict[str, list[list[object]]] = {name: [] for name in tables}
    for name in NAMES:
        for side in ("random", "by group"):
            found = results[name][side]
            for row in found["coverage"]:
                if row["level"] == 0.9:
                    parts = [spread(row, f"{kind}_") for kind in ("genes", "novelty", "group")]
                    how = [f"`{row['method']}`", "yes" if row["scaled"] else "no"]
                    rows["coverage"].append([name, side, *how, percent(row["coverage"]), two(row["width"]), *parts])
            for row in found["scalings"]:
                if row["method"] == "kernel" and name in ("bulk", "compendium"):
                    cells = [row["by"], percent(row["coverage"]), two(row["width"]), spread(row)]
                    rows["scalings"].append([name, side, *cells])
            for method, row in found["trust"].items():
                shares = [percent(row[kind]) for kind in ("trusted", "within_1_percent", "agree")]
                scores = [two(row[f"{score}_{which}"]) for score in ("mae", "r") for which in ("trusted", "others")]
                rows["trust"].append([name, side, f"`{method}`", *shares, *scores])
        unseen = pd.DataFrame(results[name]["unseen"]).T
        cuts = pd.cut(unseen["median"], [-1, 75, 95, 100]).value_counts(sort=False).tolist()
        rows["novelty"].append([name, len(unseen), *cuts[::-1], f"{percent(unseen['seen_beyond_95'].mean())} %"])
    return {
        name: "\n".join(line(cells) for cells in (heads, ["---"] * len(heads), *rows[name]))
        for name, heads in tables.items()
    }


def line(cells: list[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def spread(row: dict[str, float], start: str = "") -> str:
    if row[f"{start}lowest"] is None:
        return "–"
    return f"{percent(row[f'{start}lowest'])} to {percent(row[f'{start}highest'])}"


def show(name: str, side: str, found: dict[str, object]) -> None:
    grid = Table("model", "level", "scaled", "held", "width", "genes", "novelty", "groups", title=f"{name}, {side}")
    for row in found["coverage"]:
        parts = [f"{row[f'{k}_lowest']:.3f}-{row[f'{k}_highest']:.3f}" for k in ("genes", "novelty", "group")]
        grid.add_row(
            row["method"],
            str(row["level"]),
            str(row["scaled"]),
            f"{row['coverage']:.3f}",
            f"{row['width']:.2f}",
            *parts,
        )
    Console(width=110).print(grid)
    print(found["trust"])


if __name__ == "__main__":
    main()
