"""The training mean of each target: what any inference has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from gexinfer.engine.blocks import Float
from gexinfer.methods._contract import Method, Model, Task
from gexinfer.methods._linear import jacobian_of


@dataclass(frozen=True)
class Mean:
    """The mean has no options."""


def fit(task: Task, config: Mean) -> Model:
    # Standardised on the training rows, every target's mean is 0.
    return Model({"mean": np.zeros(task.train.n_targets, np.float32)})


def predict(model: Model, config: Mean, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    for x in blocks:
        yield np.tile(model.arrays["mean"], (len(x), 1))


jacobian = jacobian_of(lambda model, p: np.zeros((p, len(model.arrays["mean"])), np.float32))
METHOD = Method("mean", Mean, fit, predict, selects=lambda config: False, jacobian=jacobian)
