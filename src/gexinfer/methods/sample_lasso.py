"""SampleLASSO: each query sample is written as a sparse mixture of training samples, which gives its other genes.

Mancuso et al., Nucleic Acids Research 2020, 48:e125.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from gexinfer.engine.blocks import Float, Indices, Wide, evenly
from gexinfer.engine.memory import amount, available
from gexinfer.methods._contract import SIMILAR, Method, Model, Task, check_penalty
from gexinfer.methods._descent import best_on_path, descend

# A lasso for each is solved at each penalty.
CHOOSING_ROWS = 200


@dataclass(frozen=True)
class SampleLasso:
    """Options of the lasso over samples."""

    # scikit-learn's alpha with landmarks as rows and training samples as columns; None goes down from .32 and keeps the
    # best on validation.
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty)


class Mixtures:
    """The lassos of query samples over the training samples, the Gram matrix kept while the panel stays the same."""

    def __init__(self, landmarks: Float):
        self.landmarks = landmarks
        self.panel: np.ndarray | None = None

    def targets(self, x: Float, panel: np.ndarray) -> Wide:
        """Return (rows, samples) products of query and training samples over the landmarks of a panel."""
        if self.panel is None or (self.panel != panel).any():
            self.panel, self.known = panel, self.landmarks[:, panel].astype(np.float64)
            self.gram = self.known @ self.known.T / panel.sum()
        return x[:, panel] @ self.known.T / panel.sum()

    def weights(self, x: Float, penalty: float) -> Wide:
        """Return the (rows, samples) weights; landmarks that a row lacks are NaN."""
        weights = np.zeros((len(x), len(self.landmarks)))
        # Rows that only fill a block are 0, and so are their weights.
        full = np.flatnonzero(x.any(axis=1))
        panels, which = np.unique(~np.isnan(x[full]), axis=0, return_inverse=True)
        for i, panel in enumerate(panels):
            rows = full[which.reshape(-1) == i]
            found, targets = weights[rows], self.targets(x[rows], panel)
            descend(self.gram, targets, penalty, found)
            weights[rows] = found
        return weights


def fit(task: Task, config: SampleLasso) -> Model:
    n = len(task.train)
    needed, there = 3 * 8 * n**2, available(torch.device("cpu"))
    if needed > there:
        raise ValueError(
            f"sample_lasso compares all {n:,} training samples with each other and needs {amount(needed)} for it; "
            f"{amount(there)} are free. Mark fewer rows as 'train' in adata.obs['split'], or use method='lasso'."
        )
    X, Y = task.train.arrays()
    penalty = config.penalty or choose_penalty(task, X, Y)
    return Model({"landmarks": X, "targets": Y}, {"penalty": penalty})


def choose_penalty(task: Task, X: Float, Y: Float) -> float:
    """Return the penalty with the lowest error on some validation rows."""
    x, y = task.validation.arrays()
    spread = evenly(len(x), CHOOSING_ROWS)
    x, y = x[spread], y[spread]
    mixtures = Mixtures(X)
    targets = mixtures.targets(x, np.ones(x.shape[1], bool))

    def error(weights: Wide) -> float:
        return float(np.abs(weights.astype(np.float32) @ Y - y).sum(dtype=np.float64))

    return best_on_path(mixtures.gram, targets, error)


def predict(model: Model, config: SampleLasso, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    # In float64: in float32 a product's last bit depends on the row's place in the block.
    samples = np.hstack([model.arrays["landmarks"], model.arrays["targets"]], dtype=np.float64)
    mixtures = Mixtures(model.arrays["landmarks"])
    for x in blocks:
        yield (mixtures.weights(x, float(model.notes["penalty"])) @ samples).astype(np.float32)


def similar(model: Model, config: SampleLasso, blocks: Iterable[Float], device: str) -> Iterator[tuple[Indices, Float]]:
    mixtures = Mixtures(model.arrays["landmarks"])
    for x in blocks:
        weights = mixtures.weights(x, float(model.notes["penalty"]))
        largest = np.argsort(-weights, axis=1, kind="stable")[:, :SIMILAR]
        yield largest, np.take_along_axis(weights, largest, axis=1).astype(np.float32)


METHOD = Method(
    "sample_lasso",
    SampleLasso,
    fit,
    predict,
    selects=lambda config: config.penalty is None,
    holds_samples=True,
    similar=similar,
    any_panel=True,
)
