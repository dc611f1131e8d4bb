from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel, row_digests
from gexinfer._record import records, to_uns
from gexinfer._slots import (
    SIDES,
    SPLIT,
    SPLIT_INFO,
    check_in_memory,
    check_name,
    check_unique,
    group_codes,
    layer_names,
    split_rows,
)
from gexinfer.engine.conformal import rank_of
from gexinfer.engine.report import Advance, steps, warn
from gexinfer.io._report_page import page
from gexinfer.tl._answers import OF_SAMPLES
from gexinfer.tl._coverage import coverage
from gexinfer.tl._evaluate import evaluate
from gexinfer.tl._models import first_layer
from gexinfer.tl._predict import predict
from gexinfer.tl._trust import FEWEST_ROWS, trust

# The share of held-out values that an interval of the report is to hold.
LEVEL = 0.9


def write_report(
    adata: AnnData,
    path: str | os.PathLike[str],
    *,
    model: AnnData | FittedModel | None = None,
    key: str | None = None,
    groupby: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> None:
    """Write one page about a model on a data set: errors, intervals, trust, provenance, and what it is not good for.

    The page is a single HTML file with its figures in it, which any browser opens and which loads nothing from
    elsewhere. It holds what is known of genes and of groups of samples, and of single samples their values of three
    genes, drawn; no sample is named. Predictions are made anew; `adata` is not changed.

    Parameters
    ----------
    adata
        Measured whole transcriptomes, samples x genes.
    path
        The page, ending in `.html`. It is replaced in one step.
    model
        Where the model is: an AnnData that was fitted, or a model read by `gexinfer.io.read_model`. All samples of
        `adata` are judged then. Where it is not given, the model is in `adata`, and its test rows are judged.
    key
        Name of the model that the page is about; where not given, the one with the lowest error on validation rows. The
        others are in its tables, for comparison.
    groupby
        Column of `obs` by which errors are told apart, e.g. "tissue".
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show bars, or lines where there is no screen.

    Raises
    ------
    FileNotFoundError
        There is no folder to write to.
    KeyError
        There is no model, none of that key, no split, or no column `groupby`.
    ValueError
        The path does not end in `.html`, there are no samples to judge on, the model has seen them, they lack
        landmarks or targets, or values are NaN or inf.

    TypeError
        `model` is neither an AnnData nor a model.

    Warns
    -----
    UserWarning
        What `gexinfer.tl.predict` and `gexinfer.tl.evaluate` warn of; the page says it, too.

    Examples
    --------
    >>> gx.io.write_report(ref, "report.html", key="ridge", groupby="tissue")
    """
    path = Path(path)
    if path.suffix != ".html":
        raise ValueError(f"path={str(path)!r} must end in '.html'.")
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.absolute().parent)!r} to write {path.name} into.")
    check_in_memory(adata)
    check_unique(adata)
    if groupby is not None:
        group_codes(adata.obs, groupby)
    models, name = models_of(adata, model, key)
    if model is not None:
        refuse_own_samples(adata, models[name], name)
    judged = held_out(adata, models, own=model is None)
    with steps("report", 4, show=progress) as advance:
        told = measure(judged, name, groupby, device, advance)
    text = page(judged, models[name], name, groupby, told)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def models_of(
    adata: AnnData, model: AnnData | FittedModel | None, key: str | None
) -> tuple[dict[str, FittedModel], str]:
    """Return all models by name, and whose page it is."""
    if isinstance(model, FittedModel):
        name = model.method if key is None else key
        check_name(name, model.method)
        return {name: model}, name
    if not isinstance(model, AnnData | None):
        raise TypeError(
            f"model={model!r} is a {type(model).__name__}; pass an AnnData that was fitted, or for a file "
            "model=gexinfer.io.read_model(path)."
        )
    models = records(adata if model is None else model)
    if key is not None:
        # Tells which there are.
        records(adata if model is None else model, key)
    return models, first_layer(models, None) if key is None else key


def refuse_own_samples(adata: AnnData, fitted: FittedModel, name: str) -> None:
    """Refuse to judge a model from elsewhere on what it was fitted on."""
    seen = np.isin(row_digests(adata.obs_names), fitted.training_rows).sum()
    if seen:
        raise ValueError(
            f"{seen:,} of the {adata.n_obs:,} samples were training or validation rows of {name!r}. With model= all "
            "samples of adata are judged: pass others, or leave model= out where adata holds the model and its split."
        )


def held_out(adata: AnnData, models: Mapping[str, FittedModel], *, own: bool) -> AnnData:
    """Return the samples to judge on, with what is read of them and the models, and nothing else."""
    rows = split_rows(adata, "test") if own else np.arange(adata.n_obs)
    if len(rows) == 0:
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks no row as 'test', on which to judge: run gexinfer.pp.split(adata)."
        )
    part = adata[rows]
    part = part.to_memory() if adata.isbacked else part.copy()
    read = {str(fitted.input["layer"]) for fitted in models.values()}
    for layer in set(layer_names(part)) - read:
        del part.layers[layer]
    kept = {SPLIT_INFO: adata.uns[SPLIT_INFO]} if own and SPLIT_INFO in adata.uns else {}
    judged = AnnData(part.X, part.obs.copy(), part.var[[]].copy(), kept, layers=dict(part.layers))
    judged.obs[SPLIT] = pd.Categorical(["test"] * len(rows), categories=list(SIDES))
    for name, fitted in models.items():
        judged.uns[name] = to_uns(fitted)
    return judged


def measure(judged: AnnData, name: str, groupby: str | None, device: str, advance: Advance) -> list[str]:
    """Write into `judged` what the page shows; return what was warned of meanwhile."""
    others = [other for other in records(judged) if other != name]
    level = LEVEL if has_level(judged, name) else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        if others:
            predict(judged, key=others, device=device, progress=False)
            # The page is about one model, and what others say of the samples is no part of it.
            judged.obs = judged.obs.drop(columns=[*OF_SAMPLES], errors="ignore")
        predict(judged, key=name, interval=level, device=device, progress=False)
        advance(1, "predicted")
        evaluate(judged, groupby=groupby)
        advance(1, "evaluated")
        if judged.n_obs >= FEWEST_ROWS and len(records(judged, name)[name].targets) > 1:
            trust(judged, key=name)
        advance(1, "trusted")
        if level is not None:
            coverage(judged, key=name, groupby=groupby)
        advance(1, f"{name} on {judged.n_obs:,} samples")
    told = list(dict.fromkeys(str(found.message) for found in caught if found.category is UserWarning))
    for message in told:
        warn(message)
    return told


def has_level(judged: AnnData, name: str) -> bool:
    """Whether the model can give intervals of the report's level."""
    ranks = records(judged, name)[name].known.get("residual_ranks")
    return ranks is not None and rank_of(LEVEL, int(ranks[-1])) <= ranks[-1]
