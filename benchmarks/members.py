"""What an ensemble of networks brings: its error, its time, and what intervals hold that follow from its spread.

Usage: python benchmarks/members.py [--seeds 3] [--device cpu] [--only error,speed]

The bundled data, all 2,000 targets, split at random and by cohort; `dgex` with 250 hidden units and 40 epochs. The
tables are those of docs/networks.md and docs/trust.md.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from trust import percent, spread, two
from which_method import SETS

import gexinfer as gx
from gexinfer._fitted import FittedModel
from gexinfer.engine.network import Step
from gexinfer.methods import get_method
from gexinfer.methods._ensemble import Ensemble
from gexinfer.methods._fitting import member_seeds
from gexinfer.methods.dgex import DGEX, Regression
from gexinfer.tl._held_out import AS_USUAL

RESULTS = Path(__file__).parent / "results" / "members.json"
SMALL = {"hidden": 250, "epochs": 40}
MEMBERS = (1, 2, 5, 10)
# Members of the intervals and of the times.
SEVERAL = 5
# Landmarks, hidden layers, units, targets, batch, steps that are timed.
SHAPES = {
    "100 landmarks, 100 units, 200 targets": (100, 1, 100, 200, 128, 200),
    "978 landmarks, 250 units, 500 targets": (978, 1, 250, 500, 128, 60),
    "978 landmarks, 1,000 units, 2,000 targets": (978, 1, 1000, 2000, 128, 20),
    "943 landmarks, 2 x 3,000 units, 4,760 targets": (943, 2, 3000, 4760, 200, 3),
}
LOOPED = type("Looped", (Regression,), {"at_once": False})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", default="error,speed")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if "speed" in options.only:
        results["speed"] = {name: times(*shape, torch.device(options.device)) for name, shape in SHAPES.items()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if "error" in options.only:
        adata, groups = SETS["bulk"]()
        for side, groupby in (("random", None), ("by cohort", groups)):
            results[side] = of_split(adata, groupby, options.seeds, options.device)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    for table in markdown(results).values():
        print(f"\n{table}")


def of_split(adata: ad.AnnData, groupby: str | None, seeds: int, device: str) -> dict[str, object]:
    """Return the errors of the first members of a large ensemble, by their number, and what intervals hold."""
    errors: dict[str, list[float]] = {str(n): [] for n in MEMBERS}
    ways: list[dict[str, object]] = []
    for seed in range(seeds):
        gx.pp.split(adata, groupby=groupby, rng=seed)
        gx.tl.fit(adata, "dgex", n_members=max(MEMBERS), rng=seed, progress=False, device=device, **SMALL)
        fitted = gx.io.read_model(adata, key="dgex")
        held = {side: of_members(adata, fitted, side) for side in ("validation", "test")}
        inferred, truth, _ = held["test"]
        # Each member learns what it would alone, so that the first of many are an ensemble of fewer.
        for n in MEMBERS:
            errors[str(n)].append(round(float(np.abs(inferred[:n].mean(0) - truth).mean()), 5))
        first = {side: (each[:SEVERAL], *others) for side, (each, *others) in held.items()}
        ways += [{"by": by, **found} for by, found in intervals(first).items()]
    frame = pd.DataFrame(ways)
    return {"error": errors, "intervals": frame.groupby("by", sort=False).mean().round(4).to_dict("index")}


def of_members(adata: ad.AnnData, fitted: FittedModel, side: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what each member infers, (members, rows, targets), the truth, both standardised, and the rows' novelty."""
    part = adata[adata.obs["split"] == side]
    X, Y = (np.asarray(part[:, list(names)].X) for names in (fitted.landmarks, fitted.targets))
    x, one, each = fitted.landmark_scale.standardise(X), replace(fitted.config, n_members=1), []
    for m in range(fitted.n_members):
        own = {n: a[m] if n[0].isdigit() and ".history." not in n else a for n, a in fitted.model.arrays.items()}
        each.append(np.concatenate([*get_method("dgex").predict(SimpleNamespace(arrays=own), one, [x], "cpu")]))
    return np.stack(each), fitted.target_scale.standardise(Y), fitted.novelty(X).astype(np.float64)


def intervals(held: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Return what intervals of 90 % hold where they grow with one thing or another, computed the obvious way."""
    ways: dict[str, dict[str, np.ndarray]] = {}
    usual = None
    for side, (inferred, _, novelty) in held.items():
        m, sd, root = len(inferred), inferred.std(0, ddof=1), np.sqrt(novelty)[:, None]
        of_sample = np.sqrt(np.square(sd).mean(1, keepdims=True))
        usual = np.sqrt(np.square(sd / of_sample).mean(0)) if usual is None else usual
        ratio = sd / of_sample / usual
        ways[side] = {
            "nothing": np.ones_like(sd),
            "root of novelty": root * np.ones_like(sd),
            "spread of the sample": of_sample * np.ones_like(sd),
            "root of novelty and spread of the sample": np.sqrt(root * of_sample) * np.ones_like(sd),
            "spread of the value": sd,
        }
        for prior in (2, 8, AS_USUAL, 32):
            shrunk = np.sqrt(((m - 1) * ratio**2 + prior) / (m - 1 + prior))
            ways[side][f"root of novelty, spread of the value with {prior} as usual"] = root * shrunk
    residuals = {side: np.abs(inferred.mean(0) - truth) for side, (inferred, truth, _) in held.items()}
    n, test = len(residuals["validation"]), residuals["test"]
    rank = int(np.ceil(0.9 * (n + 1) - 1e-9)) - 1
    by_novelty = np.array_split(np.argsort(held["test"][2]), 10)
    of_genes = np.argsort(np.argsort(held["test"][0].std(0), axis=0), axis=0) * 10 // len(test)
    found = {}
    for by, scale in ways["test"].items():
        half = scale * np.sort(residuals["validation"] / ways["validation"][by], axis=0)[rank]
        inside = test <= half
        tenths = [inside[rows].mean() for rows in by_novelty]
        of_values = [inside[of_genes == i].mean() for i in range(10)]
        found[by] = {
            "coverage": inside.mean(),
            "width": 2 * half.mean(),
            # Of Gneiting and Raftery: the width, and 2 / .1 of what values are beyond it.
            "score": (2 * half + 20 * np.maximum(test - half, 0)).mean(),
            "novelty_lowest": min(tenths),
            "novelty_highest": max(tenths),
            "value_lowest": min(of_values),
            "value_highest": max(of_values),
        }
    return found


def times(
    n_in: int, layers: int, units: int, n_out: int, batch: int, steps: int, device: torch.device
) -> dict[str, float]:
    """Return the milliseconds of a step of several networks: one after another, in a loop, and in one product."""
    one = DGEX(layers=layers, hidden=units)
    several = replace(one, n_members=SEVERAL)
    drawn = [Regression.drawn(one, n_in, n_out, torch.Generator().manual_seed(s)) for s in member_seeds(0, SEVERAL)]
    single = Regression.learning(one, drawn[0], {}, device)
    found = {"one after another": SEVERAL * step_time(single, n_in, n_out, batch, steps)}
    for how, kind in (("loop", LOOPED), ("at once", Regression)):
        found[how] = step_time(Ensemble.learning(kind, several, drawn, {}, device), n_in, n_out, batch, steps)
    return {how: round(1000 * seconds, 2) for how, seconds in found.items()}


def step_time(network: Regression | Ensemble, n_in: int, n_out: int, batch: int, steps: int) -> float:
    """Return the median seconds of forward, backward and update; on the CPU of the process, whoever else is at work."""
    (device,) = {p.device for p in network.parameters.values()}
    noise = torch.Generator(device).manual_seed(0)
    x, y = (torch.empty(batch, n, device=device).normal_(generator=noise) for n in (n_in, n_out))
    (player,) = network.players()
    taken, clock = [], process_time if device.type == "cpu" else perf_counter
    for _ in range(steps + 3):
        started = clock()
        player.optimiser.zero_grad()
        network.loss(player.name, Step(x, y, None, noise, 0.0)).total.backward()
        player.optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - started)
    return float(np.median(taken[3:]))


def markdown(results: dict[str, object]) -> dict[str, str]:
    """Return the tables of the pages, a test compares them."""
    errors = [["split", *(f"{n} network{'s' * (n > 1)}" for n in MEMBERS)]]
    holds = [["split", "intervals grow with", "held", "width", "score", "samples, by novelty", "values, by spread"]]
    for side in ("random", "by cohort"):
        found = results[side]
        errors.append([side, *(f"{np.mean(found['error'][str(n)]):.4f}" for n in MEMBERS)])
        for by, row in found["intervals"].items():
            parts = [spread(row, f"{kind}_") for kind in ("novelty", "value")]
            holds.append([side, by, percent(row["coverage"]), two(row["width"]), f"{row['score']:.3f}", *parts])
    speed = [["network", "one after another", "in a loop", "at once"]]
    for name, row in results["speed"].items():
        speed.append([name, *(f"{row[how]:,.1f}" for how in ("one after another", "loop", "at once"))])
    return {name: as_table(rows) for name, rows in (("error", errors), ("intervals", holds), ("speed", speed))}


def as_table(rows: list[list[str]]) -> str:
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


if __name__ == "__main__":
    main()
