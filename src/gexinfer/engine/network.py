"""What the training loop trains: a network, the players in it, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float
from gexinfer.engine.schedules import Schedule


@dataclass(frozen=True)
class Step:
    """Some rows to learn from, standardised, and how far the training has come."""

    # (rows, landmarks) and (rows, targets)
    x: Tensor
    y: Tensor
    # Landmarks of samples without targets, as many rows, where there are such.
    unlabeled: Tensor | None
    generator: torch.Generator
    # The share of all steps that is done.
    done: float

    def part(self, rows: slice) -> Step:
        others = None if self.unlabeled is None else self.unlabeled[rows]
        return replace(self, x=self.x[rows], y=self.y[rows], unlabeled=others)


@dataclass(frozen=True)
class Loss:
    """What a player makes small, and what else is worth knowing of a step: means over rows."""

    total: Tensor
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    # So many networks' losses are added up in the total; what is told is their mean.
    networks: int = 1


class Network(Protocol):
    """Parameters by name, and functions of them.

    The parameters are all that a training goes on from: those that are learned, of every player, and what is kept
    beside them.
    """

    parameters: Mapping[str, Tensor]

    def prepare(self, player: str) -> None:
        """Do what is to be done once before a player moves, however many parts its rows come in."""
        ...

    def loss(self, player: str, step: Step) -> Loss: ...

    def infer(self, x: Tensor) -> Tensor: ...

    def settle(self, validation: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        """Set, after an epoch, what validation rows choose and no gradient; return it for the history."""
        ...

    def complaints(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        """Return what goes wrong by what was measured so far: a word for each thing, and what to change."""
        ...


@dataclass(frozen=True)
class Player:
    """A part of the network with a loss of its own; in each step the players move one after another."""

    name: str
    optimiser: torch.optim.Optimizer
    schedule: Schedule


@dataclass(frozen=True)
class Plan:
    """How a network is trained."""

    # In the order in which they move; the last is the one that infers.
    players: Sequence[Player]
    epochs: int
    batch_size: int
    # Weight of the past in the average of the parameters that is kept; 0 keeps the parameters themselves.
    ema: float
    device: torch.device
    # Numbers that a row leaves behind in the network until its gradient is known.
    activations: int
    seed: int
    title: str
    # The user's, by which a checkpoint is known.
    options: Mapping[str, Any]

    def loss_of(self, player: Player) -> str:
        """Return what a player's loss is called in the history."""
        return "loss" if player is self.players[-1] else f"{player.name}_loss"


@dataclass(frozen=True)
class Trained:
    """The parameters of the best epoch, that epoch (from 1), what was measured after each, and if it was cut short."""

    parameters: dict[str, Float]
    best_epoch: int
    history: dict[str, np.ndarray]
    interrupted: bool
    # After which epoch the last checkpoint was written, 0 for none.
    saved_epoch: int
