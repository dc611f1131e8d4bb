from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._slots import LEARNING_CURVE, SPLIT, check_in_memory, group_codes, split_column
from gexinfer.engine.blocks import Indices
from gexinfer.engine.report import steps
from gexinfer.tl._reference import FEWEST_ROWS, Reference, look, resolve_rows, sums_over
from gexinfer.tl._trials import (
    SCORES,
    Troubles,
    check_finite,
    check_seed,
    fit_once,
    judged_on,
    named_methods,
    planned,
    scores_of,
    target_scale,
    watched_run,
    with_mean,
)

# Each size is twice the one before, down from all rows.
POINTS = 6


def learning_curve(
    adata: AnnData,
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]],
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 3,
    groupby: str | None = None,
    layer: str | None = None,
    targets: str | Sequence[str] | None = None,
    allow_overlap: bool = False,
    rng: int = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure the error of several methods against the number of training samples.

    Models learn from parts of the training rows; validation and test rows stay. The parts are drawn at random, and each
    holds the smaller ones of its repeat. Where the split was grouped, whole groups are drawn, because rows of all
    cohorts would show too good a beginning of the curve: a study with few samples has few cohorts. `auto` does without
    its last fit, to validation rows as well, so that no method has learned from more rows than a size says.

    Every error is in standard deviations of *all* training rows (plus 1e-3), whatever part a model has learned from
    and standardises by, so that errors at all sizes are in one unit and those at the last are what
    `gexinfer.tl.evaluate` reports, of `auto` without that last fit.

    Parameters
    ----------
    adata
        Whole transcriptomes with landmarks and a split, as for `gexinfer.tl.fit`.
    methods
        Names of methods, or a mapping of a model's name to its options, as in `gexinfer.tl.compare`. `mean` is added.
    sizes
        Numbers of training samples, 10 at least; where not given, all of them, the half, and so on, 6 in all. With
        groups as near as whole ones come to it.
    repeats
        How many times the parts are drawn. At the largest size they are all the same rows: methods that draw nothing
        themselves then differ in nothing.
    groupby
        Column of `obs` whose groups are taken whole. Where not given, that by which `gexinfer.pp.split` kept samples
        together; of a split at random or by hand, single rows are drawn.
    layer
        Layer to learn from; `X` where it is not given.
    targets
        Which genes to infer, as in `gexinfer.tl.fit`.
    allow_overlap
        Infer landmarks too, where `targets` names some.
    rng
        Seed; repeat `r`, from 0, is drawn and fitted with `rng + r`.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.

    Returns
    -------
    A table, one row a fit, which is also written to `uns["gexinfer_learning_curve"]`; nothing else is:

    `model`, `size`, `repeat`
        Which fit it was; `size` as it was asked for.
    `n_train`, `n_groups`
        Training rows, and with groups how many of these.
    `mae`, `mae_data`
        Mean over genes of the absolute error on the test rows, in standard deviations of all training rows and in
        units of the data.
    `pearson`, `r2`
        Median over genes of Pearson's r and of R2 over test rows.
    `seconds`
        Of the fit, without the pass over its training rows that all methods share.

    Raises
    ------
    KeyError
        A slot is missing.
    TypeError
        A method has no such option, or `rng` is no whole number.
    ValueError
        As in `gexinfer.tl.fit`, or there are no test rows, a size is below 10 or beyond the training rows, or no fit
        succeeded.
    KeyboardInterrupt
        It was interrupted in the first fit.

    Warns
    -----
    UserWarning
        Some fits failed, and their rows hold NaN; some fits warned, as `gexinfer.tl.fit` does; or it was interrupted,
        and the table holds the fits before.

    Examples
    --------
    >>> table = gx.tl.learning_curve(ref, ["ridge", "knn"], sizes=[100, 200, 400], repeats=1)
    >>> table.pivot(index="size", columns="model", values="mae").round(2)
    model   knn  mean  ridge
    size
    100    0.70  0.81   0.68
    200    0.68  0.85   0.65
    400    0.67  0.82   0.63
    """
    asked_for = named_methods(methods)
    check_seed(rng)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 1:
        raise ValueError(f"repeats={repeats!r} must be a whole number from 1 on.")
    check_in_memory(adata)
    sides = resolve_rows(adata, layer, targets, allow_overlap)
    train = sides.train
    wanted = checked_sizes(sizes, len(train))
    by = split_column(adata) if groupby is None else groupby
    codes = np.arange(len(train)) if by is None else group_codes(adata.obs.iloc[train.rows], by)[0]
    test = judged_on(adata, train, "to judge")
    plans = planned(with_mean(asked_for), sides)
    whole = look(adata, layer, sides, products=any(method.products for method, _ in plans.values()))
    check_finite(adata, test, layer)
    scale = target_scale(whole)

    drawn = [nested(codes, wanted, rng + repeat) for repeat in range(repeats)]
    rows: list[dict[str, Any]] = []
    troubles = Troubles()
    try:
        with steps("learning curve", len(plans) * sum(map(len, drawn)), show=progress) as advance:
            for repeat, parts in enumerate(drawn):
                for sized, reference in references(whole, parts):
                    part = reference.sides.train.rows
                    known: dict[str, Any] = {"n_train": len(part), "repeat": repeat}
                    if by is not None:
                        known["n_groups"] = adata.obs[by].iloc[part].nunique()
                    for name, (method, config) in plans.items():
                        label = f"{len(part):,} rows"
                        run = watched_run(partial(advance, 0), f"{name}, {label}")
                        row = dict.fromkeys([*SCORES, "seconds"], np.nan)
                        with troubles.kept(name, label):
                            # Validation rows do not count among a size, and where it is small they are most of all.
                            fitted, seconds = fit_once(
                                adata, reference, method, config, rng=rng + repeat, device=device, run=run, refit=False
                            )
                            row = {**scores_of(fitted, test, scale, device), "seconds": seconds}
                        rows += [{"model": name, "size": size, **known, **row} for size in sized]
                        advance(1, f"{name}, {label}: MAE {row['mae']:.4f}")
    except KeyboardInterrupt:
        if not rows:
            raise
        troubles.interrupted(f"learning_curve: interrupted; the table holds the {len(rows):,} fits before.")
    table = pd.DataFrame(rows)
    troubles.refuse_none_left(int(table.loc[table["model"].isin(list(asked_for)), "mae"].notna().sum()))
    adata.uns[LEARNING_CURVE] = table
    troubles.tell("and their rows hold NaN")
    return table.copy()


def checked_sizes(sizes: Sequence[int] | None, n: int) -> list[int]:
    """Return numbers of training rows, ascending."""
    if sizes is None:
        return sorted({max(n >> halvings, FEWEST_ROWS) for halvings in range(POINTS)})
    found = [sizes] if isinstance(sizes, int) else list(sizes)
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in found)
    if not found or not whole or not all(FEWEST_ROWS <= size <= n for size in found):
        raise ValueError(
            f"sizes={sizes!r} must be whole numbers from {FEWEST_ROWS} to {n:,}, the rows that adata.obs[{SPLIT!r}] "
            "marks as 'train'; leave it out for all rows, the half, and so on."
        )
    return sorted({int(size) for size in found})


def nested(codes: Indices, sizes: Sequence[int], seed: int) -> list[tuple[list[int], Indices]]:
    """Draw groups in one order and return, for sizes that come to the same, these sizes and their places, ascending."""
    order = np.random.default_rng(seed).permutation(codes.max() + 1)
    counts = np.bincount(codes)[order].cumsum()
    turn = np.empty_like(order)
    turn[order] = np.arange(len(order))
    # The fewest groups that a model can be fitted on, however many were asked for.
    least = int(np.argmax(counts >= FEWEST_ROWS))
    last = [least + int(np.abs(counts[least:] - size).argmin()) for size in sizes]
    return [
        ([size for size, end in zip(sizes, last, strict=True) if end == own], np.flatnonzero(turn[codes] <= own))
        for own in sorted(set(last))
    ]


def references(whole: Reference, parts: Sequence[tuple[list[int], Indices]]) -> Iterator[tuple[list[int], Reference]]:
    """Yield parts of the training rows with their moments; of each only the rows that the one before lacks are read."""
    train, sums, before = whole.sides.train, None, np.empty(0, np.intp)
    for sized, part in parts:
        new = replace(train, rows=train.rows[np.setdiff1d(part, before)])
        if len(part) == len(train):
            sums = whole.moments
        else:
            more = sums_over(new, cross=whole.moments.xy.shape[1] > 0)
            sums = more if sums is None else sums + more
        before = part
        yield (
            sized,
            replace(whole, sides=replace(whole.sides, train=replace(train, rows=train.rows[part])), moments=sums),
        )
