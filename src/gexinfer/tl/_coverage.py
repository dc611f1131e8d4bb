from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import locate
from gexinfer._slots import (
    COVERAGE,
    INTERVALS,
    NOVELTY,
    check_in_memory,
    check_unique,
    group_codes,
    layer_names,
    matrix,
)
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Indices, Wide, dense, in_row_order, row_slices
from gexinfer.tl._intervals import bound_names
from gexinfer.tl._models import all_with
from gexinfer.tl._test_rows import check_truth, refuse_seen, refuse_stale, test_rows

DECILES = 10


def coverage(adata: AnnData, *, key: str | Iterable[str] | None = None, groupby: str | None = None) -> pd.DataFrame:
    """Measure which share of the measured values lies in their intervals, on the test rows alone.

    Run it after `gexinfer.tl.predict(adata, interval=.9)`. The truth is read from the layer that the model was fitted
    on. That 90 % are held over all values does not say that 90 % are held of each gene, or in each sample, so the table
    also has the genes by their error and the samples by their novelty, each in tenths.

    Parameters
    ----------
    adata
        Whole transcriptomes with models in `uns`, their predictions and their intervals in `layers`.
    key
        Name of the model, or several; all that have intervals where it is not given.
    groupby
        A column of `obs`: each group of test rows gets a row of the table, too.

    Returns
    -------
    The table, one row for each model and part of the values:

    `model`, `level`
        The model, and the share of values that its intervals are to hold.
    `kind`, `part`
        "all"; "genes by error", from "1", the tenth with the lowest test MAE, to "10"; "samples by novelty", from "1",
        the least novel, to "10", where `obs["gexinfer_novelty"]` is there; or `groupby` and the group.
    `n_samples`, `n_genes`
        Of how many samples and genes it is.
    `coverage`
        The share of measured values in their intervals.
    `width`, `width_data`
        The mean width of intervals in standard deviations of the training rows, and in the units of the data.

    Writes `uns["gexinfer_coverage"]`, this table, and `varm["gexinfer_coverage"]`, genes x models: the coverage of each
    gene, NaN for genes without intervals.

    Raises
    ------
    KeyError
        There is no model, no split, no interval for a model, or no such column.
    ValueError
        There are no test rows, the model has seen test rows, the layers are not the present model's or do not belong
        together, `groupby` lacks values, or measured values are NaN or inf.

    Examples
    --------
    >>> table = gx.tl.coverage(ref)  # of the intervals that predict(ref, interval=0.9) wrote
    >>> table.query("kind == 'all'")[["model", "level", "coverage", "width"]].round(2)
       model  level  coverage  width
    0  ridge    0.9      0.87   2.43
    """
    check_in_memory(adata)
    check_unique(adata)
    levels = adata.uns.get(INTERVALS, pd.DataFrame(columns=["level"]))["level"]
    with_bounds = {n for n in levels.index if {n, *bound_names(n)} <= set(layer_names(adata))}
    models = all_with(adata, key, with_bounds, "intervals", "gexinfer.tl.predict(adata, interval=.9)")
    test = test_rows(adata)
    parts = sample_parts(adata, test, groupby)
    for name, fitted in models.items():
        check_truth(adata, fitted, name)
        refuse_seen(adata, test, fitted, name)
        refuse_stale(adata, test, fitted, name)
    tables, of_genes = [], {}
    for name, fitted in models.items():
        counts = count(adata, test, fitted, name)
        tables.append(pd.DataFrame(rows_of(counts, parts)).assign(model=name, level=float(levels[name])))
        of_genes[name] = pd.Series(counts.of_genes / len(test), counts.genes)
    table = pd.concat(tables, ignore_index=True)
    table = table[["model", "level", *table.columns.drop(["model", "level"])]]
    adata.varm[COVERAGE] = pd.DataFrame(of_genes, adata.var_names)
    adata.uns[COVERAGE] = table
    return table.copy()


@dataclass(frozen=True)
class Counts:
    """How many of the measured values lie in their intervals, by gene and by sample, and how wide these are."""

    genes: pd.Index
    # Of each gene: values held, mean absolute error, half width summed over samples, in standard deviations.
    of_genes: Wide
    error: Wide
    widths: Wide
    # One standard deviation of each gene, in units of the data.
    unit: Wide
    # Of each sample: values held, and half width summed over genes, in standard deviations and in data units.
    of_samples: Wide
    sample_widths: Wide
    sample_widths_data: Wide


def count(adata: AnnData, test: Indices, fitted: FittedModel, name: str) -> Counts:
    """Count, in one pass over blocks of test rows, the measured values that lie in their intervals."""
    columns = locate(fitted.targets, adata.var_names)
    there = (columns >= 0) & (fitted.target_scale.sd > 0)
    columns, unit = columns[there], fitted.target_scale.unit[there]
    fitted_on, genes = str(fitted.input["layer"]), adata.var_names[columns]
    truth, bounds = in_row_order(matrix(adata, fitted_on)), [adata.layers[b] for b in bound_names(name)]
    of_genes, error, widths = (np.zeros(len(columns)) for _ in range(3))
    of_samples, sample_widths, sample_widths_data = (np.zeros(len(test)) for _ in range(3))
    for part in row_slices(len(test)):
        y = dense(truth, test[part], columns)
        p, low, high = (dense(layer, test[part], columns) for layer in (adata.layers[name], *bounds))
        refuse_not_finite((~np.isfinite(y)).sum(axis=0), genes, len(y), where_from(fitted_on))
        if not (np.abs((low + high) / 2 - p) <= 1e-3 * unit + 1e-4 * np.abs(p)).all():
            raise ValueError(
                f"adata.layers[{bound_names(name)[0]!r}] and {bound_names(name)[1]!r} do not lie around "
                f"adata.layers[{name!r}]: a layer was changed, or values were left out by trusted_only=True. Run "
                f"gexinfer.tl.predict(adata, key={name!r}, interval=.9) first."
            )
        held, width = (low <= y) & (y <= high), high - low
        of_genes += held.sum(axis=0)
        error += np.abs(y - p).sum(axis=0, dtype=np.float64) / unit
        widths += width.sum(axis=0, dtype=np.float64) / unit
        of_samples[part], sample_widths_data[part] = held.sum(axis=1), width.sum(axis=1, dtype=np.float64)
        sample_widths[part] = (width / unit).sum(axis=1)
    return Counts(genes, of_genes, error, widths, unit, of_samples, sample_widths, sample_widths_data)


def sample_parts(adata: AnnData, test: Indices, groupby: str | None) -> list[tuple[str, str, Indices]]:
    """Return kind, name and places among the test rows of each part of them."""
    parts = []
    if NOVELTY in adata.obs:
        order = np.argsort(adata.obs[NOVELTY].to_numpy()[test], kind="stable")
        parts += [("samples by novelty", *tenth) for tenth in tenths(order)]
    if groupby is not None:
        codes, names = group_codes(adata.obs.iloc[test], groupby)
        named = sorted((str(name), code) for code, name in enumerate(names))
        parts += [(groupby, name, np.flatnonzero(codes == code)) for name, code in named]
    return parts


def tenths(order: Indices) -> Iterator[tuple[str, Indices]]:
    for i, places in enumerate(np.array_split(order, DECILES)):
        if len(places):
            yield str(i + 1), places


def rows_of(counts: Counts, parts: list[tuple[str, str, Indices]]) -> Iterator[dict[str, object]]:
    """Yield the rows of the table: all values, genes by their error, then parts of the samples."""
    n, q = len(counts.of_samples), len(counts.genes)
    every = np.arange(q)
    for kind, part, genes in (
        ("all", "all", every),
        *(("genes by error", *tenth) for tenth in tenths(np.argsort(counts.error, kind="stable"))),
    ):
        values = n * len(genes)
        yield {
            "kind": kind,
            "part": part,
            "n_samples": n,
            "n_genes": len(genes),
            "coverage": counts.of_genes[genes].sum() / values,
            "width": counts.widths[genes].sum() / values,
            "width_data": (counts.widths * counts.unit)[genes].sum() / values,
        }
    for kind, part, samples in parts:
        values = len(samples) * q
        yield {
            "kind": kind,
            "part": part,
            "n_samples": len(samples),
            "n_genes": q,
            "coverage": counts.of_samples[samples].sum() / values,
            "width": counts.sample_widths[samples].sum() / values,
            "width_data": counts.sample_widths_data[samples].sum() / values,
        }
