from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._record import records
from gexinfer._slots import (
    EVALUATION,
    GROUPS,
    METRICS,
    PAIRS,
    check_in_memory,
    check_unique,
    gene_slot,
    group_codes,
    sample_slot,
    split_by,
    split_column,
)
from gexinfer.engine.blocks import Indices
from gexinfer.engine.report import warn
from gexinfer.engine.resampling import batches
from gexinfer.tl._cross_validate import cross_validate
from gexinfer.tl._models import all_predicted
from gexinfer.tl._scores import Scores, classes_of, scores
from gexinfer.tl._tables import add_intervals, overall, pairs, resamples
from gexinfer.tl._test_rows import check_truth, refuse_seen, refuse_stale, test_rows


def evaluate(
    adata: AnnData,
    *,
    key: str | Iterable[str] | None = None,
    groupby: str | Sequence[str] | None = None,
    spearman: bool = True,
    cv: int | str | None = None,
    rng: int | np.random.Generator = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how far inferred values are from measured ones, on the test rows alone.

    Run it after `gexinfer.tl.predict(adata)`. The truth is read from the layer that the model was fitted on. Two
    baselines are always in the table, so that a number can be judged: `mean`, the training mean of each gene, and
    `nearest`, the landmark with the largest absolute correlation with the gene over training rows (2,000 of them at
    most), times that correlation, in standard deviations.

    Rows are read in blocks, and once, all models of one reference together (with many groups, as many models as there
    is room for the sums of). On a `dask.distributed` client sums over
    the rows of dask arrays are taken on its workers.

    Parameters
    ----------
    adata
        Whole transcriptomes with models in `uns` and their predictions in `layers`.
    key
        Name of the model, or several; all that have a layer where it is not given, with `cv` all.
    groupby
        Column of `obs`, or several, for whose groups of test samples a table is made; a column may have 200 groups.
    spearman
        Measure rank correlations, too. They are most of the work: ranks of genes need whole columns, which are read a
        second time, as many at a time as fit in 256 MB.
    cv
        Repeat fit and evaluation over folds: a number of them, drawn at random, by whole groups where the present split
        is by groups; or a column of `obs` whose groups are left out whole, in 5 folds, or in as many as there are
        groups if these are fewer. Layers are neither needed nor written.
    rng
        Seed or generator: which samples are drawn for intervals, and with `cv` the folds and the fits.
    device
        With `cv`, where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch
        device.
    progress
        With `cv`, show a bar, or a line where there is no screen.

    Returns
    -------
    The overall table, one row a model, ordered by MAE:

    `mae`, `mae_sd`
        Mean absolute error of a gene in standard deviations of the training rows, averaged over genes, and the
        standard deviation over genes, as in the D-GEX paper.
    `mae_low`, `mae_high`
        The ends of a 95 % bootstrap interval of `mae` over test samples, over whole groups where the split was by
        groups; NaN where there are fewer than 5 of them. `n_clusters` says how many there are.
    `mae_data`
        The mean absolute error in the units of the data.
    `rmse`
        Root mean squared error of a gene in standard deviations, averaged over genes.
    `pearson`, `spearman`, `r2`, `ccc`
        Median over genes of Pearson's r, Spearman's rho, R2 and Lin's concordance correlation over test samples; 1 is
        perfect. The test mean has an R2 of 0.
    `gain_over_ols`, `gain_over_ridge`
        Relative fall of the MAE against `ols` and `ridge` where they were fitted; positive is better.
    `better_than_ols`, `better_than_ridge`
        Share of genes with a lower error.
    `n_samples`, `n_genes`, `split_by`
        Test rows, genes with an `mae`, and how the split was made: "random", "by" a column of `obs`, or "by hand".

    With `cv` the table has the means over folds of these; and of `mae` its standard deviation over folds
    (`mae_fold_sd`), `mae_min` and `mae_max`, and `best`, the share of folds in which the model had the lowest. Writes
    `uns["gexinfer_evaluation_folds"]`, one row a fold and model, and nothing else.

    Without `cv` these slots are written:

    `uns["gexinfer_evaluation"]`
        The table.
    `uns["gexinfer_evaluation_pairs"]`
        For each two models, `first` the one with the lower MAE: `n_genes`, those that both infer; `better`, the share
        of them that `first` infers better; `significantly_better` and `significantly_worse`, the shares at a false
        discovery rate of 5 %; `difference`, of the MAEs, and `gain`, its relative fall, with the ends of their 95 %
        intervals.
    `uns["gexinfer_evaluation_groups"]`
        With `groupby`: `model`, `column`, `group`, `n_samples`, and each metric over the group's samples, averaged
        over genes as in the table.
    `varm["gexinfer_mae"]`
        Genes x models, NaN for genes not inferred; the same for `mae_data`, `rmse`, `pearson`, `spearman`, `r2` and
        `ccc`. What is undefined is NaN: a correlation of a constant prediction, or over fewer than 3 samples.
    `obsm["gexinfer_sample_mae"]`
        Samples x models, NaN for rows that are not test rows, for the same metrics. They are over a sample's inferred
        genes, all but `mae_data` on deviations from the training mean in standard deviations: on the values themselves
        every method follows a sample, because genes differ in their means.

    Raises
    ------
    KeyError
        There is no model, no split, no prediction for a model, or no such column of `obs`.
    ValueError
        There are no test rows or no targets, the model has seen test rows, the predictions are not the present model's,
        values are NaN or inf, or a column has too many groups; with `cv`, there are too few groups or samples, or a
        model cannot be fitted again from `adata` alone.

    Warns
    -----
    UserWarning
        The models infer different genes or were fitted on different layers, the one with the lowest MAE has a much
        lower R2 than another, or the column by which the split was made is gone.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> table = gx.tl.evaluate(ref, groupby="tissue")
    >>> table[["mae", "pearson", "r2", "gain_over_ridge"]].round(2)
              mae  pearson    r2  gain_over_ridge
    ridge    0.59     0.65  0.27             0.00
    nearest  0.72     0.52 -0.04            -0.22
    mean     0.82      NaN -0.16            -0.37
    >>> ref.varm["gexinfer_mae"].loc["LDLR"].round(2).to_dict()
    {'ridge': 0.97, 'mean': 1.1, 'nearest': 1.08}
    """
    check_in_memory(adata)
    check_unique(adata)
    models = all_predicted(adata, key) if cv is None else records(adata, key)
    columns = [groupby] if isinstance(groupby, str) else list(dict.fromkeys(groupby or []))
    if cv is not None:
        if columns:
            raise ValueError(f"groupby={groupby!r} is for one split; with cv= leave it out.")
        for name, fitted in models.items():
            check_truth(adata, fitted, name)
        table = cross_validate(adata, models, cv, spearman=spearman, rng=rng, device=device, progress=progress)
        warn_of_orders(table, models)
        return table
    test = test_rows(adata)
    for name, fitted in models.items():
        check_truth(adata, fitted, name)
        refuse_seen(adata, test, fitted, name)
    rng = np.random.default_rng(rng)
    clusters = clusters_of(adata, test)
    classes = classes_of(adata, test, batches(clusters, rng), columns)
    layers = {name: adata.layers[name] for name in models}
    found = scores(adata, test, models, layers, classes, spearman=spearman)
    for name, fitted in models.items():
        refuse_stale(adata, test, fitted, name)
    table = overall(found.genes, models)
    sizes = np.bincount(classes.batch, minlength=classes.n_batches)
    drawn = resamples(sizes, rng)
    add_intervals(table, found.errors, sizes, drawn)
    table["n_clusters"] = int(clusters.max()) + 1
    table["n_samples"] = len(test)
    table["split_by"] = split_by(adata)
    warn_of_orders(table, models)
    write(adata, test, found, table, pairs(table.index, found.errors, sizes, drawn))
    return table.copy()


def write(adata: AnnData, test: Indices, found: Scores, table: pd.DataFrame, compared: pd.DataFrame) -> None:
    """Write all slots of an evaluation; those of an earlier one that this one does not have are gone."""
    adata.uns[EVALUATION], adata.uns[PAIRS] = table, compared
    adata.uns.pop(GROUPS, None)
    if len(found.groups):
        adata.uns[GROUPS] = found.groups
    for metric in METRICS:
        of_genes, of_samples = gene_slot(metric), sample_slot(metric)
        if metric in found.genes:
            adata.varm[of_genes] = found.genes[metric]
            values = np.full((adata.n_obs, found.samples[metric].shape[1]), np.nan, np.float32)
            values[test] = found.samples[metric]
            adata.obsm[of_samples] = pd.DataFrame(values, adata.obs_names, found.samples[metric].columns)
        else:
            for there, slot in ((adata.varm, of_genes), (adata.obsm, of_samples)):
                there.pop(slot, None)


def clusters_of(adata: AnnData, test: Indices) -> Indices:
    """Return the number of each test row's group where the split was made by groups, else of each row its own."""
    column = split_column(adata)
    if column is not None and column not in adata.obs:
        warn(
            f"adata.obs has no column {column!r}, by which the split was made. Intervals and tests take the samples "
            "for independent, and look surer than they are; put the column back.",
        )
        column = None
    return np.arange(len(test)) if column is None else group_codes(adata.obs.iloc[test], column)[0]


def warn_of_orders(table: pd.DataFrame, models: Mapping[str, FittedModel]) -> None:
    """Warn of what would make the order by MAE mislead."""
    layers = {name: str(fitted.input["layer"]) for name, fitted in models.items()}
    if len(set(layers.values())) > 1:
        warn(
            f"The models were fitted on different layers ({layers}), and each is judged on its own, so their errors "
            f"do not compare. The baselines are those of {next(iter(layers.values()))!r}; pass key= for one layer.",
        )
    if table["n_genes"].nunique() > 1:
        warn(
            f"The models infer different genes ({table['n_genes'].to_dict()}), so their MAEs do not compare. The gains "
            "and the shares of genes better are over the genes that both infer.",
        )
    r2 = table["r2"].dropna()
    if len(r2) == 0:
        return  # of fewer than 3 samples, or of constant genes alone
    best, follows = table.index[0], r2.idxmax()
    if r2.get(best, np.nan) < r2[follows] - 0.05:
        warn(
            f"{best!r} has the lowest MAE ({table['mae'][best]:.3f}) but a median R2 of {r2[best]:.3f}, and "
            f"{follows!r} has {r2[follows]:.3f}. If many values are zero, answers near the median lower the MAE "
            "without following the samples. Judge by both, and fit dgex with loss='mse'.",
        )
