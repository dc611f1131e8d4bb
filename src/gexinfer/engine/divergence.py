"""A training that has gone astray: how it is known, and what to change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gexinfer.engine.blocks import Float
from gexinfer.engine.network import Plan

# The first loss is that of a network that infers little but the mean; so many times more is no learning.
DIVERGED = 1e3


def refuse_diverged(
    plan: Plan,
    terms: Mapping[str, Float],
    first_loss: float,
    first_rates: Mapping[str, Sequence[float]],
    rates: Sequence[Sequence[float]],
    epoch: int,
) -> None:
    """Refuse to go on where a loss of the epoch's steps is no number or no learning."""
    found: list[tuple[int, int, str]] = []
    for k, player in enumerate(plan.players):
        name, losses, at_first = plan.loss_of(player).replace("_", " "), terms[plan.loss_of(player)], ""
        bad = ~np.isfinite(losses)
        if player is plan.players[-1]:
            bad |= losses > DIVERGED * abs(first_loss)
            at_first = f"was {first_loss:.3g} at first and "
        if bad.any():
            step = int(bad.argmax())
            found.append((step, k, f"the {name} {at_first}is {losses[step]:.3g}"))
    if found:
        step, _, how = min(found)
        raise diverged(plan, first_rates, rates, epoch, step, how)


def diverged(
    plan: Plan,
    first_rates: Mapping[str, Sequence[float]],
    rates: Sequence[Sequence[float]],
    epoch: int,
    step: int,
    how: str,
) -> FloatingPointError:
    """Return the error: where it was, and the rates of all players, because one that explodes carries the others away.

    `first_rates` are those that each player's schedule starts from, `rates` those of each step, player by player.
    """
    options, now = {}, {}
    for player, rate in zip(plan.players, rates[step], strict=True):
        last = player is plan.players[-1]
        option = "learning_rate" if last else "discriminator_learning_rate"
        now[option] = f"{rate:.2g}" + ("" if last else " (discriminator)")
        options[option] = f"{option}={min(first_rates[player.name][0] / 10, 1e-3):.1g}"
    heavy = {name: value for name, value in plan.options.items() if name.startswith("lambda_") and value > 1}
    remedies = [*reversed(options.values()), *(f"a lower {name}= (now {value:g})" for name, value in heavy.items())]
    return FloatingPointError(
        f"{plan.title}: training diverged in epoch {epoch}, step {step + 1} of {len(rates)}, at a learning rate of "
        f"{' and '.join(reversed(now.values()))}: {how}. Fit again with {' or '.join(remedies)}."
    )
