"""The one model that a call is about."""

from __future__ import annotations

from anndata import AnnData

from gexinfer._names import listed
from gexinfer._record import FittedModel, records
from gexinfer._slots import layer_names


def one_predicted(adata: AnnData, key: str | None) -> tuple[str, FittedModel]:
    """Return the model that is asked for, or the only one with predictions."""
    models = {name: fitted for name, fitted in records(adata, key).items() if name in layer_names(adata)}
    if not models:
        raise KeyError(
            f"adata.layers has no predictions of {repr(key) if key else 'any model'}; run gexinfer.tl.predict(adata) "
            "first."
        )
    if len(models) > 1:
        raise ValueError(
            f"adata.layers has predictions of several models, {listed(list(models))}; name one of them with key=."
        )
    return next(iter(models.items()))
