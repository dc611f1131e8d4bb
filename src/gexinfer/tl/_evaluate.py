from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import locate
from gexinfer._record import FittedModel, records, row_digests
from gexinfer._slots import (
    EVALUATION,
    METRICS,
    SPLIT,
    check_in_memory,
    check_unique,
    gene_slot,
    layer_names,
    matrix,
    split_by,
    split_rows,
)
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Indices, Wide, dense, in_row_order, row_slices
from gexinfer.engine.cluster import client_for, is_lazy, total
from gexinfer.engine.report import warn
from gexinfer.methods import get_method

BASELINES = ("ols", "ridge")
# What is summed up of measured values y and inferred values p, of each gene.
SUMS: Mapping[str, Callable[[Wide, Wide], Any]] = {
    "error": lambda y, p: np.abs(y - p),
    "squared": lambda y, p: (y - p) ** 2,
    "y": lambda y, p: y,
    "p": lambda y, p: p,
    "yy": lambda y, p: y * y,
    "pp": lambda y, p: p * p,
    "yp": lambda y, p: y * p,
    "not_finite": lambda y, p: ~np.isfinite(y),
    "not_inferred": lambda y, p: ~np.isfinite(p),
}
# Predictions of this many test rows are made again, to know them for the present model's.
STALE_ROWS = 20


def evaluate(adata: AnnData, *, key: str | Iterable[str] | None = None) -> pd.DataFrame:
    """Measure how far inferred values are from measured ones, on the test rows alone.

    Run it after `gexinfer.tl.predict(adata)`. The truth is read from the layer that the model was fitted on. The mean
    predictor is always in the table, so that a number can be judged.

    Parameters
    ----------
    adata
        Whole transcriptomes with models in `uns` and their predictions in `layers`.
    key
        Name of the model, or several; all that have a layer where it is not given.

    Returns
    -------
    The overall table, one row a model, ordered by MAE:

    `mae`, `mae_sd`
        Mean absolute error of a gene in standard deviations of the training rows, averaged over genes, and the
        standard deviation over genes, as in the D-GEX paper.
    `mae_data`
        The same in the units of the data.
    `pearson`, `r2`
        Median over genes of Pearson's r and of R2 over test samples; 1 is perfect, the test mean has an R2 of 0.
    `gain_over_ols`, `gain_over_ridge`
        Relative fall of the MAE against `ols` and `ridge` where they were fitted; positive is better.
    `better_than_ols`, `better_than_ridge`
        Share of genes with a lower error.
    `n_samples`, `n_genes`, `split_by`
        Test rows, genes with an `mae`, and how the split was made: "random", "by" a column of `obs`, or "by hand".

    Writes `uns["gexinfer_evaluation"]`, this table, and `varm["gexinfer_mae"]`, `varm["gexinfer_mae_data"]`,
    `varm["gexinfer_pearson"]`, `varm["gexinfer_r2"]`, genes x models, NaN for genes not inferred.

    Raises
    ------
    KeyError
        There is no model, no split, or no prediction for a model.
    ValueError
        There are no test rows or no targets, the model has seen test rows, the predictions are not the present model's,
        or values are NaN or inf.

    Warns
    -----
    UserWarning
        The models infer different genes, or the one with the lowest MAE has a much lower R2 than another.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832.
    """
    check_in_memory(adata)
    check_unique(adata)
    models = records(adata, key)
    there = layer_names(adata)
    if key is None:
        models = {name: fitted for name, fitted in models.items() if name in there}
    lacking = [name for name in models if name not in there]
    if lacking or not models:
        raise KeyError(
            f"adata.layers has no predictions of {lacking or 'any model'}; run gexinfer.tl.predict(adata) first."
        )
    test = split_rows(adata, "test")
    if len(test) == 0:
        raise ValueError(f"adata.obs[{SPLIT!r}] marks no row as 'test'; run gexinfer.pp.split(adata) and fit again.")
    for name, fitted in models.items():
        check_truth(adata, fitted, name)
        refuse_seen(adata, test, fitted, name)
    scores = {name: score(adata, test, fitted, name) for name, fitted in models.items()}
    for name, fitted in models.items():
        refuse_stale(adata, test, fitted, name)
    if not any(fitted.method == "mean" for fitted in models.values()):
        floors = [score(adata, test, fitted, None) for fitted in models.values()]
        scores["mean"] = {m: pd.concat([f[m] for f in floors]).groupby(level=0).first() for m in METRICS}
    per_gene = {metric: pd.DataFrame({n: s[metric] for n, s in scores.items()}, adata.var_names) for metric in METRICS}
    table = overall(per_gene, models)
    table["n_samples"] = len(test)
    table["n_genes"] = per_gene["mae"].notna().sum()
    table["split_by"] = split_by(adata)
    warn_of_orders(table)
    for metric, frame in per_gene.items():
        adata.varm[gene_slot(metric)] = frame
    adata.uns[EVALUATION] = table
    return table.copy()


def check_truth(adata: AnnData, fitted: FittedModel, name: str) -> None:
    """Refuse an object without the measured targets."""
    layer = str(fitted.input["layer"])
    if layer != "X" and layer not in layer_names(adata):
        raise KeyError(
            f"adata.layers has no {layer!r}, the measured values that {name!r} was fitted on. Put them there "
            "to evaluate against them."
        )
    if (locate(fitted.targets, adata.var_names) < 0).all():
        raise ValueError(
            f"adata.var_names holds none of the {len(fitted.targets):,} targets of {name!r}, so there is no truth to "
            "compare with. Evaluate an object that holds whole transcriptomes."
        )


def warn_of_orders(table: pd.DataFrame) -> None:
    """Warn of what would make the order by MAE mislead."""
    if table["n_genes"].nunique() > 1:
        warn(
            f"The models infer different genes ({table['n_genes'].to_dict()}), so their MAEs do not compare. The gains "
            "and the shares of genes better are over the genes that both infer.",
        )
    best, follows = table.index[0], table["r2"].idxmax()
    r2 = table["r2"]
    if r2[best] < r2[follows] - 0.05:
        warn(
            f"{best!r} has the lowest MAE ({table['mae'][best]:.3f}) but a median R2 of {r2[best]:.3f}, and "
            f"{follows!r} has {r2[follows]:.3f}. If many values are zero, answers near the median lower the MAE "
            "without following the samples. Judge by both, and fit dgex with loss='mse'.",
        )


def refuse_seen(adata: AnnData, test: Indices, fitted: FittedModel, name: str) -> None:
    """Refuse to call an error honest that was measured on rows the model was fitted on."""
    seen = np.isin(row_digests(adata.obs_names[test]), fitted.training_rows).sum()
    if seen:
        raise ValueError(
            f"{seen:,} of the {len(test):,} rows that adata.obs[{SPLIT!r}] marks as 'test' were training or validation "
            f"rows of {name!r}: the split was changed after the fit. Run gexinfer.tl.fit and gexinfer.tl.predict again."
        )


def refuse_stale(adata: AnnData, test: Indices, fitted: FittedModel, name: str) -> None:
    """Refuse to score, under a model's name, what an earlier model of that name predicted."""
    landmarks, targets = locate(fitted.landmarks, adata.var_names), locate(fitted.targets, adata.var_names)
    if (landmarks < 0).any() or np.isin(landmarks, targets).any():
        return  # landmarks were dropped or overwritten since the prediction, so it cannot be made again
    spread = np.unique(np.linspace(0, len(test) - 1, min(len(test), STALE_ROWS)).astype(int))
    # Of a layer that is computed when it is read, rows of few chunks.
    spread = np.arange(len(spread)) if is_lazy(adata.layers[name]) else spread
    written = dense(adata.layers[name], test[spread])
    given = written[:, landmarks]
    if get_method(fitted.method).any_panel:
        # What a sample lacked was inferred in the layer.
        given[np.isnan(dense(matrix(adata, str(fitted.input["layer"])), test[spread], landmarks))] = np.nan
    away = np.abs(fitted.predict(given)[:, targets >= 0] - written[:, targets[targets >= 0]])
    # A hundredth of a standard deviation: far above what another device's rounding does.
    if not (away / fitted.target_scale.unit[targets >= 0]).mean(axis=1).max() < 0.01:
        raise ValueError(
            f"adata.layers[{name!r}] does not hold what adata.uns[{name!r}] predicts: the model was fitted again, or "
            f"the layer changed. Run gexinfer.tl.predict(adata, key={name!r}) first."
        )


def score(adata: AnnData, test: Indices, fitted: FittedModel, layer: str | None) -> dict[str, pd.Series]:
    """Return each metric per target gene, in one pass over blocks of test rows; no layer means the training mean."""
    columns = locate(fitted.targets, adata.var_names)
    # Genes may have been dropped since the prediction.
    there = columns >= 0
    columns, names = columns[there], adata.var_names[columns[there]]
    mean, unit = fitted.target_scale.mean[there], fitted.target_scale.unit[there]
    fitted_on = str(fitted.input["layer"])
    matrices = [in_row_order(matrix(adata, fitted_on)), *([adata.layers[layer]] if layer else [])]
    client = client_for(*matrices)
    if client is None:
        sums = error_sums(matrices, columns, mean, test)
    else:
        sums = total(client, matrices, test, error_sums, columns, mean)
    refuse_not_finite(sums["not_finite"].astype(int), names, len(test), where_from(fitted_on))
    refuse_not_finite(sums["not_inferred"].astype(int), names, len(test), where_from(layer))
    n, sums = len(test), {name: sums[name].to_numpy() for name in sums}
    spread_of_truth = sums["yy"] - sums["y"] ** 2 / n
    spread = np.sqrt(np.maximum(spread_of_truth * (sums["pp"] - sums["p"] ** 2 / n), 0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Undefined, not zero, where a gene or its prediction is constant over the test rows.
        pearson = np.where(spread > 1e-9 * n, (sums["yp"] - sums["y"] * sums["p"] / n) / spread, np.nan)
        r2 = np.where(spread_of_truth > 1e-9 * n, 1 - sums["squared"] / spread_of_truth, np.nan)
    mae_data = sums["error"] / n
    # A gene that was constant in training has no standard deviation to measure an error in.
    mae = np.where(fitted.target_scale.sd[there] > 0, mae_data / unit, np.nan)
    values = {"mae": mae, "mae_data": mae_data, "pearson": pearson, "r2": r2}
    return {metric: pd.Series(value, names) for metric, value in values.items()}


def error_sums(matrices: Sequence[Any], columns: Indices, mean: Wide, rows: Indices | None = None) -> pd.DataFrame:
    """Return sums over rows, genes x sums, of measured values, of inferred ones, and of what is between them.

    `matrices` are the measured values and the inferred ones; without the latter the mean stands for them.
    """
    rows = np.arange(matrices[0].shape[0]) if rows is None else rows
    sums = pd.DataFrame(0.0, index=range(len(columns)), columns=list(SUMS))
    for part in row_slices(len(rows)):
        # Relative to the training mean, so that squares of a gene at level 14 with sd 0.1 lose nothing.
        y = dense(matrices[0], rows[part], columns) - mean
        p = dense(matrices[1], rows[part], columns) - mean if len(matrices) > 1 else np.zeros_like(y)
        sums += pd.DataFrame({name: of(y, p).sum(axis=0) for name, of in SUMS.items()})
    return sums


def overall(per_gene: Mapping[str, pd.DataFrame], models: Mapping[str, FittedModel]) -> pd.DataFrame:
    """Return the table over genes, with each model against the linear baselines on the genes both infer."""
    mae = per_gene["mae"]
    table = pd.DataFrame(
        {
            "mae": mae.mean(),
            "mae_sd": mae.std(ddof=0),
            "mae_data": per_gene["mae_data"].mean(),
            "pearson": per_gene["pearson"].median(),
            "r2": per_gene["r2"].median(),
        }
    )
    for baseline in BASELINES:
        name = next((name for name, fitted in models.items() if fitted.method == baseline), None)
        if name is None:
            continue
        both = mae.notna() & mae[[name]].notna().to_numpy()
        reference = pd.DataFrame(dict.fromkeys(mae, mae[name]))
        table[f"gain_over_{baseline}"] = 1 - mae[both].mean() / reference[both].mean()
        table[f"better_than_{baseline}"] = ((mae < reference) & both).sum() / both.sum()
    return table.sort_values("mae")
