"""The options of every network, and the recipe that sets those that are not given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, ClassVar, Literal

from gexinfer.methods._trunks import LAYERS, STRUCTURED

# What the model to start from decides, of every network.
SHAPE = ("trunk", "structure", "layers", "hidden", "activation", "layer_norm", "skip", "target_blocks", "n_members")


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
    # So many networks for the same targets, which differ in their first weights, noise and dropout: their mean is
    # inferred, and how far they are apart is their standard deviation.
    n_members: int = 1

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
        for name in ("layers", "hidden", "epochs", "batch_size", "target_blocks", "n_members"):
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
