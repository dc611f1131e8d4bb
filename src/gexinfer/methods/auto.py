"""Several methods at once, as many as data and time allow, weighed per target by their errors on validation rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import tee
from time import perf_counter
from typing import Any

import numpy as np
import torch
from rich.table import Table

from gexinfer.engine.blocks import Float
from gexinfer.engine.device import out_of_memory, pick_device
from gexinfer.engine.memory import amount, available
from gexinfer.engine.processes import join
from gexinfer.engine.report import say, show, warn
from gexinfer.methods import _cost, configure, get_method
from gexinfer.methods._contract import Method, Model, Scalar, Task
from gexinfer.methods._cost import Cost, Size
from gexinfer.methods._weights import blend

# From the one that must be there to the one that adds least for its time. Networks that differ err differently, so that
# together they are worth more than one that is trained longer.
CANDIDATES: dict[str, tuple[str, dict[str, Scalar]]] = {
    "ridge": ("ridge", {}),
    "kernel": ("kernel", {}),
    "residual": ("residual", {}),
    "dgex": ("dgex", {"activation": "relu"}),
}
COSTS = {"ridge": _cost.of_ridge, "kernel": _cost.of_kernel, "residual": _cost.of_network, "dgex": _cost.of_network}
# A network for which there is no time is trained for fewer epochs; with fewer than these it would add little.
EPOCHS = (100, 50, 25, 10)
# Validation rows on which models are weighed: more would change little.
MOST_ROWS = 1000
# With fewer, their choice is mostly chance.
FEW_ROWS = 10
# Of what is free, so much is taken for what the models infer for these rows.
SHARE = 0.25


@dataclass(frozen=True)
class Auto:
    """Options of `auto`."""

    # How long the fit may take by what it foretells, e.g. "30s", "5min" or "2h". Ridge is always fitted.
    budget: str = "5min"

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise ValueError(f"budget={self.budget!r} must be a time such as '30s', '5min' or '2h'.")

    @property
    def seconds(self) -> float:
        import pandas as pd

        try:
            # A number alone would be nanoseconds.
            return 0.0 if self.budget.strip().isdecimal() else pd.Timedelta(self.budget).total_seconds()
        except ValueError:
            return 0.0


@dataclass(frozen=True)
class Member:
    """A candidate with its options, and what it will take."""

    label: str
    method: Method
    options: Mapping[str, Scalar]
    cost: Cost

    @property
    def config(self) -> Any:
        return configure(self.method, self.options)


def fit(task: Task, config: Auto) -> Model:
    device = pick_device(task.device)
    if join(device).size > 1:
        raise ValueError("method='auto' fits in one process; under torchrun name a network, e.g. method='dgex'.")
    size = Size(len(task.train), len(task.validation), task.train.n_landmarks, task.train.n_targets)
    chosen, why_not = plan(size, config.seconds, device)
    if task.run.progress:
        total = sum(member.cost.seconds for member in chosen)
        most = max(member.cost.memory for member in chosen)
        say(
            f"auto: {'; '.join(member.label for member in chosen)}: about {duration(total)} and {amount(most)} on "
            f"{device} (budget {config.budget}, {amount(available(device))} free)"
        )
    room = SHARE * available(torch.device("cpu")) / (4 * len(CANDIDATES) * size.targets)
    picks = np.unique(
        np.linspace(0, size.validation - 1, int(min(size.validation, MOST_ROWS, max(room, 10)))).astype(int)
    )
    if size.validation < FEW_ROWS:
        warn(
            f"auto: {size.validation} validation rows say little about which model is best; with "
            f"gexinfer.pp.split(adata, fractions=(.7, .2, .1)) there are more, and groupby= stays what it was."
        )
    watched = task.validation.select(picks)
    _, measured = watched.arrays()
    fitted: list[tuple[Member, Model]] = []
    predicted: list[Float] = []
    seconds: list[float] = []
    interrupted: dict[str, Scalar] = {}
    for member in chosen:
        started = perf_counter()
        try:
            model = member.method.fit(task, member.config)
            rows = (x for x, _ in watched.blocks())
            inferred = np.concatenate(list(member.method.predict(model, member.config, rows, task.device)))
        except (ArithmeticError, MemoryError, RuntimeError) as failed:
            if not fitted or not one_can_do_without(failed):
                raise
            why_not[member.label] = f"failed: {failed}"
            warn(f"auto: {member.label} is left out: {failed}")
            continue
        except KeyboardInterrupt:
            if not fitted:
                raise
            interrupted = {"interrupted": member.label}
            there = "; ".join(other.label for other, _ in fitted)
            warn(f"auto: interrupted while fitting {member.label}; the model is of {there}.")
            break
        fitted.append((member, model))
        predicted.append(inferred)
        seconds.append(perf_counter() - started)
        if "epochs_done" in model.notes:
            interrupted = {"interrupted": member.label}
            break  # which the network has told
    weights, how = blend(predicted, measured)
    errors = [float(np.abs(values - measured).mean(dtype=np.float64)) for values in predicted]
    if task.run.progress:
        mixed = sum(values * share for values, share in zip(predicted, weights, strict=True))
        together = float(np.abs(mixed - measured).mean(dtype=np.float64))
        show(table(fitted, errors, weights, seconds, why_not, together, how))
    arrays: dict[str, np.ndarray] = {"weights": weights}
    notes: dict[str, Scalar] = {"members": "; ".join(member.label for member, _ in fitted), "weighed": how}
    notes |= interrupted
    for i, ((member, model), error) in enumerate(zip(fitted, errors, strict=True)):
        arrays |= {f"{i}.{name}": array for name, array in model.arrays.items()}
        notes |= {f"{i}.method": member.method.name, f"{i}.mae": error, f"{i}.weight": float(weights[i].mean())}
        notes |= {f"{i}.option.{name}": value for name, value in member.options.items()}
        notes |= {f"{i}.note.{name}": value for name, value in model.notes.items()}
    return Model(arrays, notes)


def one_can_do_without(failed: Exception) -> bool:
    """Whether the others do where this has failed; a `RuntimeError` that is not of memory is a bug."""
    return not isinstance(failed, RuntimeError) or out_of_memory(failed)


def plan(size: Size, budget: float, device: torch.device) -> tuple[list[Member], dict[str, str]]:
    """Return the candidates for which there are time and memory, and why there are not for the others."""
    chosen: list[Member] = []
    why_not: dict[str, str] = {}
    left, free = budget, available(device)
    for label, (name, options) in CANDIDATES.items():
        method = get_method(name)
        variants = [options | {"epochs": epochs} for epochs in EPOCHS] if method.by_epochs else [options]
        members = [Member(label, method, v, COSTS[name](size, configure(method, v), device)) for v in variants]
        # An exact kernel for which there is no memory does with some rows.
        small = [m for m in members if m.cost.memory < 0.8 * free or name == "kernel"]
        affordable = [m for m in small if m.cost.seconds <= left]
        if affordable or label == "ridge":
            chosen.append((affordable or members)[0])
            left -= chosen[-1].cost.seconds
        elif not small:
            why_not[label] = f"would take {amount(members[-1].cost.memory)}"
        else:
            why_not[label] = f"would take {duration(members[-1].cost.seconds)}, {duration(max(left, 0))} are left"
    return chosen, why_not


def duration(seconds: float) -> str:
    """Return a time for people to read."""
    return (
        f"{seconds:.1f} s"
        if seconds < 10
        else f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.0f} h"
    )


def table(
    fitted: list[tuple[Member, Model]],
    errors: list[float],
    weights: Float,
    seconds: list[float],
    why_not: Mapping[str, str],
    together: float,
    how: str,
) -> Table:
    """Return what was chosen and why."""
    grid = Table("member", "MAE val", "mean weight", "took", "foretold", title=f"auto: {how}")
    for (member, _), error, weight, took in zip(fitted, errors, weights, seconds, strict=True):
        cells = f"{error:.4f}", f"{weight.mean():.2f}", duration(took), duration(member.cost.seconds)
        grid.add_row(member.label, *cells)
    grid.add_row("all together", f"{together:.4f}", "", duration(sum(seconds)), "")
    for label, why in why_not.items():
        grid.add_row(label, "–", "–", "–", why)
    return grid


def members(model: Model) -> list[tuple[Method, Any, Model, Float]]:
    """Return the method, config, model and weights per target of each member."""
    found = []
    for i, weights in enumerate(model.arrays["weights"]):
        method = get_method(str(model.notes[f"{i}.method"]))
        config = configure(method, beginning(model.notes, f"{i}.option."))
        found.append(
            (method, config, Model(beginning(model.arrays, f"{i}."), beginning(model.notes, f"{i}.note.")), weights)
        )
    return found


def beginning(named: Mapping[str, Any], start: str) -> dict[str, Any]:
    """Return the entries whose names start so, by the rest of their names."""
    return {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}


def predict(model: Model, config: Auto, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    every = members(model)
    # In step with each other, so that no more than one block is kept for those who come later.
    each = [
        method.predict(part, settings, given, device)
        for (method, settings, part, _), given in zip(every, tee(blocks, len(every)), strict=True)
    ]
    for inferred in zip(*each, strict=True):
        out = np.zeros_like(inferred[0])
        for values, (*_, weights) in zip(inferred, every, strict=True):
            out += values * weights
        yield out


def jacobian(model: Model, config: Auto, X: Float, weights: Float, device: str) -> Float:
    total = np.zeros((X.shape[1], model.arrays["weights"].shape[1]), np.float32)
    for method, settings, part, share in members(model):
        if method.jacobian is not None:  # that of all candidates
            total += method.jacobian(part, settings, X, weights, device) * share
    return total


def refit(task: Task, config: Auto, model: Model) -> Model:
    """Fit the members that can once more, to training and validation rows; weights and settings stay.

    One that fails stays as it is: with more rows the same penalty may be too weak, or there is no memory.
    """
    arrays, notes = dict(model.arrays), dict(model.notes)
    labels = str(notes["members"]).split("; ")
    for i, (label, (method, settings, part, _)) in enumerate(zip(labels, members(model), strict=True)):
        if method.refit is None:
            continue
        try:
            again = method.refit(task, settings, part)
        except (ArithmeticError, MemoryError, RuntimeError) as failed:
            if not one_can_do_without(failed):
                raise
            warn(f"auto: {label} stays as it was fitted, without the validation rows: {failed}")
            continue
        except KeyboardInterrupt:
            notes["interrupted"] = label
            warn(f"auto: interrupted in the last fit of {label}, which stays as it was, without the validation rows.")
            break
        arrays |= {f"{i}.{name}": array for name, array in again.arrays.items()}
        notes |= {f"{i}.note.{name}": value for name, value in again.notes.items()}
    return replace(model, arrays=arrays, notes=notes)


METHOD = Method(
    "auto",
    Auto,
    fit,
    predict,
    products=True,
    # The kernel's.
    holds_samples=True,
    jacobian=jacobian,
    refit=refit,
    ends_with_refit=True,
)
