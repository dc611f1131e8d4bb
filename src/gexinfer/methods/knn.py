"""Nearest training samples in landmark space; a target is the mean of its values in the k nearest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from gexinfer.engine.blocks import Float
from gexinfer.engine.device import pick_device
from gexinfer.methods._contract import Method, Model, Task

CANDIDATES = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)
# A sample that is there again counts this near, so that its weight stays finite.
NEAREST = 1e-6


@dataclass(frozen=True)
class KNN:
    """Options of the nearest neighbours."""

    # Number of neighbours; None tries those of 1 to 50 and keeps the best on validation.
    k: int | None = None
    # Over standardised landmarks; correlation looks at a sample's profile whatever its level and spread.
    metric: Literal["euclidean", "correlation"] = "euclidean"
    # Whether all neighbours count the same, or each by the inverse of its distance.
    weights: Literal["uniform", "distance"] = "uniform"

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise ValueError(f"k={self.k!r} must be at least 1, or None to choose it.")


def search(samples: Float, k: int, config: KNN, device: torch.device) -> Callable[[Float], tuple[Tensor, Tensor]]:
    """Return a function that gives (rows, k) places and weights of the nearest samples, the nearest first."""
    if config.metric == "correlation":
        samples = profiles(samples)
    euclidean = by_search(samples, k) if device.type == "cpu" else by_products(samples, k, device)

    def nearest(x: Float) -> tuple[Tensor, Tensor]:
        distances, places = euclidean(profiles(x) if config.metric == "correlation" else x)
        if config.weights == "uniform":
            return places, torch.ones_like(distances)
        if config.metric == "correlation":
            # Of unit vectors the squared Euclidean distance is twice one less the correlation.
            distances = distances**2 / 2
        return places, 1 / distances.clamp(min=NEAREST)

    return nearest


def profiles(x: Float) -> Float:
    """Centre each row and bring it to length 1, so that Euclidean distances order by correlation."""
    centred = x - x.mean(axis=1, keepdims=True)
    length = (centred**2).sum(axis=1, keepdims=True) ** 0.5
    return centred / (length + (length == 0))


def by_search(samples: Float, k: int) -> Callable[[Float], tuple[Tensor, Tensor]]:
    # With about a thousand landmarks no tree beats comparing with every sample.
    index = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(samples)

    def nearest(x: Float) -> tuple[Tensor, Tensor]:
        distances, places = index.kneighbors(x)
        return torch.from_numpy(distances.astype("float32")), torch.from_numpy(places)

    return nearest


def by_products(samples: Float, k: int, device: torch.device) -> Callable[[Float], tuple[Tensor, Tensor]]:
    known = torch.from_numpy(samples).to(device)
    squares = (known**2).sum(1)

    def nearest(x: Float) -> tuple[Tensor, Tensor]:
        there = torch.from_numpy(x).to(device)
        squared = torch.addmm(squares, there, known.T, alpha=-2)
        places = squared.topk(k, largest=False).indices
        # Again by differences: of near samples the products leave only rounding.
        distances = torch.stack([(there - known[column]).norm(dim=1) for column in places.T], dim=1)
        return distances, places

    return nearest


def fit(task: Task, config: KNN) -> Model:
    X, Y = task.train.arrays()
    if config.k is not None and config.k > len(X):
        raise ValueError(f"k={config.k} is more than the {len(X)} training rows; choose a smaller k.")
    k = config.k or choose_k(task, config, X, Y)
    return Model({"landmarks": X, "targets": Y}, {"k": k})


def means(nearest: tuple[Tensor, Tensor], values: Tensor, counts: Iterable[int]) -> Iterator[Tensor]:
    """Yield the weighted mean of the first so many neighbours' values, for ascending counts."""
    places, weights = nearest
    total = torch.zeros(len(places), values.shape[1], device=values.device)
    first = 0
    for k in counts:
        for i in range(first, k):
            total += weights[:, i, None] * values[places[:, i]]
        first = k
        yield total / weights[:, :k].sum(1, keepdim=True)


def choose_k(task: Task, config: KNN, X: Float, Y: Float) -> int:
    device = pick_device(task.device)
    candidates = [k for k in CANDIDATES if k <= len(X)]
    nearest, values = search(X, candidates[-1], config, device), torch.from_numpy(Y).to(device)
    errors = dict.fromkeys(candidates, 0.0)
    for x, y in task.validation.blocks():
        truth = torch.from_numpy(y).to(device)
        for k, mean in zip(candidates, means(nearest(x), values, candidates), strict=True):
            errors[k] += float((mean - truth).abs().mean()) * len(x)
    return min(candidates, key=errors.__getitem__)


@torch.no_grad()
def predict(model: Model, config: KNN, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    there, k = pick_device(device), int(model.notes["k"])
    nearest = search(model.arrays["landmarks"], k, config, there)
    values = torch.from_numpy(model.arrays["targets"]).to(there)
    for x in blocks:
        (mean,) = means(nearest(x), values, [k])
        yield mean.cpu().numpy()


METHOD = Method(
    "knn",
    KNN,
    fit,
    predict,
    selects=lambda config: config.k is None,
    holds_samples=True,
    space={"metric": ["euclidean", "correlation"], "weights": ["uniform", "distance"]},
)
