"""D-GEX: the feed-forward network of Chen et al., Bioinformatics 2016, 32:1832."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from math import inf, sqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.blocks import Float, Indices
from gexinfer.engine.device import fast_products, pick_device
from gexinfer.engine.linear import linear
from gexinfer.engine.loop import Plan, Trained, train
from gexinfer.engine.processes import join
from gexinfer.engine.report import warn
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods._contract import Method, Model, Start, Task

RECIPES: dict[str, dict[str, Any]] = {
    # Chen et al. 2016. Its learning rate was tuned per depth: 5e-4 for one hidden layer, 3e-4 for two or three.
    "paper": {
        "hidden": 3000,
        "dropout": 0.1,
        "activation": "tanh",
        "loss": "mse",
        "layer_norm": False,
        "skip": False,
        "input_noise": 0.0,
        "optimiser": "sgd",
        "schedule": "decay_on_rise",
        "weight_decay": 0.0,
        "ema": 0.0,
        "epochs": 200,
        "batch_size": 200,
    },
    # Found by benchmarks/search_recipe.py. Absolute error is what is reported, so it is what is learned; a linear path
    # because most of the relation is linear; noise on the input, dropout and a strong decay because most data sets have
    # fewer samples than twice the landmarks.
    "modern": {
        "hidden": 1000,
        "dropout": 0.2,
        "activation": "gelu",
        "loss": "l1",
        "layer_norm": True,
        "skip": True,
        "input_noise": 0.3,
        "optimiser": "adamw",
        "schedule": "one_cycle",
        "weight_decay": 3.0,
        "ema": 0.0,
        "epochs": 100,
        "batch_size": 128,
        "learning_rate": 2e-3,
    },
}
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}
# Targets are clustered on their values in this many training rows.
CLUSTER_ROWS = 2000


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
    activation: Literal["tanh", "relu", "silu", "gelu"] = by_recipe()
    loss: Literal["mse", "l1", "huber"] = by_recipe()
    layer_norm: bool = by_recipe()
    # A linear path from the landmarks to the targets beside the hidden layers.
    skip: bool = by_recipe()
    # Standard deviation of the Gaussian noise added to standardised landmarks in training.
    input_noise: float = by_recipe()
    optimiser: Literal["adamw", "sgd"] = by_recipe()
    schedule: Literal["one_cycle", "cosine", "decay_on_rise"] = by_recipe()
    weight_decay: float = by_recipe()
    # Weight of the past in a running average of the parameters, which then is the model; 0 for no average.
    ema: float = by_recipe()
    epochs: int = by_recipe()
    batch_size: int = by_recipe()
    learning_rate: float = by_recipe()
    # So many networks, each for its share of the targets.
    target_blocks: int = 1
    block_by: Literal["random", "clusters"] = "random"

    def __post_init__(self) -> None:
        recipe = {"learning_rate": 5e-4 if self.layers == 1 else 3e-4} | RECIPES[self.recipe]
        for option in fields(self):
            if getattr(self, option.name) is None:
                object.__setattr__(self, option.name, recipe[option.name])
        for name in ("layers", "hidden", "epochs", "batch_size", "target_blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")
        for name in ("dropout", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1.")
        if not 0 < self.learning_rate < inf:
            raise ValueError(f"learning_rate={self.learning_rate!r} must be positive.")
        for name in ("input_noise", "weight_decay"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must not be negative.")


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
            parameters[f"{i}.weight"] = torch.empty(b, a).uniform_(-bound, bound, generator=generator)
            parameters[f"{i}.bias"] = torch.zeros(b)
            if config.layer_norm and i < config.layers:
                parameters[f"{i}.norm.weight"] = torch.ones(b)
                parameters[f"{i}.norm.bias"] = torch.zeros(b)
        if config.skip:
            parameters["skip.weight"] = torch.zeros(n_out, n_in)
        return cls(config, parameters)

    def on(self, device: torch.device) -> Perceptron:
        """Return it with parameters to be learned on a device."""
        there = {name: p.detach().to(device, copy=True).requires_grad_() for name, p in self.parameters.items()}
        return Perceptron(self.config, there)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Map (rows, landmarks) to (rows, targets); a generator turns noise and dropout on."""
        config, p = self.config, self.parameters
        if generator is not None and config.input_noise:
            x = x + config.input_noise * torch.empty_like(x).normal_(generator=generator)
        h = x
        for i in range(config.layers):
            h = linear(h, p[f"{i}.weight"], p[f"{i}.bias"])
            if config.layer_norm:
                h = F.layer_norm(h, h.shape[-1:], p[f"{i}.norm.weight"], p[f"{i}.norm.bias"])
            h = ACTIVATIONS[config.activation](h)
            if generator is not None and config.dropout:
                kept = torch.empty_like(h).bernoulli_(1 - config.dropout, generator=generator)
                h = h * kept / (1 - config.dropout)
        y = linear(h, p[f"{config.layers}.weight"], p[f"{config.layers}.bias"])
        return y + linear(x, p["skip.weight"]) if config.skip else y

    def loss(self, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        # Summed over targets, averaged over samples: the scale for which the paper's learning rates were chosen.
        return LOSSES[self.config.loss](self.forward(x, generator).float(), y) * y.shape[1]

    def infer(self, x: Tensor) -> Tensor:
        return self.forward(x, generator=None)


def optimiser_of(network: Perceptron, device: torch.device) -> torch.optim.Optimizer:
    """Return the optimiser, which for `sgd` is the paper's: momentum, and a threefold rate after the first layer."""
    config, rate = network.config, network.config.learning_rate
    weights = {name: p for name, p in network.parameters.items() if p.ndim == 2}
    others = [p for p in network.parameters.values() if p.ndim == 1]
    later = 3 if config.optimiser == "sgd" else 1
    groups: list[dict[str, Any]] = [
        {"params": [weights.pop("0.weight")]},
        {"params": list(weights.values()), "lr": later * rate},
        # Biases and norms are few and need no restraint.
        {"params": others, "weight_decay": 0.0},
    ]
    shared: dict[str, Any] = {
        "lr": rate,
        "weight_decay": config.weight_decay,
        "fused": device.type in ("cpu", "cuda"),
    }
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=0.5, **shared)
    return torch.optim.AdamW(groups, **shared)


def fit(task: Task, config: DGEX) -> Model:
    devices = [pick_device(name) for name in task.device.split(",")]
    processes = join(devices[0])
    if len(devices) > 1 and processes.size > 1:
        raise ValueError(f"device={task.device!r} names several, but under torchrun each process takes one; name none.")
    # The first process's, because the others may have come with a generator of their own.
    blocks = processes.same(assigned(task, config))
    seeds = processes.same(task.rng.integers(2**63, size=config.target_blocks)).tolist()

    n = config.target_blocks
    titles = ["dgex" if n == 1 else f"dgex block {b + 1} of {n}" for b in range(n)]

    def learned(b: int) -> Trained:
        return learn(task, config, np.flatnonzero(blocks == b), b, devices[b % len(devices)], seeds[b], titles[b])

    with fast_products(devices[0]):
        trained = run_each(task, learned, n, len(devices))
    arrays: dict[str, np.ndarray] = {"block": blocks}
    notes: dict[str, int] = {}
    for b, found in enumerate(trained):
        arrays |= {f"{b}.{name}": p for name, p in found.parameters.items()}
        arrays |= {f"{b}.history.{name}": values for name, values in found.history.items()}
        notes["best_epoch" if len(trained) == 1 else f"best_epoch_{b + 1}"] = found.best_epoch
        if found.interrupted:
            done = len(found.history["loss"])
            notes["epochs_done" if len(trained) == 1 else f"epochs_done_{b + 1}"] = done
            warn(
                f"{titles[b]}: interrupted in epoch {done + 1} of {config.epochs}; the model is that of epoch "
                f"{found.best_epoch}, the best so far (validation MAE {found.history['validation_mae'].min():.4f}). "
                f"{how_to_go_on(task, found)}"
            )
    return Model(arrays, notes)


def run_each(task: Task, learned: Callable[[int], Trained], n: int, n_devices: int) -> list[Trained]:
    """Train networks one after another, or as many at a time as there are devices."""
    if n_devices == 1:
        trained = []
        for b in range(n):
            trained.append(learned(b))
            if trained[-1].interrupted and b + 1 < n:
                raise KeyboardInterrupt(
                    f"dgex: interrupted in block {b + 1} of {n}, so that targets are left without a network. "
                    f"{how_to_go_on(task, trained[-1])}"
                )
        return trained
    with ThreadPoolExecutor(n_devices) as threads:
        coming = [threads.submit(learned, b) for b in range(n)]
        with suppress(KeyboardInterrupt):
            wait(coming, return_when=FIRST_EXCEPTION)
        if not all(network.done() for network in coming):
            # Cut short, or one has failed: the others would go on to their end.
            task.run.stop.set()
        wait(coming)
        errors = [network.exception() for network in coming]
        for error in errors:
            # Those that were stopped for its sake say less than the one that failed.
            if error is not None and not isinstance(error, KeyboardInterrupt):
                raise error
        return [network.result() for network in coming]


def how_to_go_on(task: Task, found: Trained) -> str:
    """Say what an interrupted training can do."""
    if task.run.checkpoint is None:
        return "With checkpoint= a training can be continued."
    if found.saved_epoch == 0:
        return "No checkpoint was due yet: a smaller checkpoint_every= writes them more often."
    return f"The same call goes on after epoch {found.saved_epoch}."


def learn(task: Task, config: DGEX, targets: Indices, b: int, device: torch.device, seed: int, title: str) -> Trained:
    """Train the network of some targets."""
    training, validation = task.train.only(targets), task.validation.only(targets)
    generator = torch.Generator().manual_seed(seed)
    drawn = Perceptron.initialised(config, training.n_landmarks, training.n_targets, generator)
    if task.start is not None:
        drawn = Perceptron(config, begun(drawn.parameters, task.start, targets, b))
    network = drawn.on(device)
    plan = Plan(
        optimiser_of(network, device),
        SCHEDULES[config.schedule],
        config.epochs,
        config.batch_size,
        config.ema,
        device,
        # Each layer keeps its input, what comes out of its norm and its activation, and its dropout.
        4 * config.layers * config.hidden + 3 * training.n_targets,
        seed,
        title,
        asdict(config),
    )
    return train(network, plan, training, validation, task.run)


def assigned(task: Task, config: DGEX) -> Indices:
    """Return which network infers each target."""
    n, q = config.target_blocks, task.train.n_targets
    if n > q:
        raise ValueError(f"target_blocks={n} are more than the {q:,} targets.")
    if config.block_by == "clusters" and n > 1:
        from sklearn.cluster import KMeans

        some = np.unique(np.linspace(0, len(task.train) - 1, CLUSTER_ROWS).astype(np.intp))
        _, Y = task.train.select(some).arrays()
        blocks = KMeans(n, random_state=int(task.rng.integers(2**31))).fit_predict(Y.T)
    else:
        blocks = task.rng.permutation(np.arange(q) % n)
    if task.start is not None:
        # A target stays with the network that knows it.
        known = task.start.targets >= 0
        blocks[known] = task.start.model.arrays["block"][task.start.targets[known]]
    idle = np.flatnonzero(np.bincount(blocks, minlength=n) == 0)
    if len(idle):
        raise ValueError(
            f"Network {idle[0] + 1} of the {n} of target_blocks is left without a target; use fewer of them."
        )
    return blocks.astype(np.int32)


def begun(drawn: Mapping[str, Tensor], start: Start, targets: Indices, b: int) -> dict[str, Tensor]:
    """Return another model's network b for our genes; a new landmark has no weight yet, a new target those drawn.

    The weights work on standardised genes as they did, so that moments of the new rows take the place of the old: a
    shift of all samples, as between two studies, is taken up at once. Kept in units of the data, the network would have
    to unlearn it, and mostly ended worse than one from scratch.
    """
    old = {name: torch.from_numpy(start.model.arrays[f"{b}.{name}"]) for name in drawn}
    last = start.config.layers
    place_in = np.full(len(start.model.arrays["block"]), -1)
    own = np.flatnonzero(start.model.arrays["block"] == b)
    place_in[own] = np.arange(len(own))
    x_there, y_there = np.flatnonzero(start.landmarks >= 0), np.flatnonzero(start.targets[targets] >= 0)
    x_old, y_old = start.landmarks[x_there], place_in[start.targets[targets][y_there]]

    new = {name: old[name].clone() for name in drawn}
    new["0.weight"] = torch.zeros_like(drawn["0.weight"])
    new["0.weight"][:, x_there] = old["0.weight"][:, x_old]
    for name in (f"{last}.weight", f"{last}.bias"):
        new[name] = drawn[name].clone()
        new[name][y_there] = old[name][y_old]
    if "skip.weight" in drawn:
        new["skip.weight"] = torch.zeros_like(drawn["skip.weight"])
        new["skip.weight"][np.ix_(y_there, x_there)] = old["skip.weight"][np.ix_(y_old, x_old)]
    return new


@torch.no_grad()
def infer(model: Model, config: DGEX, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    there, assigned = pick_device(device.split(",")[0]), model.arrays["block"]
    networks = []
    for b in range(config.target_blocks):
        own = {n.removeprefix(f"{b}."): a for n, a in model.arrays.items() if n.startswith(f"{b}.")}
        weights = {n: torch.from_numpy(a).to(there) for n, a in own.items() if not n.startswith("history.")}
        networks.append((np.flatnonzero(assigned == b), Perceptron(config, weights)))
    for x in blocks:
        out = np.empty((len(x), len(assigned)), np.float32)
        on_device = torch.from_numpy(x).to(there)
        for targets, network in networks:
            out[:, targets] = network.infer(on_device).cpu().numpy()
        yield out


METHOD = Method(
    "dgex",
    DGEX,
    fit,
    infer,
    by_epochs=True,
    shape=("layers", "hidden", "activation", "layer_norm", "skip", "target_blocks"),
    # The best of 1e-4, 3e-4 and 1e-3 on cohorts left out of the bundled data.
    from_start={"learning_rate": 3e-4},
)
