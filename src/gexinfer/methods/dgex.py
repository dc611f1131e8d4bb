"""D-GEX: the feed-forward network of Chen et al., Bioinformatics 2016, 32:1832, for all targets at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from math import inf, sqrt
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.blocks import Float
from gexinfer.engine.device import pick_device
from gexinfer.engine.loop import Schedule, train
from gexinfer.methods._contract import Method, Model, Task

RECIPES: dict[str, dict[str, Any]] = {
    # Chen et al. 2016. Its learning rate was tuned per depth: 5e-4 for one hidden layer, 3e-4 for two or three.
    "paper": {
        "hidden": 3000,
        "dropout": 0.1,
        "activation": "tanh",
        "loss": "mse",
        "layer_norm": False,
        "input_noise": 0.0,
        "epochs": 200,
        "batch_size": 200,
    },
    # Absolute error is what is reported, so it is what is learned; noise on the input and a small network because most
    # data sets have fewer samples than landmarks times two.
    "modern": {
        "hidden": 1000,
        "dropout": 0.2,
        "activation": "silu",
        "loss": "l1",
        "layer_norm": True,
        "input_noise": 0.3,
        "epochs": 60,
        "batch_size": 64,
        "learning_rate": 2e-3,
    },
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "relu": F.relu, "silu": F.silu}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


def by_recipe() -> Any:
    """Return a field that the recipe fills in where the user says nothing."""
    return field(default=None)


@dataclass(frozen=True)
class DGEX:
    """Options of D-GEX; the recipe sets those that are not given."""

    recipe: Literal["modern", "paper"] = "modern"
    layers: int = 1
    # Units of each hidden layer.
    hidden: int = by_recipe()
    # Share of hidden activations dropped in training; the input is never dropped.
    dropout: float = by_recipe()
    activation: Literal["tanh", "relu", "silu"] = by_recipe()
    loss: Literal["mse", "l1", "huber"] = by_recipe()
    layer_norm: bool = by_recipe()
    # Standard deviation of the Gaussian noise added to standardised landmarks in training.
    input_noise: float = by_recipe()
    epochs: int = by_recipe()
    batch_size: int = by_recipe()
    learning_rate: float = by_recipe()

    def __post_init__(self) -> None:
        recipe = {"learning_rate": 5e-4 if self.layers == 1 else 3e-4} | RECIPES[self.recipe]
        for option in fields(self):
            if getattr(self, option.name) is None:
                object.__setattr__(self, option.name, recipe[option.name])
        for name in ("layers", "hidden", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout!r} must be at least 0 and below 1.")
        if not 0 < self.learning_rate < inf:
            raise ValueError(f"learning_rate={self.learning_rate!r} must be positive.")
        if not 0 <= self.input_noise < inf:
            raise ValueError(f"input_noise={self.input_noise!r} must not be negative.")


class Perceptron:
    """A multilayer perceptron as named tensors and two pure functions of them."""

    def __init__(self, config: DGEX, parameters: Mapping[str, Tensor]):
        self.config = config
        self.parameters = parameters

    @classmethod
    def initialised(cls, config: DGEX, n_in: int, n_out: int, generator: torch.Generator) -> Perceptron:
        """Draw weights as the paper: hidden within sqrt(6 / (n_in + n_out)), output within 1e-4, biases 0."""
        widths = [n_in] + [config.hidden] * config.layers + [n_out]
        parameters: dict[str, Tensor] = {}
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            bound = 1e-4 if i == config.layers else sqrt(6 / (a + b))
            weight = torch.empty(b, a, device=generator.device)
            parameters[f"{i}.weight"] = weight.uniform_(-bound, bound, generator=generator)
            parameters[f"{i}.bias"] = torch.zeros(b, device=generator.device)
            if config.layer_norm and i < config.layers:
                parameters[f"{i}.norm.weight"] = torch.ones(b, device=generator.device)
                parameters[f"{i}.norm.bias"] = torch.zeros(b, device=generator.device)
        for parameter in parameters.values():
            parameter.requires_grad_()
        return cls(config, parameters)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Map (rows, landmarks) to (rows, targets); a generator turns noise and dropout on."""
        config, p = self.config, self.parameters
        if generator is not None and config.input_noise:
            x = x + config.input_noise * torch.empty_like(x).normal_(generator=generator)
        for i in range(config.layers):
            x = F.linear(x, p[f"{i}.weight"], p[f"{i}.bias"])
            if config.layer_norm:
                x = F.layer_norm(x, x.shape[-1:], p[f"{i}.norm.weight"], p[f"{i}.norm.bias"])
            x = ACTIVATIONS[config.activation](x)
            if generator is not None and config.dropout:
                kept = torch.empty_like(x).bernoulli_(1 - config.dropout, generator=generator)
                x = x * kept / (1 - config.dropout)
        return F.linear(x, p[f"{config.layers}.weight"], p[f"{config.layers}.bias"])

    def loss(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        # Summed over targets, averaged over samples: the scale for which the paper's learning rates were chosen.
        return LOSSES[self.config.loss](self.forward(x, generator), y) * y.shape[1]

    def infer(self, x: Tensor) -> Tensor:
        return self.forward(x, generator=None)


class OneCycle:
    """Learning rate up for three tenths of the steps, then down to nothing: the modern recipe."""

    def __init__(self, optimiser: torch.optim.Optimizer, rate: float, total_steps: int):
        self.rule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=total_steps + 1)

    def after_step(self) -> None:
        self.rule.step()

    def after_epoch(self, train_mae: float) -> None:
        pass


class DecayOnRise:
    """Learning rate times 0.9 whenever the training MAE has risen, never under 1e-5: the paper's recipe."""

    def __init__(self, optimiser: torch.optim.Optimizer):
        self.optimiser = optimiser
        self.last = float("inf")

    def after_step(self) -> None:
        pass

    def after_epoch(self, train_mae: float) -> None:
        if train_mae > self.last:
            for group in self.optimiser.param_groups:
                group["lr"] = max(group["lr"] * 0.9, 1e-5)
        self.last = train_mae


def prepare(network: Perceptron, n_rows: int) -> tuple[torch.optim.Optimizer, Schedule]:
    """Return the recipe's optimiser and schedule."""
    config, rate = network.config, network.config.learning_rate
    if config.recipe == "paper":
        later = [p for name, p in network.parameters.items() if name.endswith(".weight") and not name.startswith("0.")]
        rest = [p for p in network.parameters.values() if not any(p is q for q in later)]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": later, "lr": 3 * rate}]
        sgd = torch.optim.SGD(groups, lr=rate, momentum=0.5)
        return sgd, DecayOnRise(sgd)
    adam = torch.optim.AdamW(network.parameters.values(), lr=rate, fused=True)
    batches = -(-n_rows // config.batch_size)
    return adam, OneCycle(adam, rate, config.epochs * batches)


def fit(task: Task, config: DGEX) -> Model:
    generator = torch.Generator(pick_device(task.device)).manual_seed(int(task.rng.integers(2**63)))
    network = Perceptron.initialised(config, task.train.n_landmarks, task.train.n_targets, generator)
    optimiser, schedule = prepare(network, len(task.train))
    trained = train(
        network,
        optimiser,
        schedule,
        task.train.arrays(),
        task.validation.arrays(),
        epochs=config.epochs,
        batch_size=config.batch_size,
        generator=generator,
        title="dgex",
        progress=task.progress,
    )
    history = {"history.train_mae": trained.train_mae, "history.validation_mae": trained.validation_mae}
    return Model(trained.parameters | history, {"best_epoch": trained.best_epoch})


@torch.no_grad()
def infer(model: Model, config: DGEX, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    there = pick_device(device)
    parameters = {n: torch.from_numpy(a).to(there) for n, a in model.arrays.items() if not n.startswith("history.")}
    network = Perceptron(config, parameters)
    for x in blocks:
        yield network.infer(torch.from_numpy(x).to(there)).cpu().numpy()


METHOD = Method("dgex", DGEX, fit, infer)
