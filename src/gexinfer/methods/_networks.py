"""What all networks share: options, the network that infers, and how models of several target blocks are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from math import inf
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F

from gexinfer.engine.blocks import Float, Indices, Pairs
from gexinfer.engine.device import fast_products, pick_device
from gexinfer.engine.linear import linear
from gexinfer.engine.loop import Loss, Plan, Player, Step, Trained, train
from gexinfer.engine.processes import join
from gexinfer.engine.report import warn
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods._contract import Model, Start, Task
from gexinfer.methods._trunks import (
    CHANNELS,
    LAYERS,
    STRUCTURED,
    TRUNKS,
    features,
    glorot,
    mixed,
    structure,
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
# Targets are clustered on their values in this many training rows.
CLUSTER_ROWS = 2000
# What the model to start from decides, of every network.
SHAPE = ("trunk", "structure", "layers", "hidden", "activation", "layer_norm", "skip", "target_blocks")


# What the modern recipes of all networks share. It was found for `dgex`, by benchmarks/search_recipe.py.
MODERN: dict[str, Any] = {
    "dropout": 0.2,
    "layer_norm": True,
    "weight_norm": False,
    "skip": True,
    "input_noise": 0.3,
    "optimiser": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 3.0,
    "ema": 0.0,
    "batch_size": 128,
    "learning_rate": 2e-3,
}


# Around the modern recipe: what moved the error most in benchmarks/search_recipe.py.
SPACE: dict[str, Any] = {
    "layers": [1, 2, 3],
    "hidden": [250, 500, 1000, 2000],
    "dropout": (0.0, 0.5),
    "input_noise": (0.0, 0.6),
    "weight_decay": (0.3, 30.0, "log"),
    "learning_rate": (3e-4, 1e-2, "log"),
}


def by_recipe() -> Any:
    """Return a field that the recipe fills in where the user says nothing."""
    return field(default=None)


@dataclass(frozen=True)
class NetworkOptions:
    """Options of every network; the recipe sets those that are not given."""

    recipes: ClassVar[Mapping[str, Mapping[str, Any]]]

    recipe: Literal["modern", "paper"] = "modern"
    trunk: Literal["mlp", "dense", "residual", "conv1d", "graph"] = by_recipe()
    # Which landmarks are neighbours: those that go together in the training rows, or, as a control, any.
    structure: Literal["data", "random"] = "data"
    layers: int = by_recipe()
    # Units of each hidden layer.
    hidden: int = by_recipe()
    # Share of hidden activations dropped in training; the input is never dropped.
    dropout: float = by_recipe()
    activation: Literal["tanh", "relu", "silu", "gelu", "leaky_relu"] = by_recipe()
    layer_norm: bool = by_recipe()
    # Learn the length and the direction of each unit's weights apart.
    weight_norm: bool = by_recipe()
    # A linear path from the landmarks to the targets beside the hidden layers.
    skip: bool = by_recipe()
    # Standard deviation of the Gaussian noise added to standardised landmarks in training.
    input_noise: float = by_recipe()
    optimiser: Literal["adamw", "sgd"] = by_recipe()
    schedule: Literal["one_cycle", "cosine", "decay_on_rise", "constant"] = by_recipe()
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
        recipe = dict(self.recipes[self.recipe])
        trunk = self.trunk or recipe["trunk"]
        if trunk != recipe["trunk"]:
            # The recipe's depth is that of its own trunk.
            recipe["layers"] = LAYERS[trunk]
        if trunk == "dense":
            if self.skip is False:
                raise ValueError("skip=False: the output of trunk='dense' always sees the landmarks; leave skip= out.")
            recipe["skip"] = True
        for option in fields(self):
            if getattr(self, option.name) is None:
                object.__setattr__(self, option.name, recipe[option.name])
        if self.structure == "random" and trunk not in STRUCTURED:
            raise ValueError(f"structure='random' is for trunk='conv1d' and 'graph'; trunk={trunk!r} has none.")
        for name in ("layers", "hidden", "epochs", "batch_size", "target_blocks"):
            self.at_least_one(name)
        for name in ("dropout", "ema"):
            self.a_share(name)
        self.positive("learning_rate")
        for name in ("input_noise", "weight_decay"):
            self.not_negative(name)

    def at_least_one(self, name: str) -> None:
        if getattr(self, name) < 1:
            raise ValueError(f"{name}={getattr(self, name)!r} must be at least 1.")

    def a_share(self, name: str) -> None:
        if not 0 <= getattr(self, name) < 1:
            raise ValueError(f"{name}={getattr(self, name)!r} must be at least 0 and below 1.")

    def positive(self, name: str) -> None:
        if not 0 < getattr(self, name) < inf:
            raise ValueError(f"{name}={getattr(self, name)!r} must be positive.")

    def not_negative(self, name: str) -> None:
        if not 0 <= getattr(self, name) < inf:
            raise ValueError(f"{name}={getattr(self, name)!r} must not be negative.")


class Perceptron:
    """A network from landmarks to targets, as named tensors and pure functions of them."""

    # Players beside the one that infers: what their parameters' names begin with.
    others: tuple[str, ...] = ()

    def __init__(self, config: Any, parameters: Mapping[str, Tensor], fixed: Mapping[str, Tensor]):
        self.config = config
        self.parameters = parameters
        # Which landmarks are neighbours, for trunks that assume it: known before the training.
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
                parameters[f"{name}.length"] = drawn[f"{name}.weight"].norm(dim=1)
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
                h = F.layer_norm(h, h.shape[-1:], p[f"{i}.norm.weight"], p[f"{i}.norm.bias"])
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
    return weight * (length / weight.norm(dim=1).clamp_min(1e-12))[:, None]


def output_of(config: Any) -> str:
    """Return the name of the output layer, which is the number of linear layers before it."""
    return "1" if config.trunk in STRUCTURED else str(config.layers)


def linear_layers(parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the hidden layers and the output: not the linear path, which starts without a direction."""
    numbers = [name.removesuffix(".weight") for name in parameters if name.endswith(".weight")]
    return [number for number in numbers if number.isdecimal()]


def optimiser_of(config: Any, parameters: Mapping[str, Tensor]) -> torch.optim.Optimizer:
    """Return the optimiser, which for `sgd` is the D-GEX paper's: momentum, and a threefold rate after one layer."""
    weights = [p for p in parameters.values() if p.ndim > 1]
    others = [p for p in parameters.values() if p.ndim == 1]
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


def fit(network: type[Perceptron], name: str, task: Task, config: Any) -> Model:
    """Train the networks of a method of this name, one for each block of targets."""
    devices = [pick_device(device) for device in task.device.split(",")]
    processes = join(devices[0])
    if len(devices) > 1 and processes.size > 1:
        raise ValueError(f"device={task.device!r} names several, but under torchrun each process takes one; name none.")
    # The first process's, because the others may have come with a generator of their own.
    blocks = processes.same(assigned(task, config))
    seeds = processes.same(task.rng.integers(2**63, size=config.target_blocks)).tolist()
    fixed = structure(config.trunk, config.structure, task.train, task.rng)
    fixed = {slot: processes.same(array) for slot, array in fixed.items()}
    if task.start is not None and fixed:
        fixed = structure_of(task.start)

    n = config.target_blocks
    titles = [name if n == 1 else f"{name} block {b + 1} of {n}" for b in range(n)]

    def learned(b: int) -> Trained:
        own = np.flatnonzero(blocks == b)
        return learn(network, task, config, fixed, own, b, devices[b % len(devices)], seeds[b], titles[b])

    with fast_products(devices[0]):
        trained = run_each(task, learned, n, len(devices), name)
    arrays: dict[str, np.ndarray] = {"block": blocks, **fixed}
    notes: dict[str, int] = {} if task.unlabeled is None else {"n_unlabeled": len(task.unlabeled)}
    for b, found in enumerate(trained):
        arrays |= {f"{b}.{slot}": p for slot, p in found.parameters.items()}
        arrays |= {f"{b}.history.{slot}": values for slot, values in found.history.items()}
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


def run_each(task: Task, learned: Callable[[int], Trained], n: int, n_devices: int, name: str) -> list[Trained]:
    """Train networks one after another, or as many at a time as there are devices."""
    if n_devices == 1:
        trained = []
        for b in range(n):
            trained.append(learned(b))
            if trained[-1].interrupted and b + 1 < n:
                raise KeyboardInterrupt(
                    f"{name}: interrupted in block {b + 1} of {n}, so that targets are left without a network. "
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


def learn(
    network: type[Perceptron],
    task: Task,
    config: Any,
    fixed: Mapping[str, Indices],
    targets: Indices,
    b: int,
    device: torch.device,
    seed: int,
    title: str,
) -> Trained:
    """Train the network of some targets."""
    training, validation = task.train.only(targets), task.validation.only(targets)
    n_in, n_out = training.n_landmarks, training.n_targets
    drawn = network.drawn(config, n_in, n_out, torch.Generator().manual_seed(seed))
    if task.start is not None:
        drawn = begun(drawn, network.others, task.start, targets, b)
    learning = network.learning(config, drawn, {name: torch.from_numpy(a) for name, a in fixed.items()}, device)
    plan = Plan(
        learning.players(),
        config.epochs,
        config.batch_size,
        config.ema,
        device,
        learning.activations(n_in, n_out),
        seed,
        title,
        asdict(config),
    )
    test = None if task.run.test is None else Pairs(task.run.test, task.train.scale).only(targets)
    found = train(learning, plan, training, validation, task.run, task.unlabeled, test)
    return replace(found, parameters=learning.learned(found.parameters))


def assigned(task: Task, config: Any) -> Indices:
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


def structure_of(start: Start) -> dict[str, Indices]:
    """Return another model's neighbours for our landmarks, which must be the same."""
    order, known = start.model.arrays["order"], start.landmarks
    if len(known) != len(order) or (known < 0).any():
        raise ValueError(
            f"init has {len(order):,} landmarks, of which adata has {(known >= 0).sum():,} among its {len(known):,}; "
            f"a network of trunk={start.config.trunk!r} can only be started from with the same landmarks."
        )
    ours = np.empty_like(order)
    ours[known] = np.arange(len(known))
    return {slot: start.model.arrays[slot] for slot in ("neighbours",) if slot in start.model.arrays} | {
        "order": ours[order]
    }


def begun(
    drawn: Mapping[str, Tensor], others: tuple[str, ...], start: Start, targets: Indices, b: int
) -> dict[str, Tensor]:
    """Return another model's network b for our genes; a new landmark has no weight yet, a new target those drawn.

    The weights work on standardised genes as they did, so that moments of the new rows take the place of the old: a
    shift of all samples, as between two studies, is taken up at once. Kept in units of the data, the network would have
    to unlearn it, and mostly ended worse than one from scratch. Whoever learns beside it begins anew.
    """
    place_in = np.full(len(start.model.arrays["block"]), -1)
    own = np.flatnonzero(start.model.arrays["block"] == b)
    place_in[own] = np.arange(len(own))
    x_there, y_there = np.flatnonzero(start.landmarks >= 0), np.flatnonzero(start.targets[targets] >= 0)
    x_old, y_old = start.landmarks[x_there], place_in[start.targets[targets][y_there]]
    n_in, last = len(start.landmarks), output_of(start.config)

    new = dict(drawn)
    for name, fresh in drawn.items():
        if name.startswith(others):
            continue
        old = torch.from_numpy(start.model.arrays[f"{b}.{name}"])
        rows = name.startswith((f"{last}.", "skip."))
        if fresh.ndim != 2 or not sees_landmarks(name, start.config.trunk):
            new[name] = fresh.clone() if rows else old.clone()
            if rows:
                new[name][y_there] = old[y_old]
            continue
        p_old = old.shape[1] - (fresh.shape[1] - n_in)
        # Landmarks come first in what a layer sees.
        weights = torch.cat([old.new_zeros(len(old), n_in), old[:, p_old:]], 1)
        weights[:, x_there] = old[:, x_old]
        if rows:
            new[name] = fresh.clone()
            new[name][y_there] = weights[y_old]
        else:
            new[name] = weights
    return new


def sees_landmarks(name: str, trunk: str) -> bool:
    """Whether the first columns of these weights belong to the landmarks."""
    return name == "skip.weight" or trunk == "dense" or (name == "0.weight" and trunk not in STRUCTURED)


def networks_of(model: Model, config: Any, there: torch.device) -> list[tuple[Indices, Perceptron]]:
    """Return the networks of a model, each with the targets that it infers."""
    assigned = model.arrays["block"]
    fixed = {n: torch.from_numpy(model.arrays[n]).to(there) for n in ("order", "neighbours") if n in model.arrays}
    networks = []
    for b in range(config.target_blocks):
        own = {n.removeprefix(f"{b}."): a for n, a in model.arrays.items() if n.startswith(f"{b}.")}
        weights = {n: torch.from_numpy(a).to(there) for n, a in own.items() if not n.startswith("history.")}
        networks.append((np.flatnonzero(assigned == b), Perceptron(config, weights, fixed)))
    return networks


@torch.no_grad()
def infer(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    there = pick_device(device.split(",")[0])
    networks = networks_of(model, config, there)
    for x in blocks:
        out = np.empty((len(x), len(model.arrays["block"])), np.float32)
        on_device = torch.from_numpy(x).to(there)
        for targets, network in networks:
            out[:, targets] = network.infer(on_device).cpu().numpy()
        yield out


@torch.no_grad()
def jacobian(model: Model, config: Any, X: Float, weights: Float, device: str) -> Float:
    there = pick_device(device.split(",")[0])
    x, w = (torch.from_numpy(a).to(there) for a in (X, weights))
    out = np.empty((X.shape[1], len(model.arrays["block"])), np.float32)
    for targets, network in networks_of(model, config, there):
        out[:, targets] = network.jacobian(x, w).cpu().numpy()
    return out


@torch.no_grad()
def hidden(model: Model, config: Any, blocks: Iterable[Float], device: str) -> Iterator[list[Float]]:
    there = pick_device(device.split(",")[0])
    networks = networks_of(model, config, there)
    for x in blocks:
        landmarks = x.shape[1] if config.trunk == "dense" else 0
        on_device = torch.from_numpy(x).to(there)
        yield [network.seen(on_device)[:, landmarks:].cpu().numpy() for _, network in networks]
