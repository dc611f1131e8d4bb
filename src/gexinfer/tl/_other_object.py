"""Rows of another AnnData, whose genes are found by name: those to validate on, and those without targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import lacking, listed, locate
from gexinfer._slots import layer_names, matrix, split_rows
from gexinfer._values import where_from
from gexinfer.engine.blocks import Indices, Rows, in_row_order


def source_of(other: AnnData, argument: str, layer: str | None) -> tuple[Any, str]:
    """Return the layer of that name, else X, and what it is called in a message."""
    layer = layer if layer in layer_names(other) else None
    return in_row_order(matrix(other, layer)), where_from(layer).replace("adata", argument)


def places_in(other: AnnData, argument: str, genes: pd.Index, what: str) -> Indices:
    """Return where genes of `adata` stand in another object, or say which it lacks."""
    if not other.var_names.is_unique:
        twice = other.var_names[other.var_names.duplicated()].unique()
        raise ValueError(
            f"{argument}.var_names holds {len(twice):,} names more than once: {listed(twice)}. Sum or drop the "
            "duplicates first."
        )
    absent = lacking(list(genes), other.var_names)
    if absent:
        remedy = {
            "landmarks": "Flag as landmarks in adata what both measure",
            "targets": "Name the targets that both measure, targets=",
        }
        raise ValueError(
            f"{argument}.var_names lacks {len(absent):,} of the {len(genes):,} {what}: {listed(absent, 20)}. var_names "
            f"starts with {listed(other.var_names, 3)}. {remedy[what]}, or set var_names to the same kind of id, e.g. "
            "with gexinfer.pp.match_genes."
        )
    return locate(list(genes), other.var_names)


def validation_rows(other: AnnData, adata: AnnData, layer: str | None, train: Rows) -> Rows:
    """Return all rows of another object, with the genes of the training rows."""
    if not isinstance(other, AnnData):
        raise TypeError(f"validation is a {type(other).__name__}; pass an AnnData with whole transcriptomes.")
    if other.n_obs == 0:
        raise ValueError("validation= holds no sample; leave it out.")
    for side in ("train", "test"):
        shared = adata.obs_names[split_rows(adata, side)].intersection(other.obs_names)
        if len(shared):
            raise ValueError(
                f"validation.obs_names shares {len(shared):,} names with the rows of adata that are marked {side!r}: "
                f"{listed(shared)}. What is learned from, or judged by, cannot choose. Drop those samples; if they are "
                "others of the same name, run other.obs_names = 'other-' + other.obs_names."
            )
    source, _ = source_of(other, "validation", layer)
    landmarks = places_in(other, "validation", adata.var_names[train.landmarks], "landmarks")
    targets = places_in(other, "validation", adata.var_names[train.targets], "targets")
    return Rows(source, np.arange(other.n_obs), landmarks, targets)
