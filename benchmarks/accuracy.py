"""How good is it? Every split of every data set, and the learning curve: the tables and the figure of docs/accuracy.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/accuracy.py [--only bulk,tcga] [--methods 'ridge|auto']
       GEXINFER_DATA=<folder of the data sets> python benchmarks/accuracy.py --curve

Five random splits, and five folds of whole cohorts in which each cohort is held out once. Data sets are those of
which_method.py, at most 2,000 targets of each. Each row is written as soon as it is there, and those that are there
are not run again, so that a run can be ended and taken up; --again runs them anew.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from time import perf_counter

import anndata as ad
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table
from which_method import SETS, fewer_targets

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods.auto import members

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "accuracy_curve.png"
# Of a member of `auto`, which ridge and kernel are after a last fit that sees the validation rows as well.
MEMBER = ", as part of auto"
SQUARED = "kernel, squared error"
METHODS = {
    "mean": ("mean", {}),
    "ols": ("ols", {}),
    "knn": ("knn", {}),
    "ridge": ("ridge", {}),
    SQUARED: ("kernel", {"huber": 0.0}),
    "kernel": ("kernel", {}),
    "dgex, the recipe of the paper": ("dgex", {"recipe": "paper"}),
    "dgex": ("dgex", {}),
    "residual": ("residual", {}),
    # One thread is enough for what the default of 5 minutes allows with two.
    "auto": ("auto", {"budget": "10min"}),
}
CURVE = {
    "bulk": (100, 200, 400, 800, 1114),
    "compendium": (100, 200, 400, 800, 1422),
    "affymetrix": (100, 200, 381),
}
ON_CURVE = ("ridge", "knn", "kernel", "dgex", "auto")
SEEDS = 5
FOLDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="bulk,compendium,affymetrix,tcga")
    parser.add_argument("--methods", default="|".join(METHODS), help="separated by |")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="so many random splits, and so many of the folds")
    parser.add_argument("--curve", action="store_true", help="the learning curve instead")
    parser.add_argument("--again", action="store_true")
    options = parser.parse_args()
    wanted = options.methods.split("|")
    for name in options.only.split(","):
        try:
            adata, groups = SETS[name]()
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not there")
            continue
        if name == "bulk":
            adata.var["is_landmark"] = adata.var["landmark"]
            adata = fewer_targets(adata)
        if options.curve:
            curve(adata, name)
            continue
        for kind, split in splits(adata, groups, options.seeds):
            measure(adata, split, name, kind, wanted, options.again)
    if options.curve:
        draw(read()["curve"])
    show(read())


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
    for method in dict.fromkeys(["ridge", *missing]):
        kind_of, given = METHODS[method]
        adata.obs["split"] = pd.Categorical(split)
        started = perf_counter()
        gx.tl.fit(adata, kind_of, key_added=method, progress=False, **given)
        seconds = perf_counter() - started
        gx.tl.predict(adata, key=method, progress=False)
        evaluated = gx.tl.evaluate(adata, key=list(dict.fromkeys(["ridge", method])))
        better = adata.varm["gexinfer_mae"]
        found = {
            "mae": round(float(evaluated.loc[method, "mae"]), 5),
            "better_than_ridge": round(float((better[method] < better["ridge"])[better["ridge"].notna()].mean()), 4),
            "seconds": round(seconds, 1),
        }
        if method == "auto":
            found["members"] = {m: round(e, 5) for m, e in of_members(adata).items()}
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


def of_members(adata: ad.AnnData) -> dict[str, float]:
    """Return the standardised test MAE of each member of `auto`, as it is part of it."""
    (fitted,) = records(adata, "auto").values()
    test = (adata.obs["split"] == "test").to_numpy()
    landmark = adata.var["landmark"].to_numpy()
    X = fitted.landmark_scale.standardise(np.asarray(adata.X)[test][:, landmark])
    Y = fitted.target_scale.standardise(np.asarray(adata.X)[test][:, ~landmark])
    errors = {}
    labels = str(fitted.model.notes["members"]).split("; ")
    for label, (method, config, model, _) in zip(labels, members(fitted.model), strict=True):
        (inferred,) = method.predict(model, config, [X], "cpu")
        errors[label] = float(np.abs(inferred - Y).mean(dtype=np.float64))
    return errors


def curve(adata: ad.AnnData, name: str) -> None:
    """Measure a learning curve on the first random split."""
    if name not in CURVE:
        return
    gx.pp.split(adata, rng=0)
    methods = {m: {"method": METHODS[m][0], **METHODS[m][1]} for m in ON_CURVE}
    table = gx.tl.learning_curve(adata, methods, sizes=CURVE[name], repeats=1, progress=False)
    errors = table.pivot_table(index="size", columns="model", values="mae")[["mean", *ON_CURVE]].round(5)
    results = read()
    results.setdefault("curve", {})[name] = {str(size): row.to_dict() for size, row in errors.iterrows()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(name, errors, sep="\n", flush=True)


def draw(curves: dict[str, dict[str, dict[str, float]]]) -> None:
    """Draw the learning curves of all data sets."""
    import matplotlib.pyplot as plt
    import seaborn as sns
    from PIL import Image

    _, axes = plt.subplots(1, len(curves), figsize=(3.4 * len(curves), 3.2), layout="constrained", squeeze=False)
    for ax, (name, found) in zip(axes[0], curves.items(), strict=True):
        table = pd.DataFrame(found).T[list(ON_CURVE)]
        table.index = table.index.astype(int)
        for method, colour in zip(ON_CURVE, sns.color_palette("colorblind"), strict=False):
            width = 2.4 if method == "auto" else 1.2
            ax.plot(table.index, table[method], "o-", color=colour, linewidth=width, markersize=4, label=method)
        ax.set_xscale("log")
        # Labels that would touch are left out.
        told = [
            f"{n:,}" if more / n > 1.5 else "" for n, more in zip(table.index, [*table.index[1:], np.inf], strict=True)
        ]
        ax.set_xticks(table.index, told)
        ax.minorticks_off()
        ax.set(title=name, xlabel="training samples", ylabel="MAE (standard deviations)")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False, fontsize=8)
    drawn = BytesIO()
    plt.savefig(drawn, dpi=90)
    Image.open(drawn).convert("RGB").quantize(64).save(FIGURE, optimize=True)


def read() -> dict:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def by_split(results: dict, name: str, side: str) -> pd.DataFrame:
    """Return the MAE on the splits of a kind of one data set, methods and members of `auto` x splits."""
    errors = {}
    for kind, rows in results[name].items():
        if kind.startswith(side):
            members = {f"{m}{MEMBER}": mae for m, mae in rows.get("auto", {}).get("members", {}).items()}
            errors[kind] = {m: row["mae"] for m, row in rows.items()} | members
    found = pd.DataFrame(errors)
    order = [m for m in METHODS if m != "auto"] + [m for m in found.index if m.endswith(MEMBER)] + ["auto"]
    return found.reindex(order)


def table(results: dict, side: str) -> pd.DataFrame:
    """Return the mean MAE over the splits on which a method was run, data sets x methods that were run at all."""
    found = pd.DataFrame({name: by_split(results, name, side).mean(axis=1) for name in SETS if name in results})
    first = by_split(results, next(name for name in SETS if name in results), side)
    return found.reindex(first.index).dropna(how="all").T


def gains(results: dict, side: str) -> pd.DataFrame:
    """Return how much lower each method's MAE is than ridge's on the same splits, data sets x methods."""
    lower = {}
    for name in table(results, side).index:
        errors = by_split(results, name, side)
        of_ridge = errors.notna().mul(errors.loc["ridge"], axis=1).sum(axis=1)
        lower[name] = 1 - errors.sum(axis=1, min_count=1) / of_ridge
    return pd.DataFrame(lower).T


def markdown(results: dict, side: str) -> list[str]:
    """Return a table of docs/accuracy.md, a test compares them.

    A method that was run on some of the splits has no mean beside those of the others, but a gain on the same splits.
    """
    errors, lower = table(results, side), gains(results, side)
    whole = {name: by_split(results, name, side).notna().all(axis=1) for name in errors.index}
    lines = [f"| | {' | '.join(errors.index)} |", "|---" * (1 + len(errors)) + "|"]
    for method in errors.columns:
        cells = []
        for name in errors.index:
            error, gain = errors.loc[name, method], lower.loc[name, method]
            told = "" if method == "ridge" else f" ({gain:+.1%})"
            cells.append("–" if np.isnan(error) else f"{error:.3f}{told}" if whole[name][method] else f"{gain:+.1%}*")
        named = (
            f"**`{method}`**"
            if method == "auto"
            else f"`{method.split(', ')[0]}`" + method[len(method.split(", ")[0]) :]
        )
        lines.append(f"| {named} | {' | '.join(cells)} |")
    return lines


def ranges(results: dict, side: str) -> str:
    """Return the least and the largest gain of `auto` over ridge on single splits of each data set."""
    told = []
    for name in table(results, side).index:
        errors = by_split(results, name, side)
        gain = 100 * (1 - errors.loc["auto"] / errors.loc["ridge"])
        told.append(f"{gain.min():.1f} to {gain.max():.1f} % (`{name}`)")
    return ", ".join(told)


def show(results: dict) -> None:
    for side in ("random", "cohort"):
        errors, lower = table(results, side), gains(results, side)
        grid = Table("data", *errors.columns, title=side)
        for name in errors.index:
            grid.add_row(name, *(f"{errors.loc[name, m]:.4f} {lower.loc[name, m]:+.1%}" for m in errors.columns))
        Console(width=200).print(grid)


if __name__ == "__main__":
    main()
