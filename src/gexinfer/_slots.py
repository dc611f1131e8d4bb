"""The slots of an AnnData that gexinfer reads and writes: their names, and what they must hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._names import digests, lacking, listed, locate, meant
from gexinfer.engine.blocks import Indices

LANDMARK = "landmark"
SPLIT = "split"
SIDES = ("train", "validation", "test")
SPLIT_INFO = "gexinfer_split"
ROLE = "gexinfer_role"
# In rank: a gene that several models treat differently is what the last of these says.
ROLES = ("not in model", "landmark", "inferred")
# The share of landmarks that a sample lacked.
MISSING = "gexinfer_missing"
EVALUATION = "gexinfer_evaluation"
# How unlike the training rows a sample is, and the share of the validation rows that are no more so.
NOVELTY, PERCENTILE = "gexinfer_novelty", "gexinfer_novelty_percentile"
# Level and kind of each model's intervals, and what share of the measured values they hold.
INTERVALS, COVERAGE = "gexinfer_intervals", "gexinfer_coverage"
# How well a gene's own profile is recalled by the inferred one, and whether that is enough.
RECALL, TRUSTED = "gexinfer_recall", "gexinfer_trusted"
# Of models by name: which landmarks matter to a target, and what hidden units say more than landmarks do.
EXPLAINED = "gexinfer_explained"
NONLINEARITY = "gexinfer_nonlinearity"
ENRICHMENT = "gexinfer_enrichment"
PARTIAL_DEPENDENCE = "gexinfer_partial_dependence"
# How far analyses of inferred values agree with those of measured ones.
DOWNSTREAM = "gexinfer_downstream"
# The layers that predictions were written to: what may be overwritten.
PREDICTED = "gexinfer_predicted"
# The sorted profile that samples were quantile-normalised to.
QUANTILES = "gexinfer_quantiles"
# Under which names a gene's columns stood before.
MATCHED_FROM = "gexinfer_matched_from"
METRICS = ("mae", "mae_data", "rmse", "pearson", "spearman", "r2", "ccc")
# The evaluation's other tables: pairs of models, groups of samples, folds of a cross-validation.
PAIRS = "gexinfer_evaluation_pairs"
GROUPS = "gexinfer_evaluation_groups"
FOLDS = "gexinfer_evaluation_folds"
# Baselines that stand beside all models.
MEAN, NEAREST = "mean", "nearest"
# Error against the number of training samples, and against options: tables.
LEARNING_CURVE = "gexinfer_learning_curve"
SWEEP = "gexinfer_sweep"
SWEEP_CURVES = "gexinfer_sweep_curves"
TUNE = "gexinfer_tune"
# What a fit says of each gene.
PER_GENE = ("penalty", "n_landmarks")


def gene_slot(name: str) -> str:
    """Return the `varm` slot of what is known of each gene: a metric, or a choice of the fit."""
    return f"gexinfer_{name}"


def sample_slot(name: str) -> str:
    """Return the `obsm` slot of a metric of each sample."""
    return f"gexinfer_sample_{name}"


def check_name(key: str, method: str) -> None:
    """Refuse a model's name that a file cannot hold or that another slot has."""
    if not isinstance(key, str) or not key or "/" in key:
        raise ValueError(f"{key!r} cannot name a model: it names slots in a file, so it must be text without '/'.")
    if key == "X" or key.startswith("gexinfer_") or (key in (MEAN, NEAREST) and key != method):
        raise ValueError(
            f"{key!r} cannot name a {method!r} model: gexinfer keeps that name for itself. Choose another."
        )


def layer_names(adata: AnnData) -> list[str]:
    """Return the names of the layers; newer AnnData lists X among them, as None."""
    return [name for name in adata.layers if name is not None]


def predicted_layers(adata: AnnData) -> set[str]:
    """Return the layers that hold predictions."""
    # Of a file that is read lazily the names are a dask array.
    return {str(name) for name in np.asarray(adata.uns.get(PREDICTED, []))} & set(layer_names(adata))


def matrix(adata: AnnData, layer: str | None) -> Any:
    """Return `layers[layer]`, or `X` for None and "X"."""
    there = layer_names(adata)
    if layer is None or layer == "X":
        if adata.X is None:
            raise ValueError(f"adata.X is None; name one of the layers {there} with layer=.")
        return adata.X
    if layer not in there:
        raise KeyError(f"adata.layers has no {layer!r}; it has {there}. Pass one of these, or layer='X'.")
    return adata.layers[layer]


def check_adata(adata: Any) -> None:
    """Refuse what is no AnnData."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"adata is a {type(adata).__name__}; pass an AnnData, e.g. anndata.read_h5ad(path).")


def check_in_memory(adata: Any) -> None:
    """Refuse what is no AnnData, and one into which nothing could be written: a view of a file, or lazy tables."""
    check_adata(adata)
    if adata.isbacked and adata.is_view:
        raise ValueError(
            "adata is a part of a backed file, into which no model can be written. Load it, adata = adata.to_memory(), "
            "or take the whole file and leave rows out by a missing value in adata.obs['split']."
        )
    if not isinstance(adata.obs, pd.DataFrame):
        raise TypeError(
            "adata was read lazily, its tables too. Load those; the values may stay where they are: "
            "adata.obs, adata.var = adata.obs.to_memory(), adata.var.to_memory()."
        )


def check_loaded(adata: Any) -> None:
    """Refuse what is no AnnData, and one whose values or tables are on disk: they are about to be replaced."""
    check_in_memory(adata)
    if adata.isbacked:
        raise ValueError(
            f"adata is backed by the file {str(adata.filename)!r}, which this would change. Load it first: "
            "adata = adata.to_memory()."
        )


def check_unique(adata: AnnData) -> None:
    """Refuse duplicate gene names: a model finds its genes by name."""
    if not adata.var_names.is_unique:
        twice = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"adata.var_names holds {len(twice):,} names more than once: {listed(twice)}. Sum or drop the "
            "duplicates, or run adata.var_names_make_unique() first."
        )


def bool_column(adata: AnnData, column: str, remedy: str) -> NDArray[np.bool_]:
    """Return a column of `var` that marks genes."""
    if column not in adata.var:
        raise KeyError(f"adata.var has no column {column!r}; {remedy}")
    values = adata.var[column]
    if values.isna().any() or not (pd.api.types.is_bool_dtype(values) or values.map(type).isin([bool, np.bool_]).all()):
        raise TypeError(
            f"adata.var[{column!r}] has dtype {values.dtype} and values like {values.unique()[:3].tolist()}; it must "
            f"be bool without missing values. Convert it, e.g. adata.var[{column!r}] = adata.var[{column!r}] == 1."
        )
    return values.to_numpy(dtype=bool)


def landmark_places(adata: AnnData) -> Indices:
    """Return where the landmarks stand in `var`, having checked `var["landmark"]`."""
    remedy = "run gexinfer.pp.landmarks(adata, panel='l1000') first, or set a bool column yourself."
    mask = bool_column(adata, LANDMARK, remedy)
    if not mask.any():
        raise ValueError(f"adata.var[{LANDMARK!r}] flags no gene; {remedy}")
    if mask.all():
        raise ValueError(
            f"adata.var[{LANDMARK!r}] flags all {len(mask):,} genes, so there is no target to infer. A reference must "
            "hold whole transcriptomes; a query of landmarks alone goes to gexinfer.tl.predict(query, model=reference)."
        )
    return np.flatnonzero(mask)


def named_places(adata: AnnData, genes: str | Sequence[str], argument: str) -> Indices:
    """Return where the genes of an argument stand in `var`: those of a bool column, or names, each once, in order."""
    if isinstance(genes, str):
        return np.flatnonzero(bool_column(adata, genes, f"pass {argument}= a bool column of var or a list of names."))
    genes = list(genes)
    absent = lacking(genes, adata.var_names)
    if absent:
        raise KeyError(
            f"{argument} names {len(absent):,} genes that adata.var_names does not hold: {listed(absent)}; "
            f"var_names starts with {listed(adata.var_names, 3)}.{meant(absent[0], adata.var_names)}"
        )
    found = locate(genes, adata.var_names)
    return found[np.sort(np.unique(found, return_index=True)[1])]


def target_places(adata: AnnData, targets: str | Sequence[str] | None, landmarks: Indices, overlap: bool) -> Indices:
    """Return where the targets stand in `var`: all other genes, a bool column of `var`, or names."""
    if targets is None:
        return np.setdiff1d(np.arange(adata.n_vars), landmarks)
    places = np.unique(named_places(adata, targets, "targets"))
    if len(places) == 0:
        raise ValueError(f"targets={targets!r} selects no gene; leave it out to infer every gene that is no landmark.")
    both = adata.var_names[np.intersect1d(places, landmarks)]
    if len(both) and not overlap:
        raise ValueError(
            f"{len(both):,} targets are landmarks too: {listed(both)}. Their inferred values would copy an input. "
            "Drop them from targets=, or pass allow_overlap=True if that is what you want."
        )
    return places


def group_codes(obs: pd.DataFrame, groupby: str) -> tuple[Indices, pd.Index]:
    """Return the number of each row's group, and the groups' names."""
    if groupby not in obs:
        raise KeyError(f"adata.obs has no column {groupby!r}; it has {listed(obs.columns, 20)}.")
    codes, names = pd.factorize(obs[groupby])
    if (codes < 0).any():
        raise ValueError(
            f"adata.obs[{groupby!r}] is missing for {(codes < 0).sum():,} of {len(codes):,} samples; fill it or drop "
            f"them: adata = adata[adata.obs[{groupby!r}].notna()].copy()."
        )
    return codes.astype(np.intp), names


def split_rows(adata: AnnData, side: str) -> Indices:
    """Return the rows on one side of `obs["split"]`; rows with a missing value are on none."""
    remedy = "run gexinfer.pp.split(adata) first."
    if SPLIT not in adata.obs:
        raise KeyError(f"adata.obs has no column {SPLIT!r}; {remedy}")
    values = adata.obs[SPLIT]
    strange = sorted(set(values.dropna().unique()) - set(SIDES), key=str)
    if strange:
        raise ValueError(f"adata.obs[{SPLIT!r}] holds {listed(strange)}; it may hold {', '.join(SIDES)} only; {remedy}")
    return np.flatnonzero((values == side).fillna(False).to_numpy(dtype=bool))


def split_digests(adata: AnnData) -> NDArray[np.uint64]:
    """Return a digest of each sample's name and side, for those that are on one."""
    sides = adata.obs[SPLIT].astype(object)
    there = sides.notna().to_numpy()
    return digests(f"{name} {side}" for name, side in zip(adata.obs_names[there], sides[there], strict=True))


def write_split(adata: AnnData, side: NDArray[np.int8], groupby: str | None) -> None:
    """Write `obs["split"]`, and what is needed to know it again."""
    adata.obs[SPLIT] = pd.Categorical.from_codes(side, categories=list(SIDES))
    adata.uns[SPLIT_INFO] = {
        "by": "random" if groupby is None else f"by {groupby}",
        "rows": np.sort(split_digests(adata)),
    }


def split_by(adata: AnnData) -> str:
    """Return how the present split was made: at random, by which groups, or by hand since."""
    info = adata.uns.get(SPLIT_INFO)
    if not isinstance(info, Mapping) or not {"by", "rows"} <= set(info):
        return "by hand"
    return str(info["by"]) if np.isin(split_digests(adata), np.asarray(info["rows"])).all() else "by hand"


def split_column(adata: AnnData) -> str | None:
    """Return the column of `obs` whose groups the present split keeps together, None where there is none."""
    column = split_by(adata).removeprefix("by ")
    # A split by hand keeps nothing together, as far as anybody knows.
    return None if column in ("random", "hand") else column
