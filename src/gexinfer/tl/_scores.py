"""Every measure of every model: of each gene, of each sample, and of groups of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import locate
from gexinfer._slots import MEAN, METRICS, NEAREST, group_codes, matrix
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Indices, Rows, Scale, Wide, in_row_order
from gexinfer.engine.cluster import client_for, total
from gexinfer.engine.moments import moments
from gexinfer.tl._tables import over_genes

if TYPE_CHECKING:
    from gexinfer.engine.errors import Source, Sums

# Sums of each group are kept for each gene and model, of as many models at a time as have so many values: 256 MB.
MOST_GROUPS = 200
SUMMED_VALUES = 2**25
NOBODY = np.empty(0, np.intp)


@dataclass(frozen=True)
class Part:
    """Genes that are scored together: measured in one layer, standardised by one fit, inferred by some models.

    `landmarks` and the fields that begin with `landmark` are the landmarks nearest to these genes; `nearest` is the
    place among them. `inferred` are matrices by the model's name, with the places of rows and columns in them.
    """

    layer: str
    columns: Indices
    scale: Scale
    landmarks: Indices
    landmark_scale: Scale
    nearest: Indices
    weight: Wide
    inferred: Mapping[str, tuple[Any, Indices, Indices]]

    def only(self, there: Indices) -> Part:
        """Return some of the genes, without models."""
        return replace(
            self,
            columns=self.columns[there],
            scale=Scale(self.scale.mean[there], self.scale.sd[there]),
            nearest=self.nearest[there],
            weight=self.weight[there],
            inferred={},
        )

    def __add__(self, other: Part) -> Part:
        def both(a: Scale, b: Scale) -> Scale:
            return Scale(np.append(a.mean, b.mean), np.append(a.sd, b.sd))

        return Part(
            self.layer,
            np.append(self.columns, other.columns),
            both(self.scale, other.scale),
            np.append(self.landmarks, other.landmarks),
            both(self.landmark_scale, other.landmark_scale),
            np.append(self.nearest, other.nearest + len(self.landmarks)),
            np.append(self.weight, other.weight),
            {},
        )


@dataclass(frozen=True)
class Scores:
    """Each metric as genes x models and as test rows x models, a table of groups, and what pairs are compared by.

    `errors` are sums of a model's absolute errors over each batch, in standard deviations, (batches, genes of `var`).
    """

    genes: Mapping[str, pd.DataFrame]
    samples: Mapping[str, pd.DataFrame]
    groups: pd.DataFrame
    errors: Mapping[str, Wide]


@dataclass(frozen=True)
class Classes:
    """The test rows in batches, and in one class or, where groups were asked for, in the groups of each column."""

    batch: Indices
    n_batches: int
    codes: Indices
    names: list[tuple[str, str]]

    @cached_property
    def n_first(self) -> int:
        """How many classes the first column has, or the one of all rows."""
        return sum(column == self.names[0][0] for column, _ in self.names) if self.names else 1

    @cached_property
    def members(self) -> list[Indices | slice]:
        """The rows of each group, and all rows."""
        groups = [np.flatnonzero((self.codes == c).any(axis=1)) for c in range(len(self.names))]
        return [*groups, slice(None)]

    @cached_property
    def sizes(self) -> Indices:
        """How many rows each group has, and all."""
        groups = np.bincount(self.codes.reshape(-1), minlength=len(self.names))
        return np.append(groups[: len(self.names)], len(self.batch)).astype(np.intp)


def classes_of(adata: AnnData, test: Indices, batch: tuple[Indices, int], groupby: Sequence[str]) -> Classes:
    """Return the classes of the test rows."""
    codes: list[Indices] = []
    names: list[tuple[str, str]] = []
    for column in groupby:
        number, groups = group_codes(adata.obs.iloc[test] if column in adata.obs else adata.obs, column)
        if len(groups) > MOST_GROUPS:
            raise ValueError(
                f"adata.obs[{column!r}] has {len(groups):,} groups among {len(test):,} test samples, and groupby= "
                f"takes {MOST_GROUPS}. Leave it out: obsm['gexinfer_sample_mae'] and the like are of each sample."
            )
        codes.append(number + len(names))
        names += [(column, str(group)) for group in groups]
    return Classes(*batch, np.stack(codes or [np.zeros(len(test), np.intp)], axis=1), names)


def parts_of(
    adata: AnnData, test: Indices, models: Mapping[str, FittedModel], layers: Mapping[str, Any], n_classes: int
) -> list[Part]:
    """Return the models in parts of one reference each: those of one part are scored in one pass over the rows.

    Where there are many groups and models, a reference has several parts. A model's layer holds all rows and genes of
    `adata`; an array has the test rows and the model's targets alone.
    """
    parts: dict[tuple[object, ...], Part] = {}
    turns = Counter[tuple[object, ...]]()
    for name, fitted in models.items():
        scale, known = fitted.target_scale, fitted.known
        arrays = (scale.mean, scale.sd, known["nearest"], known["nearest_weight"])
        reference = (fitted.input["layer"], fitted.targets, fitted.landmarks, *(a.tobytes() for a in arrays))
        there = np.flatnonzero(locate(fitted.targets, adata.var_names) >= 0)
        turn = turns[reference] // max(SUMMED_VALUES // (n_classes * 4 * max(len(there), 1)), 1)
        turns[reference] += 1
        part = parts.get((*reference, turn))
        if part is None:
            part = part_of(adata, fitted).only(there)
        whole = layers[name].shape == adata.shape
        places = (test, part.columns) if whole else (np.arange(len(test)), there)
        parts[*reference, turn] = replace(part, inferred={**part.inferred, name: (layers[name], *places)})
    return list(parts.values())


def part_of(adata: AnnData, fitted: FittedModel) -> Part:
    """Return all targets of a model, also those that `adata` lacks, and the landmarks nearest to them that it has."""
    wanted, nearest = np.unique(fitted.known["nearest"], return_inverse=True)
    places, scale = locate([fitted.landmarks[i] for i in wanted], adata.var_names), fitted.landmark_scale
    # One that was dropped since predicts nothing.
    weight = np.where(places[nearest] >= 0, fitted.known["nearest_weight"], 0.0)
    return Part(
        str(fitted.input["layer"]),
        locate(fitted.targets, adata.var_names),
        fitted.target_scale,
        np.maximum(places, 0),
        Scale(scale.mean[wanted], scale.sd[wanted]),
        nearest,
        weight,
        {},
    )


def with_baselines(parts: list[Part]) -> tuple[list[Part], int]:
    """Return the parts, and which of them has every gene that is inferred: it is where the baselines are scored."""
    if len(parts) == 1:
        return parts, 0
    # Of other layers baselines are left out: there is one truth for each gene.
    of_layer = [part for part in parts if part.layer == parts[0].layer]
    every = of_layer[0].only(np.arange(len(of_layer[0].columns)))
    for part in of_layer[1:]:
        every += part.only(np.flatnonzero(~np.isin(part.columns, every.columns)))
    return [*parts, every], len(parts)


def scores(
    adata: AnnData,
    test: Indices,
    models: Mapping[str, FittedModel],
    layers: Mapping[str, Any],
    classes: Classes,
    *,
    spearman: bool,
) -> Scores:
    """Return every measure of the models and of the baselines on the test rows."""
    metrics = [metric for metric in METRICS if spearman or metric != "spearman"]
    parts, with_all = with_baselines(parts_of(adata, test, models, layers, max(len(classes.names), 1)))
    fitted_mean = any(fitted.method == "mean" for fitted in models.values())
    genes: dict[str, dict[str, Wide]] = {metric: {} for metric in metrics}
    samples: dict[str, dict[str, Wide]] = {metric: {} for metric in metrics}
    errors, groups = {}, []
    for p, part in enumerate(parts):
        sums, ranks = sums_and_ranks(adata, test, part, classes, spearman=spearman)
        baselines = [None if fitted_mean else MEAN, NEAREST] if p == with_all else [None, None]
        for i, name in enumerate([*baselines, *part.inferred]):
            if name is None:
                continue
            varies = part.scale.sd > 0
            for metric, values in of_samples(sums, i, varies.sum(), len(varies)).items():
                if metric in metrics:
                    samples[metric][name] = values
            per_class = of_genes(sums, i, classes, part.scale, ranks[i])
            for metric in metrics:
                genes[metric][name] = np.full(adata.n_vars, np.nan)
                genes[metric][name][part.columns] = per_class[metric][-1]
            errors[name] = np.full((classes.n_batches, adata.n_vars), np.nan)
            errors[name][:, part.columns] = np.where(varies, sums.errors[i] / part.scale.unit, np.nan)
            groups += [
                {"model": name, "column": column, "group": group, "n_samples": int(classes.sizes[c])}
                | over_genes({metric: per_class[metric][c] for metric in metrics})
                for c, (column, group) in enumerate(classes.names)
            ]
        del sums, ranks  # before there are those of the next part
    order = list(models) + [name for name in (MEAN, NEAREST) if name in errors and name not in models]
    return Scores(
        {metric: pd.DataFrame(genes[metric], adata.var_names)[order] for metric in metrics},
        {metric: pd.DataFrame(samples[metric], adata.obs_names[test])[order] for metric in metrics},
        pd.DataFrame(sorted(groups, key=lambda row: order.index(str(row["model"])))),
        {name: errors[name] for name in order},
    )


def sums_and_ranks(adata: AnnData, test: Indices, part: Part, classes: Classes, *, spearman: bool) -> tuple[Sums, Wide]:
    """Return the sums over the test rows, and the rank correlations of each gene in each class and over all rows."""
    # numba takes longer to import than the rest of the package.
    from gexinfer.engine.errors import BASELINES, Genes, Source, gene_ranks, part_sums, sums_of

    measured = in_row_order(matrix(adata, part.layer))
    landmarks = part.landmark_scale
    known = Genes(
        # As float32, like predictions: that of the mean must not differ from it.
        part.scale.mean.astype(np.float32).astype(float),
        part.scale.factor,
        landmarks.mean,
        landmarks.factor,
        part.nearest,
        part.weight,
    )
    sources = [Source(measured, test, np.append(part.columns, part.landmarks))]
    sources += [Source(*inferred) for inferred in part.inferred.values()]
    counts = (classes.n_batches, max(len(classes.names), 1))
    client = client_for(*(source.matrix for source in sources))
    if client is None:
        sums = sums_of(sources[0], sources[1:], known, classes.batch, classes.codes, counts, spearman)
    else:
        rows = np.zeros((adata.n_obs, 1 + classes.codes.shape[1]), np.intp)
        rows[test, 0], rows[test, 1:] = classes.batch, classes.codes
        matrices = [*(source.matrix for source in sources), rows]
        sums = total(client, matrices, test, part_sums, [s.columns for s in sources], known, counts, spearman)
    check_finite(adata, sources, sums, part)
    if spearman:
        return sums, gene_ranks(sources[0], sources[1:], known, classes.members)
    return sums, np.broadcast_to(np.nan, (BASELINES + len(part.inferred), len(classes.sizes), len(known)))


def check_finite(adata: AnnData, sources: Sequence[Source], sums: Sums, part: Part) -> None:
    """Refuse values that are not finite, the measured ones first, and say in which genes."""
    from gexinfer.engine.errors import BASELINES

    names = adata.var_names[part.columns]
    # What the mean predicts is finite, so its errors are where the measured values are.
    for i, source, where in zip(
        (0, *range(BASELINES, len(sums.errors))), sources, (part.layer, *part.inferred), strict=True
    ):
        if not np.isfinite(sums.errors[i]).all():
            rows = Rows(source.matrix, source.rows, NOBODY, source.columns[: len(names)])
            found = moments(rows.blocks()).not_finite, names, len(source.rows), where_from(where)
            if i == 0:
                refuse_not_finite(*found)
            # Filled in, they would be no prediction.
            again = f"Run gexinfer.tl.predict(adata, key={where!r}) again, without trusted_only=."
            refuse_not_finite(*found, remedy=again)


def of_genes(sums: Sums, i: int, classes: Classes, scale: Scale, ranks: Wide) -> dict[str, Wide]:
    """Return each measure of one prediction, (groups, genes), the last group being that of all rows."""
    from gexinfer.engine.errors import measures

    def in_units(of_class: Wide) -> Wide:
        """Return the sums of each group and of all rows, (sums, groups, genes), in standard deviations."""
        # Each row is in one class of the first column.
        every = of_class[: classes.n_first].sum(axis=0, keepdims=True)
        both = np.concatenate([of_class, every]) if classes.names else every
        return both.transpose(1, 0, 2) / scale.unit ** np.array([1, 1, 2, 2])[:, None, None]

    n = classes.sizes[:, None]
    size, e, ee, ey = in_units(sums.classes[i])
    # With the mean as prediction e is -y.
    _, minus_y, yy, _ = in_units(sums.classes[0])
    found = dict(measures(n, size, e, ee, ey, -minus_y, yy))
    found["mae_data"] = found["mae"] * scale.unit
    for metric in ("mae", "rmse"):
        # A gene that was constant in training has no standard deviation to measure an error in.
        found[metric] = np.where(scale.sd > 0, found[metric], np.nan)
    return {**found, "spearman": ranks}


def of_samples(sums: Sums, i: int, n: int, n_data: int) -> dict[str, Wide]:
    """Return each measure of one prediction of each row, over n genes; in data units, over all of them."""
    from gexinfer.engine.errors import measures

    data, size, e, ee, ey, rho = sums.samples[i].T
    # With the mean as prediction e is -y.
    _, _, minus_y, yy, _, _ = sums.samples[0].T
    return {**measures(n, size, e, ee, ey, -minus_y, yy), "mae_data": data / n_data, "spearman": rho}
