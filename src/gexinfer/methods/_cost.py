"""What a fit will take, foretold: seconds and bytes, from the sizes of the data and of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gexinfer.engine.loop import COPIES

# Multiplications and additions a second, rather too few: of a thread, and of a GPU. Constants, because what is measured
# differs from run to run, and with it the models that fit into a budget.
THREAD = 4e10
GPU = 1e13
# A step of a network costs at least so many seconds, however small it is.
STEP = {"cpu": 1e-3, "cuda": 3e-4}
# What fits start with: reading rows, writing the model.
ONCE = 0.3


@dataclass(frozen=True)
class Size:
    """Rows and genes of a task."""

    train: int
    validation: int
    landmarks: int
    targets: int


@dataclass(frozen=True)
class Cost:
    """Seconds and bytes."""

    seconds: float
    memory: float


def speed(device: torch.device) -> float:
    """Return about how many multiplications and additions a device does in a second."""
    return THREAD * torch.get_num_threads() if device.type == "cpu" else GPU


def of_ridge(size: Size, config: Any, device: torch.device) -> Cost:
    n, p, q = size.train, size.landmarks, size.targets
    # Decomposed in float64, on the processor whatever the device; every penalty is tried on the validation rows.
    work = 20 * p**3 + 8 * p * p * q + 2 * 25 * size.validation * p * q + 4 * n * p * (p + q)
    return Cost(ONCE + work / speed(torch.device("cpu")), 8 * (3 * p * p + 4 * p * q))


def of_kernel(size: Size, config: Any, device: torch.device) -> Cost:
    from gexinfer.methods.kernel import REACHES, ROUNDS, SEARCH_ROWS, SEARCH_TARGETS

    n, some, tried = size.train, min(size.train, SEARCH_ROWS), min(size.targets, SEARCH_TARGETS)
    forms = len(config.forms(1.0))
    work = forms * len(config.penalties) * (some**3 / 3 + 2 * size.validation * some * (some + size.targets))
    work += 2 * (len(REACHES) - 1) * (some**3 + ROUNDS * 4 * some * some * tried)
    work += n**3 + (ROUNDS + 1) * 4 * n * n * size.targets + 2 * n * n * size.landmarks
    memory = 4 * (8 * n**2 + n * (size.landmarks + 4 * size.targets))
    return Cost(ONCE + work / speed(device), memory)


def of_network(size: Size, config: Any, device: torch.device) -> Cost:
    n, p, q = size.train, size.landmarks, size.targets
    inner = p * config.hidden + (config.layers - 1) * config.hidden**2
    weights = config.n_members * (inner + config.hidden * q + (p * q if config.skip else 0))
    # Forwards and twice backwards; each epoch is judged by training and validation rows; and the optimiser's pass over
    # the weights, which is bound by memory.
    work = config.epochs * (6 * n + 2 * (min(n, 5000) + size.validation)) * weights
    steps = config.epochs * -(-n // config.batch_size)
    seconds = work / speed(device) + steps * (STEP.get(device.type, STEP["cuda"]) + 8 * weights / speed(device))
    row = p + 4 * config.layers * config.hidden + 3 * q
    memory = 4 * (COPIES * weights + config.n_members * config.batch_size * row + (n + size.validation) * (p + q))
    return Cost(ONCE + seconds, memory)
