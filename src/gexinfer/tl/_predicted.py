"""The models that a call is about: those with predictions."""

from __future__ import annotations

from collections.abc import Iterable

from anndata import AnnData

from gexinfer._names import listed
from gexinfer._record import FittedModel, records
from gexinfer._slots import layer_names


def all_predicted(adata: AnnData, key: str | Iterable[str] | None) -> dict[str, FittedModel]:
    """Return the models that are asked for, all of which must have a layer, or those that have one."""
    models, there = records(adata, key), layer_names(adata)
    if key is None:
        models = {name: fitted for name, fitted in models.items() if name in there}
    lacking = [name for name in models if name not in there]
    if lacking or not models:
        raise KeyError(
            f"adata.layers has no predictions of {lacking or 'any model'}; run gexinfer.tl.predict(adata) first."
        )
    return models


def one_predicted(adata: AnnData, key: str | None) -> tuple[str, FittedModel]:
    """Return the model that is asked for, or the only one with predictions."""
    models = all_predicted(adata, key)
    if len(models) > 1:
        raise ValueError(
            f"adata.layers has predictions of several models, {listed(list(models))}; name one of them with key=."
        )
    return next(iter(models.items()))
