"""Rows of another AnnData, whose genes are found by name: those to validate on, and those without targets."""

from __future__ import annotations

from typing import Any

import pandas as pd
from anndata import AnnData

from gexinfer._names import lacking, listed, locate
from gexinfer._slots import layer_names, matrix
from gexinfer._values import where_from
from gexinfer.engine.blocks import Indices, in_row_order


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
