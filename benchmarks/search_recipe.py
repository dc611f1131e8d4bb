"""The search behind the modern recipe of D-GEX: one option changed at a time, on several data sets.

Usage: GEXINFER_DATA=<folder of data sets> python benchmarks/search_recipe.py [--only bulk,tcga] [--variants paper,...]

Choices are made by the validation error; the test error stands beside it. Data sets and splits are those of
which_method.py. The paper's recipe and ridge are measured, too. Results are added to those that are there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from time import perf_counter

import numpy as np
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
    "dropout .5": {"dropout": 0.5},
    "no weight decay": {"weight_decay": 0.0},
    "weight decay 2": {"weight_decay": 2.0},
    "500 units": {"hidden": 500},
    "4,000 units, half the rate": {"hidden": 4000, "learning_rate": 5e-4},
    "2 hidden layers": {"layers": 2},
    "average over about 100 steps": {"ema": 0.99},
    "cosine schedule": {"schedule": "cosine"},
    "half the rate": {"learning_rate": 5e-4},
    "twice the rate": {"learning_rate": 2e-3},
    "batch 200": {"batch_size": 200},
    "30 epochs": {"epochs": 30},
    "SGD, the paper's rates": {"optimiser": "sgd", "schedule": "decay_on_rise", "learning_rate": 5e-4},
}
OTHERS = {"ridge": ("ridge", {}), "paper": ("dgex", {"recipe": "paper"})}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="bulk,tcga")
    parser.add_argument("--variants", default=",".join([*OTHERS, *VARIANTS]).replace(",000", ";000"))
    options = parser.parse_args()
    wanted = [name.replace(";", ",") for name in options.variants.split(",")] if options.variants else []
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only.split(","):
        try:
            adata, groups = SETS[name]()
        except FileNotFoundError:
            print(f"{name}: skipped, its file is not there")
            continue
        for groupby in [None] if groups is None else [None, groups]:
            side = "random" if groupby is None else f"by {groupby}"
            gx.pp.split(adata, groupby=groupby, rng=0)
            for variant in wanted:
                method, given = OTHERS.get(variant) or ("dgex", VARIANTS[variant])
                found = measured(adata, method, given)
                results.setdefault(f"{name}, {side}", {})[variant] = found
                print(f"{name}, {side}: {variant} {found}", flush=True)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def measured(adata, method, given):
    started = perf_counter()
    gx.tl.fit(adata, method, key_added="tried", progress=False, **given)
    seconds = perf_counter() - started
    gx.tl.predict(adata, key="tried", progress=False)
    test = gx.tl.evaluate(adata, key="tried").loc["tried", "mae"]
    params = adata.uns["tried"]["params"]
    del adata.uns["tried"], adata.layers["tried"]
    found = {"validation": params["validation_mae"], "test": float(test), "seconds": round(seconds, 1)}
    return {k: round(float(np.float64(v)), 4) for k, v in found.items()} | {
        k: params[k] for k in ("best_epoch",) if k in params
    }


if __name__ == "__main__":
    main()
