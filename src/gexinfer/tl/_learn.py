"""One method learned from a reference, and the model written under its name."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel, row_digests
from gexinfer._record import is_record, to_uns
from gexinfer._slots import PER_GENE, check_name, gene_slot, layer_names, predicted_layers, split_by
from gexinfer.engine.blocks import Pairs, Scale
from gexinfer.engine.gaussian import packed
from gexinfer.engine.report import say
from gexinfer.engine.run import Run
from gexinfer.methods import Method, Model, Task, get_method
from gexinfer.tl._held_out import held_out
from gexinfer.tl._reference import Reference
from gexinfer.tl._start import matched


def learn(
    adata: AnnData,
    reference: Reference,
    method: Method,
    config: Any,
    key: str,
    *,
    rng: int | np.random.Generator,
    device: str,
    run: Run,
    source: FittedModel | None = None,
    unlabeled: Pairs | None = None,
    refit: bool = True,
) -> FittedModel:
    """Fit one method and tell how far off it is on the validation rows.

    Without `refit` none learns from these as well, so that the training rows are all that a model has learned from.
    """
    sides, scale, standardised = reference.sides, reference.moments.scale, reference.moments.standardised()
    train, validation = sides.train, sides.validation
    task = Task(
        Pairs(train, scale),
        Pairs(validation, scale),
        standardised,
        np.random.default_rng(rng),
        device,
        run,
        None if source is None else matched(source, adata, train, progress=run.progress),
        unlabeled,
    )
    model = method.fit(task, config)
    picked = "".join(
        f", {name} {value:{',' if isinstance(value, int) else '.4g'}}"
        for name, value in model.notes.items()
        # Those of the members of `auto` are in its own table.
        if not isinstance(value, str) and "." not in name
    )
    n = len(train.landmarks)
    fitted = FittedModel(
        method=method.name,
        config=config,
        model=model,
        landmarks=tuple(adata.var_names[train.landmarks]),
        targets=tuple(adata.var_names[train.targets]),
        landmark_scale=Scale(scale.mean[:n], scale.sd[:n]),
        target_scale=Scale(scale.mean[n:], scale.sd[n:]),
        landmark_covariance=packed(standardised.xx / standardised.n),
        landmark_profile=reference.moments.profile,
        input={"layer": reference.layer or "X", **reference.values},
        provenance={
            "gexinfer": version("gexinfer"),
            "n_train": len(train),
            "n_validation": len(validation),
            "split_by": split_by(adata),
            "validated_on": sides.validation_in,
            **({} if source is None else {"started_from_model": True}),
        },
        # What a model to start from has seen, this one has.
        training_rows=np.union1d(
            row_digests(adata.obs_names[train.rows].append(sides.validation_names)),
            np.empty(0, np.uint64) if source is None else source.training_rows,
        ),
        samples=tuple(adata.obs_names[train.rows].astype(str)) if method.similar else (),
        known=reference.nearest,
    )
    error = ""
    if len(validation):
        mae, known = held_out(fitted, task)
        model = Model(model.arrays, {**model.notes, "validation_mae": mae})
        if refit and method.ends_with_refit and method.refit is not None and sides.validation_in == "adata":
            model = method.refit(task, config, model)
        fitted = replace(fitted, model=model, known={**fitted.known, **known})
        error = f", validation MAE {mae:.4f} standard deviations"
    if run.progress and (error or picked):
        say(f"fit: uns[{key!r}]{error}{picked}")
    return fitted


def write_model(adata: AnnData, key: str, fitted: FittedModel) -> None:
    """Write `uns[key]`, and into `varm` what the fit says of each gene."""
    adata.uns[key] = to_uns(fitted)
    for name in PER_GENE:
        slot = gene_slot(name)
        # A fit of another kind under this name must not leave the old one's column behind.
        before = adata.varm.get(slot)
        kept = before.drop(columns=key, errors="ignore") if isinstance(before, pd.DataFrame) else pd.DataFrame()
        if name in get_method(fitted.method).per_gene and name in fitted.model.arrays:
            column = pd.Series(fitted.model.arrays[name], list(fitted.targets), dtype=float)
            adata.varm[slot] = kept.reindex(adata.var_names).assign(**{key: column})
        elif slot in adata.varm and kept.shape[1] == 0:
            del adata.varm[slot]
        elif slot in adata.varm:
            adata.varm[slot] = kept


def check_key(adata: AnnData, key: str, method: Method, layer: str | None) -> None:
    """Refuse a name that would overwrite what is no model, or the values a model learns from."""
    check_name(key, method.name)
    if key in adata.uns and not is_record(adata.uns[key]):
        raise ValueError(f"adata.uns[{key!r}] holds something that is no gexinfer model; choose another key_added=.")
    if key in layer_names(adata) and (key == layer or key not in predicted_layers(adata)):
        raise ValueError(
            f"adata.layers[{key!r}] is there already, and gexinfer did not write it; predictions under this name would "
            "overwrite it. Choose another key_added=, or delete the layer."
        )
