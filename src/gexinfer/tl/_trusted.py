"""Which genes a model infers well enough to be recognised, as `gexinfer.tl.trust` found on test rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gexinfer._fitted import FittedModel
from gexinfer._names import listed, locate
from gexinfer.engine.blocks import Float

# A gene is trusted if at most this share of the other genes is recalled better.
MOST = 0.05


def is_trusted(recall: Float) -> NDArray[np.bool_]:
    """Return which genes are; one whose recall is unknown is not."""
    return np.nan_to_num(recall, nan=1.0) <= MOST


def check_recall(models: Mapping[str, FittedModel]) -> None:
    """Refuse to keep trusted genes alone of a model of which nobody knows them."""
    without = [name for name, fitted in models.items() if "recall" not in fitted.known]
    if without:
        raise ValueError(
            f"trusted_only=True: nobody knows yet which genes {listed(without)} infers well. On a reference with test "
            f"rows run gexinfer.tl.predict(ref) and gexinfer.tl.trust(ref, key={without[0]!r}), and use that model."
        )


def recall_of(models: Mapping[str, FittedModel], names: pd.Index) -> Float:
    """Return each gene's recall, of several models the worst; NaN where none infers it or one's recall is unknown."""
    worst = np.full(len(names), -np.inf, np.float32)
    for fitted in models.values():
        places = locate(fitted.targets, names)
        there = places >= 0
        # NaN stays: what is unknown of one model is the worst.
        worst[places[there]] = np.maximum(worst[places[there]], fitted.known["recall"][there])
    return np.where(np.isneginf(worst), np.nan, worst)


def names_not_trusted(models: Mapping[str, FittedModel]) -> list[str]:
    """Return the targets that no model trusts, and that are landmarks of none."""
    each = [(fitted, is_trusted(fitted.known["recall"])) for fitted in models.values()]
    kept = {gene for fitted, good in each for gene in (*fitted.landmarks, *np.array(fitted.targets, object)[good])}
    return [gene for gene in dict.fromkeys(gene for fitted, _ in each for gene in fitted.targets) if gene not in kept]
