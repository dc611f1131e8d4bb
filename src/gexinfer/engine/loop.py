"""The training loop of every network: minibatches, an error after each epoch, the best epoch kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float, row_slices
from gexinfer.engine.report import steps

# The paper watches the error on this many fixed training samples.
MONITOR_ROWS = 5000


class Network(Protocol):
    """Parameters by name, and two functions of them."""

    parameters: Mapping[str, Tensor]

    def loss(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor: ...

    def infer(self, x: Tensor) -> Tensor: ...


class Schedule(Protocol):
    """What changes the learning rate, and when."""

    def after_step(self) -> None: ...

    def after_epoch(self, train_mae: float) -> None: ...


@dataclass(frozen=True)
class Trained:
    """The parameters of the best epoch, that epoch (from 1), and what was measured after each."""

    parameters: dict[str, np.ndarray]
    best_epoch: int
    train_mae: np.ndarray
    validation_mae: np.ndarray


def train(
    network: Network,
    optimiser: torch.optim.Optimizer,
    schedule: Schedule,
    training: tuple[Float, Float],
    validation: tuple[Float, Float],
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    title: str,
    progress: bool,
) -> Trained:
    """Train `network` in place and return its best epoch by validation MAE (standardised)."""
    device = generator.device
    X, Y = (torch.from_numpy(a).to(device) for a in training)
    X_validation, Y_validation = (torch.from_numpy(a).to(device) for a in validation)
    half = device.type == "cuda" and torch.cuda.is_bf16_supported()
    best: dict[str, Tensor] = {}
    errors: list[tuple[float, float]] = []
    best_error, best_epoch = np.inf, 0

    with steps(f"{title} epoch", epochs, show=progress) as advance:
        started = perf_counter()
        for epoch in range(1, epochs + 1):
            for picks in torch.randperm(len(X), generator=generator, device=device).split(batch_size):
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss = network.loss(X[picks], Y[picks], generator)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.after_step()
            train_mae = error(network, X[:MONITOR_ROWS], Y[:MONITOR_ROWS])
            validation_mae = error(network, X_validation, Y_validation)
            rate = optimiser.param_groups[0]["lr"]
            if not np.isfinite(validation_mae):
                raise FloatingPointError(
                    f"{title}: training diverged in epoch {epoch} at a learning rate of {rate:.2g}: the validation MAE "
                    f"is {validation_mae}. Fit again with learning_rate={rate / 10:.1g}."
                )
            schedule.after_epoch(train_mae)
            errors.append((train_mae, validation_mae))
            if validation_mae < best_error:
                best_error, best_epoch = validation_mae, epoch
                best = {name: p.detach().clone() for name, p in network.parameters.items()}
            speed = epoch * len(X) / (perf_counter() - started)
            advance(1, f"MAE train {train_mae:.4f}, val {validation_mae:.4f}, {speed:,.0f} samples/s")
    history = np.array(errors)
    arrays = {name: p.cpu().numpy() for name, p in best.items()}
    return Trained(arrays, best_epoch, history[:, 0], history[:, 1])


@torch.no_grad()
def error(network: Network, X: Tensor, Y: Tensor) -> float:
    """Return the MAE over all entries."""
    total = torch.zeros((), device=X.device)
    for part in row_slices(len(X)):
        total += (network.infer(X[part]) - Y[part]).abs().mean() * (part.stop - part.start)
    return float(total) / len(X)
