"""Intervals around inferred values: what is asked for, refused, and written beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._fitted import FittedModel
from gexinfer._slots import INTERVALS, layer_names, predicted_layers
from gexinfer.engine.blocks import Float
from gexinfer.engine.conformal import half_widths, rank_of, rows_needed
from gexinfer.engine.report import warn
from gexinfer.tl._held_out import difficulty, disagreement, relative

BOUNDS = ("lower", "upper")


@dataclass(frozen=True)
class Interval:
    """An interval to write: its level, and (targets,) half widths in data units, NaN where a gene has none.

    Where it is `scaled` they are those of a sample with a novelty of 1, and of values on which the members of an
    ensemble are as far apart as usual.
    """

    level: float
    scaled: bool
    widths: Float
    members: int = 1
    # (targets,) how far the members are apart on the validation rows.
    usual: Float | None = None

    def of(self, novelty: Float, spread: Float | None) -> Float:
        """Return (samples, targets) half widths, from how far members are apart where there are some."""
        if not self.scaled:
            return np.broadcast_to(self.widths, (len(novelty), len(self.widths)))
        half = difficulty(novelty)[:, None] * self.widths
        if self.usual is None or spread is None:
            return half
        return half * disagreement(relative(spread), self.usual, self.members)


def intervals_of(models: Mapping[str, FittedModel], level: float | None, scaled: bool) -> Mapping[str, Interval | None]:
    """Return the interval of each model, having refused a level that it does not know."""
    if level is None:
        return dict.fromkeys(models)
    if isinstance(level, bool | str) or not 0 < level < 1:
        raise ValueError(
            f"interval={level!r} must be the share of measured values that intervals are to hold, between 0 and 1: "
            "interval=.9."
        )
    return {name: interval_of(fitted, name, float(level), scaled) for name, fitted in models.items()}


def interval_of(fitted: FittedModel, name: str, level: float, scaled: bool) -> Interval:
    known = fitted.known
    if "residuals" not in known:
        raise ValueError(
            f"interval={level:g}: {name!r} was fitted without validation rows, which say how wide intervals have to "
            "be. Mark some, gexinfer.pp.split(adata, fractions=(.8, .1, .1)), and fit again."
        )
    ranks = known["residual_ranks"]
    if rank_of(level, int(ranks[-1])) > ranks[-1]:
        raise ValueError(
            f"interval={level:g} needs at least {rows_needed(level):,} validation rows; of {name!r} the residuals of "
            f"{ranks[-1]:,} are known. They give intervals up to {ranks[-1] / (ranks[-1] + 1):.4g}."
        )
    widths = half_widths(known["residuals_scaled" if scaled else "residuals"], ranks, level)
    scale = fitted.target_scale
    # A gene that was constant in the training rows has no unit in which to be wrong.
    widths = np.where(scale.sd > 0, widths * scale.unit, np.nan).astype(np.float32)
    return Interval(level, scaled, widths, fitted.n_members, known.get("spread") if scaled else None)


def bound_names(name: str) -> list[str]:
    """Return the layers of a model's interval."""
    return [f"{name}_{bound}" for bound in BOUNDS]


def drop_bounds(adata: AnnData, names: Iterable[str]) -> None:
    """Delete the bounds of an earlier prediction: they are not those of values that are about to be written."""
    before = adata.uns.get(INTERVALS)
    for name in names if isinstance(before, pd.DataFrame) else ():
        for bound in bound_names(name) if name in before.index else ():
            if bound in predicted_layers(adata):
                del adata.layers[bound]


def write_intervals(adata: AnnData, written: Mapping[str, Interval]) -> None:
    """Write `uns["gexinfer_intervals"]`: level and kind of each model's interval whose layers are there."""
    there = set(layer_names(adata))
    before = adata.uns.get(INTERVALS)
    rows = {} if not isinstance(before, pd.DataFrame) else before.to_dict("index")
    rows |= {name: {"level": interval.level, "scaled": interval.scaled} for name, interval in written.items()}
    rows = {name: row for name, row in rows.items() if set(bound_names(name)) <= there}
    if rows:
        adata.uns[INTERVALS] = pd.DataFrame.from_dict(rows, orient="index").astype({"level": float, "scaled": bool})
    else:
        adata.uns.pop(INTERVALS, None)


def warn_of_intervals(names: Sequence[str], lacking: Sequence[str], adapt: str) -> None:
    """Warn where samples are not like the validation rows, from which intervals were learned."""
    if lacking:
        warn(
            f"{', '.join(lacking)}: samples lack landmarks, which the validation rows had, so that intervals are too "
            "narrow for them."
        )
    if adapt != "none":
        warn(
            f"{', '.join(names)}: intervals were learned on validation rows that needed no adapt={adapt!r}, so that "
            "they are too narrow for this query."
        )


def at_targets(values: Float, places: NDArray[np.intp], genes: int) -> Float:
    """Return (rows, targets) values at their places among the genes, NaN for others; a place of -1 is none."""
    wanted = places >= 0
    full = np.full((len(values), genes), np.nan, np.float32)
    full[:, places[wanted]] = values[:, wanted]
    return full
