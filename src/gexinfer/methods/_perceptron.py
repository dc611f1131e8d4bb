"""The network that infers, as named tensors and pure functions of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from gexinfer.engine.blocks import Float
from gexinfer.engine.linear import linear
from gexinfer.engine.network import Loss, Player, Step
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods._trunks import (
    CHANNELS,
    STRUCTURED,
    TRUNKS,
    features,
    glorot,
    mixed,
    structured_parameters,
    widths,
)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
}
# Slopes are found for as many landmarks at once as leave so many numbers in the widest layer.
TANGENTS = 2**23


class Perceptron:
    """A network from landmarks to targets, as named tensors and pure functions of them."""

    # Players beside the one that infers: what their parameters' names begin with.
    others: tuple[str, ...] = ()
    # Whether its loss is a mean over the entries of (..., rows, targets) alone, so that `forward` and `loss` serve for
    # all members of an ensemble in one go, whose parameters, landmarks and targets have a leading axis.
    at_once: ClassVar[bool] = False

    def __init__(self, config: Any, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor]):
        self.config = config
        self.parameters = parameters
        # Known before the training: which landmarks are neighbours, for trunks that assume it, and the linear model
        # that the linear path starts from.
        self.fixed = fixed

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Draw weights as the D-GEX paper: hidden within sqrt(6 / (inputs + outputs)), output within 1e-4, biases 0."""
        parameters = structured_parameters(config.trunk, config.layers, generator)
        shapes = widths(config.trunk, n_in, config.layers, config.hidden)
        for i, (a, b) in enumerate(shapes):
            parameters[f"{i}.weight"] = glorot(b, a, generator=generator)
            parameters[f"{i}.bias"] = torch.zeros(b)
            if config.layer_norm:
                parameters[f"{i}.norm.weight"] = torch.ones(b)
                parameters[f"{i}.norm.bias"] = torch.zeros(b)
        seen = features(config.trunk, n_in, config.layers, config.hidden)
        last = f"{len(shapes)}.weight"
        # A length of next to nothing, learned apart, would take long to grow.
        if config.weight_norm:
            parameters[last] = glorot(n_out, seen, generator=generator)
        else:
            parameters[last] = torch.empty(n_out, seen).uniform_(-1e-4, 1e-4, generator=generator)
        parameters[f"{len(shapes)}.bias"] = torch.zeros(n_out)
        if config.skip and config.trunk != "dense":
            parameters["skip.weight"] = torch.zeros(n_out, n_in)
        return parameters

    @classmethod
    def learning(
        cls, config: Any, drawn: Mapping[str, Tensor], fixed: Mapping[str, Tensor], device: torch.device
    ) -> Self:
        """Return the network with parameters to be learned, on a device."""
        parameters = dict(drawn)
        if config.weight_norm:
            for name in linear_layers(drawn):
                parameters[f"{name}.length"] = drawn[f"{name}.weight"].norm(dim=-1)
        there = {name: p.detach().to(device, copy=True).requires_grad_() for name, p in parameters.items()}
        return cls(config, there, {name: t.to(device) for name, t in fixed.items()})

    def learned(self, trained: Mapping[str, Float]) -> dict[str, Float]:
        """Return the arrays of the network that infers, with lengths multiplied into the weights."""
        arrays = {n: a for n, a in trained.items() if not n.startswith(self.others)}
        for name in linear_layers(arrays) if self.config.weight_norm else []:
            with_length = Perceptron(self.config, {n: torch.from_numpy(a) for n, a in arrays.items()}, {})
            arrays[f"{name}.weight"] = with_length.weight(name).numpy()
            del arrays[f"{name}.length"]
        return arrays

    def weight(self, name: str) -> Tensor:
        """Return the weights of a linear layer, whether their length is learned apart or not."""
        weight = self.parameters[f"{name}.weight"]
        length = self.parameters.get(f"{name}.length")
        return weight if length is None else of_length(weight, length)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Map (rows, landmarks) to (rows, targets); a generator turns noise and dropout on."""
        config, p = self.config, self.parameters
        if generator is not None and config.input_noise:
            x = x + config.input_noise * torch.empty_like(x).normal_(generator=generator)
        last = output_of(config)
        y = linear(self.seen(x, generator), self.weight(last), p[f"{last}.bias"])
        return y + linear(x, p["skip.weight"]) if "skip.weight" in p else y

    def seen(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Map (rows, landmarks) to what the output layer sees: hidden units, before them landmarks if it sees those."""
        config, p = self.config, self.parameters
        activation = ACTIVATIONS[config.activation]

        def layer(i: int, h: Tensor) -> Tensor:
            h = linear(h, self.weight(f"{i}"), p[f"{i}.bias"])
            if config.layer_norm:
                h = layer_norm(h, p[f"{i}.norm.weight"], p[f"{i}.norm.bias"])
            h = activation(h)
            if generator is not None and config.dropout:
                kept = torch.empty_like(h).bernoulli_(1 - config.dropout, generator=generator)
                h = h * kept / (1 - config.dropout)
            return h

        if config.trunk in STRUCTURED:
            return layer(0, mixed(config.trunk, x, p, self.fixed, config.layers, activation))
        return TRUNKS[config.trunk](layer, x, config.layers)

    def jacobian(self, x: Tensor, weights: Tensor) -> Tensor:
        """Return (landmarks, targets): the sum over rows of the slopes, each with its (row, landmark) weight.

        The output is linear, so it multiplies the sum for all targets at once, instead of each row's slopes.
        """
        config, p = self.config, self.parameters

        def along(direction: Tensor, weight: Tensor) -> Tensor:
            return weight @ jvp(self.seen, (x,), (direction.expand_as(x),))[1]

        n_in = x.shape[1]
        first = CHANNELS * n_in if config.trunk in STRUCTURED else n_in
        widest = max(first, features(config.trunk, n_in, config.layers, config.hidden))
        directions = torch.eye(n_in, dtype=x.dtype, device=x.device)
        some = max(TANGENTS // (len(x) * widest), 1)
        slopes = vmap(along, (0, 1), chunk_size=some)(directions, weights) @ self.weight(output_of(config)).T
        return slopes + weights.sum(0)[:, None] * p["skip.weight"].T if "skip.weight" in p else slopes

    def infer(self, x: Tensor) -> Tensor:
        return self.forward(x, generator=None)

    def units(self, x: Tensor) -> Tensor:
        """Return the hidden units that the output layer sees."""
        return self.seen(x)[:, x.shape[1] if self.config.trunk == "dense" else 0 :]

    @staticmethod
    def settled(network: Any, validation: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        """Set what validation rows choose, of a network of this kind or an ensemble of such."""
        return {}

    def settle(self, validation: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        return self.settled(self, validation)

    def prepare(self, player: str) -> None:
        """Nothing is to be done before a step."""

    def loss(self, player: str, step: Step) -> Loss:
        raise NotImplementedError

    def complaints(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        return {}

    def players(self) -> list[Player]:
        """Return who learns, last the network that infers."""
        own = {name: p for name, p in self.parameters.items() if not name.startswith(self.others)}
        return [Player("network", optimiser_of(self.config, own), SCHEDULES[self.config.schedule])]

    def activations(self, n_in: int, n_out: int) -> int:
        """Return about how many numbers a row leaves behind until its gradient is known."""
        config, wide = self.config, 0
        if config.trunk == "dense":
            wide = sum(a for a, _ in widths(config.trunk, n_in, config.layers + 1, config.hidden))
        elif config.trunk in STRUCTURED:
            wide = 4 * config.layers * CHANNELS * n_in
        # Each layer keeps its input, what comes out of its norm and its activation, and its dropout.
        return wide + 4 * config.layers * config.hidden + 3 * n_out


def of_length(weight: Tensor, length: Tensor) -> Tensor:
    """Return weights of these directions, whose length for each unit is learned apart."""
    return weight * (length / weight.norm(dim=-1).clamp_min(1e-12))[..., None]


def layer_norm(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return units normalised within each row; of several members, each with its own weight and bias."""
    if weight.ndim == 1:
        return F.layer_norm(h, h.shape[-1:], weight, bias)
    return F.layer_norm(h, h.shape[-1:]) * weight[:, None] + bias[:, None]


def output_of(config: Any) -> str:
    """Return the name of the output layer, which is the number of linear layers before it."""
    return "1" if config.trunk in STRUCTURED else str(config.layers)


def linear_layers(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the hidden layers and the output: not the linear path, which starts without a direction."""
    numbers = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    return [number for number in numbers if number.isdecimal()]


def optimiser_of(config: Any, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """Return the optimiser, which for `sgd` is the D-GEX paper's: momentum, and a threefold rate after one layer."""
    # Of an ensemble all have a leading axis.
    of_vectors = 1 if config.n_members == 1 else 2
    weights = [p for p in parameters.values() if p.ndim > of_vectors]
    others = [p for p in parameters.values() if p.ndim == of_vectors]
    groups: list[dict[str, Any]] = [
        {"params": weights[:1]},
        {"params": weights[1:], "lr": (3 if config.optimiser == "sgd" else 1) * config.learning_rate},
        # Biases and norms are few and need no restraint.
        {"params": others, "weight_decay": 0.0},
    ]
    shared: dict[str, Any] = {
        "lr": config.learning_rate,
        "weight_decay": config.weight_decay,
        "fused": weights[0].device.type in ("cpu", "cuda"),
    }
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.5, **shared)
    return torch.optim.AdamW(groups, **shared)
