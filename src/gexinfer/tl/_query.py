"""The landmarks of a query as a model wants them, and what it infers from them, block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._fitted import PREDICT_ROWS, FittedModel
from gexinfer._names import lacking, listed, locate, without_version
from gexinfer._slots import layer_names, matrix
from gexinfer._values import refuse_not_finite, sample, scale_mismatch, where_from
from gexinfer.engine.blocks import Float, Indices, chunk_rows, dense, in_row_order, row_slices, windows
from gexinfer.engine.cluster import is_lazy
from gexinfer.engine.report import say, warn
from gexinfer.methods import get_method
from gexinfer.pp._match_genes import look_up
from gexinfer.tl._adapt import Adapt, as_they_are, other_platform, to_moments, to_ranks
from gexinfer.tl._intervals import Interval, at_targets

EVERY = slice(None)


class Inferred(NamedTuple):
    """A block of an answer: (rows, genes) values, (rows, landmarks) landmarks, and which of them a row lacked.

    Missing landmarks are filled in by their conditional mean; NaN with a method that does without.
    """

    values: Float
    missing: NDArray[np.bool_]
    landmarks: NDArray[np.floating]


@dataclass(frozen=True)
class Query:
    """What turns blocks of a query's landmarks into blocks of an answer: data alone, so that it travels to others."""

    fitted: FittedModel
    name: str
    where: str
    # Where the model's landmarks stand in the query, -1 for those that it lacks.
    columns: Indices
    adapt: Adapt
    max_missing: float
    device: str
    # The row of the whole query at which the matrix starts that is passed, for messages.
    first: int = 0
    interval: Interval | None = None
    # The targets that are written, all where it is not given.
    kept: NDArray[np.bool_] | None = None

    @property
    def there(self) -> NDArray[np.bool_]:
        return self.columns >= 0

    @property
    def any_panel(self) -> bool:
        return get_method(self.fitted.method).any_panel

    def places(self, names: pd.Index) -> Indices:
        """Return where the targets that are written stand among the names, -1 for the others."""
        places = locate(self.fitted.targets, names)
        return places if self.kept is None else np.where(self.kept, places, -1)

    def blocks(self, source: Any, rows: slice = EVERY) -> Iterator[NDArray[np.floating]]:
        """Yield (rows, landmarks), brought to the training rows' scale, NaN for what is missing."""
        for window in windows(source, rows):
            values = dense(source, window, self.columns[self.there])
            for part in row_slices(len(values), PREDICT_ROWS):
                block = np.full((part.stop - part.start, len(self.columns)), np.nan, np.float32)
                block[:, self.there] = values[part]
                self.check(block, self.first + window.start + part.start)
                yield self.adapt(block)

    def check(self, block: Float, first: int) -> None:
        """Refuse inf, and rows that lack too many landmarks."""
        infinite = np.isinf(block).sum(axis=0)
        refuse_not_finite(infinite, pd.Index(self.fitted.landmarks), len(block), self.where, what="inf")
        share = np.isnan(block).mean(axis=1)
        worst = int(share.argmax())
        if share[worst] == 1:
            raise ValueError(
                f"{self.where} holds none of the {block.shape[1]:,} landmarks of {self.name!r} in "
                f"{(share == 1).sum():,} samples, e.g. at row {first + worst:,}: all are NaN. Drop those samples."
            )
        if share[worst] > (1 if self.any_panel else self.max_missing):
            raise ValueError(
                f"{self.where} lacks more than {self.max_missing:.0%} of the {block.shape[1]:,} landmarks of "
                f"{self.name!r} in some samples: that at row {first + worst:,} lacks {share[worst]:.0%}. What would be "
                "inferred rests on little: drop such samples, or allow it with a larger max_missing=."
            )

    def infer(self, source: Any, names: pd.Index, rows: slice = EVERY) -> Iterator[Inferred]:
        """Yield the answer in data units: landmarks measured or filled in, targets inferred, other genes NaN."""
        landmarks, targets = locate(self.fitted.landmarks, names), self.places(names)
        shown, wanted = landmarks >= 0, targets >= 0
        to_landmarks, to_targets = run_of(landmarks[shown]), run_of(targets[wanted])
        others = np.setdiff1d(np.arange(len(names)), np.concatenate([landmarks[shown], targets[wanted]]))
        given: deque[NDArray[np.floating]] = deque()

        def blocks() -> Iterator[NDArray[np.floating]]:
            for block in self.blocks(source, rows):
                given.append(block)
                yield block

        for filled, inferred in self.fitted.predict_blocks(blocks(), device=self.device):
            block = given.popleft()
            missing = np.isnan(block)
            whole = np.where(missing, filled, block) if missing.any() else block
            values = np.empty((len(block), len(names)), np.float32)
            values[:, others] = np.nan
            values[:, to_landmarks] = whole if shown.all() else whole[:, shown]
            values[:, to_targets] = inferred if wanted.all() else inferred[:, wanted]
            yield Inferred(values, missing, block if self.any_panel else whole)

    def novelty(self, block: Inferred) -> Float:
        """Return (rows,) how unlike the training rows they are."""
        return self.fitted.novelty(block.landmarks, block.missing)

    def spreads(self, source: Any) -> Iterator[Float | None]:
        """Yield how far the members of an ensemble are apart, block by block, where the interval follows from it."""
        if self.interval is None or self.interval.usual is None:
            return repeat(None)
        return self.fitted.standardised_std_blocks(self.blocks(source), device=self.device)

    def std(self, source: Any, names: pd.Index) -> Iterator[Float]:
        """Yield (rows, genes) standard deviations of inferred targets, NaN for other genes."""
        targets = self.places(names)
        for block in self.fitted.std_blocks(self.blocks(source), device=self.device):
            yield at_targets(block, targets, len(names))


def run_of(places: Indices) -> Indices | slice:
    """Return places that follow each other as a slice, to which values are copied much faster."""
    if len(places) and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def query_of(
    adata: AnnData,
    fitted: FittedModel,
    name: str,
    layer: str | None,
    *,
    adapt: str = "none",
    max_missing: float = 1.0,
    device: str = "auto",
) -> tuple[Query, Any]:
    """Return the query and its matrix, having refused or warned of what no model could answer."""
    read = layer_of(adata, fitted, layer)
    where, source = where_from(read), lazily(in_row_order(matrix(adata, read)))
    if np.isnan(source.shape[0]):
        raise ValueError(f"{where} is a dask array of unknown length; run {where}.compute_chunk_sizes() first.")
    columns = landmark_columns(adata, fitted, name, max_missing)
    query = Query(fitted, name, where, columns, as_they_are, max_missing, device)
    if read != fitted.input["layer"]:
        say(f"predict: {name} was fitted on {where_from(fitted.input['layer'])} and reads {where}")
    if adata.n_obs:
        query = adapted(query, source, adapt)
    return query, source


def lazily(source: Any) -> Any:
    """Return a zarr array as a dask array: nobody who has one wants all of it in memory."""
    if not type(source).__module__.startswith("zarr."):
        return source
    import dask.array as da

    return da.from_array(source, chunks=source.shards or source.chunks)


def adapted(query: Query, source: Any, adapt: str) -> Query:
    """Return the query with its landmarks brought to the training rows' scale as asked; warn if they are not on it."""
    fitted, there = query.fitted, query.there
    # Of what is not there yet only the first chunk is looked at: a few rows of each would read all of it.
    rows = np.arange(min(chunk_rows(source), source.shape[0]) if is_lazy(source) else source.shape[0])
    if adapt == "none":
        values = sample(source, rows, query.columns[there])
        every, genes = np.arange(len(values)), np.arange(values.shape[1])
        mismatch = scale_mismatch(fitted.input, fitted.landmark_scale.mean[there], values, every, genes)
        other = other_platform(fitted, values, np.flatnonzero(there))
        if mismatch:
            other = f" If it is in these units, {other}" if other else ""
            mismatch += f"Bring {query.where} to the units of the fit, or name another layer=."
        if mismatch or other:
            warn(f"{query.name}: {mismatch or ''}{other or ''}".rstrip())
        return query
    bring = to_ranks(fitted) if adapt == "quantile" else to_moments(query, source)
    return replace(query, adapt=bring)


def layer_of(adata: AnnData, fitted: FittedModel, layer: str | None) -> str:
    """Return the layer to read: the one asked for, else that of the fit, else X."""
    if layer is not None:
        return layer
    fitted_on = str(fitted.input["layer"])
    return fitted_on if fitted_on in layer_names(adata) else "X"


def landmark_columns(adata: AnnData, fitted: FittedModel, name: str, max_missing: float) -> Indices:
    """Return where the model's landmarks stand in `adata`, refusing a query that lacks more than is allowed."""
    absent, n = lacking(fitted.landmarks, adata.var_names), len(fitted.landmarks)
    if not absent:
        return locate(fitted.landmarks, adata.var_names)
    told = f"adata.var_names lacks {len(absent):,} of the {n:,} landmarks of {name!r}: {listed(absent)}"
    known = under_other_names(absent, adata.var_names)
    remedy = "run gexinfer.pp.match_genes on the reference, before the fit, and on the query"
    if len(absent) > (1.0 if get_method(fitted.method).any_panel else max_missing) * n or len(absent) == n:
        instead = (
            f" Or allow it with max_missing={np.ceil(100 * len(absent) / n) / 100:g}, or take a model of "
            "method='sample_lasso', for which a query may lack any."
        )
        raise ValueError(
            f"{told}. var_names starts with {listed(adata.var_names, 3)}. "
            + (
                f"{len(known):,} are there under other names ({listed(known)}): "
                if known
                else "If they are there under another kind of id, "
            )
            + f"{remedy}; else fit a model on the landmarks you have.{'' if len(absent) == n else instead}"
        )
    if known:
        warn(f"{told}. {len(known):,} of them are there under other names, {listed(known)}: {remedy}.")
    else:
        say(f"predict: {told}; they are inferred, too")
    return locate(fitted.landmarks, adata.var_names)


def under_other_names(absent: list[str], names: pd.Index) -> list[str]:
    """Return which genes stand among the names under another one, as "AARS as AARS1"."""
    stems, there = without_version(pd.Index(absent)), without_version(names)
    wanted, found = look_up(stems)["gene"], look_up(there)["gene"]
    other = {gene: name for gene, name in zip(found, names, strict=True) if gene >= 0}
    return [f"{name} as {other[gene]}" for name, gene in zip(absent, wanted, strict=True) if gene in other]
