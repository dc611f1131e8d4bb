"""What a method is: a config, `fit`, `predict`, and a model that is nothing but data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from gexinfer.engine.blocks import Float, Pairs

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Task:
    """What a method learns from: standardised rows, never an AnnData."""

    train: Pairs
    validation: Pairs
    rng: np.random.Generator
    device: str
    progress: bool


@dataclass(frozen=True)
class Model:
    """What a method has learned: named arrays, and plain scalars for people to read."""

    arrays: Mapping[str, np.ndarray]
    notes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    `fit(task, config)` learns from standardised rows. `predict(model, config, blocks, device)` yields one block of
    standardised targets for each block of standardised landmarks. An `ArithmeticError` or `ValueError` of theirs
    reaches the user as it stands.
    """

    name: str
    config: type
    fit: Callable[[Task, Any], Model]
    predict: Callable[[Model, Any, Iterable[Float], str], Iterator[Float]]
    # Validation rows pick something, so there must be some.
    selects: bool = True
    # The model is made of training samples: sharing it shares people's expression profiles.
    holds_samples: bool = False


def configure(method: Method, options: Mapping[str, Any]) -> Any:
    """Return the method's config for the user's options, or say which options there are."""
    known = [f.name for f in fields(method.config)]
    for name, value in options.items():
        if name not in known:
            there = f"it takes {', '.join(known)}" if known else "it takes no options"
            raise TypeError(f"{name}={value!r} is not an option of method={method.name!r}; {there}.")
    return method.config(**options)


def mean_absolute_error(predicted: Float, measured: Float) -> float:
    """Return the MAE over all entries, summed in float64."""
    return float(np.abs(predicted - measured).mean(dtype=np.float64))
