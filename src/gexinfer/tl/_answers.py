"""What models answer to a query, and where it goes: slots of an object, or a MuData."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray

from gexinfer._names import locate
from gexinfer._record import is_record
from gexinfer._slots import (
    MISSING,
    NOVELTY,
    PERCENTILE,
    PREDICTED,
    RECALL,
    ROLE,
    ROLES,
    TRUSTED,
    layer_names,
    predicted_layers,
)
from gexinfer.engine.blocks import Float
from gexinfer.engine.report import Advance, say
from gexinfer.methods import get_method
from gexinfer.tl._held_out import percentile
from gexinfer.tl._intervals import BOUNDS, at_targets, bound_names, drop_bounds, write_intervals
from gexinfer.tl._query import Query
from gexinfer.tl._trusted import is_trusted, recall_of

# What is known of samples once their values are computed.
OF_SAMPLES = (MISSING, NOVELTY, PERCENTILE)
# Above this percentile a sample is unlike those that a model was validated on.
FAR = 99


@dataclass(frozen=True)
class Answer:
    """What a model infers for a query: layers by name, and what was missing.

    `lacked` says which landmarks some sample lacked, `missing` which share of them each sample lacked, and `novelty`
    how unlike the training rows it is. Layers may be dask arrays, of which nothing is computed yet; then nobody knows
    the shares nor the novelty.
    """

    query: Query
    layers: Mapping[str, Any]
    lacked: NDArray[np.bool_]
    missing: Float | None
    novelty: Float | None = None

    @property
    def lazy(self) -> bool:
        return self.missing is None

    def of_samples(self) -> Iterator[tuple[str, Float]]:
        """Yield the columns of `obs`, of dask arrays none."""
        if self.missing is not None:
            yield MISSING, self.missing
        if self.novelty is not None:
            yield NOVELTY, self.novelty
            yield PERCENTILE, percentile(self.novelty, self.query.fitted.known.get("novelty"))


def whole_answer(query: Query, source: Any, names: pd.Index, *, std: bool, advance: Advance) -> Answer:
    """Return what a model infers for all samples."""
    n = source.shape[0]
    values, share, novelty = np.empty((n, len(names)), np.float32), np.zeros(n, np.float32), np.zeros(n, np.float32)
    bounds = [np.empty_like(values) for _ in BOUNDS if query.interval is not None]
    lacked, places, single, start = ~query.there, query.places(names), 0, 0
    for block, spread in zip(query.infer(source, names), query.spreads(source), strict=False):
        rows = slice(start, start + len(block.values))
        values[rows], share[rows], novelty[rows] = block.values, block.missing.mean(axis=1), query.novelty(block)
        if query.interval is not None:
            half = at_targets(query.interval.of(novelty[rows], spread), places, len(names))
            bounds[0][rows], bounds[1][rows] = block.values - half, block.values + half
        lacked |= block.missing.any(axis=0)
        single += int((block.missing[:, query.there]).any(axis=1).sum())
        start = rows.stop
        advance(len(block.values), query.name)
    if single:
        say(f"predict: {query.name} also infers single landmarks that {single:,} of {n:,} samples lack")
    layers = {query.name: values}
    if std:
        layers[f"{query.name}_std"] = np.concatenate([*query.std(source, names)] or [values])
    layers |= dict(zip(bound_names(query.name), bounds, strict=False))
    return Answer(query, layers, lacked, share, novelty)


def write_answers(adata: AnnData, answers: Mapping[str, Answer]) -> None:
    """Write `layers`, what is known of samples and genes, and which layers are predictions."""
    layers = {name: layer for answer in answers.values() for name, layer in answer.layers.items()}
    drop_bounds(adata, answers)
    stale = {name for name in predicted_layers(adata) if not is_record(adata.uns.get(name))}
    for name, answer in answers.items():
        # Of an earlier prediction, too.
        if get_method(answer.query.fitted.method).std and f"{name}_std" in stale:
            del adata.layers[f"{name}_std"]
    for name, layer in layers.items():
        adata.layers[name] = layer
    others = predicted_layers(adata) - set(layers)
    adata.var[ROLE] = roles(adata, answers, before=bool(others))
    adata.uns[PREDICTED] = np.array(sorted(predicted_layers(adata) | set(layers)), dtype=object)
    write_intervals(adata, {n: a.query.interval for n, a in answers.items() if a.query.interval is not None})
    write_trust(adata, answers)
    told = [dict(answer.of_samples()) for answer in answers.values()]
    for column in OF_SAMPLES:
        if all(column in columns for columns in told):
            # Layers of other models stay, and what is known of samples by them: the largest is shown.
            before = [adata.obs[column].to_numpy(np.float32)] if others and column in adata.obs else []
            adata.obs[column] = np.fmax.reduce([*(columns[column] for columns in told), *before])
        elif column in adata.obs:
            # Of another prediction: what is not computed yet is not known.
            del adata.obs[column]


def write_trust(adata: AnnData, answers: Mapping[str, Answer]) -> None:
    """Write which genes are measured or inferred well, where that is known of all models; else nothing is said."""
    models = {name: answer.query.fitted for name, answer in answers.items()}
    if not all("recall" in fitted.known for fitted in models.values()):
        # Of another prediction: it would pass for what is known of these values.
        adata.var = adata.var.drop(columns=[RECALL, TRUSTED], errors="ignore")
        return
    recall = recall_of(models, adata.var_names)
    adata.var[RECALL] = recall
    adata.var[TRUSTED] = (adata.var[ROLE] == "landmark").to_numpy() | is_trusted(recall)


def tell_of_novelty(answers: Iterable[Answer]) -> None:
    """Say where most samples are unlike those that the models' errors were measured on."""
    told = [dict(answer.of_samples()).get(PERCENTILE) for answer in answers]
    beyond = np.array([percentiles > FAR for percentiles in told if percentiles is not None]).any(axis=0)
    if beyond.sum() > beyond.size / 2:
        say(
            f"predict: {beyond.sum():,} of {beyond.size:,} samples are less like the training rows than {FAR} % of the "
            f"validation rows (obs[{PERCENTILE!r}]); expect larger errors than on those"
        )


def roles(adata: AnnData, answers: Mapping[str, Answer], *, before: bool) -> pd.Categorical:
    """Return what each gene is, by these models and by those before, if their layers are still there.

    Inferred outranks landmark, and landmark outranks neither, so that no inferred value passes for a measured one.
    """
    rank = {role: i for i, role in enumerate(ROLES)}
    known = adata.var[ROLE].astype(object).map(rank) if before and ROLE in adata.var else pd.Series(0, adata.var_names)
    now = known.fillna(0).to_numpy(dtype=np.int8)
    for answer in answers.values():
        fitted = answer.query.fitted
        holes = [gene for gene, hole in zip(fitted.landmarks, answer.lacked, strict=True) if hole]
        of_landmarks, of_holes = (locate(genes, adata.var_names) for genes in (fitted.landmarks, holes))
        of_targets = answer.query.places(adata.var_names)
        for places, role in ((of_landmarks, "landmark"), (of_holes, "inferred"), (of_targets, "inferred")):
            places = places[places >= 0]
            now[places] = np.maximum(now[places], rank[role])
    return pd.Categorical.from_codes(now, categories=list(ROLES))


def measured_and_inferred(whole: AnnData | MuData, inferred: AnnData) -> MuData:
    """Build a MuData of what was measured and what was inferred."""
    # mudata before 0.4 copies all columns of obs unless told not to.
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext():
        if isinstance(whole, MuData):
            both = whole.copy()
            both.mod["inferred"] = inferred
            both.update()
            return both
        obs = inferred.obs.drop(columns=[*OF_SAMPLES], errors="ignore")
        inferred.obs = inferred.obs[[column for column in inferred.obs if column in OF_SAMPLES]]
        both = MuData({"measured": tables_in_memory(whole).copy(), "inferred": inferred})
    both.obs = obs
    return both


def tables_in_memory(adata: AnnData) -> AnnData:
    """Return `adata`, loaded where it was backed; of one read lazily the tables alone."""
    if isinstance(adata.obs, pd.DataFrame):
        return adata.to_memory() if adata.isbacked else adata
    layers = {name: adata.layers[name] for name in layer_names(adata)}
    return AnnData(adata.X, adata.obs.to_memory(), adata.var.to_memory(), layers=layers)


def obs_in_memory(adata: AnnData) -> pd.DataFrame:
    """Return what is known of the samples, in memory."""
    return adata.obs if isinstance(adata.obs, pd.DataFrame) else adata.obs.to_memory()
