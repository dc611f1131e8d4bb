"""What an evaluation costs, whether its intervals and tests hold, and the example of docs/evaluation.md.

Usage: python benchmarks/evaluate.py [--part speed,calibration,example] [--repeats 3] [--threads 2]

Speed: `gexinfer.tl.evaluate` of one model on 11,101 test samples x 9,520 targets with 943 landmarks beside them, all of
the call: both baselines, intervals, pairs, slots. Against it, on the same arrays in the same process,
`numpy.abs(Y - P).mean(0)` and `scipy.stats.rankdata` of both, axis 0. The least time of the repeats counts, because
other work on the machine only adds; a call before them compiles.

Calibration: simulated errors of two equal models that go together within groups; how many p-values are below 0.05, how
many genes are called different at a false discovery rate of 5 %, and how often the 95 % interval holds the truth.

Example: three methods on the bundled data, split at random and by cohort, with folds.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

RESULTS = Path(__file__).parent / "results" / "evaluate.json"
PARTS = ("speed", "calibration", "example")
SAMPLES, LANDMARKS, TARGETS, TRAIN = 11_101, 943, 9_520, 1_000
# Groups, samples, and whether groups are of uneven size.
GROUPS = ((36, 36, False), (1000, 1000, False), (5, 150, True), (8, 150, True), (20, 400, True), (300, 1000, True))
METRICS = {
    "mae": "MAE",
    "rmse": "RMSE",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "r2": "R2",
    "ccc": "CCC",
}


def speed(repeats: int) -> dict[str, object]:
    import anndata as ad
    import numpy as np
    import pandas as pd
    from scipy.stats import rankdata

    import gexinfer as gx

    rng = np.random.default_rng(0)
    side = np.repeat(["train", "validation", "test"], [TRAIN, 100, SAMPLES])
    values = rng.standard_normal((len(side), LANDMARKS + TARGETS), dtype=np.float32)
    var = pd.DataFrame(
        {"landmark": np.arange(values.shape[1]) < LANDMARKS}, index=[f"g{i}" for i in range(values.shape[1])]
    )
    adata = ad.AnnData(values, pd.DataFrame({"split": side}, index=[f"s{i}" for i in range(len(side))]), var)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random values look standardised
        gx.tl.fit(adata, "ridge", penalty=1000.0, progress=False)
    gx.tl.predict(adata, progress=False)
    measured = np.ascontiguousarray(values[-SAMPLES:, LANDMARKS:])
    inferred = np.ascontiguousarray(adata.layers["ridge"][-SAMPLES:, LANDMARKS:])
    gx.tl.evaluate(adata)

    calls: dict[str, Callable[[], object]] = {
        "numpy.abs(Y - P).mean(0)": lambda: np.abs(measured - inferred).mean(0),
        "evaluate(spearman=False)": lambda: gx.tl.evaluate(adata, spearman=False),
        "evaluate()": lambda: gx.tl.evaluate(adata),
        "rankdata of both": lambda: [rankdata(block, axis=0) for block in (measured, inferred)],
    }
    found: dict[str, object] = {"samples": SAMPLES, "targets": TARGETS, "landmarks": LANDMARKS}
    # What takes many seconds is timed once.
    seconds = {
        name: min(timed(call) for _ in range(repeats if i < 2 else 1)) for i, (name, call) in enumerate(calls.items())
    }
    found["seconds"] = {name: round(time, 3) for name, time in seconds.items()}
    found["over numpy"] = round(seconds["evaluate(spearman=False)"] / seconds["numpy.abs(Y - P).mean(0)"], 2)
    found["over rankdata"] = round(seconds["evaluate()"] / seconds["rankdata of both"], 2)
    return found


def timed(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def calibration(repeats: int) -> list[dict[str, object]]:
    import numpy as np
    from scipy.stats import false_discovery_control

    from gexinfer.engine.resampling import batches, draws, interval, paired_test, resampled

    rng, found = np.random.default_rng(0), []
    for groups, n, uneven in GROUPS:
        below, discoveries, covered = [], [], []
        for _ in range(50 * repeats):
            if uneven:
                weight = rng.lognormal(0, 1, groups)
                sizes = rng.multinomial(n - groups, weight / weight.sum()) + 1
            else:
                sizes = np.full(groups, n // groups)
            group = np.repeat(np.arange(groups), sizes)
            apart = np.diff(np.abs(rng.standard_normal((2, n, 300))), axis=0)[0]
            if groups < n:
                apart += 0.5 * rng.standard_normal((groups, 300))[group]
            batch, count = batches(group, rng)
            per_batch = np.bincount(batch)
            summed = np.zeros((count, 300))
            np.add.at(summed, batch, apart)
            p = paired_test(summed, per_batch)
            below.append((p < 0.05).mean())
            discoveries.append((false_discovery_control(p) <= 0.05).mean())
            low, high = interval(resampled(summed, per_batch, draws(per_batch, rng)), per_batch)
            covered.append(((low <= 0) & (high >= 0)).mean())
        row = {"groups": groups, "samples": n, "uneven": uneven}
        row |= {"below": np.mean(below), "discoveries": np.mean(discoveries), "covered": np.mean(covered)}
        found.append({name: round(float(v), 4) if isinstance(v, float) else v for name, v in row.items()})
    return found


def example(repeats: int) -> dict[str, object]:
    import gexinfer as gx

    found: dict[str, object] = {}
    for name, groupby in (("random", None), ("by cohort", "cohort")):
        ref = gx.datasets.bulk()
        gx.pp.landmarks(ref)
        gx.pp.split(ref, groupby=groupby)
        table = gx.tl.compare(ref, {"ridge": {}, "knn": {}, "kernel": {"huber": 0.0}}, progress=False)
        found[name] = {"table": rows(table), "pairs": rows(ref.uns["gexinfer_evaluation_pairs"])}
        if groupby is None:
            gx.tl.evaluate(ref, groupby="tissue")
            groups = ref.uns["gexinfer_evaluation_groups"]
            found[name]["groups"] = rows(groups[groups["model"] == "kernel"])
            found[name]["r of the mean"] = round(r_of_the_mean(ref), 4)
        else:
            found[name]["folds"] = rows(gx.tl.evaluate(ref, cv=5, progress=False))
    return found


def r_of_the_mean(ref) -> float:
    """Return the median over test samples of the correlation, on the values themselves, with the training mean."""
    import numpy as np

    target = ~ref.var["landmark"].to_numpy()
    train, test = (np.asarray(ref.X)[(ref.obs["split"] == side).to_numpy()][:, target] for side in ("train", "test"))
    return float(np.median([np.corrcoef(sample, train.mean(axis=0))[0, 1] for sample in test]))


def rows(table) -> list[dict[str, object]]:
    """Return a table as JSON, its index as `model` where that is what it holds."""
    table = table.copy() if "model" in table or "first" in table else table.rename_axis("model").reset_index()
    return json.loads(table.round(4).to_json(orient="records"))


def markdown(results: dict[str, object]) -> Iterator[tuple[str, str]]:
    """Yield the tables of docs/evaluation.md by name; a test compares them."""
    of = results["example"]
    for name in ("random", "by cohort"):
        lines = ["| model | MAE | 95 % interval | RMSE | Pearson | Spearman | R2 | CCC |", "|---" * 8 + "|"]
        for row in of[name]["table"]:
            cells = [number(row["mae"]), ends(row, "mae"), *(number(row[m]) for m in list(METRICS)[1:])]
            lines.append(f"| `{row['model']}` | {' | '.join(cells)} |")
        yield name, "\n".join(lines)
    lines = [
        "| first | second | genes better | surely better | surely worse | gain | 95 % interval |",
        "|---" * 7 + "|",
    ]
    for row in of["random"]["pairs"]:
        shares = [f"{row[name]:.1%}" for name in ("better", "significantly_better", "significantly_worse", "gain")]
        interval = f"{row['gain_low']:.1%} to {row['gain_high']:.1%}"
        lines.append(f"| `{row['first']}` | `{row['second']}` | {' | '.join([*shares, interval])} |")
    yield "pairs", "\n".join(lines)
    lines = ["| model | MAE | sd over folds | lowest | highest | Pearson | best in |", "|---" * 7 + "|"]
    for row in of["by cohort"]["folds"]:
        cells = [number(row[name]) for name in ("mae", "mae_fold_sd", "mae_min", "mae_max", "pearson")]
        lines.append(f"| `{row['model']}` | {' | '.join(cells)} | {row['best']:.0%} |")
    yield "folds", "\n".join(lines)
    lines = ["| group | samples | MAE | Pearson | R2 |", "|---" * 5 + "|"]
    for row in sorted((row for row in of["random"]["groups"] if row["n_samples"] >= 8), key=lambda row: row["mae"]):
        cells = [number(row[name]) for name in ("mae", "pearson", "r2")]
        lines.append(f"| {row['group']} | {row['n_samples']} | {' | '.join(cells)} |")
    yield "groups", "\n".join(lines)
    lines = [
        "| groups | samples | sizes | p below 0.05 | called different | interval holds the truth |",
        "|---" * 6 + "|",
    ]
    for row in results["calibration"]:
        alone = "each its own" if row["groups"] == row["samples"] else f"{row['groups']}"
        cells = [alone, str(row["samples"]), "uneven" if row["uneven"] else "equal"]
        lines.append(f"| {' | '.join(cells)} | {row['below']:.1%} | {row['discoveries']:.2%} | {row['covered']:.1%} |")
    yield "calibration", "\n".join(lines)
    lines = ["| what | seconds |", "|---|---|"]
    lines += [f"| `{name}` | {time:.2f} |" for name, time in results["speed"]["seconds"].items()]
    yield "speed", "\n".join(lines)


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def ends(row: dict[str, float | None], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "–" if low is None else f"{low:.3f} to {high:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in options.part.split(","):
        before = os.getloadavg()[0]
        results[part] = {"speed": speed, "calibration": calibration, "example": example}[part](options.repeats)
        if part == "speed":
            results[part]["load before"] = round(before, 1)
            print(json.dumps(results[part], indent=1))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for name, table in markdown(results) if set(PARTS) <= set(results) else ():
        print(f"\n{name}\n{table}")


if __name__ == "__main__":
    main()
