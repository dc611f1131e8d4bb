"""The semi-supervised GAN of Ghasedi Dizaji et al., KDD 2018."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.network import Loss, Player, Step
from gexinfer.methods._adversarial import JUDGE, MODERN_GAN, Adversarial, AdversarialOptions, Discriminator, spread
from gexinfer.methods._networks import ACTIVATIONS, by_recipe, network_method
from gexinfer.methods._trunks import glorot

# Random numbers that the generator makes a pair of.
LATENT = 100
# What the names of its parameters begin with.
MAKER = "generator."

RECIPES: dict[str, dict[str, Any]] = {
    "modern": {
        **MODERN_GAN,
        "trunk": "mlp",
        "layers": 1,
        "hidden": 1000,
        "activation": "gelu",
        "lambda_made": 0.1,
        "generator_hidden": 500,
    }
}


@dataclass(frozen=True)
class SemiGAN(AdversarialOptions):
    """Options of the semi-supervised GAN."""

    recipes = RECIPES
    outrun_advice = ", or epochs= where few samples have targets; pairs that it cannot judge are left out meanwhile"
    collapse_advice = "Its pairs help little; the inference network learns without. Lower discriminator_learning_rate=."

    recipe: Literal["modern"] = "modern"
    # Weight of the pairs that the generator makes.
    lambda_made: float = by_recipe()
    generator_hidden: int = by_recipe()

    def __post_init__(self) -> None:
        super().__post_init__()
        self.not_negative("lambda_made")
        self.at_least_one("generator_hidden")


class Cooperating(Adversarial):
    """Three networks: one infers targets from landmarks, one makes pairs of both from random numbers, one judges.

    The paper's summary: a GAN learns the joint distribution of landmarks and targets, its reliable pairs train the
    inference network, and that one's trustworthy inferences serve the GAN. Where it says no more, chosen here: a pair,
    whoever made it, is trusted if the discriminator scores it no lower than half of the measured pairs of the batch;
    where it does so with most of a batch's made pairs, it cannot tell, and none of them is trusted.
    The discriminator learns measured pairs as real and made pairs as not; inferred pairs of samples without targets as
    real if they are trusted, and else nothing of them; the landmarks of such samples, shown without targets, as real.
    What is inferred from such samples is to look measured, and, as what is inferred from all, to be the same under two
    perturbations. What comes from the discriminator grows over the warm-up. Losses are least squares.
    """

    others = (JUDGE, MAKER)

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        parameters = super().drawn(config, n_in, n_out, generator)
        judge = Discriminator.drawn(config, n_in, n_out, generator)
        parameters |= {JUDGE + name: p for name, p in judge.items()}
        widths = [LATENT, config.generator_hidden, config.generator_hidden, n_in + n_out]
        for i, (a, b) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            parameters[f"{MAKER}{i}.weight"] = glorot(b, a, generator=generator)
            parameters[f"{MAKER}{i}.bias"] = torch.zeros(b)
        return parameters

    def players(self) -> list[Player]:
        return [self.player(JUDGE), self.player(MAKER), *super().players()]

    def loss(self, player: str, step: Step) -> Loss:
        losses = {"discriminator": self.discriminator_loss, "generator": self.generator_loss}
        return losses.get(player, self.inference_loss)(step)

    def made(self, step: Step) -> tuple[Tensor, Tensor]:
        """Make as many pairs of landmarks and targets as there are in the batch."""
        p: Mapping[str, Tensor] = self.of(MAKER)
        h = torch.empty(len(step.x), LATENT, device=step.x.device).normal_(generator=step.generator)
        for i in range(2):
            h = ACTIVATIONS["leaky_relu"](F.linear(h, p[f"{i}.weight"], p[f"{i}.bias"]))
        pairs = F.linear(h, p["2.weight"], p["2.bias"]).float()
        return pairs[:, : step.x.shape[1]], pairs[:, step.x.shape[1] :]

    def inference_loss(self, step: Step) -> Loss:
        """Every term is a mean over samples and genes."""
        config, n = self.config, len(step.x)
        x = step.x if step.unlabeled is None else torch.cat([step.x, step.unlabeled])
        inferred = self.forward(x, step.generator).float()
        total = F.l1_loss(inferred[:n], step.y)
        terms = {"l1": total}
        if config.lambda_cons:
            terms["consistency"] = F.mse_loss(self.forward(x, step.generator).float(), inferred)
            total = total + config.lambda_cons * terms["consistency"]
        if config.lambda_adv and step.unlabeled is not None:
            alone = inferred[n:]
            scores = self.judge().frozen().score(step.unlabeled, alone, self.visible(step, alone))
            terms["adversarial"] = (scores - 1).square().mean() / 2 / sqrt(alone.shape[1])
            total = total + config.lambda_adv * self.ramp(step) * terms["adversarial"]
        if config.lambda_made:
            with torch.no_grad():
                made_x, made_y = self.made(step)
                trusted = self.trusted(made_x, made_y, step)
            errors = (self.forward(made_x, step.generator).float() - made_y).abs().mean(1)
            terms["made"] = (trusted * errors).mean()
            total = total + config.lambda_made * self.ramp(step) * terms["made"]
        return Loss(total, terms)

    @torch.no_grad()
    def trusted(self, made_x: Tensor, made_y: Tensor, step: Step) -> Tensor:
        """Return 1 for made pairs that are trusted, else 0."""
        judge, visible = self.judge(), self.visible(step, made_y)
        high = as_measured(judge.score(made_x, made_y, visible), judge.score(step.x, step.y, visible))
        # Who takes most of them for measured is no judge.
        return high * (high.mean() <= 0.5)

    def discriminator_loss(self, step: Step) -> Loss:
        judge, visible = self.judge(), self.visible(step, step.y)
        with torch.no_grad():
            made_x, made_y = self.made(step)
        real, made = judge.score(step.x, step.y, visible), judge.score(made_x, made_y, visible)
        for_real, for_made = (real - 1).square().mean(), made.square().mean()
        terms = {"told_apart": (real > made).float().mean(), "trusted_made": as_measured(made, real).mean()}
        if step.unlabeled is not None:
            with torch.no_grad():
                inferred = self.forward(step.unlabeled, step.generator).float()
            scores = judge.score(step.unlabeled, inferred, visible)
            trusted = as_measured(scores, real)
            terms["trusted_inferred"] = trusted.mean()
            of_inferred = self.ramp(step) * (trusted * (scores - 1).square()).mean()
            # Their landmarks are real whatever is inferred from them.
            hidden = torch.zeros_like(visible)
            alone, made_alone = (judge.score(x, inferred, hidden) for x in (step.unlabeled, made_x))
            for_real = (for_real + (alone - 1).square().mean()) / 2
            for_made = (for_made + made_alone.square().mean()) / 2
            return Loss((for_real + for_made + of_inferred) / 2, terms)
        return Loss((for_real + for_made) / 2, terms)

    def generator_loss(self, step: Step) -> Loss:
        made_x, made_y = self.made(step)
        judge, visible = self.judge().frozen(), self.visible(step, made_y)
        total = (judge.score(made_x, made_y, visible) - 1).square().mean() / 2
        if step.unlabeled is not None:
            alone = judge.score(made_x, made_y, torch.zeros_like(visible))
            total = (total + (alone - 1).square().mean() / 2) / 2
        return Loss(total, {"spread": spread(made_y.detach(), step.y)})

    def activations(self, n_in: int, n_out: int) -> int:
        # Twice the rows go through it, and as many that were made.
        return 3 * super().activations(n_in, n_out) + 2 * self.config.generator_hidden


def as_measured(scores: Tensor, measured: Tensor) -> Tensor:
    """Return 1 for scores no lower than those of half of the measured pairs, else 0."""
    return (scores.detach() >= measured.detach().median()).float()


METHOD = network_method("semigan", SemiGAN, Cooperating, takes_unlabeled=True)
