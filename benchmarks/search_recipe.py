"""The search behind the modern recipe of D-GEX: one option changed at a time, on several data sets.

Usage: GEXINFER_DATA=<folder of data sets> python benchmarks/search_recipe.py [--only "bulk random,tcga by cohort"]

Choices are made by the validation error; the test error stands beside it. Data sets and splits are those of
which_method.py. The paper's recipe and ridge are measured, too. Results are added to those that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

from which_method import SETS

import gexinfer as gx

RESULTS = Path(__file__).parent / "results" / "search_recipe.json"
VARIANTS = {
    "the recipe": {},
    "squared error": {"loss": "mse"},
    "Huber loss": {"loss": "huber"},
    "tanh": {"activation": "tanh"},
    "ReLU": {"activation": "relu"},
    "SiLU": {"activation": "silu"},
    "no layer norm": {"layer_norm": False},
    "no linear path": {"skip": False},
    "no noise": {"input_noise": 0.0},
    "noise .5": {"input_noise": 0.5},
    "no dropout": {"dropout": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "weight decay 10": {"weight_decay": 10.0},
    "500 units": {"hidden": 500},
    "2,000 units": {"hidden": 2000},
    "2 hidden layers": {"layers": 2},
    "averaged over 100 steps": {"ema": 0.99},
    "cosine schedule": {"schedule": "cosine"},
    "half the rate": {"learning_rate": 1e-3},
    "twice the rate": {"learning_rate": 4e-3},
    "batch 64": {"batch_size": 64},
    "50 epochs": {"epochs": 50},
    "SGD and the paper's schedule": {
        "optimiser": "sgd",
        "schedule": "decay_on_rise",
        "learning_rate": 5e-4,
        "weight_decay": 0.0,
    },
}
OTHERS = {"ridge": ("ridge", {}), "paper": ("dgex", {"recipe": "paper"})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="bulk random,bulk by cohort,tcga random")
    parser.add_argument("--variants", default="|".join([*OTHERS, *VARIANTS]), help="separated by |")
    options = parser.parse_args()
    for task in options.only.split(","):
        name, _, groupby = task.replace(" by ", " ").partition(" ")
        try:
            adata, _ = SETS[name]()
        except FileNotFoundError:
            print(f"{task}: skipped, its file is not there")
            continue
        gx.pp.split(adata, groupby=None if groupby == "random" else groupby, rng=0)
        for variant in options.variants.split("|"):
            method, given = OTHERS.get(variant) or ("dgex", VARIANTS[variant])
            found = measured(adata, method, given)
            print(f"{task}: {variant} {found}", flush=True)
            # Read again each time: several of these may run at once, with a thread each.
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            results.setdefault(task, {})[variant] = found
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def markdown(results, rows, columns):
    """Return a table of docs/networks.md, validation and test error; a test compares them."""
    lines = [f"| {' | '.join(['', *columns])} |", "|---" * (1 + len(columns)) + "|"]
    for row in rows:
        # Data sets either way round.
        cells = [results[row][column] if row in results else results[column][row] for column in columns]
        lines.append(f"| {row} | {' | '.join(shown(cell) for cell in cells)} |")
    return lines


def shown(found):
    return f"{found['validation']:.4f} / {found['test']:.4f}"


def measured(adata, method, given):
    started = perf_counter()
    gx.tl.fit(adata, method, key_added="tried", progress=False, **given)
    seconds = perf_counter() - started
    gx.tl.predict(adata, key="tried", progress=False)
    test = gx.tl.evaluate(adata, key="tried").loc["tried", "mae"]
    params = adata.uns["tried"]["params"]
    del adata.uns["tried"], adata.layers["tried"]
    found = {"validation": round(params["validation_mae"], 4), "test": round(float(test), 4)}
    return found | {"seconds": round(seconds, 1)} | {k: params[k] for k in ("best_epoch",) if k in params}


if __name__ == "__main__":
    main()
