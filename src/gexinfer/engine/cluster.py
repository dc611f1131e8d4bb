"""Rows of dask arrays on a `dask.distributed` cluster: each part where it lies, the results added up as a tree."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np

from gexinfer.engine.blocks import Indices, windows

T = TypeVar("T")

# So many results are added up at a time.
BRANCHES = 4
# A part has at least so many rows, so that small chunks do not drown in messages.
FEWEST_ROWS = 1024


def is_lazy(source: Any) -> bool:
    """Whether a matrix is a dask array: not there yet."""
    return hasattr(source, "__dask_graph__")


def client_for(*sources: Any) -> Any:
    """Return the client of the cluster on which these matrices are computed, None where they are read here.

    A caller who has no client has not imported `distributed`, and so does not wait for it either.
    """
    if "distributed" not in sys.modules or not all(is_lazy(source) for source in sources):
        return None
    from distributed import default_client

    try:
        return default_client()
    except ValueError:
        return None


def total(
    client: Any,
    sources: Sequence[Any],
    rows: Indices,
    function: Callable[..., T],
    *constants: Any,
) -> T:
    """Return the sum of `function(parts, *constants)` over all rows, the parts being the same rows of each source.

    `rows` must ascend. What `function` returns must add up.
    """
    from dask.delayed import delayed

    work, among = delayed(function, pure=False), delayed(add_up, pure=False)
    held = [delayed(constant) for constant in constants]
    results = [work([source[part] for source in sources], *held) for part in parts(sources[0], rows)]
    while len(results) > 1:
        results = [among(results[i : i + BRANCHES]) for i in range(0, len(results), BRANCHES)]
    return client.compute(results[0]).result()


def add_up(results: Sequence[T]) -> T:
    return reduce(add, results)


def parts(source: Any, rows: Indices) -> list[Indices]:
    """Cut rows where chunks end, into parts of a chunk, or of several small ones."""
    ends = [window.stop for window in windows(source, slice(None), FEWEST_ROWS)]
    return [part for part in np.split(rows, np.searchsorted(rows, ends)) if len(part)] or [rows]
