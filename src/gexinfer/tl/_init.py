"""Another model that a fit starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData

from gexinfer._names import listed, locate
from gexinfer._record import FittedModel, records
from gexinfer.engine.blocks import Rows
from gexinfer.methods import Method
from gexinfer.methods._contract import Start


def model_to_start_from(init: AnnData | FittedModel, method: Method, key: str) -> FittedModel:
    """Return the model that `init` names, which must be of this method."""
    if not method.by_epochs:
        raise ValueError(f"init= is for networks, which learn by epochs; method={method.name!r} does not.")
    if isinstance(init, FittedModel):
        found = {"init": init}
    elif isinstance(init, AnnData):
        found = {name: model for name, model in records(init).items() if model.method == method.name}
        found = {key: found[key]} if key in found else found
    else:
        raise TypeError(
            f"init is a {type(init).__name__}; pass an AnnData with a model, or gexinfer.io.read_model(path)."
        )
    if len(found) != 1 or next(iter(found.values())).method != method.name:
        there = ", ".join(f"{name!r}: {model.method}" for name, model in found.items()) or "none"
        raise ValueError(
            f"init must name one model of method={method.name!r}; found {there}. Pass key_added= the name of the one "
            "you mean, or the model itself, gexinfer.io.read_model(path)."
        )
    return next(iter(found.values()))


def same_shape(source: FittedModel, method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with those that the model to start from decides, and that starting from one changes."""
    decided = {name: getattr(source.config, name) for name in method.shape}
    for name, value in options.items():
        if decided.get(name, value) != value:
            raise ValueError(f"{name}={value!r}, but the model of init= has {decided[name]!r}. Leave {name}= out.")
    return {**method.from_start, **options, **decided}


def matched(source: FittedModel, adata: AnnData, rows: Rows) -> Start:
    """Return the model to start from, and where in it the task's genes stand."""
    landmarks = locate(adata.var_names[rows.landmarks], pd.Index(source.landmarks))
    targets = locate(adata.var_names[rows.targets], pd.Index(source.targets))
    if not (landmarks >= 0).any():
        raise ValueError(
            f"init shares no landmark with adata: it has {listed(source.landmarks, 3)}, adata "
            f"{listed(list(adata.var_names[rows.landmarks]), 3)}. Genes must go by the same kind of name."
        )
    return Start(source.model, source.config, landmarks, targets)
