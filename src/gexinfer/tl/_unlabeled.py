"""Samples of which only the landmarks are known, that take part in a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import SPLIT, layer_names, matrix, split_rows
from gexinfer._values import refuse_not_finite, scale_mismatch, where_from
from gexinfer.engine.blocks import Indices, Pairs, Rows, Scale, in_row_order
from gexinfer.engine.moments import moments
from gexinfer.engine.report import warn
from gexinfer.methods import METHODS, Method, get_method
from gexinfer.tl._other_object import places_in, source_of
from gexinfer.tl._reference import Reference


@dataclass(frozen=True)
class Unlabeled:
    """Landmarks of samples without targets, what they are called in a message, and the names of these landmarks."""

    rows: Rows
    where: str
    landmarks: pd.Index

    def pairs(self, reference: Reference) -> Pairs:
        """Return them standardised as the training rows are, having looked at their values."""
        sums = moments(self.rows.blocks(), 0, len(self.rows))
        refuse_not_finite(sums.not_finite, self.landmarks, len(self.rows), self.where)
        n, scale = len(self.landmarks), reference.moments.scale
        landmarks = Scale(scale.mean[:n], scale.sd[:n])
        columns = self.rows.landmarks
        mismatch = scale_mismatch(reference.values, landmarks.mean, self.rows.source, self.rows.rows, columns)
        if mismatch:
            warn(f"unlabeled: {mismatch}Bring {self.where} to the units of the fit.")
        return Pairs(self.rows, landmarks)


def unlabeled_samples(unlabeled: Any, adata: AnnData, layer: str | None, places: Indices, method: Method) -> Unlabeled:
    """Return the samples that `unlabeled` stands for; the landmarks stand at `places` of `adata`."""
    if not method.takes_unlabeled:
        having = [name for name in METHODS if get_method(name).takes_unlabeled]
        raise ValueError(
            f"unlabeled= is for method={listed(having)}, which learns from landmarks alone, too; "
            f"method={method.name!r} does not. Name it with method=."
        )
    names = adata.var_names[places]
    if isinstance(unlabeled, AnnData):
        source, where = source_of(unlabeled, "unlabeled", layer)
        rows, places = np.arange(unlabeled.n_obs), places_in(unlabeled, "unlabeled", names, "landmarks")
    elif isinstance(unlabeled, str):
        layer, rows = rows_of(unlabeled, adata, layer)
        source, where = in_row_order(matrix(adata, layer)), where_from(layer)
    else:
        raise TypeError(
            f"unlabeled is a {type(unlabeled).__name__}; pass an AnnData, or the name of a layer or of a bool column "
            "of obs of adata."
        )
    if len(rows) == 0:
        raise ValueError("unlabeled= holds no sample; leave it out.")
    return Unlabeled(Rows(source, rows, places, np.empty(0, np.intp)), where, names)


def rows_of(name: str, adata: AnnData, layer: str | None) -> tuple[str | None, Indices]:
    """Return the layer and the rows that a name stands for: a layer, or a bool column of `obs`."""
    is_layer, is_column = name in layer_names(adata), name in adata.obs
    if is_layer and is_column:
        raise ValueError(f"unlabeled={name!r} names a layer and a column of obs; rename one of them.")
    if is_layer:
        held_out = np.concatenate([split_rows(adata, "validation"), split_rows(adata, "test")])
        return name, np.setdiff1d(np.arange(adata.n_obs), held_out)
    if not is_column:
        raise KeyError(
            f"unlabeled={name!r} is neither a layer of adata, which has {layer_names(adata)}, nor a column of "
            f"adata.obs, which has {listed(list(adata.obs.columns), 20)}. A file must be read first: "
            "unlabeled=anndata.read_h5ad(path)."
        )
    marks = adata.obs[name]
    if marks.isna().any() or not pd.api.types.is_bool_dtype(marks):
        raise TypeError(f"adata.obs[{name!r}] has dtype {marks.dtype}; it must be bool, True for unlabeled samples.")
    rows = np.flatnonzero(marks)
    both = adata.obs[SPLIT].iloc[rows].notna()
    if both.any():
        raise ValueError(
            f"adata.obs[{name!r}] marks {both.sum():,} samples that adata.obs[{SPLIT!r}] puts on a side, e.g. "
            f"{listed(list(adata.obs_names[rows][both]), 3)}. A sample without targets belongs to none: set "
            f"adata.obs.loc[adata.obs[{name!r}], {SPLIT!r}] = None, or split the others alone: "
            f"whole = adata[~adata.obs[{name!r}]].copy(); gexinfer.pp.split(whole); "
            f"adata.obs[{SPLIT!r}] = whole.obs[{SPLIT!r}]."
        )
    return layer, rows
