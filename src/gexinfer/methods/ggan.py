"""GGAN: the conditional GAN of Wang et al., Bioinformatics 2018, 34:i603."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.network import Loss, Player, Step
from gexinfer.methods._adversarial import (
    JUDGE,
    LOSSES,
    MODERN_GAN,
    Adversarial,
    AdversarialOptions,
    Discriminator,
    gradient_penalty,
    spread,
)
from gexinfer.methods._networks import by_recipe, network_method

RECIPES: dict[str, dict[str, Any]] = {
    # Wang et al. 2018; Adam, least squares and weight normalisation from a re-implementation. Learning rates, the size
    # of the perturbation and the scale of the lambdas are not known, and were chosen here.
    "paper": {
        "trunk": "dense",
        "layers": 3,
        "hidden": 9000,
        "dropout": 0.0,
        "activation": "leaky_relu",
        "layer_norm": False,
        "weight_norm": True,
        "skip": True,
        "input_noise": 0.1,
        "optimiser": "adamw",
        "schedule": "constant",
        "weight_decay": 0.0,
        "ema": 0.0,
        "epochs": 200,
        "batch_size": 200,
        "learning_rate": 1e-4,
        "lambda_adv": 0.3,
        "lambda_cons": 1.0,
        "adversarial": "least_squares",
        "discriminator_hidden": 3000,
        "discriminator_learning_rate": 1e-4,
        "discriminator_momentum": 0.9,
        "discriminator_norm": "weight",
        "warm_up": 0.0,
    },
    "modern": {
        **MODERN_GAN,
        "trunk": "dense",
        "layers": 2,
        "hidden": 500,
        "activation": "leaky_relu",
        "adversarial": "least_squares",
    },
}


@dataclass(frozen=True)
class GGAN(AdversarialOptions):
    """Options of the conditional GAN."""

    recipes = RECIPES
    outrun_advice = ", or lower lambda_adv="
    collapse_advice = "Lower lambda_adv= or lambda_cons=, or raise warm_up=."

    adversarial: Literal["least_squares", "hinge", "wasserstein"] = by_recipe()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_discriminator and not self.lambda_adv:
            raise ValueError("keep_discriminator=True: with lambda_adv=0 there is none to keep; leave it out.")


class Conditional(Adversarial):
    """A generator of targets from landmarks, judged against the measured targets of the same sample."""

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        parameters = super().drawn(config, n_in, n_out, generator)
        beside = Discriminator.drawn(config, n_in, n_out, generator) if config.lambda_adv else {}
        return parameters | {JUDGE + name: p for name, p in beside.items()}

    def players(self) -> list[Player]:
        return ([self.player(JUDGE)] if self.config.lambda_adv else []) + super().players()

    def loss(self, player: str, step: Step) -> Loss:
        return self.discriminator_loss(step) if player == "discriminator" else self.generator_loss(step)

    def generator_loss(self, step: Step) -> Loss:
        """Every term is a mean over samples; the L1 term and the consistency over genes, too.

        A score is one number for all targets of a sample, so it is divided by the root of their number: otherwise its
        pull on one value, beside that of the L1 term, would grow with it.
        """
        config, x, y = self.config, step.x, step.y
        inferred = self.forward(x, step.generator).float()
        total = F.l1_loss(inferred, y)
        terms = {"l1": total, "spread": spread(inferred.detach(), y)}
        if config.lambda_adv:
            scores = self.judge().frozen().score(x, inferred, self.visible(step, y))
            terms["adversarial"] = LOSSES[config.adversarial][1](scores) / sqrt(y.shape[1])
            total = total + config.lambda_adv * self.ramp(step) * terms["adversarial"]
        if config.lambda_cons:
            terms["consistency"] = F.mse_loss(self.forward(x, step.generator).float(), inferred)
            total = total + config.lambda_cons * terms["consistency"]
        return Loss(total, terms)

    def discriminator_loss(self, step: Step) -> Loss:
        config, x, y = self.config, step.x, step.y
        judge, visible = self.judge(), self.visible(step, y)
        with torch.no_grad():
            inferred = self.forward(x, step.generator).float()
        real, made = judge.score(x, y, visible), judge.score(x, inferred, visible)
        total = LOSSES[config.adversarial][0](real, made)
        if config.adversarial == "wasserstein":
            total = total + gradient_penalty(judge, x, y, inferred, visible, step)
        return Loss(total, {"told_apart": (real > made).float().mean()})


METHOD = network_method("ggan", GGAN, Conditional)
