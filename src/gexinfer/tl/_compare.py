from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._slots import check_in_memory, split_rows
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Indices
from gexinfer.engine.moments import moments
from gexinfer.engine.run import Run
from gexinfer.methods import configure, get_method
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._fit import Reference, check_key, check_validation, learn, look, resolve_rows, write_model
from gexinfer.tl._predict import predict


def compare(
    adata: AnnData,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]],
    *,
    layer: str | None = None,
    targets: str | Sequence[str] | None = None,
    allow_overlap: bool = False,
    rng: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Fit, predict and evaluate several methods in one call.

    All learn from the same training rows, whose moments are summed up once, and are judged on the same test rows.

    Parameters
    ----------
    adata
        Whole transcriptomes with landmarks and a split, as for `gexinfer.tl.fit`.
    methods
        Names of methods; or a mapping of a model's name to the options of its fit, where `"method"` is the method if
        the name is not: `{"ridge": {}, "wide": {"method": "dgex", "hidden": 3000}}`.
    layer
        Layer to learn from; `X` where it is not given.
    targets
        Which genes to infer, as in `gexinfer.tl.fit`.
    allow_overlap
        Infer landmarks too, where `targets` names some.
    rng
        Seed; each fit starts from it.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show bars, or lines where there is no screen.

    Returns
    -------
    The table of `gexinfer.tl.evaluate`, and for each model `fit_seconds` (without the pass over the training rows that
    all share) and `predict_seconds` (of all samples). Writes what `fit`, `predict` and `evaluate` write.

    Raises
    ------
    KeyError
        A slot is missing.
    TypeError
        A method has no such option.
    ValueError
        As in `gexinfer.tl.fit`, or there are no test rows, or values that are predicted from or judged are NaN or inf.
        Nothing is written then.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 (the error, and the linear baselines).
    """
    options = (
        {name: dict(o) for name, o in methods.items()} if isinstance(methods, Mapping) else {m: {} for m in methods}
    )
    if isinstance(methods, str) or not options:
        raise ValueError(f"methods={methods!r} must be a list of methods, e.g. ['mean', 'ridge', 'kernel'].")
    check_in_memory(adata)
    sides = resolve_rows(adata, layer, targets, allow_overlap)
    test = split_rows(adata, "test")
    if len(test) == 0:
        raise ValueError(
            "adata.obs['split'] marks no row as 'test', on which to compare: run gexinfer.pp.split(adata)."
        )
    plans = {}
    for name, given in options.items():
        method = get_method(given.pop("method", name))
        plans[name] = method, configure(method, given)
        check_key(adata, name, method, layer)
        check_validation(method, plans[name][1], sides)
    reference = look(adata, layer, sides, products=any(method.products for method, _ in plans.values()))

    check_finite(adata, reference, test)

    models, seconds = {}, {}
    for name, (method, config) in plans.items():
        started = perf_counter()
        models[name] = learn(adata, reference, method, config, name, rng=rng, device=device, run=Run(progress))
        seconds[name] = {"fit_seconds": perf_counter() - started}
    # Nothing is written before all have been fitted.
    for name, fitted in models.items():
        write_model(adata, name, fitted)
        started = perf_counter()
        predict(adata, key=name, layer=layer or "X", device=device, progress=progress)
        seconds[name]["predict_seconds"] = perf_counter() - started
    table = evaluate(adata, key=list(plans))
    return table.join(pd.DataFrame.from_dict(seconds, orient="index"))


def check_finite(adata: AnnData, reference: Reference, test: Indices) -> None:
    """Refuse NaN and inf where predictions are made or judged, before anything is fitted."""
    every, genes = np.arange(adata.n_obs), np.empty(0, np.intp)
    for rows in (replace(reference.sides.train, rows=test), replace(reference.sides.train, rows=every, targets=genes)):
        names = adata.var_names[np.concatenate([rows.landmarks, rows.targets])]
        refuse_not_finite(moments(rows.blocks()).not_finite, names, len(rows), where_from(reference.layer))
