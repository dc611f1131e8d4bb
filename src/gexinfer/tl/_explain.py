from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel, row_digests
from gexinfer._names import listed, locate
from gexinfer._slots import (
    EXPLAINED,
    SPLIT,
    check_in_memory,
    check_unique,
    gene_slot,
    layer_names,
    matrix,
    named_places,
    split_rows,
)
from gexinfer.engine.blocks import Indices, Rows, Wide, evenly, in_row_order, row_slices
from gexinfer.engine.moments import Moments
from gexinfer.engine.report import steps, warn
from gexinfer.tl._explained import fingerprint, landmarks_of, rows_to_look_at
from gexinfer.tl._models import one_model
from gexinfer.tl._reference import sums_over

How = Literal["gradient", "integrated"]
# Points on the way from the training mean to a sample.
POINTS = 12
# Samples for which the sum of what all landmarks add is compared with what is inferred.
CHECKED = 3
# Beyond this share of what is inferred, what landmarks add cannot be relied on.
LARGE = 0.05
# With fewer training rows than this times the landmarks, coefficients of least squares are mostly noise.
ENOUGH = 2
# Samples whose slopes are found at a time.
AT_A_TIME = 100


def explain(
    adata: AnnData,
    key: str | None = None,
    *,
    genes: str | Sequence[str] | None = None,
    how: How = "gradient",
    n_samples: int = 300,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Measure how much each landmark moves each inferred gene.

    The influence of a landmark on a gene is the change of the gene's inferred value per unit of the landmark's value,
    in the units of the layer that was fitted. Of a linear model these are its coefficients; of a network or a kernel,
    whose slopes differ from sample to sample, they are averaged over the test rows, or over all rows where none is
    marked.

    Parameters
    ----------
    adata
        Samples x genes with models in `uns`.
    key
        Name of the model; the only one in `uns` where it is not given. `knn` and `sample_lasso` have no slopes.
    genes
        The targets to explain: a bool column of `var`, or names; all where it is not given.
    how
        `"gradient"` takes the slopes at the samples. `"integrated"` takes, for each sample, their mean on the straight
        line from the training mean to it (integrated gradients), and weighs samples by the square of the landmark's
        distance from its mean: the line that fits best, by least squares, what the landmark adds to a sample's inferred
        value against its distance. It takes 12 times as long, and follows saturation that slopes do not see.
    n_samples
        At most so many samples, drawn at random.
    layer
        Layer with the landmarks' values, as in `gexinfer.tl.predict`.
    rng
        Seed or generator for the samples.
    device
        Where the model runs, as in `gexinfer.tl.predict`.
    progress
        Show a bar, or a line where there is no screen.

    Returns
    -------
    The influence, landmarks x genes explained.

    Writes `varm["gexinfer_influence_" + key]`, the same as float32, genes x landmarks, NaN for genes not explained, and
    `uns["gexinfer_explained"][key]`:

    `landmarks`
        DataFrame of the landmarks in the order of the columns: `sd`, the standard deviation over the training rows.
    `genes`
        DataFrame of the genes explained: `sd`, and `agreement`, Pearson's r over landmarks of the influence and the
        coefficients of a linear model, both per standard deviation of the landmark.
    `agreement_with`
        That linear model, fitted on the training rows of `adata`: "ols", or "ridge" with the penalty of generalised
        cross-validation where there are no more than twice as many rows as landmarks, so that coefficients of least
        squares are noise; "none" where the rows that the model was fitted on are not there.
    `how`, `n_samples`, `samples`
        How it was done, with how many samples, and of which: "test rows" or "all rows".
    `model`
        A digest of the record that was explained, by which a later fit under the same name is known.
    `incomplete`
        For `"integrated"`: what all landmarks add should sum up to the inferred value less that of the training mean.
        The mean absolute difference, as a share of the mean absolute sum, over 3 samples and all genes explained.

    Raises
    ------
    KeyError
        There is no model, none of that key, or no such gene or layer.
    ValueError
        The model has no slopes, or does not infer one of `genes`; there are several models and none is named; a sample
        has no landmark, or values are inf.

    Warns
    -----
    UserWarning
        With `"integrated"`, what landmarks add does not sum up to what is inferred.

    References
    ----------
    Sundararajan, Taly, Yan, ICML 2017 :cite:p:`sundararajan2017` (integrated gradients).

    Examples
    --------
    >>> influence = gx.tl.explain(ref, "ridge")
    >>> influence.shape
    (94, 204)
    >>> influence["CLSPN"].nlargest(3).index.tolist()
    ['POLE2', 'TIMELESS', 'CDC25A']
    """
    check_in_memory(adata)
    check_unique(adata)
    if how not in get_args(How):
        raise ValueError(f"how={how!r} is not known; choose one of {', '.join(get_args(How))}.")
    name, fitted = one_model(adata, key, "explain")
    wanted = targets_of(adata, fitted, name, genes)
    rows, of = rows_to_look_at(adata, n_samples, rng)
    X = landmarks_of(adata, fitted, name, rows, layer=layer, device=device)
    points, weights = (X, np.full(X.shape, 1 / len(X))) if how == "gradient" else on_the_way(fitted, X)
    influence = np.zeros((len(fitted.landmarks), len(wanted)))
    with steps("explain", len(points), show=progress) as advance:
        for part in row_slices(len(points), AT_A_TIME):
            influence += fitted.jacobian(points[part], weights=weights[part], device=device)[:, wanted]
            advance(part.stop - part.start, f"{name}, {how}")
    entry: dict[str, Any] = {"how": how, "n_samples": len(rows), "samples": of, "model": fingerprint(adata, name)}
    if how == "integrated":
        entry["incomplete"] = incomplete(fitted, X, wanted, device)
        if entry["incomplete"] > LARGE:
            warn(
                f"{name}: what landmarks add is {entry['incomplete']:.0%} off what is inferred, because slopes change "
                f"more than {POINTS} points between the training mean and a sample tell. Train the network longer, or "
                "use how='gradient'."
            )
    places = locate(fitted.targets, adata.var_names)[wanted]
    names = adata.var_names[places]
    linear, coefficients = linear_model(adata, fitted, places)
    sd = fitted.landmark_scale.sd
    entry |= {
        "agreement_with": linear,
        "landmarks": pd.DataFrame({"sd": sd}, index=list(fitted.landmarks)),
        "genes": pd.DataFrame(
            {
                "sd": fitted.target_scale.sd[wanted],
                "agreement": correlation(influence * sd[:, None], coefficients),
            },
            index=names,
        ),
    }
    everything = np.full((adata.n_vars, len(sd)), np.nan, np.float32)
    everything[places] = influence.T
    adata.varm[gene_slot(f"influence_{name}")] = everything
    adata.uns[EXPLAINED] = {**adata.uns.get(EXPLAINED, {}), name: entry}
    return pd.DataFrame(influence.astype(np.float32), list(fitted.landmarks), names)


def targets_of(adata: AnnData, fitted: FittedModel, name: str, genes: str | Sequence[str] | None) -> Indices:
    """Return which of the model's targets to explain: those that are asked for and that `adata` has."""
    if genes is None:
        wanted = np.flatnonzero(locate(fitted.targets, adata.var_names) >= 0)
    else:
        asked = adata.var_names[named_places(adata, genes, "genes")]
        if len(asked) == 0:
            raise ValueError(f"genes= selects no gene; leave it out for all {len(fitted.targets):,} targets.")
        wanted = locate(list(asked), pd.Index(fitted.targets))
        if (wanted < 0).any():
            raise ValueError(
                f"genes= names {(wanted < 0).sum():,} genes that {name!r} does not infer: {listed(asked[wanted < 0])}. "
                f"Its {len(fitted.targets):,} targets start with {listed(fitted.targets, 3)}."
            )
    if len(wanted) == 0:
        raise ValueError(f"adata.var_names holds none of the {len(fitted.targets):,} targets of {name!r} to explain.")
    return wanted


def on_the_way(fitted: FittedModel, X: Wide) -> tuple[Wide, Wide]:
    """Return points from the training mean to each sample, and the weight of each point for each landmark."""
    at, share = path()
    away = X - fitted.landmark_scale.mean
    squares = away**2
    # Of a landmark that does not vary over the samples nothing is known; its slope is that of all of them.
    total = squares.sum(axis=0)
    weights = np.where(total > 0, squares / np.where(total > 0, total, 1), 1 / len(X))
    points = fitted.landmark_scale.mean + at[:, None, None] * away
    return points.reshape(-1, X.shape[1]), (share[:, None, None] * weights).reshape(-1, X.shape[1])


def path() -> tuple[Wide, Wide]:
    """Return places between 0 and 1, and weights that sum up to 1, to integrate over the way.

    Those of Gauss and Legendre for the root of the place: at the training mean nothing is left that layer norms could
    divide by, so that slopes there change over a hundredth of the way.
    """
    root, share = np.polynomial.legendre.leggauss(POINTS)
    root = (root + 1) / 2
    return root**2, share * root


def incomplete(fitted: FittedModel, X: Wide, wanted: Indices, device: str) -> float:
    """Return how far what landmarks add is from what is inferred beyond the mean's, as a share of that."""
    at, share = path()
    mean = fitted.landmark_scale.mean
    off = size = 0.0
    for x in X[evenly(len(X), CHECKED)]:
        away = x - mean
        added = fitted.jacobian(mean + at[:, None] * away, weights=share[:, None] * away, device=device).sum(axis=0)
        inferred, at_mean = fitted.predict(np.stack([x, mean]), device=device).astype(np.float64)
        off += float(np.abs(added - (inferred - at_mean))[wanted].sum())
        size += float(np.abs(inferred - at_mean)[wanted].sum())
    return off / size if size else 0.0


def linear_model(adata: AnnData, fitted: FittedModel, targets: Indices) -> tuple[str, Wide]:
    """Return which linear model the training rows allow, and its coefficients per sd of a landmark; NaN for none."""
    nothing = "none", np.full((len(fitted.landmarks), len(targets)), np.nan)
    layer = str(fitted.input["layer"])
    landmarks = locate(fitted.landmarks, adata.var_names)
    if SPLIT not in adata.obs or (landmarks < 0).any() or layer not in ("X", *layer_names(adata)):
        return nothing
    train = split_rows(adata, "train")
    if len(train) == 0 or not np.isin(row_digests(adata.obs_names[train]), fitted.training_rows).all():
        return nothing
    source = in_row_order(matrix(adata, layer))
    sums = sums_over(Rows(source, train, landmarks, targets), cross=True)
    if sums.not_finite.any():
        return nothing
    return coefficients_of(sums.standardised())


def coefficients_of(sums: Moments) -> tuple[str, Wide]:
    """Return the (landmarks, targets) coefficients of least squares where rows are enough, else those of ridge."""
    from gexinfer.methods._linear import Spectrum, best_by_cross_validation

    spectrum = Spectrum.of(sums)
    if sums.n > ENOUGH * len(sums.xx):
        return "ols", spectrum.coefficients(spectrum.inverse(0)).astype(np.float64)
    penalty = best_by_cross_validation(sums, spectrum)
    return "ridge", spectrum.coefficients(spectrum.inverse(penalty)).astype(np.float64)


def correlation(a: Wide, b: Wide) -> Wide:
    """Return Pearson's r of each column of two arrays, NaN where one is constant."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
