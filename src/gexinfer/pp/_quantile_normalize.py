from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike

from gexinfer._names import lacking, listed
from gexinfer._slots import QUANTILES, check_loaded, check_unique, layer_names, matrix
from gexinfer.engine.blocks import Float, dense, in_row_order, row_slices
from gexinfer.engine.quantiles import at, to_profile
from gexinfer.engine.report import say, warn

# Above this share of missing genes those measured can hardly be a fair draw of all.
MANY_MISSING = 0.1
# Rows of a reference that are looked at, at least, to see whether its profile is still theirs.
ROWS_COMPARED = 10


def quantile_normalize(
    adata: AnnData,
    reference: AnnData | ArrayLike | None = None,
    *,
    layer: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Give all samples the same distribution of values: each gene gets the value of its rank in a sorted profile.

    The profile is the mean over samples of their sorted values, as in the D-GEX paper. It is kept, so that a sample
    that comes alone next year is normalised to the same profile, whatever else is there. Only ranks count: the units
    of the samples do not matter, and the result is in those of the profile.

    Genes that tie, such as all zeros of an RNA-seq sample, get one value: the profile at their average rank, as in
    limma. Where a sample has more zeros than the profile, that value is the profile's middle over the zeros' ranks. So
    the mean of samples with ties is not quite the profile: without `reference`, a second call moves them again.

    Where values are NaN, the measured genes are ranked among themselves and get the quantiles of their ranks; NaN stays
    NaN. That is right where the missing genes are no special ones.

    A profile is that of a set of genes. Landmarks alone have another distribution than all genes, so samples of other
    genes than the reference's are refused: normalise before you leave genes out, or pass
    `reference=reference[:, adata.var_names]`, of which the profile is then computed.

    Parameters
    ----------
    adata
        Annotated data, samples x genes, in any units.
    reference
        Where the profile comes from. None: the samples themselves. An AnnData of the same genes, in any order: of its
        `layer`, where it has that, else of its `X`, the profile it was normalised to, if that is kept and some of its
        rows still have it, else the mean of its sorted values. An array: the profile, one value for each gene, in any
        order.
    layer
        Layer to normalise; `X` where it is not given.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes `X` or `layers[layer]`, float32 and dense, also where it was sparse, because zeros get a
    value, too: samples x genes x 4 bytes. Writes `uns["gexinfer_quantiles"]`: `genes`, `layer` ("X" for `X`), and
    `values`, the sorted profile, float32 (n_genes,).

    Raises
    ------
    KeyError
        There is no such layer.
    TypeError
        `reference` is none of these, such as a path.
    ValueError
        The genes are not those of the reference, a value is inf, a sample has no value, the profile does not fit, or
        the data are on disk.

    Warns
    -----
    UserWarning
        A sample lacks more than a tenth of the genes.

    References
    ----------
    Bolstad et al., Bioinformatics 2003, 19:185 :cite:p:`bolstad2003`; Chen et al., Bioinformatics 2016, 32:1832
    :cite:p:`chen2016`.

    Examples
    --------
    >>> gx.pp.quantile_normalize(ref)
    >>> ref.uns["gexinfer_quantiles"]["values"].shape
    (298,)
    >>> new = gx.datasets.bulk()[1:2, ref.var_names].copy()
    >>> gx.pp.quantile_normalize(new, reference=ref)  # to the same profile
    """
    check_loaded(adata)
    check_unique(adata)
    X = in_row_order(matrix(adata, layer))
    missing = check_values(X, adata.obs_names)
    profile, origin = profile_of(reference, adata, X, layer)

    normalised = np.empty(adata.shape, np.float32)
    for part in row_slices(adata.n_obs):
        normalised[part] = to_profile(dense(X, part), profile)

    adata = adata.copy() if copy else adata
    if adata.is_view:  # written to directly, its parent would change
        adata._init_as_actual(adata.copy())
    if layer is None or layer == "X":
        adata.X = normalised
    else:
        adata.layers[layer] = normalised
    adata.uns[QUANTILES] = {"genes": adata.var_names.to_numpy(object), "layer": layer or "X", "values": profile}
    say(f"quantile_normalize: {adata.n_obs:,} samples x {adata.n_vars:,} genes to {origin}")
    if missing.max(initial=0) > MANY_MISSING * adata.n_vars:
        worst = adata.obs_names[np.argsort(-missing, kind="stable")[: (missing > MANY_MISSING * adata.n_vars).sum()]]
        warn(
            f"{len(worst):,} samples lack more than {MANY_MISSING:.0%} of the genes, up to {missing.max():,} of "
            f"{adata.n_vars:,}: {listed(worst)}. Their genes were ranked among those measured, which is wrong where "
            "these are special ones, such as landmarks. Leave out genes that nobody measured."
        )
    return adata if copy else None


def check_values(X: Any, names: pd.Index) -> np.ndarray:
    """Return how many genes each sample lacks; refuse inf, and samples that lack all."""
    missing = np.zeros(X.shape[0], int)
    for part in row_slices(X.shape[0]):
        block = dense(X, part)
        infinite = np.isinf(block).any(axis=1)
        if infinite.any():
            raise ValueError(f"Samples hold inf: {listed(names[part][infinite])}. Replace it by NaN, or drop them.")
        missing[part] = np.isnan(block).sum(axis=1)
    empty = missing == X.shape[1]
    if empty.any():
        raise ValueError(f"Samples hold no value at all: {listed(names[empty])}. Drop them.")
    return missing


def profile_of(reference: Any, adata: AnnData, X: Any, layer: str | None) -> tuple[Float, str]:
    """Return the sorted profile, and for a message where it comes from."""
    if reference is None:
        return mean_profile(X), "their own mean profile"
    if isinstance(reference, AnnData):
        return reference_profile(reference, adata, layer)
    try:
        profile = np.asarray(reference, np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"reference is a {type(reference).__name__} that is no array of numbers; pass an AnnData, e.g. "
            "anndata.read_h5ad(path), a profile with one value for each gene, or None."
        ) from None
    if profile.shape != (adata.n_vars,) or not np.isfinite(profile).all():
        raise ValueError(
            f"reference has shape {profile.shape}; a profile is one finite value for each of the {adata.n_vars:,} "
            "genes. An AnnData, or None, works too."
        )
    return np.sort(profile).astype(np.float32), "the given profile"


def reference_profile(reference: AnnData, adata: AnnData, layer: str | None) -> tuple[Float, str]:
    """Return the profile that a reference was normalised to, else the mean of its sorted values."""
    check_unique(reference)
    absent = lacking(list(reference.var_names), adata.var_names)
    other = lacking(list(adata.var_names), reference.var_names)
    if absent or other or reference.n_vars != adata.n_vars:
        remedy = "Normalise before genes are left out, or let the profile be computed over these genes: reference="
        remedy += "reference[:, adata.var_names]."
        if other:
            remedy = "Bring both to the genes they share: shared = adata.var_names.intersection(reference.var_names), "
            remedy += "adata = adata[:, shared].copy(), reference=reference[:, shared]."
        raise ValueError(
            f"reference and adata hold different genes, whose values are distributed differently: adata lacks "
            f"{len(absent):,} of the reference's ({listed(absent, 3)}) and has {len(other):,} others "
            f"({listed(other, 3)}). {remedy}"
        )
    slot = layer if layer in layer_names(reference) else "X"
    values = in_row_order(matrix(reference, slot))
    kept, why_not = kept_profile(reference, slot, values)
    if kept is not None:
        return kept, "the profile that the reference was normalised to"
    check_values(values, reference.obs_names)
    return mean_profile(values), f"the mean profile of the reference's {reference.n_obs:,} samples{why_not}"


def kept_profile(reference: AnnData, slot: str, values: Any) -> tuple[Float | None, str]:
    """Return the profile that the values in a slot were normalised to; where it is not kept, for a message why."""
    kept = reference.uns.get(QUANTILES)
    if not isinstance(kept, Mapping):
        return None, ""
    if kept.get("layer") != slot:
        return None, f", as the kept profile is not that of {slot!r}"
    genes, profile = np.atleast_1d(np.asarray(kept.get("genes"), object)), np.asarray(kept.get("values"))
    # A part of a reference has the uns of the whole; its values tell its own profile.
    same = len(genes) == reference.n_vars and not lacking(list(genes), reference.var_names)
    if not same or profile.shape != (reference.n_vars,) or profile.dtype.kind != "f":
        return None, ", as the kept profile is that of other genes"
    block = dense(values, np.arange(0, reference.n_obs, max(reference.n_obs // ROWS_COMPARED, 1)))
    # What was normalised to a profile stays what it is when it is normalised to it again, also ties and NaN.
    if not np.allclose(block, to_profile(block, profile), rtol=1e-3, atol=1e-6 * np.abs(profile).max(), equal_nan=True):
        return None, ", as its values were changed since it was normalised to the kept profile"
    return profile.astype(np.float32), ""


def mean_profile(X: Any) -> Float:
    """Return the mean over rows of their sorted values, those with NaN stretched to full length."""
    if X.shape[0] == 0:
        raise ValueError("There are no samples to take a profile from.")
    total = np.zeros(X.shape[1])
    for part in row_slices(X.shape[0]):
        ordered = np.sort(dense(X, part), axis=1).astype(np.float64)  # NaN goes last
        measured = np.isfinite(ordered).sum(axis=1)
        for row in np.flatnonzero(measured < X.shape[1]):
            ordered[row] = at(ordered[row, : measured[row]], np.arange(X.shape[1]), X.shape[1])
        total += ordered.sum(axis=0)
    return (total / X.shape[0]).astype(np.float32)
