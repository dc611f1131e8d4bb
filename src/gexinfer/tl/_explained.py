"""What the functions share that say what a model goes by: samples to look at, their landmarks, what was explained."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import listed, locate
from gexinfer._slots import EXPLAINED, SPLIT, gene_slot, named_places, split_rows
from gexinfer._values import refuse_not_finite
from gexinfer.engine.blocks import Indices, Wide, dense
from gexinfer.tl._query import query_of


def rows_to_look_at(
    adata: AnnData, n: int, rng: int | np.random.Generator, what: str = "n_samples"
) -> tuple[Indices, str]:
    """Return at most so many rows drawn at random, in order, and of what: test rows where there are some, else all."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"{what}={n!r} must be a whole number of at least 1.")
    if adata.n_obs == 0:
        raise ValueError("adata holds no sample to look at.")
    test = split_rows(adata, "test") if SPLIT in adata.obs else np.empty(0, np.intp)
    rows, of = (test, "test rows") if len(test) else (np.arange(adata.n_obs), "all rows")
    if len(rows) > n:
        rows = np.sort(np.random.default_rng(rng).choice(rows, n, replace=False))
    return rows, of


def landmarks_of(
    adata: AnnData, fitted: FittedModel, name: str, rows: Indices, *, layer: str | None, device: str
) -> Wide:
    """Return the landmarks of some rows, (rows, landmarks) in units of the data, with missing ones filled in."""
    query, source = query_of(adata, fitted, name, layer, device=device)
    values = np.full((len(rows), len(query.columns)), np.nan)
    values[:, query.there] = dense(source, rows, query.columns[query.there])
    refuse_not_finite(np.isinf(values).sum(axis=0), pd.Index(fitted.landmarks), len(rows), query.where, what="inf")
    nothing = np.flatnonzero(np.isnan(values).all(axis=1))
    if len(nothing):
        raise ValueError(
            f"{query.where} holds none of the {len(fitted.landmarks):,} landmarks of {name!r} in {len(nothing):,} "
            f"samples: {listed(adata.obs_names[rows[nothing]])}. Drop those samples."
        )
    lacking = np.isnan(values)
    if lacking.any():
        (full,) = fitted.whole([fitted.landmark_scale.standardise(values)], deque())
        values[lacking] = fitted.landmark_scale.restore(full)[lacking]
    return values


def fingerprint(adata: AnnData, name: str) -> str:
    """Return a digest of a record, to know whether it is the one that was explained."""
    return hashlib.blake2b(np.ascontiguousarray(adata.uns[name]["state"]).data, digest_size=8).hexdigest()


def explained(adata: AnnData, key: str | None) -> tuple[str, Mapping[str, Any], pd.DataFrame]:
    """Return a model's name, what `explain` says of it, and its influence, genes explained x landmarks."""
    entries = adata.uns.get(EXPLAINED, {})
    call = f"run gexinfer.tl.explain(adata{'' if key is None else f', key={key!r}'}) first."
    if not entries:
        raise KeyError(f"adata.uns has no {EXPLAINED!r}; {call}")
    if key is None and len(entries) > 1:
        raise ValueError(f"adata.uns[{EXPLAINED!r}] holds several models, {listed(list(entries), 20)}; name one: key=.")
    name = next(iter(entries)) if key is None else key
    slot = gene_slot(f"influence_{name}")
    if name not in entries or slot not in adata.varm:
        raise KeyError(
            f"adata.uns[{EXPLAINED!r}] holds {listed(list(entries), 20)}, and adata.varm no {slot!r} beside it; {call}"
        )
    if name in adata.uns and fingerprint(adata, name) != entries[name]["model"]:
        raise ValueError(
            f"adata.uns[{name!r}] was fitted again after it was explained; run "
            f"gexinfer.tl.explain(adata, key={name!r}) again."
        )
    genes = entries[name]["genes"].index
    places = locate(list(genes), adata.var_names)
    genes, places = genes[places >= 0], places[places >= 0]
    return (
        name,
        entries[name],
        pd.DataFrame(np.asarray(adata.varm[slot])[places], genes, entries[name]["landmarks"].index),
    )


def chosen(genes: str | Sequence[str] | None, adata: AnnData, there: pd.Index, name: str) -> pd.Index:
    """Return which of the genes explained are asked for: those of a bool column of `var`, or names; all for None."""
    if len(there) == 0:
        raise ValueError(
            f"adata.var_names holds none of the genes that were explained for {name!r}. Take the object that "
            "gexinfer.tl.explain was run on."
        )
    if genes is None:
        return there
    asked = adata.var_names[named_places(adata, genes, "genes")]
    absent = asked.difference(there, sort=False)
    if len(absent):
        raise ValueError(
            f"genes= names {len(absent):,} genes that were not explained for {name!r}: {listed(absent)}. Run "
            f"gexinfer.tl.explain(adata, key={name!r}) for all its targets, or with these among genes=."
        )
    if len(asked) == 0:
        raise ValueError("genes= selects no gene; leave it out for all that were explained.")
    return asked
