"""Another model that a fit starts from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import listed, locate
from gexinfer._record import is_record, records
from gexinfer.engine.blocks import Rows
from gexinfer.engine.report import say, warn
from gexinfer.methods import Method
from gexinfer.methods._contract import Start


def model_to_start_from(init: AnnData | FittedModel, method: Method, key: str) -> FittedModel:
    """Return the model that `init` names, which must be of this method."""
    if not method.by_epochs:
        raise ValueError(
            f"init= is for networks, which learn by epochs; method={method.name!r} does not. Name one, e.g. "
            "method='dgex'."
        )
    if isinstance(init, FittedModel):
        if init.method != method.name:
            raise ValueError(
                f"init is a model of method={init.method!r}; method={method.name!r} starts from its own only."
            )
        return init
    if isinstance(init, AnnData):
        every = records(init) if any(is_record(entry) for entry in init.uns.values()) else {}
        found = {name: model for name, model in every.items() if model.method == method.name}
        found = {key: found[key]} if key in found else found
    else:
        raise TypeError(
            f"init is a {type(init).__name__}; pass an AnnData with a model, or gexinfer.io.read_model(path)."
        )
    if not found:
        raise ValueError(
            f"init.uns holds no model of method={method.name!r}; it holds {listed(list(every)) or 'no model'}. Run "
            f"gexinfer.tl.fit(init, method={method.name!r}) first."
        )
    if len(found) > 1:
        raise ValueError(
            f"init.uns holds several models of method={method.name!r}: {listed(list(found))}. Pass the one you mean "
            "alone, gexinfer.io.read_model(path), or its name as key_added=."
        )
    return next(iter(found.values()))


def same_shape(source: FittedModel, method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with those that the model to start from decides, and that starting from one changes."""
    decided = {name: getattr(source.config, name) for name in method.shape}
    for name, value in options.items():
        if decided.get(name, value) != value:
            raise ValueError(f"{name}={value!r}, but the model of init= has {decided[name]!r}. Leave {name}= out.")
    return {**method.from_start, **options, **decided}


def matched(source: FittedModel, adata: AnnData, rows: Rows, *, progress: bool) -> Start:
    """Return the model to start from, and where in it the task's genes stand."""
    landmarks = locate(adata.var_names[rows.landmarks], pd.Index(source.landmarks))
    targets = locate(adata.var_names[rows.targets], pd.Index(source.targets))
    if not (landmarks >= 0).any():
        raise ValueError(
            f"init shares no landmark with adata: it has {listed(source.landmarks, 3)}, adata "
            f"{listed(list(adata.var_names[rows.landmarks]), 3)}. Genes must go by the same kind of name."
        )
    counts = [
        f"{(p >= 0).sum():,} of {len(p):,} {what}" for p, what in ((landmarks, "landmarks"), (targets, "targets"))
    ]
    told = f"init: {counts[0]} and {counts[1]} are known to the model"
    if min((landmarks >= 0).mean(), (targets >= 0).mean()) < 0.5:
        warn(f"{told}. It has names like {listed(source.targets, 3)}; little of it is left to start from.")
    elif progress:
        say(told)
    return Start(source.model, source.config, landmarks, targets)
