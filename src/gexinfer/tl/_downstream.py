from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import listed, locate
from gexinfer._slots import DOWNSTREAM, check_in_memory, check_unique, matrix, split_by
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Float, Indices, dense, in_row_order
from gexinfer.engine.report import say
from gexinfer.tl._agreement import (
    Contrast,
    Fold,
    Groups,
    called,
    classification,
    deltas,
    divisions,
    expression,
    nearest,
    shared_neighbors,
    tested,
    versus_rest,
)
from gexinfer.tl._models import all_predicted
from gexinfer.tl._test_rows import check_truth, refuse_seen, refuse_stale, test_rows

# What the column `values` says of rows that are about no model; `mean` is the prediction that nothing changes.
LANDMARKS, MEASURED, MEAN = "landmarks", "measured", "mean"
ANALYSES = ("classification", "neighbors", "expression", "deltas")


def downstream(
    adata: AnnData,
    groupby: str,
    *,
    key: str | Iterable[str] | None = None,
    control: str | None = None,
    within: str | None = None,
    min_samples: int = 5,
    rng: int | np.random.Generator = 0,
) -> pd.DataFrame:
    """Compare what is found in inferred values with what is found in measured ones, on the test rows alone.

    Run it after `gexinfer.tl.predict(adata)`: `gexinfer.tl.downstream(adata, "tissue")`. With `control` each group is
    compared with the controls of its cohort: `gexinfer.tl.downstream(adata, "condition", control="normal",
    within="cohort")`. Do that wherever there are controls: most of what differs between samples of several tissues
    or cohorts is the tissue or the cohort, which every method gets right.

    Parameters
    ----------
    adata
        Whole transcriptomes with models in `uns` and their predictions in `layers`.
    groupby
        Column of `obs` with the groups to tell apart. Samples without a group take part in `neighbors` alone.
    key
        Name of the model, or several; all that have a layer where it is not given. They must have the same genes.
    control
        The group of untreated or normal samples.
    within
        Column of `obs` with the cohorts in which groups and controls are compared. Where it is not given all samples
        are one cohort.
    min_samples
        Groups with fewer test samples are left out; with `control`, also those with fewer in a cohort, there.
    rng
        Seed or generator: how samples are divided in the classification.

    Returns
    -------
    A table with the columns `analysis`, `measure`, `values`, `group`, `value`, `sd` and `n`. `values` says what was
    analysed: the measured landmarks alone (`"landmarks"`), these with all measured targets (`"measured"`), or these
    with a model's inferred targets (the model's key). `group` is `"all"` for what sums up all groups.

    `classification`
        `balanced_accuracy`, and `recall` of each group: linear discriminant analysis, shrunken, on 50 principal
        components of standardised genes, 5 times in 5 folds (once of more than 1,000 samples, fewer folds of groups
        with fewer). Every step is learned inside the folds. Where the split was made by donor or cohort, none of these
        is divided. `sd` is over the 5 times, not what other samples would change; `n` counts samples.
    `neighbors`
        `shared`: of a sample's 15 nearest test samples by measured values (at most a tenth of all), the share that is
        found; in 50 principal components of genes that are not scaled. `sd` is over samples, `n` counts them.
    `expression`
        Targets that differ between a group and all others, or with `control` the controls of its cohort, by the t test
        of scanpy's `rank_genes_groups`. `called`: the share of targets called at a false discovery rate of 5 %.
        `sensitivity`: of those called in measured values, the share that is called in inferred ones with the same
        sign. `false_discovery`: of those called in inferred values, the share that is not called so in measured ones.
        `top_overlap`: of the 100 targets with the largest scores (at most a twentieth of all), the share that is found.
    `deltas`
        The mean of a group minus that of all others, or of the controls of its cohort, over targets: `pearson` and
        `spearman` of inferred with measured; `slope`, which part of the measured change is inferred (1 is all of it);
        `relative_error`, the mean absolute error over that of predicting no change (below 1 is better than that).
        `gene_pearson`: the median target's r over samples, each minus the mean that its group is compared with; its
        `sd` is over targets, its `n` counts samples. The mean predictor, `"mean"`, is always there: it infers no
        change.

    In the last two, a row of `"all"` is the mean of those groups where the measure is defined, with their `sd`, and
    `n` counts them; a row of a group counts its samples. `value` is NaN where nothing can be said, such as a
    correlation with what does not vary. Writes `uns["gexinfer_downstream"]`, this table.

    Raises
    ------
    KeyError
        There is no model, no split, no prediction for a model, or no such column of `obs`.
    ValueError
        Fewer than two groups are large enough, no test sample is a control, the models' genes differ, there are no test
        rows, a model has seen test rows, the predictions are not the present model's, or values are NaN or inf.

    References
    ----------
    Wolf, Angerer, Theis, Genome Biology 2018, doi 10.1186/s13059-017-1382-0 :cite:p:`wolf2018` (scanpy).

    Examples
    --------
    >>> table = gx.tl.downstream(ref, "tissue")
    >>> table.query("measure == 'relative_error' and group == 'all'")[["values", "value", "n"]].round(2)
       values  value  n
    34  ridge   0.63  3
    51   mean   1.00  3
    """
    check_in_memory(adata)
    check_unique(adata)
    if min_samples < 2:
        raise ValueError(f"min_samples={min_samples!r} must be at least 2: one sample has no spread to test against.")
    if within is not None and control is None:
        raise ValueError(f"within={within!r} needs control=, the group of adata.obs[{groupby!r}] to compare with.")
    models = comparable(adata, key)
    test = test_rows(adata)
    for name, fitted in models.items():
        check_truth(adata, fitted, name)
        refuse_seen(adata, test, fitted, name)
        refuse_stale(adata, test, fitted, name)
    obs = adata.obs.iloc[test]
    groups = Groups.of(obs, groupby)
    large = groups.only(groups.sizes >= min_samples)
    if len(large.names) < 2:
        raise ValueError(
            f"{len(large.names)} of {len(groups.names):,} groups of adata.obs[{groupby!r}] have at least "
            f"min_samples={min_samples} of the {len(test):,} test samples, and two are needed. Choose another "
            "groupby=, lower min_samples=, or make the test side larger: gexinfer.pp.split(adata, fractions=...)."
        )
    cohorts = Groups.of(obs, within) if within else Groups(np.zeros(len(test), np.intp), [""])
    contrasts = versus_rest(large) if control is None else against(control, groups, groupby, cohorts, min_samples)
    fitted = next(iter(models.values()))
    places = [locate(genes, adata.var_names) for genes in (fitted.landmarks, fitted.targets)]
    columns = np.union1d(*places)
    columns = columns[columns >= 0]  # genes may have been dropped since the prediction
    landmark, target = (np.isin(columns, of_kind) for of_kind in places)
    if not landmark.any():
        raise ValueError("adata.var_names holds none of the landmarks, which inferred values are compared with.")
    measured = values_of(adata, str(fitted.input["layer"]), test, columns)

    told(f"with fewer than {min_samples} test samples are left out", groupby, groups, large)
    if not contrasts:
        say(
            f"downstream: no changes to compare, because no {within or 'test side'} has {min_samples} test samples of "
            f"{control!r} and of another group"
        )
    classified, folds = folds_of(adata, test, groupby, large, np.random.default_rng(rng))
    neighbors, measured_targets = nearest(measured), measured[:, target]
    calls = [tested(measured_targets, contrast) for contrast in contrasts]
    rows = classification(LANDMARKS, measured[:, landmark], classified, folds)
    rows += classification(MEASURED, measured, classified, folds)
    rows += shared_neighbors(LANDMARKS, neighbors, nearest(measured[:, landmark]))
    rows += called(MEASURED, calls, contrasts) if contrasts else []
    for name in models:
        inferred = values_of(adata, name, test, columns)
        rows += classification(name, inferred, classified, folds)
        rows += shared_neighbors(name, neighbors, nearest(inferred))
        if contrasts:
            inferred_targets = inferred[:, target]
            guesses = [tested(inferred_targets, contrast) for contrast in contrasts]
            rows += expression(name, calls, guesses, contrasts)
            rows += deltas(name, measured_targets, inferred_targets, contrasts)
    if contrasts and MEAN not in models:
        rows += deltas(MEAN, measured_targets, np.zeros_like(measured_targets), contrasts)
    order = {analysis: i for i, analysis in enumerate(ANALYSES)}
    table = pd.DataFrame(rows).sort_values(
        "analysis", key=lambda names: names.map(order), kind="stable", ignore_index=True
    )
    adata.uns[DOWNSTREAM] = table
    return table.copy()


def comparable(adata: AnnData, key: str | Iterable[str] | None) -> dict[str, FittedModel]:
    """Return the models that are asked for, or those that have a layer, having refused those of different genes."""
    models = all_predicted(adata, key)
    if taken := {LANDMARKS, MEASURED} & set(models):
        raise ValueError(
            f"A model named {listed(sorted(taken))} could not be told from measured values in the table. Fit it again "
            "under another name, with key_added=, or leave it out with key=."
        )
    first, *others = models
    for name in others:
        a, b = models[first], models[name]
        if (
            set(a.landmarks) != set(b.landmarks)
            or set(a.targets) != set(b.targets)
            or a.input["layer"] != b.input["layer"]
        ):
            raise ValueError(
                f"{first!r} and {name!r} have different landmarks, targets or layers, so that their rows would not "
                f"compare. Name models of the same genes with key=, e.g. key={first!r}."
            )
    return models


def against(control: str, groups: Groups, groupby: str, cohorts: Groups, min_samples: int) -> list[Contrast]:
    """Return each group against the controls of its cohort, where there are enough of both."""
    if str(control) not in groups.names:
        raise ValueError(
            f"No test sample has control={control!r} in adata.obs[{groupby!r}]; it has {listed(groups.names, 20)}."
        )
    found = []
    for cohort, cohort_name in enumerate(cohorts.names):
        of_group = {
            name: np.flatnonzero((groups.codes == code) & (cohorts.codes == cohort))
            for code, name in enumerate(groups.names)
        }
        reference = of_group.pop(str(control))
        found += [
            Contrast(f"{name}, {cohort_name}" if cohort_name else name, treated, reference)
            for name, treated in of_group.items()
            if min(len(treated), len(reference)) >= min_samples
        ]
    return found


def folds_of(
    adata: AnnData, test: Indices, groupby: str, groups: Groups, rng: np.random.Generator
) -> tuple[Groups, list[list[Fold]]]:
    """Return the groups that can be classified, and folds that do not divide what the split kept together."""
    by, blocks = split_by(adata), None
    if by not in ("random", "by hand"):
        by = by.removeprefix("by ")
        if by not in adata.obs:
            raise KeyError(
                f"adata.obs has no column {by!r}, by which the split was made. Put it back, so that none of its groups "
                "is divided between what a classifier learns from and what it is judged by."
            )
        blocks = Groups.of(adata.obs.iloc[test], by)
    if blocks is not None:
        several = [len(np.unique(blocks.codes[groups.codes == code])) > 1 for code in range(len(groups.names))]
        able = groups.only(np.array(several))
        told(f"that lie in one {by} are not classified, because the split was made by {by}", groupby, groups, able)
        groups = able
    folds = divisions(groups, blocks, rng) if len(groups.names) > 1 else []
    if not folds:
        say(f"downstream: no classification, because no two groups of obs[{groupby!r}] can be divided into folds")
    return groups, folds


def told(what: str, groupby: str, before: Groups, after: Groups) -> None:
    """Tell which groups are not used further, if there are any."""
    gone = [name for name in before.names if name not in after.names]
    if gone:
        say(f"downstream: {len(gone):,} of {len(before.names):,} groups of obs[{groupby!r}] {what}: {listed(gone)}")


def values_of(adata: AnnData, layer: str, test: Indices, columns: Indices) -> Float:
    """Return the test rows of a layer, all finite."""
    values = dense(in_row_order(matrix(adata, layer)), test, columns).astype(np.float32, copy=False)
    refuse_not_finite((~np.isfinite(values)).sum(axis=0), adata.var_names[columns], len(test), where_from(layer))
    return values
