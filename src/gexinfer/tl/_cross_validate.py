"""Fit and evaluation repeated over folds: how far an error depends on which samples were held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import PREDICT_ROWS, FittedModel
from gexinfer._names import lacking, listed, locate
from gexinfer._slots import FOLDS, SIDES, group_codes, matrix, split_column, split_rows
from gexinfer.engine.blocks import Float, Indices, Rows, dense, in_row_order, row_slices
from gexinfer.engine.report import steps
from gexinfer.engine.run import Run
from gexinfer.methods import get_method
from gexinfer.pp._split import assign
from gexinfer.tl._learn import learn
from gexinfer.tl._reference import FEWEST_ROWS, Reference, Sides, check_validation, look
from gexinfer.tl._scores import Classes, scores
from gexinfer.tl._tables import overall

# Of a column with many groups so many folds are made.
MOST_FOLDS = 5
# A layer, its landmarks and its targets.
Genes = tuple[str, tuple[str, ...], tuple[str, ...]]


def cross_validate(
    adata: AnnData,
    models: Mapping[str, FittedModel],
    cv: int | str,
    *,
    spearman: bool,
    rng: int | np.random.Generator,
    device: str,
    progress: bool,
) -> pd.DataFrame:
    """Fit each model again in each fold and evaluate it there; see `gexinfer.tl.evaluate`."""
    for name, fitted in models.items():
        refuse_other_data(adata, fitted, name)
    folds, by = folds_of(adata, cv, np.random.default_rng(rng))
    tables = []
    with steps("cross-validation", len(folds) * len(models), show=progress) as advance:
        for number, (train, validation, test) in enumerate(folds):
            again, known = {}, dict[Genes, Reference]()
            for name, model in models.items():
                same = [other for other in models.values() if genes_of(other) == genes_of(model)]
                again[name] = fit_again(adata, model, name, train, validation, same, known, rng=rng, device=device)
                advance(1, f"fold {number + 1} of {len(folds)}, {name}")
            predicted = {name: inferred(adata, test, model, device) for name, model in again.items()}
            # One batch and one class: a fold has neither intervals nor groups.
            alike = Classes(np.zeros(len(test), np.intp), 1, np.zeros((len(test), 1), np.intp), [])
            found = scores(adata, test, again, predicted, alike, spearman=spearman)
            table = overall(found.genes, again)
            table.insert(0, "model", table.index)
            table.insert(0, "fold", number)
            tables.append(table.assign(n_samples=len(test)))
    every = pd.concat(tables, ignore_index=True)
    adata.uns[FOLDS] = every
    return over_folds(every).assign(split_by=by)


def refuse_other_data(adata: AnnData, fitted: FittedModel, name: str) -> None:
    """Refuse a model that has learned from more than `adata` holds, or that cannot find its genes there."""
    absent = lacking([*fitted.landmarks, *fitted.targets], adata.var_names)
    if absent:
        raise ValueError(
            f"adata.var_names lacks {len(absent):,} landmarks or targets of {name!r}: {listed(absent)}. With cv= a "
            "model is fitted again, on the genes that it was fitted on; name other models with key=."
        )
    other = {
        "unlabeled samples": "n_unlabeled" in fitted.model.notes,
        "validation samples of another object": fitted.provenance["validated_on"] != "adata",
        "another model to start from": fitted.provenance.get("started_from_model", False),
    }
    if any(other.values()):
        what = ", ".join(kind for kind, had in other.items() if had)
        raise ValueError(
            f"{name!r} was fitted with {what}, which adata does not hold, so that cv= cannot fit it again. Name the "
            "other models with key=."
        )


def folds_of(
    adata: AnnData, cv: int | str, rng: np.random.Generator
) -> tuple[list[tuple[Indices, Indices, Indices]], str]:
    """Return the training, validation and test rows of each fold, and how they were drawn.

    Each row that is on a side of the present split is a test row once. Of the others, as many are validation rows for
    each training row as now.
    """
    now = {side: split_rows(adata, side) for side in SIDES}
    rows = np.sort(np.concatenate(list(now.values())))
    column = cv if isinstance(cv, str) else split_column(adata)
    codes = np.arange(len(rows)) if column is None else group_codes(adata.obs.iloc[rows], column)[0]
    groups = int(codes.max(initial=-1)) + 1
    if isinstance(cv, bool) or not isinstance(cv, int | np.integer | str) or (not isinstance(cv, str) and cv < 2):
        raise ValueError(f"cv={cv!r} must be a number of folds, 2 or more, or a column of obs.")
    count = min(groups, MOST_FOLDS) if isinstance(cv, str) else int(cv)
    validated = len(now["validation"]) / max(len(now["train"]) + len(now["validation"]), 1)
    shares = np.array([1 - validated, validated])
    # Each fold leaves at least one group for each other side.
    if groups < max(count, 2 + (validated > 0)):
        what = "samples" if column is None else f"groups in adata.obs[{column!r}]"
        raise ValueError(
            f"{groups:,} {what} do not fill {count} folds with training and validation rows; pass fewer folds, or cv= "
            "a column of obs with more groups."
        )
    fold = assign(np.bincount(codes), np.full(count, 1 / count), rng)
    folds = []
    for number in range(count):
        rest = np.flatnonzero(fold != number)
        # Of each group: -1 for the test, else the side.
        side = np.full(groups, -1, np.int8)
        side[rest] = assign(np.bincount(codes)[rest], shares, rng)
        folds.append((rows[side[codes] == 0], rows[side[codes] == 1], rows[side[codes] == -1]))
    return folds, "random" if column is None else f"by {column}"


def genes_of(model: FittedModel) -> Genes:
    """Return what two models share that learn from the same values of the same rows."""
    return str(model.input["layer"]), model.landmarks, model.targets


def fit_again(
    adata: AnnData,
    model: FittedModel,
    name: str,
    train: Indices,
    validation: Indices,
    same: Sequence[FittedModel],
    known: dict[Genes, Reference],
    *,
    rng: int | np.random.Generator,
    device: str,
) -> FittedModel:
    """Fit a model's method with its options on other rows of the same genes; what it chose is chosen anew.

    `same` are all models of the same genes; these rows are looked at once for all of them and kept in `known`.
    """
    method, layer = get_method(model.method), str(model.input["layer"])
    landmarks, targets = locate(model.landmarks, adata.var_names), locate(model.targets, adata.var_names)
    rows = Rows(in_row_order(matrix(adata, layer)), train, landmarks, targets)
    if len(train) < FEWEST_ROWS:
        raise ValueError(
            f"A fold leaves {len(train)} training rows for {name!r}, and at least {FEWEST_ROWS} are needed; pass fewer "
            "folds with cv=, or a column of obs with more groups."
        )
    sides = Sides(rows, replace(rows, rows=validation), adata.obs_names[validation], "adata")
    check_validation(method, model.config, sides)
    if genes_of(model) not in known:
        products = any(get_method(other.method).products for other in same)
        known[genes_of(model)] = look(adata, layer, sides, products=products)
    return learn(
        adata, known[genes_of(model)], method, model.config, name, rng=rng, device=device, run=Run(progress=False)
    )


def inferred(adata: AnnData, rows: Indices, fitted: FittedModel, device: str) -> Float:
    """Return what a model infers for some rows, (rows, targets)."""
    source = in_row_order(matrix(adata, str(fitted.input["layer"])))
    landmarks = locate(fitted.landmarks, adata.var_names)
    out = np.empty((len(rows), len(fitted.targets)), np.float32)
    for part in row_slices(len(rows), PREDICT_ROWS):
        out[part] = fitted.predict(dense(source, rows[part], landmarks), device=device)
    return out


def over_folds(every: pd.DataFrame) -> pd.DataFrame:
    """Return the means over folds, and how the MAE varies between them."""
    by_model = every.groupby("model")
    table = by_model.mean().drop(columns=["fold", "n_samples"])
    spread = by_model["mae"].agg(["std", "min", "max"]).set_axis(["mae_fold_sd", "mae_min", "mae_max"], axis=1)
    for place, column in enumerate(spread, start=1):
        table.insert(place, column, spread[column])
    best = every.loc[every.dropna(subset="mae").groupby("fold")["mae"].idxmin(), "model"].value_counts(normalize=True)
    table["best"] = best.reindex(table.index).fillna(0.0)
    table["n_folds"] = by_model.size()
    table["n_genes"] = by_model["n_genes"].min()
    table["n_samples"] = by_model["n_samples"].sum()
    table.index.name = None
    return table.sort_values("mae")
