"""D-GEX: the feed-forward network of Chen et al., Bioinformatics 2016, 32:1832."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.network import Loss, Step
from gexinfer.methods._networks import MODERN, NetworkOptions, Perceptron, by_recipe, network_method
from gexinfer.methods._trunks import LAYERS

RECIPES: dict[str, dict[str, Any]] = {
    # Chen et al. 2016. Its learning rate was tuned per depth: 5e-4 for one hidden layer, 3e-4 for two or three.
    "paper": {
        "trunk": "mlp",
        "layers": 1,
        "hidden": 3000,
        "dropout": 0.1,
        "activation": "tanh",
        "loss": "mse",
        "layer_norm": False,
        "weight_norm": False,
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
        **MODERN,
        "trunk": "mlp",
        "layers": 1,
        "hidden": 1000,
        "activation": "gelu",
        "loss": "l1",
        "epochs": 100,
    },
}
LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


@dataclass(frozen=True)
class DGEX(NetworkOptions):
    """Options of D-GEX."""

    recipes = RECIPES

    loss: Literal["mse", "l1", "huber"] = by_recipe()

    def __post_init__(self) -> None:
        if self.recipe == "paper" and self.learning_rate is None:
            layers = self.layers or LAYERS[self.trunk or "mlp"]
            object.__setattr__(self, "learning_rate", 5e-4 if layers == 1 else 3e-4)
        super().__post_init__()


class Regression(Perceptron):
    """A network that learns from the error of what it infers, and nothing else."""

    at_once = True

    def loss(self, player: str, step: Step) -> Loss:
        # Summed over targets, averaged over samples: the scale for which the paper's learning rates were chosen.
        inferred = self.forward(step.x, step.generator).float()
        return Loss(LOSSES[self.config.loss](inferred, step.y) * step.y.shape[-1])


METHOD = network_method("dgex", DGEX, Regression)
