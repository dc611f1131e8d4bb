"""What the GANs share: the discriminator, the losses of both sides, and the signs that they do not get on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from gexinfer.engine.blocks import Float
from gexinfer.engine.network import Player, Step
from gexinfer.engine.schedules import SCHEDULES
from gexinfer.methods._networks import ACTIVATIONS, MODERN, NetworkOptions, Perceptron, by_recipe, of_length
from gexinfer.methods._trunks import glorot

# The share of targets that the discriminator is shown, at first and at last: what it could tell apart by a detail of
# one gene, it must learn to tell by what genes have in common.
VISIBLE = (0.1, 0.99)
# The weight of the gradient penalty of the Wasserstein loss, by Gulrajani et al., NIPS 2017.
PENALTY = 10.0
# So many epochs in a row are no accident.
PATIENCE = 10

# What the names of the discriminator's parameters begin with.
JUDGE = "discriminator."
# What the modern recipes of the GANs share: with it the discriminator neither wins nor loses on the bundled data.
MODERN_GAN: dict[str, Any] = {
    **MODERN,
    "epochs": 60,
    "lambda_adv": 0.3,
    "lambda_cons": 0.1,
    "discriminator_hidden": 500,
    "discriminator_learning_rate": 2e-3,
    "discriminator_momentum": 0.5,
    "discriminator_norm": "spectral",
    "warm_up": 0.2,
}


@dataclass(frozen=True)
class AdversarialOptions(NetworkOptions):
    """Options of every GAN."""

    # Weight of the adversarial term.
    lambda_adv: float = by_recipe()
    # Weight of the consistency of two inferences from one sample, both perturbed.
    lambda_cons: float = by_recipe()
    discriminator_hidden: int = by_recipe()
    discriminator_learning_rate: float = by_recipe()
    # Weight of the past in the average of its gradients, the first beta of Adam.
    discriminator_momentum: float = by_recipe()
    discriminator_norm: Literal["none", "weight", "spectral"] = by_recipe()
    # The share of the training in which what comes from the discriminator grows to its full weight.
    warm_up: float = by_recipe()
    # Store what learned beside the network that infers, too.
    keep_discriminator: bool = False

    # What is said where the discriminator does not keep up, and where all is made alike, beside its rate.
    outrun_advice: ClassVar[str]
    collapse_advice: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least_one("discriminator_hidden")
        self.positive("discriminator_learning_rate")
        for name in ("lambda_adv", "lambda_cons"):
            self.not_negative(name)
        for name in ("warm_up", "discriminator_momentum"):
            self.a_share(name)
        if self.lambda_cons and not (self.input_noise or self.dropout):
            raise ValueError(
                f"lambda_cons={self.lambda_cons!r} compares two perturbed inferences, but input_noise=0 and dropout=0 "
                "perturb nothing; set one of them, or lambda_cons=0."
            )


def least_squares(real: Tensor, made: Tensor) -> Tensor:
    return ((real - 1).square().mean() + made.square().mean()) / 2


def hinge(real: Tensor, made: Tensor) -> Tensor:
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def wasserstein(real: Tensor, made: Tensor) -> Tensor:
    return made.mean() - real.mean()


# What the discriminator makes small, and what the one that it judges does: means over samples.
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "least_squares": (least_squares, lambda made: (made - 1).square().mean() / 2),
    "hinge": (hinge, lambda made: -made.mean()),
    "wasserstein": (wasserstein, lambda made: -made.mean()),
}
# The discriminator's loss when all scores are the same; Wasserstein's has no lowest value.
AT_CHANCE = {"least_squares": 0.25, "hinge": 1.0}


@dataclass(frozen=True)
class Discriminator:
    """One hidden layer from a sample's landmarks and visible targets to one score."""

    parameters: Mapping[str, Tensor]
    norm: str

    @classmethod
    def drawn(cls, config: Any, n_in: int, n_out: int, generator: torch.Generator) -> dict[str, Tensor]:
        parameters = {}
        for i, (a, b) in enumerate([(n_in + n_out, config.discriminator_hidden), (config.discriminator_hidden, 1)]):
            weight = glorot(b, a, generator=generator)
            parameters[f"{i}.weight"], parameters[f"{i}.bias"] = weight, torch.zeros(b)
            if config.discriminator_norm == "weight":
                parameters[f"{i}.length"] = weight.norm(dim=1)
            if config.discriminator_norm == "spectral":
                parameters[f"{i}.direction"] = F.normalize(torch.empty(b).normal_(generator=generator), dim=0)
        return parameters

    def weight(self, i: int) -> Tensor:
        weight = self.parameters[f"{i}.weight"]
        if self.norm == "weight":
            return of_length(weight, self.parameters[f"{i}.length"])
        if self.norm == "spectral":
            # The largest singular value, with a direction that follows the weights a step at a time.
            left = self.parameters[f"{i}.direction"]
            right = F.normalize(weight.detach().t() @ left, dim=0, eps=1e-12)
            return weight / (left @ weight @ right).clamp_min(1e-12)
        return weight

    @torch.no_grad()
    def turn(self) -> None:
        """Bring the directions nearer to those of the largest singular values."""
        for i in range(2 if self.norm == "spectral" else 0):
            weight, left = self.parameters[f"{i}.weight"], self.parameters[f"{i}.direction"]
            left.copy_(F.normalize(weight @ F.normalize(weight.t() @ left, dim=0, eps=1e-12), dim=0, eps=1e-12))

    def frozen(self) -> Discriminator:
        """Return it as a judge of others, who does not learn meanwhile."""
        return replace(self, parameters={name: p.detach() for name, p in self.parameters.items()})

    def score(self, x: Tensor, y: Tensor, visible: Tensor) -> Tensor:
        """Return one number a row, high for what looks measured; hidden targets are at their mean."""
        # Not engine.linear's product, whose gradient has no gradient in its turn.
        h = F.linear(torch.cat([x, y * visible], 1), self.weight(0), self.parameters["0.bias"])
        return F.linear(ACTIVATIONS["leaky_relu"](h), self.weight(1), self.parameters["1.bias"]).squeeze(1).float()

    def plain(self) -> dict[str, Tensor]:
        """Return weights and biases, with what normalises the weights multiplied into them."""
        return {f"{i}.weight": self.weight(i) for i in (0, 1)} | {
            f"{i}.bias": self.parameters[f"{i}.bias"] for i in (0, 1)
        }


def gradient_penalty(judge: Discriminator, x: Tensor, y: Tensor, made: Tensor, visible: Tensor, step: Step) -> Tensor:
    """Return how far the score's slope is from 1 somewhere between each measured and each made pair."""
    share = torch.rand(len(y), 1, device=y.device, generator=step.generator)
    between = (share * y + (1 - share) * made).requires_grad_()
    with torch.autocast(x.device.type, enabled=False):
        scores = judge.score(x, between, visible)
        (slope,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return PENALTY * (slope.square().sum(1).add(1e-12).sqrt() - 1).square().mean()


class Adversarial(Perceptron):
    """A network that infers, with a discriminator beside it."""

    others: tuple[str, ...] = (JUDGE,)

    @classmethod
    def learning(cls, config: Any, drawn: Mapping[str, Tensor], *rest: Any) -> Self:
        network = super().learning(config, drawn, *rest)
        for name, p in network.parameters.items():
            # They follow the weights and are not learned.
            p.requires_grad_(not name.endswith(".direction"))
        return network

    def judge(self) -> Discriminator:
        return Discriminator(self.of(JUDGE), self.config.discriminator_norm)

    def prepare(self, player: str) -> None:
        if player == JUDGE.removesuffix("."):
            self.judge().turn()

    def of(self, prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): p for name, p in self.parameters.items() if name.startswith(prefix)}

    def player(self, prefix: str) -> Player:
        """Return who learns the parameters of this prefix: by Adam, at the same rate all along."""
        config = self.config
        learned = [p for name, p in self.parameters.items() if name.startswith(prefix) and p.requires_grad]
        optimiser = torch.optim.Adam(
            learned,
            config.discriminator_learning_rate,
            (config.discriminator_momentum, 0.999),
            fused=learned[0].device.type in ("cpu", "cuda"),
        )
        return Player(prefix.removesuffix("."), optimiser, SCHEDULES["constant"])

    def visible(self, step: Step, y: Tensor) -> Tensor:
        """Draw which targets the discriminator is shown, more and more of them."""
        first, last = VISIBLE
        share = first + (last - first) * step.done
        return torch.rand(y.shape[1], device=y.device, generator=step.generator) < share

    def ramp(self, step: Step) -> float:
        """Return the weight of what comes from the discriminator, from 0 to 1 over the warm-up."""
        return min(step.done / self.config.warm_up, 1.0) if self.config.warm_up else 1.0

    @torch.no_grad()
    def learned(self, trained: Mapping[str, Float]) -> dict[str, Float]:
        arrays = super().learned(trained)
        beside = (
            {n: a for n, a in trained.items() if n.startswith(self.others)} if self.config.keep_discriminator else {}
        )
        judge = {n.removeprefix(JUDGE): torch.from_numpy(a) for n, a in beside.items() if n.startswith(JUDGE)}
        if judge:
            plain = Discriminator(judge, self.config.discriminator_norm).plain()
            beside = {n: a for n, a in beside.items() if not n.startswith(JUDGE)}
            beside |= {JUDGE + name: p.numpy() for name, p in plain.items()}
        return arrays | beside

    def activations(self, n_in: int, n_out: int) -> int:
        # The second, perturbed inference, and the discriminator's two batches.
        return 2 * super().activations(n_in, n_out) + 4 * (n_in + n_out) + 4 * self.config.discriminator_hidden

    def complaints(self, history: Sequence[Mapping[str, float]]) -> dict[str, str]:
        after_warm_up = len(history) - PATIENCE >= self.config.warm_up * self.config.epochs
        return signs(history, self.config) if after_warm_up and "told_apart" in history[-1] else {}


def spread(made: Tensor, measured: Tensor) -> Tensor:
    """Return the standard deviation over samples of what is made over that of what was measured."""
    squares = [(values - values.mean(0)).square().mean() for values in (made, measured)]
    return (squares[0] / squares[1].clamp_min(1e-12)).sqrt()


def signs(history: Sequence[Mapping[str, float]], config: Any) -> dict[str, str]:
    """Return what has gone wrong in all of the last epochs, and what to change."""
    last = history[-PATIENCE:]
    mean = {name: float(np.mean([entry[name] for entry in last])) for name in last[0]}
    rate = f"discriminator_learning_rate= (now {config.discriminator_learning_rate:g})"
    found: dict[str, str] = {}
    if all(entry["told_apart"] < 0.55 for entry in last):
        higher = f"it scores what was measured higher in {mean['told_apart']:.0%} of pairs"
        if mean["told_apart"] < 0.45:
            found["outrun"] = (
                f"the discriminator has not kept up for {len(last)} epochs: {higher}, fewer than by chance, and it "
                f"misleads. Raise {rate}{config.outrun_advice}."
            )
        else:
            found["chance"] = (
                f"the discriminator has been at chance for {len(last)} epochs: {higher}, and teaches little; "
                f"the model is nearly that of the other terms. Raise {rate} or discriminator_hidden=."
            )
    # Wasserstein's loss has no lowest value.
    lowest = AT_CHANCE.get(getattr(config, "adversarial", "least_squares"), -inf) / 20
    if all(entry["discriminator_loss"] < lowest for entry in last):
        weaker = "" if config.discriminator_norm == "spectral" else ", or take discriminator_norm='spectral'"
        found["certainty"] = (
            f"the discriminator has been certain for {len(last)} epochs: its loss is {mean['discriminator_loss']:.2g}, "
            f"and what it teaches has little to do with what would look better. Lower {rate} or "
            f"discriminator_hidden={weaker}."
        )
    # One sample alone has no spread.
    if config.batch_size > 1 and all(entry["spread"] < 0.1 for entry in last):
        found["collapse"] = (
            f"collapse: for {len(last)} epochs the generator has made all samples nearly alike, with "
            f"{mean['spread']:.0%} of the measured standard deviation. {config.collapse_advice}"
        )
    lowest_l1 = min(entry["l1"] for entry in history)
    if all(entry["l1"] > 1.5 * lowest_l1 for entry in last):
        found["overwhelmed"] = (
            f"the L1 term has been {mean['l1'] / lowest_l1:.1f} times its lowest for {len(last)} epochs: the others "
            f"outweigh it. Lower lambda_adv= (now {config.lambda_adv:g}) or lambda_cons= (now {config.lambda_cons:g})."
        )
    return found
