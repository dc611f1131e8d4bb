"""Reduced-rank ridge regression: the targets follow the landmarks through a few directions that all genes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy.linalg

from gexinfer.engine.blocks import Float, Wide
from gexinfer.methods._contract import Method, Model, Task, check_penalty
from gexinfer.methods._linear import PENALTIES_PER_ROW, Spectrum, jacobian_of

RANKS = (1, 2, 3, 5, 7, 10, 14, 20, 30, 40, 50, 70, 100, 140, 200, 300, 500, 700, 1000)


@dataclass(frozen=True)
class ReducedRank:
    """Options of reduced-rank ridge regression."""

    # Directions that are kept; None tries those of 1 to 1,000 and keeps the best on validation.
    rank: int | None = None
    # As in ridge; None tries those of ridge with each rank, every third and then those around the best.
    penalty: float | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank={self.rank!r} must be at least 1, or None to choose it.")


@dataclass(frozen=True)
class Factors:
    """Ridge coefficients as `left @ right`, (landmarks, k) and (k, targets), the directions that explain most first."""

    left: Wide
    right: Wide


def factorise(spectrum: Spectrum, outer: Wide, penalty: float) -> Factors:
    """Order ridge's solution by what its directions explain of the targets, penalty included.

    Mukherjee and Zhu, Statistical Analysis and Data Mining 2011, 4:612. `outer` is rotated @ rotated.T.
    """
    root = np.sqrt(spectrum.inverse(penalty))
    # The right singular vectors of the penalised fit, by way of the smaller side.
    _, directions = scipy.linalg.eigh(root[:, None] * outer * root, driver="evd")
    turned = root[:, None] * directions[:, ::-1]
    return Factors(spectrum.vectors @ turned, turned.T @ spectrum.rotated)


def fit(task: Task, config: ReducedRank) -> Model:
    most = min(task.train.n_landmarks, task.train.n_targets)
    if config.rank is not None and config.rank > most:
        raise ValueError(f"rank={config.rank} is more than the {most} landmarks or targets; choose a smaller rank.")
    spectrum = Spectrum.of(task.moments)
    outer = spectrum.rotated @ spectrum.rotated.T
    if config.rank is not None and config.penalty is not None:
        rank, penalty = config.rank, config.penalty
    else:
        ranks = [r for r in RANKS if r < most] + [most] if config.rank is None else [config.rank]
        rank, penalty = choose(task, config, spectrum, outer, ranks)
    factors = factorise(spectrum, outer, penalty)
    arrays = {"left": factors.left[:, :rank], "right": factors.right[:rank]}
    return Model({name: a.astype(np.float32) for name, a in arrays.items()}, {"rank": rank, "penalty": penalty})


def choose(task: Task, config: ReducedRank, spectrum: Spectrum, outer: Wide, ranks: list[int]) -> tuple[int, float]:
    """Return the rank and the penalty with the lowest validation error: every third penalty, then those around it."""
    penalties = PENALTIES_PER_ROW * len(task.train) if config.penalty is None else np.array([config.penalty])
    errors: dict[int, tuple[float, int]] = {}

    def look(places: Iterable[int]) -> int:
        for i in places:
            if i in range(len(penalties)) and i not in errors:
                found = errors_by_rank(task, factorise(spectrum, outer, penalties[i]), ranks)
                errors[i] = min(zip(found, ranks, strict=True))
        return min(errors, key=errors.__getitem__)

    best = look(range(0, len(penalties), 3))
    best = look(range(best - 2, best + 3))
    return errors[best][1], float(penalties[best])


def errors_by_rank(task: Task, factors: Factors, ranks: list[int]) -> list[float]:
    """Return the absolute error over the validation rows at each rank."""
    right = factors.right.astype(np.float32)
    errors = [0.0] * len(ranks)
    for x, y in task.validation.blocks():
        scores = (x @ factors.left).astype(np.float32)
        away = -y
        for i, (first, last) in enumerate(pairwise([0, *ranks])):
            # What the next directions add to those before.
            away += scores[:, first:last] @ right[first:last]
            errors[i] += float(np.abs(away).sum(dtype=np.float64))
    return errors


def predict(model: Model, config: ReducedRank, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    left, right = (model.arrays[name].astype(np.float64) for name in ("left", "right"))
    for x in blocks:
        yield (x @ left @ right).astype(np.float32)


def chooses(config: ReducedRank) -> bool:
    return config.rank is None or config.penalty is None


jacobian = jacobian_of(lambda model, p: model.arrays["left"] @ model.arrays["right"])
METHOD = Method("rrr", ReducedRank, fit, predict, selects=chooses, products=True, jacobian=jacobian)
