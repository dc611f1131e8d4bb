"""What kind of values a matrix holds: counts or not, on which scale, all of them finite or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gexinfer.engine.blocks import Indices, dense

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Enough rows to know the scale.
PROFILE_ROWS = 500


def profile(source: Any, rows: Indices, columns: Indices) -> dict[str, Any]:
    """Return whether values look like counts, and their quantiles, from evenly spaced rows."""
    spread = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), PROFILE_ROWS)).astype(int))
    values = dense(source, rows[spread], columns)
    values = values[np.isfinite(values)]
    counts = bool(values.size and values.min() >= 0 and values.max() > 1 and (values == np.rint(values)).all())
    quantiles = np.quantile(values, QUANTILES) if values.size else np.zeros(len(QUANTILES))
    return {"counts": counts, "quantiles": [round(float(q), 4) for q in quantiles]}


def scale_mismatch(trained: Mapping[str, Any], query: Mapping[str, Any]) -> str | None:
    """Return why a query's values cannot be on the scale of the training values, with both rows of quantiles."""
    a, b = np.array(trained["quantiles"]), np.array(query["quantiles"])
    width_a, width_b = np.ptp(a) + 1e-9, np.ptp(b) + 1e-9
    if trained["counts"] != query["counts"]:
        kinds = {True: "counts", False: "values that are no counts"}
        why = f"the model was fitted on {kinds[trained['counts']]}, and the query holds {kinds[query['counts']]}"
    elif not 1 / 3 < width_b / width_a < 3 or not a[0] - width_a < b[2] < a[-1] + width_a:
        why = "the query's landmarks are on another scale than those the model was fitted on"
    else:
        return None
    table = pd.DataFrame([a, b], ["fitted on", "query"], [f"{q:.0%}" for q in QUANTILES])
    return f"{why}. Quantiles of the landmarks:\n{table.round(3).to_string()}\n"


def refuse_not_finite(counts: NDArray[np.intp], names: pd.Index, rows: int, where: str) -> None:
    """Refuse NaN and inf, and say in which genes."""
    bad = np.flatnonzero(counts)
    if len(bad):
        genes = ", ".join(f"{names[i]!r} ({counts[i]:,} rows)" for i in bad[:5])
        more = f" and {len(bad) - 5:,} more" if len(bad) > 5 else ""
        raise ValueError(
            f"{where} holds NaN or inf in {len(bad):,} of {len(names):,} genes, over {rows:,} rows: {genes}{more}. "
            "Drop those genes or samples, or fill them, e.g. with the gene's mean."
        )


def where_from(layer: str | None) -> str:
    """Return how a person writes the matrix that was read."""
    return "adata.X" if layer is None or layer == "X" else f"adata.layers[{layer!r}]"
