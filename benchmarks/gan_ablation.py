"""What each term of the GAN, and what each trunk, is worth: the tables and figures of docs/gan.md.

Usage: GEXINFER_DATA=<folder of data sets> python benchmarks/gan_ablation.py [--only "bulk random,tcga by cohort"]
       python benchmarks/gan_ablation.py --stability    ten seeds of both GANs on the bundled data
       python benchmarks/gan_ablation.py --unlabeled    semigan with few whole profiles and many of landmarks alone
       python benchmarks/gan_ablation.py --figures      draws docs/figures/gan_*.png from the results

Five seeds, each with a split of its own, which all variants share. Data sets and splits are those of which_method.py
with 500 targets, networks have 500 units a layer and 30 epochs. Results are added to those that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
from figures import save
from rich.console import Console
from rich.table import Table
from scipy.stats import energy_distance, false_discovery_control
from scipy.stats import t as student
from which_method import SETS

import gexinfer as gx

RESULTS = Path(__file__).parent / "results" / "gan_ablation.json"
TASKS = "bulk random,bulk by cohort,compendium random,compendium by cohort,tcga random,tcga by cohort,"
TASKS += "affymetrix random,affymetrix by study"
TARGETS = 500
SMALL = {"hidden": 500, "epochs": 30}
L1 = {"lambda_adv": 0.0, "lambda_cons": 0.0}
# Against the first: its generator alone, dense, learning absolute error.
TERMS = {
    "L1 alone": L1,
    "+ adversarial": L1 | {"lambda_adv": 0.3},
    "+ consistency": L1 | {"lambda_cons": 0.1},
    "+ both": {},
    "adversarial x 10": L1 | {"lambda_adv": 3.0},
    "consistency x 10": L1 | {"lambda_cons": 1.0},
    "plain trunk, L1 alone": L1 | {"trunk": "mlp", "layers": 2},
    "plain trunk, + both": {"trunk": "mlp", "layers": 2},
}
TRUNKS = {
    "mlp": {},
    "mlp, 2 layers": {"layers": 2},
    "dense": {"trunk": "dense"},
    "residual": {"trunk": "residual"},
    "conv1d": {"trunk": "conv1d"},
    "conv1d, random order": {"trunk": "conv1d", "structure": "random"},
    "graph": {"trunk": "graph"},
    "graph, random neighbours": {"trunk": "graph", "structure": "random"},
}
VARIANTS = {name: ("ggan", SMALL | options) for name, options in TERMS.items()}
VARIANTS |= {name: ("dgex", SMALL | options) for name, options in TRUNKS.items()}
VARIANTS["ridge"] = ("ridge", {})
# What one table shows: the first row is what the others are tested against, *, and some rows their control, +.
TABLES = {"terms": [*TERMS, "ridge"], "trunks": list(TRUNKS)}
CONTROLS = {
    "plain trunk, + both": "plain trunk, L1 alone",
    "conv1d": "conv1d, random order",
    "graph": "graph, random neighbours",
}
# Splits of one data set share most of their rows, so that their differences vary less than they would for new data. The
# correction is that of Nadeau and Bengio, Machine Learning 2003, 52:239, with the share of test over training rows.
TEST_OVER_TRAIN = 1 / 8
COLUMNS = {
    "mae": "MAE", "pearson": "Pearson", "ccc": "CCC", "variance": "variance ratio", "energy": "energy distance",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=TASKS)
    parser.add_argument("--variants", default="|".join(VARIANTS), help="separated by |")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--stability", action="store_true")
    parser.add_argument("--unlabeled", action="store_true")
    parser.add_argument("--figures", action="store_true")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    if options.figures:
        figures(json.loads(RESULTS.read_text()))
    elif options.stability:
        stability(list(range(10)) if options.seeds == parser.get_default("seeds") else seeds)
    elif options.unlabeled:
        few_whole_profiles(seeds)
    else:
        for task in options.only.split(","):
            ablate(task, options.variants.split("|"), seeds)


def ablate(task: str, variants: list[str], seeds: list[int]) -> None:
    name, _, groupby = task.replace(" by ", " ").partition(" ")
    try:
        adata = fewer_targets(SETS[name]()[0])
    except FileNotFoundError:
        print(f"{task}: skipped, its file is not there")
        return
    for seed in seeds:
        gx.pp.split(adata, groupby=None if groupby == "random" else groupby, rng=seed)
        for variant in variants:
            method, given = VARIANTS[variant]
            found = measured(adata, method, given, seed)
            print(f"{task}, seed {seed}: {variant} {found}", flush=True)
            record(["ablation", task, variant, str(seed)], found)
    show(task, json.loads(RESULTS.read_text())["ablation"][task])


def fewer_targets(adata: ad.AnnData) -> ad.AnnData:
    landmark = adata.var["landmark"].to_numpy(bool)
    targets = np.random.default_rng(1).choice(np.flatnonzero(~landmark), TARGETS, replace=False)
    return adata[:, np.sort(np.concatenate([np.flatnonzero(landmark), targets]))].copy()


def few_whole_profiles(seeds: list[int]) -> None:
    """Take the targets away from most training samples of the bundled data; 600 steps of 128 samples at most.

    As many validation rows as training rows keep theirs, and no more: who has few profiles has few to choose by.
    """
    whole = fewer_targets(SETS["bulk"]()[0])
    for n in (50, 200):
        for seed in seeds:
            gx.pp.split(whole, rng=seed)
            train = np.flatnonzero(whole.obs["split"] == "train")
            alone = np.random.default_rng(seed).permutation(train)[n:]
            unused = np.flatnonzero(whole.obs["split"] == "validation")[n:]
            adata = whole.copy()
            adata.obs["alone"] = np.isin(np.arange(adata.n_obs), alone)
            adata.obs["split"] = adata.obs["split"].mask(np.isin(np.arange(adata.n_obs), [*alone, *unused]))
            options = {"hidden": 500, "epochs": 600 // -(-n // 128)}
            variants = {
                "ridge": ("ridge", {}),
                "dgex": ("dgex", options),
                "semigan": ("semigan", options),
                "semigan, unlabeled": ("semigan", options | {"unlabeled": "alone"}),
                "semigan, unlabeled, adversarial x 10": (
                    "semigan",
                    options | {"unlabeled": "alone", "lambda_adv": 3.0},
                ),
            }
            for variant, (method, given) in variants.items():
                found = measured(adata, method, given, seed)
                print(f"{n} whole profiles, seed {seed}: {variant} {found}", flush=True)
                record(["unlabeled", str(n), variant, str(seed)], found)


def stability(seeds: list[int]) -> None:
    """Fit both GANs as they come, and ridge, with ten seeds."""
    adata, _ = SETS["bulk"]()
    for seed in seeds:
        gx.pp.split(adata, rng=seed)
        for method in ("ridge", "ggan", "semigan"):
            found = measured(adata, method, {}, seed)
            print(f"stability, seed {seed}: {method} {found}", flush=True)
            record(["stability", method, str(seed)], found)


def record(path: list[str], found: dict[str, float]) -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    place = results
    for step in path[:-1]:
        place = place.setdefault(step, {})
    place[path[-1]] = found
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def measured(adata: ad.AnnData, method: str, given: dict[str, object], seed: int) -> dict[str, float]:
    """Return the scores on test rows, in standard deviations of the training rows: means over genes, but medians of the
    variance ratio."""
    told: list[dict[str, float]] = []
    watch = {} if method == "ridge" else {"callback": told.append}
    gx.tl.fit(adata, method, key_added="tried", rng=seed, progress=False, **watch, **given)
    gx.tl.predict(adata, key="tried", progress=False)
    target, side = ~adata.var["landmark"].to_numpy(bool), adata.obs["split"]
    train, test = (np.asarray(adata.X[(side == s).to_numpy()][:, target], np.float64) for s in ("train", "test"))
    sd = train.std(axis=0) + 1e-3
    y = (test - train.mean(axis=0)) / sd
    z = (adata.layers["tried"][(side == "test").to_numpy()][:, target] - train.mean(axis=0)) / sd
    del adata.uns["tried"], adata.layers["tried"]
    varies = (y.var(axis=0) > 1e-6) & (z.var(axis=0) > 0)
    covariance = ((y - y.mean(axis=0)) * (z - z.mean(axis=0))).mean(axis=0)[varies]
    vy, vz, shift = y.var(axis=0)[varies], z.var(axis=0)[varies], (y.mean(axis=0) - z.mean(axis=0))[varies]
    found = {
        "mae": np.abs(y - z).mean(),
        "pearson": (covariance / np.sqrt(vy * vz)).mean(),
        "ccc": (2 * covariance / (vy + vz + shift**2)).mean(),
        "variance": np.median(vz / vy),
        "energy": np.mean([energy_distance(y[:, g], z[:, g]) for g in range(y.shape[1])]),
    }
    if told and "told_apart" in told[-1]:
        found["told_apart"] = np.mean([entry["told_apart"] for entry in told[len(told) // 2 :]])
    return {name: round(float(value), 5) for name, value in found.items()}


def tasks(results: dict[str, Any], variants: list[str]) -> list[str]:
    """Return the tasks for which all of these were measured."""
    return [task for task, found in results["ablation"].items() if set(variants) <= set(found)]


def difference(found: dict[str, Any], variant: str, control: str, score: str) -> tuple[np.ndarray, float]:
    """Return a score less the control's by seed, and p of a paired t test, corrected for splits of one data set."""
    a, b = (np.array([found[name][seed][score] for seed in found[control]]) for name in (variant, control))
    delta, n = a - b, len(a)
    if not delta.any():
        return delta, 1.0
    error = np.sqrt((1 / n + TEST_OVER_TRAIN) * delta.var(ddof=1))
    return delta, float(2 * student.sf(abs(delta.mean()) / max(error, 1e-12), n - 1))


def discoveries(results: dict[str, Any], variants: list[str]) -> set[tuple[str, str, str, str]]:
    """Return which differences remain at a false discovery rate of 5 % over a table's tasks, pairs and scores."""
    pairs = [(variant, variants[0]) for variant in variants[1:]]
    pairs += [(variant, CONTROLS[variant]) for variant in variants if variant in CONTROLS]
    every = {
        (task, variant, control, score): difference(results["ablation"][task], variant, control, score)[1]
        for task in tasks(results, variants)
        for variant, control in pairs
        for score in COLUMNS
    }
    adjusted = false_discovery_control(list(every.values()))
    return {where for where, p in zip(every, adjusted, strict=True) if p < 0.05}


def markdown(results: dict[str, Any], variants: list[str], task: str) -> list[str]:
    """Return a table of docs/gan.md; a test compares them."""
    real = discoveries(results, variants)
    lines = [f"| {' | '.join(['', *COLUMNS.values()])} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for variant in variants:
        found, cells = list(results["ablation"][task][variant].values()), []
        for score in COLUMNS:
            marks = "*" * ((task, variant, variants[0], score) in real)
            marks += "+" * ((task, variant, CONTROLS.get(variant, ""), score) in real)
            cells.append(f"{np.mean([seed[score] for seed in found]):.4f}{marks}")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def of_seeds(found: dict[str, dict[str, dict[str, float]]], title: str) -> list[str]:
    """Return a table of MAEs, a column a seed, and their mean; a test compares it with docs/gan.md."""
    seeds = list(next(iter(found.values())))
    lines = [f"| {' | '.join([title, *(f'seed {seed}' for seed in seeds), 'mean'])} |", "|---" * (2 + len(seeds)) + "|"]
    for name, each in found.items():
        maes = [each[seed]["mae"] for seed in seeds]
        lines.append(f"| {name} | {' | '.join(f'{mae:.3f}' for mae in [*maes, np.mean(maes)])} |")
    return lines


def show(task: str, found: dict[str, dict[str, dict[str, float]]]) -> None:
    grid = Table("", *COLUMNS.values(), title=task)
    for variant, seeds in found.items():
        grid.add_row(variant, *(f"{np.mean([s[score] for s in seeds.values()]):.4f}" for score in COLUMNS))
    Console(width=110).print(grid)


def figures(results: dict[str, Any]) -> None:
    """Draw each variant's change of two scores: a dot a seed, a line at their mean."""
    import matplotlib.pyplot as plt

    from gexinfer.pl._style import colours

    for name, variants in TABLES.items():
        first, *others = [variant for variant in variants if variant != "ridge"]
        scores = {"mae": "MAE", "energy": "energy distance"}
        shown = tasks(results, variants)
        height = 0.07 * len(shown) * len(others) + 1.3
        figure, axes = plt.subplots(1, 2, figsize=(7.2, height), sharey=True, layout="constrained")
        for ax, (score, label) in zip(axes, scores.items(), strict=True):
            for k, (task, colour) in enumerate(zip(shown, colours(len(shown)), strict=True)):
                found = results["ablation"][task]
                base = np.mean([seed[score] for seed in found[first].values()])
                for i, other in enumerate(others):
                    delta, _ = difference(found, other, first, score)
                    place = i + (k - (len(shown) - 1) / 2) * 0.8 / len(shown)
                    ax.plot(100 * delta / base, [place] * len(delta), ".", color=colour, markersize=3)
                    ax.plot(100 * delta.mean() / base, place, "|", color=colour, markersize=7)
                ax.plot([], [], ".", color=colour, label=task)
            ax.axvline(0, color="0.4", linewidth=0.8)
            ax.set_xlabel(f"change of {label} over {first!r}, %", fontsize=8)
            ax.tick_params(labelsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_yticks(range(len(others)), others, fontsize=8)
        axes[0].invert_yaxis()
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
        save(figure, f"gan_{name}")
        plt.close(figure)


if __name__ == "__main__":
    main()
