"""What kind of values a matrix holds: counts or not, on which scale, all of them finite or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gexinfer.engine.blocks import Indices, Wide, dense, evenly

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
PROFILE_ROWS = 500
# Below this many samples a mean over them is that of no cohort.
FEW_ROWS = 10


def sample(source: Any, rows: Indices, columns: Indices) -> NDArray[np.floating]:
    """Return evenly spaced rows, enough to know the scale."""
    spread = evenly(len(rows), PROFILE_ROWS)
    return dense(source, rows[spread], columns)


def profile(source: Any, rows: Indices, columns: Indices) -> dict[str, Any]:
    """Return whether values look like counts, and their lowest and quantiles."""
    values = sample(source, rows, columns)
    values = values[np.isfinite(values)]
    counts = bool(values.size and values.min() >= 0 and values.max() > 1 and (values == np.rint(values)).all())
    quantiles = np.quantile(values, QUANTILES) if values.size else np.zeros(len(QUANTILES))
    return {
        "counts": counts,
        "lowest": float(values.min(initial=0)),
        "quantiles": [round(float(q), 4) for q in quantiles],
    }


def scale_mismatch(
    trained: Mapping[str, Any], trained_mean: Wide, source: Any, rows: Indices, columns: Indices
) -> str | None:
    """Return why a query's landmarks cannot be on the scale of the training rows', with both rows of quantiles."""
    query = profile(source, rows, columns)
    a, b = np.array(trained["quantiles"]), np.array(query["quantiles"])
    # On one scale the genes' means lie around the line of slope 1; cohorts of bulk RNA-seq were seen at 0.77 to 1.07,
    # single samples at 0.45 to 1.10, and a natural logarithm for one to base 2 is at 0.69.
    low, high = (0.73, 1.35) if len(rows) >= FEW_ROWS else (0.4, 2.5)
    values = sample(source, rows, columns)
    means = np.where(np.isfinite(values), values, trained_mean).mean(axis=0)
    slope = means @ trained_mean / max(trained_mean @ trained_mean, 1e-9)
    if trained["counts"] != query["counts"]:
        kinds = {True: "counts", False: "values that are no counts"}
        why = f"the model was fitted on {kinds[trained['counts']]}, and the query holds {kinds[query['counts']]}"
    elif trained["lowest"] >= 0 > query["lowest"]:
        why = "the query holds negative values, and the values that the model was fitted on had none"
    elif trained["lowest"] >= 0 and not low < slope < high:
        why = f"the query's landmarks are on another scale: about {slope:.2g} times what the model was fitted on"
    else:
        return None
    table = pd.DataFrame([a, b], ["fitted on", "query"], [f"{q:.0%}" for q in QUANTILES])
    return f"{why}. Quantiles of the landmarks:\n{table.round(3).to_string()}\n"


def refuse_not_finite(
    counts: NDArray[np.intp],
    names: pd.Index,
    rows: int,
    where: str,
    what: str = "NaN or inf",
    remedy: str = "Drop those genes or samples, or fill them, e.g. with the gene's mean.",
) -> None:
    """Refuse NaN and inf, and say in which genes."""
    bad = np.flatnonzero(counts)
    if len(bad):
        genes = ", ".join(f"{names[i]!r} ({counts[i]:,} rows)" for i in bad[:5])
        more = f" and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        raise ValueError(
            f"{where} holds {what} in {len(bad):,} of {len(names):,} genes, over {rows:,} rows: {genes}{more}. {remedy}"
        )


def where_from(layer: str | None) -> str:
    """Return how a person writes the matrix that was read."""
    return "adata.X" if layer is None or layer == "X" else f"adata.layers[{layer!r}]"
