"""Several networks of one kind that learn from the same batches, each by itself, and infer together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float
from gexinfer.engine.network import Loss, Player, Step
from gexinfer.methods._perceptron import Perceptron
from gexinfer.methods._trunks import STRUCTURED


class Ensemble:
    """Networks whose parameters are stacked, (members, ...), so that all that is done to parameters is done once.

    Each learns as it would alone: its loss is its own, and so are its noise and its dropout. What is inferred is their
    mean, so that the epoch that is kept is the one in which the mean is best.
    """

    def __init__(
        self, kind: type[Perceptron], config: Any, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor]
    ):
        self.kind, self.config, self.parameters, self.fixed = kind, config, parameters, fixed

    @classmethod
    def learning(
        cls,
        kind: type[Perceptron],
        config: Any,
        drawn: Sequence[Mapping[str, Tensor]],
        fixed: Mapping[str, Tensor],
        device: torch.device,
    ) -> Self:
        """Return the members with parameters to be learned, on a device."""
        stacked = {name: torch.stack([member[name] for member in drawn]) for name in drawn[0]}
        whole = kind.learning(config, stacked, fixed, device)
        return cls(kind, config, whole.parameters, whole.fixed)

    @property
    def whole(self) -> Perceptron:
        """All members as one network, of those kinds for which the leading axis makes no difference."""
        return self.kind(self.config, self.parameters, self.fixed)

    @property
    def members(self) -> list[Perceptron]:
        # At once, because the gradients of single picks would each be as large as the stack.
        parts = {name: p.unbind() for name, p in self.parameters.items()}
        return [
            self.kind(self.config, {name: p[m] for name, p in parts.items()}, self.fixed)
            for m in range(self.config.n_members)
        ]

    def prepare(self, player: str) -> None:
        for member in self.members:
            member.prepare(player)

    def loss(self, player: str, step: Step) -> Loss:
        """Return the sum of the members' losses, so that the gradient of each is that of its own."""
        n = self.config.n_members
        if self.kind.at_once and self.config.trunk not in STRUCTURED:
            # One product for all members is as fast as theirs one after another where networks are large, and much
            # faster where they are small: benchmarks/members.py.
            x, y = (values.expand(n, *values.shape) for values in (step.x, step.y))
            found = self.whole.loss(player, replace(step, x=x, y=y))
            return Loss(found.total * n, found.terms, n)
        losses = [member.loss(player, step) for member in self.members]
        terms = {name: torch.stack([loss.terms[name] for loss in losses]).mean() for name in losses[0].terms}
        return Loss(torch.stack([loss.total for loss in losses]).sum(), terms, n)

    def infer(self, x: Tensor) -> Tensor:
        # One after another: on blocks of rows that is no slower, and takes the memory of one.
        first, *others = self.members
        total = first.infer(x)
        for member in others:
            total += member.infer(x)
        return total / self.config.n_members

    def settle(self, validation: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        return self.kind.settled(self, validation)

    def std(self, x: Tensor) -> Tensor:
        """Return (rows, targets): the standard deviation over members, of their number less one."""
        return torch.stack([member.infer(x) for member in self.members]).std(0)

    def jacobian(self, x: Tensor, weights: Tensor) -> Tensor:
        return torch.stack([member.jacobian(x, weights) for member in self.members]).mean(0)

    def units(self, x: Tensor) -> Tensor:
        """Return the hidden units of all members beside each other: the mean of linear outputs is linear in them."""
        return torch.cat([member.units(x) for member in self.members], 1)

    def learned(self, trained: Mapping[str, Float]) -> dict[str, Float]:
        """Return the arrays of the networks that infer, stacked."""
        each = [self.whole.learned({name: a[m] for name, a in trained.items()}) for m in range(self.config.n_members)]
        return {name: np.stack([arrays[name] for arrays in each]) for name in each[0]}

    def complaints(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        return self.whole.complaints(history)

    def players(self) -> list[Player]:
        return self.whole.players()

    def activations(self, n_in: int, n_out: int) -> int:
        return self.config.n_members * self.whole.activations(n_in, n_out)
