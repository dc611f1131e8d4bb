from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._slots import SIDES, check_in_memory, group_codes, matrix, write_split
from gexinfer.engine.blocks import dense, in_row_order, row_slices
from gexinfer.engine.report import say, warn


def split(
    adata: AnnData,
    groupby: str | None = None,
    fractions: Sequence[float] = (0.8, 0.1, 0.1),
    *,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    copy: bool = False,
) -> AnnData | None:
    """Assign each sample to training, validation or test.

    Samples of one donor, study or plate resemble each other: with `groupby` all of a group go to the same side, and the
    error that `gexinfer.tl.evaluate` reports is that on groups never seen.

    Parameters
    ----------
    adata
        Annotated data, samples x genes.
    groupby
        Column of `obs` whose groups must not be divided, e.g. donor or study.
    fractions
        Shares of the samples for training, validation and test; they sum to 1.
    layer
        Layer in which duplicate samples are looked for; `X` where it is not given.
    rng
        Seed or generator.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes `obs["split"]`, categorical train / validation / test, and `uns["gexinfer_split"]`, what
    was kept together and a digest of each sample's side.

    Raises
    ------
    KeyError
        `groupby` is not in `obs`.
    ValueError
        The fractions are not three shares that sum to 1, a group is missing, or there are too few groups or samples.

    Warns
    -----
    UserWarning
        Identical samples fall on two sides.

    Examples
    --------
    >>> gx.pp.split(ref, groupby="subject", fractions=(0.7, 0.1, 0.2))
    >>> ref.obs["split"].value_counts().to_dict()
    {'train': 487, 'test': 139, 'validation': 70}
    >>> int(ref.obs.groupby("subject", observed=True)["split"].nunique().max())  # no subject on two sides
    1
    """
    check_in_memory(adata)
    shares = np.asarray(fractions, float)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise ValueError(f"fractions={fractions!r} must be three shares (train, validation, test) that sum to 1.")
    if groupby is None:
        codes, names = np.arange(adata.n_obs), adata.obs_names
    else:
        codes, names = group_codes(adata.obs, groupby)
    sides = (shares > 0).sum()
    if len(names) < sides:
        what = "samples" if groupby is None else f"groups in adata.obs[{groupby!r}]"
        raise ValueError(f"{len(names)} {what} cannot fill {sides} sides; use fewer fractions or another groupby=.")
    side = assign(np.bincount(codes, minlength=len(names)), shares, np.random.default_rng(rng))[codes]
    divided = divided_duplicates(matrix(adata, layer), side)

    adata = adata.copy() if copy else adata
    write_split(adata, side, groupby)
    counts = ", ".join(f"{(side == i).sum():,} {name}" for i, name in enumerate(SIDES))
    kept = ""
    if groupby is not None:
        # A side of one group says little of another, however many samples it has.
        groups = ", ".join(f"{len(np.unique(codes[side == i])):,}" for i in range(len(SIDES)))
        kept = f", of {groups} in {groupby}, none divided"
    say(f"split: {counts} samples{kept}")
    if divided:
        warn(
            f"{divided:,} samples have an identical copy on another side of the split, so the test error will look "
            "better than it is. Drop the copies, or pass groupby= the column that copies share.",
        )
    return adata if copy else None


def assign(sizes: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the side of each group: in random order, each to the side that lacks most, none left empty."""
    lacking = shares * sizes.sum()
    side = np.empty(len(sizes), np.int8)
    order = rng.permutation(len(sizes))
    if (sizes == 1).all():
        edges = np.rint(np.cumsum(shares)[:-1] * len(sizes)).astype(int)
        side[order] = np.digitize(np.arange(len(sizes)), edges)
    else:
        for group in order:
            side[group] = np.argmax(lacking)
            lacking[side[group]] -= sizes[group]
    for empty in np.flatnonzero((np.bincount(side, minlength=len(shares)) == 0) & (shares > 0)):
        # The smallest group of a side that has several.
        crowded = np.bincount(side)[side] > 1
        side[np.flatnonzero(crowded)[np.argmin(sizes[crowded])]] = empty
    return side


def divided_duplicates(X: object, side: np.ndarray) -> int:
    """Return how many samples have a copy, value for value, on another side."""
    groups = pd.Series(side).groupby(pd.factorize(value_digests(X))[0])
    return int((groups.transform("nunique") > 1).sum())


def value_digests(X: Any) -> np.ndarray:
    """Return a digest of each row, the same for rows that are equal value by value."""
    X = in_row_order(X)
    digests = []
    for part in row_slices(X.shape[0]):
        block = dense(X, part) + 0.0  # + 0.0 turns -0.0 into 0.0
        block[np.isnan(block)] = np.nan  # of which there are many, too
        digests += [hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in block]
    return np.array(digests)
