"""Answers to queries that are dask arrays: nothing is computed until somebody asks for values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from gexinfer._fitted import PREDICT_ROWS
from gexinfer.engine.blocks import Float
from gexinfer.tl._answers import Answer
from gexinfer.tl._intervals import at_targets, bound_names
from gexinfer.tl._query import Query

# A block of an answer takes about so much memory, and as many of them as there are threads.
BLOCK_VALUES = 2**25


def lazy_answer(query: Query, source: Any, names: pd.Index, *, std: bool) -> Answer:
    """Return dask layers: a block of rows is read, and its answer computed, when it is asked for."""
    rows = rows_per_block(len(names))
    # Models want whole rows. The blocks of very long chunks would not fit in memory; short ones are padded.
    rechunked = source.rechunk({1: -1})
    long, number = max(rechunked.chunks[0], default=0), max(len(rechunked.chunks[0]), 1)
    if long > rows or source.shape[0] / number < min(PREDICT_ROWS, source.shape[0]):
        rechunked = rechunked.rechunk({0: rows if long > rows else PREDICT_ROWS})
    layers = {query.name: lazy_layer(rechunked, query, names, inferred)}
    if std:
        layers[f"{query.name}_std"] = lazy_layer(rechunked, query, names, deviations)
    if query.interval is not None:
        # Of the values' own blocks, which dask computes once where both are asked for.
        values, half = layers[query.name], lazy_layer(rechunked, query, names, half_widths)
        layers |= dict(zip(bound_names(query.name), (values - half, values + half), strict=True))
    return Answer(query, layers, ~query.there, None)


def rows_per_block(genes: int) -> int:
    """Return how many rows of an answer fit in a block, whole blocks of the model's."""
    return max(BLOCK_VALUES // max(genes, 1) // PREDICT_ROWS, 1) * PREDICT_ROWS


def lazy_layer(source: Any, query: Query, names: pd.Index, function: Callable[..., Iterator[Float]]) -> Any:
    from dask.delayed import delayed

    # The model travels once, and not with each block.
    return source.map_blocks(
        stacked,
        function,
        delayed(query, pure=False),
        names,
        dtype=np.float32,
        chunks=(source.chunks[0], (len(names),)),
        meta=np.empty((0, 0), np.float32),
    )


def stacked(
    part: Any,
    function: Callable[..., Iterator[Float]],
    query: Query,
    names: pd.Index,
    block_info: Any = None,
) -> Float:
    """Return the answer to some rows; dask says which."""
    first = block_info[0]["array-location"][0][0] if block_info else 0
    blocks = [*function(replace(query, first=first), part, names)]
    return np.concatenate(blocks or [np.empty((0, len(names)), np.float32)])


def inferred(query: Query, part: Any, names: pd.Index) -> Iterator[Float]:
    for block in query.infer(part, names):
        yield block.values


def deviations(query: Query, part: Any, names: pd.Index) -> Iterator[Float]:
    return query.std(part, names)


def half_widths(query: Query, part: Any, names: pd.Index) -> Iterator[Float]:
    if query.interval is None:
        return
    places = query.places(names)
    for block, spread in zip(query.blocks(part), query.spreads(part), strict=False):
        yield at_targets(query.interval.of(query.fitted.novelty(block), spread), places, len(names))
