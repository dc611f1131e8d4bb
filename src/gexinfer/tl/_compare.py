from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._slots import check_in_memory
from gexinfer.engine.run import Run
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._learn import check_key, learn, write_model
from gexinfer.tl._predict import predict
from gexinfer.tl._reference import look, resolve_rows
from gexinfer.tl._trials import check_finite, check_seed, judged_on, named_methods, planned


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
        A method has no such option, or `rng` is no whole number.
    ValueError
        As in `gexinfer.tl.fit`, or there are no test rows, or values that are predicted from or judged are NaN or inf.
        Nothing is written then.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016` (the error, and the linear baselines).

    Examples
    --------
    >>> table = gx.tl.compare(ref, ["mean", "ridge", "kernel"])
    >>> table[["mae", "pearson", "gain_over_ridge"]].round(2)
              mae  pearson  gain_over_ridge
    kernel   0.55     0.69             0.08
    ridge    0.59     0.65             0.00
    nearest  0.72     0.52            -0.22
    mean     0.82      NaN            -0.37
    """
    options = named_methods(methods)
    check_seed(rng)
    check_in_memory(adata)
    sides = resolve_rows(adata, layer, targets, allow_overlap)
    test = judged_on(adata, sides.train, "to compare")
    plans = planned(options, sides)
    for name, (method, _) in plans.items():
        check_key(adata, name, method, layer)
    reference = look(adata, layer, sides, products=any(method.products for method, _ in plans.values()))
    check_finite(adata, test, layer)
    # Predictions are made of all rows.
    check_finite(adata, replace(test, rows=np.arange(adata.n_obs), targets=np.empty(0, np.intp)), layer)

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
