"""What each ingredient of `residual` is worth, and what was tried and did not help: the tables of docs/methods.md.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/ablation.py [--only bulk,tcga] [--seeds 5] [--rows a,b]

Five random splits (seeds 0 to 4) of data sets of which_method.py, 250 targets each, drawn at random (seed 0). A row is
the test MAE of a network of 500 units after 60 epochs that differs from `residual` in what it names, or from `dgex`
where it begins with that. Each is written as soon as it is there, and those that are there are not run again, so that a
run can be ended and taken up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from which_method import SETS

import gexinfer as gx
from gexinfer.engine.blocks import Float, Pairs, Rows
from gexinfer.engine.moments import moments
from gexinfer.engine.run import Run
from gexinfer.engine.schedules import one_cycle
from gexinfer.methods import dgex, residual, ridge
from gexinfer.methods._contract import Task
from gexinfer.methods._networks import ACTIVATIONS
from gexinfer.methods._networks import fit as fit_networks
from gexinfer.methods._trunks import glorot

RESULTS = Path(__file__).parent / "results" / "ablation.json"
ONLY = "bulk,affymetrix,tcga"
TARGETS = 250
SEEDS = 5
# Both recipes, made smaller so that thirty rows of fifteen splits are a matter of an hour or two.
SMALL = {"hidden": 500, "epochs": 60}

# ---- networks that differ from the one that ships


class Plain(dgex.Regression):
    """D-GEX. What it has learned is not kept: its errors are in the history, and not every variant fits a record."""

    def learned(self, trained: Any) -> dict[str, Float]:
        return {}


class Whole(residual.Rest):
    """`residual`."""

    def learned(self, trained: Any) -> dict[str, Float]:
        return {}


class NoShare(Whole):
    """All of what the network adds is inferred."""

    @staticmethod
    def settled(network: Any, validation: Any) -> dict[str, float]:
        network.parameters["share"].fill_(1)
        return {}


class FromZero(Whole):
    """The linear path starts at 0."""

    @classmethod
    def learning(cls, config: Any, drawn: Any, fixed: Any, device: Any) -> Any:
        return super().learning(config, {**drawn, "skip.weight": torch.zeros_like(drawn["skip.weight"])}, fixed, device)


class Kept(Whole):
    """The linear path stays as it is."""

    def players(self) -> Any:
        # The optimiser passes over what has no gradient.
        self.parameters["skip.weight"].requires_grad_(False)
        return super().players()


class LeftOut(Kept):
    """It learns what ridge leaves of each row when it was fitted without that row."""

    def loss(self, player: str, step: Any) -> Any:
        of_ridge = step.x @ self.fixed["linear"].T
        leverage = (step.x @ context["root"]).square().sum(1, keepdim=True)
        return super().loss(player, replace(step, y=of_ridge + (step.y - of_ridge) / (1 - leverage)))


class Mixed(Whole):
    """It learns from pairs of samples, mixed with weights between 0 and 1 (mixup)."""

    def loss(self, player: str, step: Any) -> Any:
        weight = torch.rand(len(step.x), 1, generator=step.generator)
        other = torch.randperm(len(step.x), generator=step.generator)
        x, y = (torch.lerp(values, values[other], weight) for values in (step.x, step.y))
        return super().loss(player, replace(step, x=x, y=y))


class LowRank(Whole):
    """The output layer is a product of two, with 64 numbers between them."""

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = super().drawn(config, n_in, n_out, generator)
        del drawn["1.weight"]
        return drawn | {
            "left": 1e-3 * torch.randn(n_out, 64, generator=generator),
            "right": glorot(64, config.hidden, generator=generator),
        }

    def weight(self, name: str) -> Tensor:
        return self.parameters["left"] @ self.parameters["right"] if name == "1" else super().weight(name)


class Slopes(Whole):
    """Each hidden unit learns its slope below zero."""

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        return super().drawn(config, n_in, n_out, generator) | {"slope": torch.full((config.hidden,), 0.1)}

    def seen(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return hidden_units(self, x, generator, lambda h: torch.where(h > 0, h, self.parameters["slope"] * h))


class Experts(Whole):
    """Four groups of hidden units, weighed for each sample by a gate that sees its landmarks."""

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        return super().drawn(config, n_in, n_out, generator) | {"gate": glorot(4, n_in, generator=generator)}

    def seen(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        gate = 4 * F.linear(x, self.parameters["gate"]).softmax(1)
        return (super().seen(x, generator).unflatten(1, (4, -1)) * gate[..., None]).flatten(1)


class Attention(Whole):
    """Beside the hidden units the output sees what 16 queries find among the landmarks, each a vector of 16 numbers."""

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        drawn = super().drawn(config, n_in, n_out, generator)
        drawn["1.weight"] = torch.cat([drawn["1.weight"], 1e-4 * torch.randn(n_out, 256, generator=generator)], 1)
        shapes = {"by_value": (n_in, 16), "gene": (n_in, 16), "queries": (16, 16), "values": (16, 16)}
        return drawn | {name: torch.randn(*shape, generator=generator) / 4 for name, shape in shapes.items()}

    def seen(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        p = self.parameters
        genes = x[..., None] * p["by_value"] + p["gene"]
        found = (p["queries"] @ genes.mT).softmax(-1) @ (genes @ p["values"])
        return torch.cat([super().seen(x, generator), found.flatten(1)], 1)


def hidden_units(network: Any, x: Tensor, generator: torch.Generator | None, activation: Callable) -> Tensor:
    """Return the units of the only hidden layer."""
    p, dropout = network.parameters, network.config.dropout
    h = F.linear(x, p["0.weight"], p["0.bias"])
    h = activation(F.layer_norm(h, h.shape[-1:], p["0.norm.weight"], p["0.norm.bias"]))
    if generator is None:
        return h
    return h * torch.empty_like(h).bernoulli_(1 - dropout, generator=generator) / (1 - dropout)


# ---- pretraining


def pretrained(kind: type, mask: float, output: bool = False) -> type:
    """Return a kind of network whose hidden layer, and output if asked for, begin as an autoencoder's."""

    class Pretrained(kind):
        @classmethod
        def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
            learned = autoencoder(config, context["task"], context["others"], mask, generator)
            first = {name: p for name, p in learned.items() if name[0] == "0" or output}
            return super().drawn(config, n_in, n_out, generator) | first

    return Pretrained


def autoencoder(config: Any, task: Task, others: Float, mask: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Learn to restore the masked ones among all genes of training rows, and the landmarks of other samples.

    A hidden layer like the network's, which sees 0 in the place of what is masked and of targets that are not known;
    absolute error of what is masked; 50 epochs with the network's optimiser. Returns the parts that the network has.
    """
    x, y = (torch.from_numpy(a) for a in task.train.arrays())
    n, p, q = len(x), x.shape[1], y.shape[1]
    genes = torch.cat([torch.cat([x, y], 1), F.pad(torch.from_numpy(others), (0, q))])
    known = torch.ones_like(genes)
    known[n:, p:] = 0
    wide = dgex.DGEX(hidden=config.hidden, skip=False)
    weights = dgex.Regression.drawn(wide, p + q, p + q, generator)
    network = dgex.Regression.learning(wide, weights, {}, torch.device("cpu"))
    (player,) = network.players()
    steps = [batch for _ in range(50) for batch in torch.randperm(len(genes), generator=generator).split(128)]
    for i, batch in enumerate(steps):
        for group in player.optimiser.param_groups:
            group["lr"] = one_cycle(config.learning_rate, i / len(steps), [])
        whole, asked = genes[batch], known[batch].clone()
        asked *= torch.empty_like(asked).bernoulli_(mask, generator=generator)
        units = hidden_units(network, whole * (1 - asked), generator, ACTIVATIONS[config.activation])
        restored = F.linear(units, network.parameters["1.weight"], network.parameters["1.bias"])
        player.optimiser.zero_grad()
        (((restored - whole).abs() * asked).sum() / asked.sum() * (p + q)).backward()
        player.optimiser.step()
    learned = {name: parameter.detach() for name, parameter in network.parameters.items()}
    return learned | {
        "0.weight": learned["0.weight"][:, :p].clone(),
        "1.weight": learned["1.weight"][p:].clone(),
        "1.bias": learned["1.bias"][p:].clone(),
    }


# ---- rows

# What a variant may need beside its rows: the present task, the landmarks of all other samples, ridge's leverages.
context: dict[str, Any] = {}
# The network, its options, and what its noise and ridge's penalty are multiplied by.
INGREDIENTS: dict[str, tuple[type, dict[str, Any]]] = {
    "the linear path starts at 0": (FromZero, {}),
    "the linear path stays ridge": (Kept, {}),
    "all of the network is inferred": (NoShare, {}),
    "noise of 0.3 on all data": (Whole, {"input_noise": 0.3}),
    "half the epochs": (Whole, {"epochs": 30}),
}
FAILED: dict[str, tuple[type, dict[str, Any]]] = {
    "noise x 1.4": (Whole, {"noise": 1.4}),
    "noise x 0.7": (Whole, {"noise": 0.7}),
    "leave-one-out residuals": (LeftOut, {}),
    "ridge with 10 x its penalty": (Whole, {"times": 10.0}),
    "mixup": (Mixed, {}),
    "weight decay 1": (Whole, {"weight_decay": 1.0}),
    "no dropout": (Whole, {"dropout": 0.0}),
    "2 hidden layers": (Whole, {"layers": 2}),
    "twice the epochs": (Whole, {"epochs": 120}),
    "twice the units": (Whole, {"hidden": 1000}),
    "ReLU": (Whole, {"activation": "relu"}),
    "averaged over 100 steps": (Whole, {"ema": 0.99}),
    "squared error": (Whole, {"loss": "mse"}),
    "output of rank 64": (LowRank, {}),
    "a slope for each unit": (Slopes, {}),
    "4 experts": (Experts, {}),
    "attention over landmarks": (Attention, {}),
}
MASKS = (0.3, 0.6, 0.9)
PRETRAINED: dict[str, tuple[type, dict[str, Any]]] = {
    **{f"pretrained, {mask:.0%} masked": (pretrained(Whole, mask), {}) for mask in MASKS},
    **{f"dgex, pretrained, {mask:.0%} masked": (pretrained(Plain, mask), {}) for mask in MASKS},
    "dgex, output pretrained, too, 60% masked": (pretrained(Plain, 0.6, output=True), {}),
}
BASES: dict[str, tuple[type | None, dict[str, Any]]] = {
    "ridge": (None, {}),
    "dgex": (Plain, {}),
    "residual": (Whole, {}),
}
OTHERS: dict[str, tuple[type, dict[str, Any]]] = {"dgex, twice the epochs": (Plain, {"epochs": 120})}
# What helped the small ones, in networks of the size and the length of training that ship.
WHOLE = {"hidden": 1000, "epochs": 200}
AT_FULL_SIZE: dict[str, tuple[type, dict[str, Any]]] = {
    "residual at full size": (Whole, WHOLE),
    "at full size, pretrained, 60% masked": (pretrained(Whole, 0.6), WHOLE),
    "at full size, no dropout": (Whole, WHOLE | {"dropout": 0.0}),
    "at full size, 4 experts": (Experts, WHOLE),
    "at full size, 2 hidden layers": (Whole, WHOLE | {"layers": 2}),
}
TABLES = ({**BASES, **OTHERS, **INGREDIENTS}, PRETRAINED, FAILED, AT_FULL_SIZE)
ROWS = {**BASES, **OTHERS, **INGREDIENTS, **PRETRAINED, **FAILED, **AT_FULL_SIZE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=ONLY)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--rows", help="separated by semicolons; all where not given")
    options = parser.parse_args()
    rows = options.rows.split(";") if options.rows else list(ROWS)
    for seed in range(options.seeds):
        for name in options.only.split(","):
            there = read().get(name, {})
            missing = [row for row in rows if str(seed) not in there.get(row, {})]
            if not missing:
                continue
            prepare(name, seed)
            for row in missing:
                started = perf_counter()
                found = round(measured(row, seed), 5)
                results = read()
                results.setdefault(name, {}).setdefault(row, {})[str(seed)] = found
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{name} {seed}: {row} {found} ({perf_counter() - started:.0f} s)", flush=True)
    show(read())


def read() -> dict[str, dict[str, dict[str, float]]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def prepare(name: str, seed: int) -> None:
    """Put the split of a data set, as a task, into the context."""
    adata, _ = SETS[name]()
    gx.pp.split(adata, rng=seed)
    side = adata.obs["split"].to_numpy()
    landmark = adata.var["landmark"].to_numpy()
    drawn = np.random.default_rng(0).choice(np.flatnonzero(~landmark), TARGETS, replace=False)
    X = adata.X.toarray() if not isinstance(adata.X, np.ndarray) else adata.X
    rows = {
        s: Rows(X.astype(np.float32), np.flatnonzero(side == s), np.flatnonzero(landmark), np.sort(drawn))
        for s in ("train", "validation", "test")
    }
    sums = moments(rows["train"].blocks(), int(landmark.sum()), len(rows["train"]))
    train, validation = (Pairs(rows[s], sums.scale) for s in ("train", "validation"))
    context["task"] = Task(
        train,
        validation,
        sums.standardised(),
        np.random.default_rng(seed),
        "cpu",
        Run(progress=False, test=rows["test"]),
    )
    context["others"] = np.concatenate([validation.arrays()[0], Pairs(rows["test"], sums.scale).arrays()[0]])


def measured(row: str, seed: int) -> float:
    """Return the test MAE of one row in the epoch that validation rows choose."""
    task = context["task"] = replace(context["task"], rng=np.random.default_rng(seed))
    kind, options = ROWS[row][0], SMALL | ROWS[row][1]
    of_ridge = ridge.fit(task, ridge.Ridge())
    if kind is None:
        x, y = Pairs(task.run.test, task.train.scale).arrays()
        return float(np.abs(x @ of_ridge.arrays["coefficients"] - y).mean())
    if row.startswith("dgex"):
        found = fit_networks(kind, "dgex", task, dgex.DGEX(**options))
    else:
        noise, times = options.pop("noise", 1.0), options.pop("times", 1.0)
        penalty = of_ridge.notes["penalty"]
        config = residual.Residual(**{"input_noise": noise * (penalty / len(task.train)) ** 0.5} | options)
        values, vectors = np.linalg.eigh(task.moments.xx + penalty * np.eye(len(task.moments.xx)))
        context["root"] = torch.from_numpy((vectors / np.sqrt(values)).astype(np.float32))
        start = ridge.fit(task, ridge.Ridge(penalty * times)).arrays["coefficients"]
        found = fit_networks(kind, "residual", task, config, start)
    return float(found.arrays["0.history.test_mae"][found.notes["best_epoch"] - 1])


# ---- tables


def cell(of_set: dict[str, dict[str, float]], row: str) -> str:
    """Return the mean over splits, or how far it is from what it differs from, with its standard error."""
    found = of_set.get(row)
    if not found:
        return "–"
    if row in (*BASES, "residual at full size"):
        return f"{np.mean(list(found.values())):.4f}"
    named = {"dgex": "dgex", "at f": "residual at full size"}
    base = of_set[named.get(row[:4], "residual")]
    away = 1e4 * np.array([found[seed] - base[seed] for seed in found if seed in base])
    return f"{away.mean():+.0f} ± {away.std(ddof=1) / len(away) ** 0.5:.0f}" if len(away) > 1 else f"{away[0]:+.0f}"


def markdown(results: dict[str, dict[str, dict[str, float]]], rows: Any) -> list[str]:
    """Return a table of docs/methods.md, a test compares them."""
    names = list(results)
    lines = [f"| test MAE, or its change x 10,000 | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(cell(results[name], row) for name in names)} |" for row in rows]
    return lines


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    grid = Table("test MAE, or its change x 10,000", *results)
    for row in ROWS:
        grid.add_row(row, *(cell(of_set, row) for of_set in results.values()))
    Console(width=120).print(grid)


if __name__ == "__main__":
    main()
