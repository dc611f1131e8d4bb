"""What networks are made of between the landmarks and the linear output: one function a trunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import ceil, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.blocks import Indices, Pairs, evenly

# Layer i of the network, from all that it sees to the units of one hidden layer.
Layer = Callable[[int, Tensor], Tensor]
Activation = Callable[[Tensor], Tensor]

# Of the trunks that assume neighbours: numbers that stand for a gene, genes that one window of a convolution sees, how
# far the next is, and neighbours of a gene in the graph.
CHANNELS = 8
WINDOW = 9
STRIDE = 2
NEIGHBOURS = 10
# Neighbours are those in this many training rows.
STRUCTURE_ROWS = 2000
# Hidden layers where nothing is said: one for the plain network, enough for the others to be what they are.
LAYERS = {"mlp": 1, "dense": 2, "residual": 3, "conv1d": 2, "graph": 2}
# Those that assume that some genes are neighbours.
STRUCTURED = ("conv1d", "graph")


def mlp(layer: Layer, x: Tensor, layers: int) -> Tensor:
    """Each layer sees the one before it."""
    for i in range(layers):
        x = layer(i, x)
    return x


def dense(layer: Layer, x: Tensor, layers: int) -> Tensor:
    """Each layer, and the output, sees the landmarks and all layers before it."""
    for i in range(layers):
        x = torch.cat([x, layer(i, x)], -1)
    return x


def residual(layer: Layer, x: Tensor, layers: int) -> Tensor:
    """Each layer but the first is added to what it sees."""
    x = layer(0, x)
    for i in range(1, layers):
        x = x + layer(i, x)
    return x


TRUNKS: dict[str, Callable[[Layer, Tensor, int], Tensor]] = {"mlp": mlp, "dense": dense, "residual": residual}


def widths(trunk: str, n_in: int, layers: int, hidden: int) -> list[tuple[int, int]]:
    """Return inputs and outputs of each linear hidden layer."""
    if trunk == "conv1d":
        length = n_in
        for _ in range(layers):
            length = ceil(length / STRIDE)
        return [(CHANNELS * length, hidden)]
    if trunk == "graph":
        return [(CHANNELS * n_in, hidden)]
    if trunk == "dense":
        return [(n_in + i * hidden, hidden) for i in range(layers)]
    return [(n_in if i == 0 else hidden, hidden) for i in range(layers)]


def features(trunk: str, n_in: int, layers: int, hidden: int) -> int:
    """Return how many numbers the output sees."""
    return n_in + layers * hidden if trunk == "dense" else hidden


def glorot(*shape: int, generator: torch.Generator) -> Tensor:
    """Draw weights within sqrt(6 / (inputs + outputs)), as the D-GEX paper does; of a convolution, each window's."""
    field = int(np.prod(shape[2:]))
    bound = sqrt(6 / ((shape[0] + shape[1]) * field))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def structured_parameters(trunk: str, layers: int, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw the weights of what comes before the linear layers of a trunk that assumes neighbours."""
    parameters: dict[str, Tensor] = {}
    for i in range(layers if trunk in STRUCTURED else 0):
        a = 1 if i == 0 else CHANNELS
        if trunk == "conv1d":
            parameters[f"conv.{i}.weight"] = glorot(CHANNELS, a, WINDOW, generator=generator)
        else:
            # A gene's own numbers, then its neighbours' mean.
            parameters[f"conv.{i}.weight"] = glorot(CHANNELS, 2 * a, generator=generator)
        parameters[f"conv.{i}.bias"] = torch.zeros(CHANNELS)
    return parameters


def mixed(
    trunk: str, x: Tensor, p: Mapping[str, Tensor], fixed: Mapping[str, Tensor], layers: int, activation: Activation
) -> Tensor:
    """Let neighbouring landmarks meet: (rows, landmarks) to (rows, all numbers of all places)."""
    h = x.index_select(1, fixed["order"])
    if trunk == "conv1d":
        h = h[:, None]
        for i in range(layers):
            w, b = p[f"conv.{i}.weight"], p[f"conv.{i}.bias"]
            h = activation(F.conv1d(h, w, b, stride=STRIDE, padding=WINDOW // 2))
        return h.flatten(1)
    neighbours = fixed["neighbours"]
    # As a matrix, because its product has the same bits each time on every device; sums by index have not.
    near = torch.zeros(len(neighbours), len(neighbours), device=x.device)
    near.scatter_(1, neighbours, 1 / neighbours.shape[1])
    h = h[:, None]
    for i in range(layers):
        around = torch.cat([h, (h @ near.t()).to(h.dtype)], 1)
        h = activation(torch.einsum("rcg,oc->rog", around, p[f"conv.{i}.weight"]) + p[f"conv.{i}.bias"][:, None])
    return h.flatten(1)


def structure(trunk: str, kind: str, training: Pairs, rng: np.random.Generator) -> dict[str, Indices]:
    """Return which landmarks are neighbours in the training rows, or, as a control, any.

    `order` is a permutation of the landmarks; for a graph, `neighbours` are places in that order.
    """
    if trunk not in STRUCTURED:
        return {}
    p = training.n_landmarks
    order = np.arange(p)
    if p == 1:
        return {"order": order} | ({"neighbours": np.zeros((1, 1), np.intp)} if trunk == "graph" else {})
    if kind == "random":
        if trunk == "conv1d":
            return {"order": rng.permutation(p)}
        k = min(NEIGHBOURS, p - 1)
        # Any genes but itself.
        drawn = np.stack([rng.choice(p - 1, k, replace=False) for _ in range(p)])
        return {"order": order, "neighbours": drawn + (drawn >= order[:, None])}
    some = evenly(len(training), STRUCTURE_ROWS)
    X, _ = training.select(some).arrays()
    X = X.astype(np.float64)
    X /= np.maximum(np.sqrt((X * X).sum(axis=0)), 1e-12)
    distance = 1 - X.T @ X
    if trunk == "graph":
        np.fill_diagonal(distance, np.inf)
        near = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, p - 1)]
        return {"order": order, "neighbours": near}
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    np.fill_diagonal(distance, 0)
    return {"order": leaves_list(linkage(squareform(distance, checks=False), "average")).astype(np.intp)}
