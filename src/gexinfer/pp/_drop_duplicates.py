from __future__ import annotations

from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import check_loaded, matrix
from gexinfer.engine.blocks import BLOCK_ROWS, Indices, Wide, dense, in_row_order, row_slices, taken
from gexinfer.engine.report import say, warn
from gexinfer.pp._split import value_digests

# Clusters spare comparisons. With fewer samples in each they spare little, and miss the pairs that they part.
SAMPLES_PER_CLUSTER = 1000


def drop_duplicates(
    adata: AnnData,
    how: Literal["near", "exact"] = "near",
    *,
    distance: float = 1.0,
    n_clusters: int = 100,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    copy: bool = False,
) -> AnnData | None:
    """Drop samples that repeat an earlier one: the same array deposited twice, or processed twice.

    `"near"` is what the D-GEX paper did: of each pair of samples nearer than `distance` (Euclidean, over all genes) the
    later is dropped, also where the earlier one is itself dropped. Only pairs within one cluster of mini-batch k-means
    are compared. With fewer than 1,000 samples a cluster there are fewer clusters, so up to 1,999 samples are one
    cluster: all their pairs are compared.

    The paper's distance of 1 is meant for thousands of genes on a log2 scale, where samples of one tissue are tens
    apart. With fewer genes or another scale samples are nearer.

    Parameters
    ----------
    adata
        Annotated data, samples x genes; on a log2 scale for `"near"`.
    how
        `"near"`, or `"exact"`: samples that are equal value by value, of any scale. NaN equals NaN there.
    distance
        For `"near"`: pairs nearer than this are duplicates, in the units of the data.
    n_clusters
        For `"near"`: the most clusters that are made.
    layer
        Layer that is compared; `X` where it is not given.
    rng
        Seed or generator of the clusters.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy, without the samples that were dropped; the others keep their order and all their slots.

    Raises
    ------
    KeyError
        There is no such layer.
    TypeError
        `distance` or `n_clusters` is no number.
    ValueError
        An option has no meaning, values are NaN or inf with `"near"`, or the data are on disk.

    Warns
    -----
    UserWarning
        More than half of the samples are dropped: `distance` does not suit these data.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> import anndata as ad
    >>> twice = ad.concat([ref, ref[:5]], index_unique="-")  # five samples once more
    >>> gx.pp.drop_duplicates(twice, how="exact")
    >>> twice.n_obs == ref.n_obs
    True
    """
    check_loaded(adata)
    if how not in ("near", "exact"):
        raise ValueError(f"how={how!r} must be 'near' or 'exact'.")
    if not isinstance(distance, Real) or not isinstance(n_clusters, Integral):
        raise TypeError(f"distance={distance!r} must be a number, n_clusters={n_clusters!r} a whole number.")
    if not distance > 0:
        raise ValueError(f"distance={distance!r} must be above 0; for equal samples pass how='exact'.")
    if n_clusters < 1:
        raise ValueError(f"n_clusters={n_clusters!r} must be 1 or more.")
    X = matrix(adata, layer)
    if how == "exact":
        earlier = copies(X)
    else:
        check_finite(X, adata.obs_names)
        earlier = neighbours(X, distance, n_clusters, np.random.default_rng(rng))
    dropped = np.flatnonzero(earlier >= 0)

    adata = adata.copy() if copy else adata
    pairs = [f"{adata.obs_names[i]} (as {adata.obs_names[earlier[i]]})" for i in dropped]
    line = f"drop_duplicates: {len(dropped):,} of {adata.n_obs:,} samples dropped"
    line += f": {listed(pairs)}" if pairs else ""
    adata._inplace_subset_obs(earlier < 0)
    if how == "near" and len(dropped) > adata.n_obs:
        warn(f"{line}. distance={distance} is large for these data: pass a smaller one, or how='exact'.")
    else:
        say(line)
    return adata if copy else None


def check_finite(X: Any, names: pd.Index) -> None:
    """Refuse samples that hold NaN or inf: they have no distance to others."""
    X = in_row_order(X)
    strange = [~np.isfinite(dense(X, part)).all(axis=1) for part in row_slices(X.shape[0])]
    if (found := names[np.concatenate([[], *strange]).astype(bool)]).size:
        raise ValueError(
            f"{len(found):,} samples hold NaN or inf, so they have no distance to others: {listed(found)}. Leave out "
            "the genes that are not measured in all samples, or pass how='exact'."
        )


def copies(X: Any) -> Indices:
    """Return for each row the first that is equal to it, -1 where that is the row itself."""
    group = pd.factorize(value_digests(X))[0]
    first = np.unique(group, return_index=True)[1][group]
    return np.where(first < np.arange(len(group)), first, -1)


def neighbours(X: Any, distance: float, n_clusters: int, rng: np.random.Generator) -> Indices:
    """Return for each row an earlier one of its cluster that is nearer than `distance`, -1 where there is none."""
    X = in_row_order(X)
    n = X.shape[0]
    earlier = np.full(n, -1)
    for members in clusters(X, min(n_clusters, max(n // SAMPLES_PER_CLUSTER, 1)), rng):
        centre = sum(dense(X, members[part]).sum(axis=0, dtype=np.float64) for part in row_slices(len(members)))
        centre = centre / max(len(members), 1)
        for later in row_slices(len(members)):
            y = dense(X, members[later]).astype(np.float64)
            for before in row_slices(later.stop):
                x = dense(X, members[before]).astype(np.float64)
                near = closer(y, x, centre, distance) & (members[before] < members[later, None])
                found = near.any(axis=1) & (earlier[members[later]] < 0)
                earlier[members[later][found]] = members[before][near[found].argmax(axis=1)]
    return earlier


def clusters(X: Any, n_clusters: int, rng: np.random.Generator) -> list[Indices]:
    """Return the rows of each cluster, in order."""
    if n_clusters == 1:
        return [np.arange(X.shape[0])]
    from sklearn.cluster import MiniBatchKMeans

    kmeans = MiniBatchKMeans(n_clusters, random_state=int(rng.integers(2**31)), n_init=1, batch_size=BLOCK_ROWS)
    label = kmeans.fit_predict(taken(X, slice(None)))
    return [np.flatnonzero(label == i) for i in np.unique(label)]


def closer(y: Wide, x: Wide, centre: Wide, distance: float) -> np.ndarray:
    """Return whether each row of y is nearer to each of x than `distance`.

    y'y - 2 y'x + x'x loses digits, fewer about the centre. What that leaves in doubt is measured directly.
    """
    a, b = y - centre, x - centre
    aa, bb = np.einsum("ij,ij->i", a, a), np.einsum("ij,ij->i", b, b)
    squared = aa[:, None] - 2 * a @ b.T + bb
    near = squared < distance**2
    for i, j in np.argwhere(np.abs(squared - distance**2) < 1e-10 * (aa[:, None] + bb)):
        near[i, j] = ((y[i] - x[j]) ** 2).sum() < distance**2
    return near
