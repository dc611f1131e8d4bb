"""What a fit will take, foretold: seconds and bytes, from the sizes of the data and of the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from gexinfer.engine.blocks import BLOCK_ROWS
from gexinfer.engine.feed import BUFFER_BYTES
from gexinfer.engine.loop import COPIES
from gexinfer.engine.memory import available

# Multiplications and additions a second, rather too few: of a thread, and of a GPU. Constants, because what is measured
# differs from run to run, and with it the models that fit into a budget. benchmarks/auto_cost.py holds them against
# what fits take.
THREAD = 7e10
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
    from gexinfer.methods.kernel import INDUCING, REACHES, ROUNDS, SEARCH_ROWS, SEARCH_TARGETS, memory

    n, p, q, some = size.train, size.landmarks, size.targets, min(size.train, SEARCH_ROWS)
    forms = len(config.forms(1.0))
    work = forms * len(config.penalties) * (some**3 / 3 + 2 * size.validation * some * (some + q))
    work += 2 * (len(REACHES) - 1) * (some**3 + ROUNDS * 4 * some * some * min(q, SEARCH_TARGETS))
    if memory(n, p, q) > available(device):
        # Inducing rows; sums of products are taken in float64, which is half as fast, on the processor.
        m = min(INDUCING, n)
        sums = 4 * n * m * (m + q) + 20 * m**3
        seconds = (work + 2 * n * m * (m + p)) / speed(device) + sums / speed(torch.device("cpu"))
        return Cost(ONCE + seconds, memory(m, p, q) + 8 * 3 * m * (m + q))
    # Once with the training rows, and once with those of validation, too.
    for rows in (n, n + size.validation):
        work += rows**3 + (ROUNDS + 1) * 4 * rows**2 * q + 2 * rows**2 * p
    return Cost(ONCE + work / speed(device), memory(n + size.validation, p, q))


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
    # What a batch leaves behind until its gradient is known; and a block of rows that judges.
    fixed = 4 * (COPIES * weights + config.n_members * (config.batch_size + min(n, BLOCK_ROWS)) * row)
    rows = 4 * (n + size.validation) * (p + q)
    # Rows for which there is no room are read anew in each epoch.
    return Cost(ONCE + seconds, fixed + (rows if fixed + rows < 0.8 * available(device) else 3 * BUFFER_BYTES))
