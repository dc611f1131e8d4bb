"""The test rows that a model is judged on: with the truth, not seen by the model, and with its own predictions."""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from gexinfer._fitted import FittedModel, row_digests
from gexinfer._names import locate
from gexinfer._slots import SPLIT, layer_names, matrix, split_rows
from gexinfer.engine.blocks import Indices, dense, evenly
from gexinfer.engine.cluster import is_lazy
from gexinfer.methods import get_method

# Predictions of this many test rows are made again, to know them for the present model's.
STALE_ROWS = 20


def test_rows(adata: AnnData) -> Indices:
    """Return the test rows, of which there must be some."""
    rows = split_rows(adata, "test")
    if len(rows) == 0:
        raise ValueError(f"adata.obs[{SPLIT!r}] marks no row as 'test'; run gexinfer.pp.split(adata) and fit again.")
    return rows


def check_truth(adata: AnnData, fitted: FittedModel, name: str) -> None:
    """Refuse an object without the measured targets."""
    layer = str(fitted.input["layer"])
    if layer != "X" and layer not in layer_names(adata):
        raise KeyError(
            f"adata.layers has no {layer!r}, the measured values that {name!r} was fitted on. Put them there "
            "to evaluate against them."
        )
    if (locate(fitted.targets, adata.var_names) < 0).all():
        raise ValueError(
            f"adata.var_names holds none of the {len(fitted.targets):,} targets of {name!r}, so there is no truth to "
            "compare with. Evaluate an object that holds whole transcriptomes."
        )


def refuse_seen(adata: AnnData, test: Indices, fitted: FittedModel, name: str) -> None:
    """Refuse to call an error honest that was measured on rows the model was fitted on."""
    seen = np.isin(row_digests(adata.obs_names[test]), fitted.training_rows).sum()
    if seen:
        raise ValueError(
            f"{seen:,} of the {len(test):,} rows that adata.obs[{SPLIT!r}] marks as 'test' were training or validation "
            f"rows of {name!r}: the split was changed after the fit. Run gexinfer.tl.fit and gexinfer.tl.predict again."
        )


def refuse_stale(adata: AnnData, test: Indices, fitted: FittedModel, name: str) -> None:
    """Refuse to score, under a model's name, what an earlier model of that name predicted."""
    landmarks, targets = locate(fitted.landmarks, adata.var_names), locate(fitted.targets, adata.var_names)
    if (landmarks < 0).any() or np.isin(landmarks, targets).any():
        return  # landmarks were dropped or overwritten since the prediction, so it cannot be made again
    spread = evenly(len(test), STALE_ROWS)
    # Of a layer that is computed when it is read, rows of few chunks.
    spread = np.arange(len(spread)) if is_lazy(adata.layers[name]) else spread
    written = dense(adata.layers[name], test[spread])
    given = written[:, landmarks]
    if get_method(fitted.method).any_panel:
        # What a sample lacked was inferred in the layer.
        given[np.isnan(dense(matrix(adata, str(fitted.input["layer"])), test[spread], landmarks))] = np.nan
    away = np.abs(fitted.predict(given)[:, targets >= 0] - written[:, targets[targets >= 0]])
    # A hundredth of a standard deviation: far above what another device's rounding does.
    if not (away / fitted.target_scale.unit[targets >= 0]).mean(axis=1).max() < 0.01:
        raise ValueError(
            f"adata.layers[{name!r}] does not hold what adata.uns[{name!r}] predicts: the model was fitted again, the "
            f"layer changed, or trusted_only=True left values out. Run gexinfer.tl.predict(adata, key={name!r}) first."
        )
