"""How the learning rate changes while a network is trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, pi

# The learning rate for a base rate, the share of all steps that is done, and the training MAE after each epoch so far.
Schedule = Callable[[float, float, Sequence[float]], float]


def one_cycle(rate: float, done: float, errors: Sequence[float]) -> float:
    """Up from a 25th for three tenths of the steps, then down to nothing."""
    if done < 0.3:
        return rate * (0.04 + 0.96 * (1 - cos(pi * done / 0.3)) / 2)
    return rate * (1 + cos(pi * (done - 0.3) / 0.7)) / 2


def cosine(rate: float, done: float, errors: Sequence[float]) -> float:
    """Up for a tenth of the steps, down to nothing along a cosine over all."""
    return rate * min(done / 0.1, 1) * (1 + cos(pi * done)) / 2


def decay_on_rise(rate: float, done: float, errors: Sequence[float]) -> float:
    """Times 0.9 for each epoch after which the training MAE had risen, never under 1e-5: the paper's."""
    rises = sum(later > earlier for earlier, later in zip(errors[:-1], errors[1:], strict=True))
    return max(rate * 0.9**rises, 1e-5)


def constant(rate: float, done: float, errors: Sequence[float]) -> float:
    """The same all along."""
    return rate


SCHEDULES: dict[str, Schedule] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "decay_on_rise": decay_on_rise,
    "constant": constant,
}
