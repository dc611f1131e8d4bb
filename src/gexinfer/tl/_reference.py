"""What methods learn from: the rows of each side, their moments, what kind of values they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import SPLIT, check_unique, landmark_places, matrix, split_rows, target_places
from gexinfer._values import profile, refuse_not_finite, scale_mismatch, where_from
from gexinfer.engine.blocks import Rows, evenly, in_row_order
from gexinfer.engine.cluster import client_for, total
from gexinfer.engine.moments import Moments, moments, part_moments
from gexinfer.engine.report import warn
from gexinfer.methods import Method
from gexinfer.tl._other_object import validation_rows

FEWEST_ROWS = 10
# So many training rows are enough to find the landmark nearest to each target.
NEAREST_ROWS = 2000
REMEDY = "run gexinfer.pp.split(adata, fractions=(.8, .1, .1))."


@dataclass(frozen=True)
class Sides:
    """The rows to learn from and to choose by, which may be those of another object; what that is called."""

    train: Rows
    validation: Rows
    validation_names: pd.Index
    validation_in: str


@dataclass(frozen=True)
class Reference:
    """What a method learns from, and what is known of it: rows, their moments in data units, the kind of values.

    `nearest` are the landmark nearest to each target and their correlation, under the names that a record has for them.
    """

    layer: str | None
    sides: Sides
    moments: Moments
    values: Mapping[str, Any]
    nearest: Mapping[str, np.ndarray]


def check_validation(method: Method, config: Any, sides: Sides) -> None:
    """Refuse a method that has to choose its settings and has no rows to do so."""
    if len(sides.validation) == 0 and method.selects(config):
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks no row as 'validation', on which method={method.name!r} chooses its settings: "
            f"{REMEDY}"
        )


def resolve_rows(
    adata: AnnData,
    layer: str | None,
    targets: str | Sequence[str] | None,
    allow_overlap: bool,
    other: AnnData | None = None,
) -> Sides:
    """Return the training and the validation rows of landmarks and targets, or say what is wrong with them."""
    check_unique(adata)
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(
            f"adata.obs_names holds {len(twice):,} names more than once: {listed(twice)}. Test rows are told from "
            "training rows by name: run adata.obs_names_make_unique() first."
        )
    landmarks = landmark_places(adata)
    wanted = target_places(adata, targets, landmarks, allow_overlap)
    train, validation = split_rows(adata, "train"), split_rows(adata, "validation")
    if len(train) < FEWEST_ROWS:
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks {len(train)} rows as 'train'; at least {FEWEST_ROWS} are needed: {REMEDY}"
        )
    rows = Rows(in_row_order(matrix(adata, layer)), train, landmarks, wanted)
    if other is None:
        return Sides(rows, replace(rows, rows=validation), adata.obs_names[validation], "adata")
    return Sides(rows, validation_rows(other, adata, layer, rows), other.obs_names, "another object")


def look(adata: AnnData, layer: str | None, sides: Sides, *, products: bool) -> Reference:
    """Return the rows with their moments and kind of values, having refused or warned of what spoils a fit."""
    train, validation = sides.train, sides.validation
    names = adata.var_names[np.concatenate([train.landmarks, train.targets])]
    sums = sums_over(train, cross=products)
    not_finite, looked_at = sums.not_finite, len(train)
    if len(validation):
        every = np.concatenate([validation.landmarks, validation.targets])
        # No products: only whether values are finite.
        columns = replace(validation, landmarks=np.empty(0, np.intp), targets=every)
        found = sums_over(columns, cross=False).not_finite
        if validation.source is train.source:
            not_finite, looked_at = not_finite + found, looked_at + len(validation)
        else:
            refuse_not_finite(found, names, len(validation), "validation=")
    refuse_not_finite(not_finite, names, looked_at, where_from(layer))
    scale = sums.scale
    values = profile(train.source, train.rows, train.landmarks)
    if sides.validation_in != "adata":
        mean = scale.mean[: len(train.landmarks)]
        mismatch = scale_mismatch(values, mean, validation.source, validation.rows, validation.landmarks)
        if mismatch:
            warn(f"validation: {mismatch}Bring it to the units of adata, e.g. with gexinfer.pp.quantile_normalize.")
    if values["counts"]:
        warn(
            f"{where_from(layer)} looks like raw counts (95 % of the landmarks' values are up to "
            f"{values['quantiles'][-1]:g}). Errors will be those of the few highest genes: normalise and take logs "
            "first, e.g. sc.pp.normalize_total(adata, target_sum=1e6); sc.pp.log1p(adata, base=2).",
        )
    if ((np.abs(scale.mean) < 0.2) & (np.abs(scale.sd - 1) < 0.2)).mean() > 0.9:
        warn(
            f"{where_from(layer)} looks standardised gene by gene. Fit on log values as they are: a model standardises "
            "them itself, and a single new sample cannot be brought to this scale.",
        )
    constant = names[scale.sd == 0]
    if len(constant):
        warn(
            f"{len(constant):,} genes are constant in the {len(train):,} training rows: {listed(constant)}. As "
            "landmarks they say nothing; as targets they are predicted as their mean.",
        )
    return Reference(layer, sides, sums, values, nearest_landmarks(train, sums))


def nearest_landmarks(train: Rows, sums: Moments) -> dict[str, np.ndarray]:
    """Return the landmark with the largest absolute correlation with each target, and that correlation.

    Of evenly spaced rows, whatever the method sums up itself, so that all models of a reference agree.
    """
    picks = evenly(len(train), NEAREST_ROWS)
    if len(picks) < len(train) or not sums.xy.size:
        sums = sums_over(replace(train, rows=train.rows[picks]), cross=True)
    p = len(sums.xx)
    length = np.sqrt(sums.squares)
    length[length == 0] = np.inf
    r = sums.xy / length[:p, None] / length[p:]
    nearest = np.abs(r).argmax(axis=0)
    return {
        "nearest": nearest.astype(np.int32),
        "nearest_weight": r[nearest, np.arange(len(nearest))].astype(np.float32),
    }


def sums_over(rows: Rows, *, cross: bool) -> Moments:
    """Return the moments of rows, on the cluster where the caller has one."""
    client = client_for(rows.source)
    if client is None:
        return moments(rows.blocks(), len(rows.landmarks), len(rows), cross=cross)
    return total(client, [rows.source], rows.rows, part_moments, rows.landmarks, rows.targets, len(rows), cross)
