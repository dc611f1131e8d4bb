"""The models that a call is about: those to predict by, those with predictions, one of several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
from anndata import AnnData
from mudata import MuData

from gexinfer._fitted import FittedModel
from gexinfer._names import listed
from gexinfer._record import records
from gexinfer._slots import check_name, layer_names
from gexinfer.tl._modality import with_models


def one_model(adata: AnnData, key: str | None, what: str) -> tuple[str, FittedModel]:
    """Return the model of that name, or the only one there is."""
    models = records(adata, key)
    if len(models) > 1:
        raise ValueError(f"adata.uns holds several models, {listed(list(models), 20)}; name the one to {what}: key=.")
    ((name, fitted),) = models.items()
    return name, fitted


def resolve(
    whole: AnnData | MuData,
    adata: AnnData,
    model: AnnData | MuData | FittedModel | None,
    key: str | Iterable[str] | None,
) -> dict[str, FittedModel]:
    """Return the models to use, by the key their results get."""
    if isinstance(model, FittedModel):
        name = model.method if key is None else key
        check_name(name, model.method)  # type: ignore[arg-type]
        return {name: model}  # type: ignore[dict-item]
    if model is not None and not isinstance(model, AnnData | MuData):
        raise TypeError(
            f"model={model!r} is a {type(model).__name__}; pass an AnnData or MuData that was fitted, or for a file "
            "model=gexinfer.io.read_model(path)."
        )
    return records(with_models(adata, whole, key) if model is None else with_models(model, model, key), key)


def first_layer(models: Mapping[str, FittedModel], key: str | Iterable[str] | None) -> str:
    """Return whose values go to X: the first model named, else the best on validation rows.

    Not the first of `uns`, because a file gives it back in another order. Errors on the rows of another object do not
    compare with those on the reference's own, which go first.
    """
    if key is not None:
        return next(iter(models))
    own = [name for name in models if models[name].provenance["validated_on"] == "adata"]
    return min(sorted(own or models), key=lambda name: float(models[name].model.notes.get("validation_mae", np.inf)))


def all_with(
    adata: AnnData, key: str | Iterable[str] | None, there: Collection[str], what: str, call: str
) -> dict[str, FittedModel]:
    """Return the models that are asked for, all of which must be `there`, or those that are; `call` writes `what`."""
    models = records(adata, key)
    if key is None:
        models = {name: fitted for name, fitted in models.items() if name in there}
    lacking = [name for name in models if name not in there]
    if lacking or not models:
        raise KeyError(f"adata.layers has no {what} of {lacking or 'any model'}; run {call} first.")
    return models


def all_predicted(adata: AnnData, key: str | Iterable[str] | None) -> dict[str, FittedModel]:
    """Return the models that are asked for, all of which must have a layer, or those that have one."""
    return all_with(adata, key, layer_names(adata), "predictions", "gexinfer.tl.predict(adata)")


def one_predicted(adata: AnnData, key: str | None) -> tuple[str, FittedModel]:
    """Return the model that is asked for, or the only one with predictions."""
    models = all_predicted(adata, key)
    if len(models) > 1:
        raise ValueError(
            f"adata.layers has predictions of several models, {listed(list(models))}; name one of them with key=."
        )
    return next(iter(models.items()))
