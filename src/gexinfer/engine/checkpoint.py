"""The state of an unfinished training in a file, from which it goes on to the same bits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gexinfer.engine.blocks import Pairs, evenly
from gexinfer.engine.feed import WINDOW
from gexinfer.engine.network import Network, Plan


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Return a few characters that tell these arrays from others."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()[:12]


def identity(
    network: Network, plan: Plan, training: Pairs, validation: Pairs, unlabeled: Pairs | None
) -> dict[str, Any]:
    """Return what another training differs in: a checkpoint of one is no start for the other."""
    others = "none"
    if unlabeled is not None:
        # They have no moments of their own to be known by.
        some = evenly(len(unlabeled), WINDOW)
        others = digest([unlabeled.rows.rows, unlabeled.select(some).arrays()[0]])
    return {
        **plan.options,
        "training rows": len(training),
        "validation rows": len(validation),
        "unlabeled rows": 0 if unlabeled is None else len(unlabeled),
        "the unlabeled rows": others,
        "landmarks": training.n_landmarks,
        "targets": training.n_targets,
        "the rows": digest([training.rows.rows, validation.rows.rows]),
        "the data": digest([training.scale.mean, training.scale.sd]),
        "the seeds": plan.seed,
        "the first weights": digest(p.detach().cpu().numpy() for p in network.parameters.values()),
    }


def save(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> None:
    """Write a file that is there whole, or not at all, whenever the process ends."""
    partial = path.with_suffix(".partial")
    there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(there, partial, {"gexinfer": json.dumps(notes, sort_keys=True)})
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path, training: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return tensors and notes, None where there is no file; refuse that of another training than this."""
    if not path.exists():
        return None
    elsewhere = f"Delete it, or choose another directory with checkpoint=; this is {str(path)!r}."
    try:
        with safe_open(path, "pt") as file:
            notes = json.loads(file.metadata()["gexinfer"])
            # Copies, because the file will be replaced. Its `keys` are needed, it is no dict.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The checkpoint cannot be read ({error}). {elsewhere}") from error
    then = notes["training"]
    other = [name for name in training if then.get(name) != training[name]]
    if other:
        # What is called "the ..." are numbers that tell a person nothing.
        told = ", ".join(
            f"{name} differ" if name.startswith("the ") else f"{name} was {then.get(name)!r} and is {training[name]!r}"
            for name in other
        )
        raise ValueError(f"The checkpoint is of another training: {told}. {elsewhere}")
    return tensors, notes


def optimiser_tensors(name: str, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimiser, which goes by this name, as named tensors."""
    state = optimiser.state_dict()["state"]
    return {
        f"optimiser.{name}.{i}.{slot}": value
        for i, of_one in state.items()
        for slot, value in of_one.items()
        if value is not None
    }


def restore_optimiser(name: str, optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for path, value in tensors.items():
        if path.startswith(f"optimiser.{name}."):
            i, slot = path.removeprefix(f"optimiser.{name}.").split(".")
            state.setdefault(int(i), {})[slot] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
