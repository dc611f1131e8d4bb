"""What a method that is a network is made of: its parts by name, its entry of the registry, how a model infers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float, Indices
from gexinfer.engine.device import pick_device
from gexinfer.methods._contract import Method, Model
from gexinfer.methods._ensemble import Ensemble
from gexinfer.methods._fitting import fit
from gexinfer.methods._options import MODERN, SHAPE, SPACE, NetworkOptions, by_recipe
from gexinfer.methods._perceptron import ACTIVATIONS, Perceptron, of_length

__all__ = [
    "ACTIVATIONS",
    "MODERN",
    "SHAPE",
    "SPACE",
    "NetworkOptions",
    "Perceptron",
    "by_recipe",
    "fit",
    "hidden",
    "infer",
    "jacobian",
    "network_method",
    "of_length",
    "std",
]


def networks_of(model: Model, config: Any, there: torch.device) -> list[tuple[Indices, Perceptron | Ensemble]]:
    """Return the networks of a model, or ensembles of them, each with the targets that it infers."""
    assigned = model.arrays["block"]
    fixed = {n: torch.from_numpy(model.arrays[n]).to(there) for n in ("order", "neighbours") if n in model.arrays}
    networks = []
    for b in range(config.target_blocks):
        own = {n.removeprefix(f"{b}."): a for n, a in model.arrays.items() if n.startswith(f"{b}.")}
        weights = {n: torch.from_numpy(a).to(there) for n, a in own.items() if not n.startswith("history.")}
        several = config.n_members > 1
        network = Ensemble(Perceptron, config, weights, fixed) if several else Perceptron(config, weights, fixed)
        networks.append((np.flatnonzero(assigned == b), network))
    return networks


def infer(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    return of_targets(model, config, blocks, device, lambda network, x: network.infer(x))


def std(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    """Yield how far the members of ensembles are apart."""
    return of_targets(model, config, blocks, device, lambda network, x: network.std(x))


@torch.no_grad()
def of_targets(
    model: Model, config: Any, blocks: Iterable[Float], device: str, told: Callable[[Any, Tensor], Tensor]
) -> Iterator[Float]:
    """Yield what the networks tell of their targets in each block of landmarks."""
    there = pick_device(device.split(",")[0])
    networks = networks_of(model, config, there)
    for x in blocks:
        out = np.empty((len(x), len(model.arrays["block"])), np.float32)
        on_device = torch.from_numpy(x).to(there)
        for targets, network in networks:
            out[:, targets] = told(network, on_device).cpu().numpy()
        yield out


@torch.no_grad()
def jacobian(model: Model, config: Any, X: Float, weights: Float, device: str) -> Float:
    there = pick_device(device.split(",")[0])
    x, w = (torch.from_numpy(a).to(there) for a in (X, weights))
    out = np.empty((X.shape[1], len(model.arrays["block"])), np.float32)
    for targets, network in networks_of(model, config, there):
        out[:, targets] = network.jacobian(x, w).cpu().numpy()
    return out


@torch.no_grad()
def hidden(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[list[Float]]:
    there = pick_device(device.split(",")[0])
    networks = networks_of(model, config, there)
    for x in blocks:
        on_device = torch.from_numpy(x).to(there)
        yield [network.units(on_device).cpu().numpy() for _, network in networks]


def network_method(
    name: str, config: type[NetworkOptions], network: type[Perceptron], *, takes_unlabeled: bool = False
) -> Method:
    """Return the method of this name that trains networks of a kind."""
    return Method(
        name,
        config,
        partial(fit, network, name),
        infer,
        std=std,
        jacobian=jacobian,
        hidden=hidden,
        by_epochs=True,
        shape=SHAPE,
        space=SPACE,
        # For dgex the best of 1e-4, 3e-4 and 1e-3 on cohorts left out of the bundled data.
        from_start={"learning_rate": 3e-4},
        takes_unlabeled=takes_unlabeled,
    )
