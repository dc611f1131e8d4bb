"""Ridge, and a network that starts as ridge and learns what it leaves: never worse than ridge on validation rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, Literal, Self

import torch
from torch import Tensor

from gexinfer.engine.blocks import Float
from gexinfer.engine.linear import linear
from gexinfer.methods import ridge
from gexinfer.methods._contract import Model, Task, check_penalty
from gexinfer.methods._networks import MODERN, network_method
from gexinfer.methods._networks import fit as fit_networks
from gexinfer.methods._perceptron import output_of
from gexinfer.methods.dgex import DGEX, Regression

RECIPES: dict[str, dict[str, Any]] = {
    # What differs from D-GEX's recipe is measured one by one in benchmarks/ablation.py.
    "modern": {
        **MODERN,
        "trunk": "mlp",
        "layers": 1,
        "hidden": 1000,
        "activation": "gelu",
        "loss": "l1",
        # By ridge's penalty, see `fit`.
        "input_noise": None,
        "penalty": None,
        "epochs": 200,
    },
}
# How much of the way from ridge to the network may be gone.
SHARES = [i / 20 for i in range(21)]


@dataclass(frozen=True)
class Residual(DGEX):
    """Options of the residual network."""

    recipes = RECIPES

    recipe: Literal["modern"] = "modern"
    # Ridge's; None chooses it as ridge does.
    penalty: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_penalty(self.penalty)
        if not self.skip:
            raise ValueError("skip=False: the linear path is what method='residual' starts from; leave skip= out.")
        if self.trunk == "dense":
            raise ValueError(
                "trunk='dense' has no linear path of its own, from which method='residual' starts; choose 'mlp', "
                "'residual', 'conv1d' or 'graph'."
            )

    def not_negative(self, name: str) -> None:
        # None says: choose.
        if getattr(self, name) is not None:
            super().not_negative(name)


class Rest(Regression):
    """A network of which only a share of what it adds to ridge is inferred; the share is chosen after each epoch."""

    @classmethod
    def learning(
        cls, config: Any, drawn: Mapping[str, Tensor], fixed: Mapping[str, Tensor], device: torch.device
    ) -> Self:
        network = super().learning(config, drawn, fixed, device)
        # No vector and no matrix, one number a network: the optimiser passes it over.
        share = torch.zeros(drawn["skip.weight"].shape[:-2], device=device)
        return cls(config, {**network.parameters, "share": share}, network.fixed)

    def infer(self, x: Tensor) -> Tensor:
        of_ridge = linear(x, self.fixed["linear"])
        return of_ridge + self.parameters["share"] * (super().infer(x) - of_ridge)

    @staticmethod
    @torch.no_grad()
    def settled(network: Any, validation: Iterable[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
        share, errors = network.parameters["share"], torch.zeros(len(SHARES))
        for x, y in validation:
            share.fill_(0)
            of_ridge = network.infer(x)
            share.fill_(1)
            whole = network.infer(x)
            found = [(torch.lerp(of_ridge, whole, s) - y).abs().mean() for s in SHARES]
            errors += torch.stack(found).cpu() * len(x)
        best = SHARES[int(errors.argmin())]
        share.fill_(best)
        return {"share": best}

    def learned(self, trained: Mapping[str, Float]) -> dict[str, Float]:
        """Return the arrays of a network that needs no ridge beside it: its share is multiplied into its output."""
        arrays = super().learned(trained)
        share, last, of_ridge = arrays.pop("share"), output_of(self.config), self.fixed["linear"].cpu().numpy()
        for name in (f"{last}.weight", f"{last}.bias"):
            arrays[name] = share * arrays[name]
        arrays["skip.weight"] = of_ridge + share * (arrays["skip.weight"] - of_ridge)
        return arrays


def fit(task: Task, config: Residual) -> Model:
    found = ridge.fit(task, ridge.Ridge(config.penalty))
    penalty = config.penalty or float(found.notes["penalty"])
    # Noise of variance v on n rows' landmarks holds least squares back exactly as the penalty n v: with this much,
    # ridge is where a linear path stays, and the rest has to be found beside it.
    noise = sqrt(penalty / len(task.train)) if config.input_noise is None else config.input_noise
    model = fit_networks(Rest, "residual", task, replace(config, input_noise=noise), found.arrays["coefficients"])
    return Model(model.arrays, {"penalty": penalty, "input_noise": noise, **model.notes})


METHOD = replace(network_method("residual", Residual, Rest), fit=fit, products=True)
