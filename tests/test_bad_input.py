"""Everything the main job refuses: the message names slot, value and remedy, and the object stays as it was."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

import gexinfer as gx
from gexinfer.methods import METHODS


def var(value):
    """Replace `var["landmark"]`."""

    def spoil(adata):
        adata.var["landmark"] = value(adata.var["landmark"]) if callable(value) else value

    return spoil


def split(value):
    """Replace `obs["split"]`."""

    def spoil(adata):
        adata.obs["split"] = value

    return spoil


def values(value, side="train"):
    """Spoil one gene in three rows of one side."""

    def spoil(adata):
        adata.X[np.flatnonzero(adata.obs["split"] == side)[:3], 7] = value
        adata.layers["same"] = adata.X

    return spoil


def rename_twice(adata):
    names = adata.var_names.to_numpy().copy()
    names[1] = names[0]
    adata.var_names = names


def name_samples_twice(adata):
    names = adata.obs_names.to_numpy().copy()
    names[1] = names[0]
    adata.obs_names = names


def nothing(adata):
    pass


CASES = {
    "no landmark column": (lambda a: a.var.drop(columns="landmark", inplace=True), {}, KeyError, "'landmark'; run gexinfer.pp.landmarks"),
    "none flagged": (var(False), {}, ValueError, r"var\['landmark'\] flags no gene; run gexinfer.pp"),
    "all flagged": (var(True), {}, ValueError, "flags all 150 genes, so there is no target.*model=reference"),
    "landmark not bool": (var(lambda v: v.astype(int)), {}, TypeError, "dtype int64 and values like .*== 1"),
    "landmark as text": (var(lambda v: v.astype(str)), {}, TypeError, "must be bool"),
    "NaN in X": (values(np.nan), {}, ValueError, r"adata.X holds NaN or inf in 1 of 150 genes, over 204 rows: '.*' \(3 rows\)"),
    "inf in X": (values(np.inf, "validation"), {}, ValueError, r"1 of 150 genes, over 204 rows: '.*' \(3 rows\)"),
    "NaN in a layer": (values(np.nan), {"layer": "same"}, ValueError, r"adata.layers\['same'\] holds NaN"),
    "no split": (lambda a: a.obs.drop(columns="split", inplace=True), {}, KeyError, "no column 'split'; run gexinfer.pp.split"),
    "no training row": (split("test"), {}, ValueError, "marks 0 rows as 'train'; at least 10.*pp.split"),
    "9 training rows": (split(["train"] * 9 + ["validation"] * 231), {}, ValueError, "marks 9 rows as 'train'"),
    "no validation row": (split("train"), {"method": "knn"}, ValueError, "no row as 'validation', on which method='knn'"),
    "unknown side": (split("dev"), {}, ValueError, "holds 'dev'; it may hold train, validation, test only"),
    "landmark as target": (nothing, {"targets": "by name"}, ValueError, "1 targets are landmarks too: '.*allow_overlap=True"),
    "unknown target": (nothing, {"targets": ["NOGENE"]}, KeyError, "1 genes that adata.var_names does not hold: 'NOGENE'"),
    "unknown target column": (nothing, {"targets": "NOCOLUMN"}, KeyError, "adata.var has no column 'NOCOLUMN'"),
    "no target": (nothing, {"targets": []}, ValueError, "selects no gene"),
    "duplicate names": (rename_twice, {}, ValueError, "adata.var_names holds 1 names more than once: '.*make_unique"),
    "no such layer": (nothing, {"layer": "log"}, KeyError, r"adata.layers has no 'log'; it has \[\]"),
    "unknown method": (nothing, {"method": "lasagne"}, ValueError, "choose one of auto, mean, ols, ridge, lasso, rrr, knn, knn_genes, sample_lasso, kernel, dgex, residual, ggan, semigan"),
    "unknown option": (nothing, {"alpha": 1}, TypeError, "alpha=1 is not an option of method='ridge'; it takes penalty"),
    "infinite penalty": (nothing, {"penalty": np.inf}, ValueError, "penalty=inf must be positive and finite"),
    "key of the mean predictor": (nothing, {"key_added": "mean"}, ValueError, "'mean' cannot name a 'ridge' model: gexinfer keeps"),
    "duplicate samples": (name_samples_twice, {}, ValueError, "adata.obs_names holds 1 names more than once: '.*make_unique"),
    "bad penalty": (nothing, {"penalty": -1.0}, ValueError, "penalty=-1.0 must be positive"),
    "key of something else": (lambda a: a.uns.__setitem__("pca", {}), {"key_added": "pca"}, ValueError, r"uns\['pca'\] holds something"),
    "key of a data layer": (lambda a: a.layers.__setitem__("raw", a.X), {"key_added": "raw"}, ValueError, r"layers\['raw'\] is there already"),
    "key of a slot": (nothing, {"key_added": "gexinfer_split"}, ValueError, "gexinfer keeps that name for itself"),
    "key of X": (nothing, {"key_added": "X"}, ValueError, "'X' cannot name"),
    "key with a slash": (nothing, {"key_added": "a/b"}, ValueError, "'a/b' cannot name a model"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:(Variable|Observation) names are not unique")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_fit_refuses_and_changes_nothing(small, name, form):
    spoil, options, error, match = CASES[name]
    spoil(small)
    small.X = form(small.X)
    options = {"method": "ridge", **options}
    if options.get("targets") == "by name":
        options["targets"] = [small.var_names[small.var["landmark"]][0], small.var_names[~small.var["landmark"]][0]]
    before = contents(small)
    with pytest.raises(error, match=match):
        gx.tl.fit(small, progress=False, **options)
    assert contents(small) == before


def contents(adata):
    """Return all that a caller could find changed."""
    X = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    return (
        X.tobytes(),
        adata.obs.to_csv(),
        adata.var.to_csv(),
        list(adata.uns),
        [name for name in adata.layers if name],
        list(adata.varm),
    )


def test_overlap_on_request(small):
    both = small.var_names[:100].tolist()
    gx.tl.fit(small, "ridge", targets=both, allow_overlap=True, progress=False)
    gx.tl.predict(small, progress=False)
    assert (small.var["gexinfer_role"][:100] == "inferred").all()
    assert gx.tl.evaluate(small).loc["ridge", "n_genes"] == 100


def test_counts_are_warned_of(small):
    small.X = np.round(2**small.X)
    with pytest.warns(UserWarning, match="adata.X looks like raw counts .*sc.pp.log1p"):
        gx.tl.fit(small, "ridge", progress=False)


def test_predict_refuses_inf_and_writes_nothing(fitted):
    for layer in METHODS:
        del fitted.layers[layer]
    landmark = np.flatnonzero(fitted.var["landmark"])[3]
    fitted.X[:2, landmark] = np.inf
    with pytest.raises(
        ValueError,
        match=rf"adata.X holds inf in 1 of 60 genes, over 240 rows: '{fitted.var_names[landmark]}' \(2 rows\)",
    ):
        gx.tl.predict(fitted, progress=False)
    assert not set(METHODS) & set(fitted.layers)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"output": "frame"}, ValueError, "choose one of 'layer', 'anndata', 'mudata'"),
        ({"model": "ref.h5ad"}, TypeError, "is a str; pass an AnnData .*gexinfer.io.read_model"),
    ],
)
def test_predict_refuses_options(fitted, options, error, match):
    with pytest.raises(error, match=match):
        gx.tl.predict(fitted, progress=False, **options)


@pytest.mark.parametrize("key", ["log", "counts"])
def test_predict_never_overwrites_measured_values(small, fitted, key):
    model = gx.io.read_model(fitted, key="ridge")
    small.layers["log"], small.layers["counts"] = small.X.copy(), small.X.copy()
    gx.tl.predict(small, model=model, progress=False)
    gx.tl.predict(small, model=model, progress=False)  # its own layer it may write again
    for options in ({}, {"layer": key}):
        with pytest.raises(ValueError, match=rf"layers\['{key}'\] is there already, and uns does not say"):
            gx.tl.predict(small, model=model, key=key, progress=False, **options)
    np.testing.assert_array_equal(small.layers[key], small.X)


def test_predict_never_overwrites_a_layer_made_after_the_fit(small):
    gx.tl.fit(small, "ridge", progress=False)
    small.layers["ridge"] = small.X.copy()
    with pytest.raises(ValueError, match=r"layers\['ridge'\] is there already"):
        gx.tl.predict(small, progress=False)


@pytest.mark.parametrize("key", ["a/b", "", "mean", "nearest", "gexinfer_role"])
def test_predict_refuses_names_that_would_ruin_a_file_or_a_slot(small, fitted, key):
    with pytest.raises(ValueError, match="cannot name a"):
        gx.tl.predict(small, model=gx.io.read_model(fitted, key="ridge"), key=key, progress=False)


@pytest.mark.parametrize(
    "function", [gx.pp.landmarks, gx.pp.split, lambda a: gx.tl.fit(a, "ridge"), gx.tl.predict, gx.tl.evaluate]
)
def test_what_is_no_anndata(function):
    with pytest.raises(TypeError, match="adata is a str; pass an AnnData, e.g. anndata.read_h5ad"):
        function("ref.h5ad")


def test_standardised_values_are_warned_of(small):
    small.X = (small.X - small.X.mean(0)) / small.X.std(0)
    with pytest.warns(UserWarning, match="looks standardised gene by gene"):
        gx.tl.fit(small, "mean", progress=False)


def test_predict_without_a_model_says_that_concat_drops_it(small):
    with pytest.raises(KeyError, match="no gexinfer model. Run gexinfer.tl.fit.*concat drops uns"):
        gx.tl.predict(small, progress=False)


def test_a_part_of_a_backed_file_is_refused_before_anything_is_trained(small, tmp_path):
    small.write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    part = backed[backed.obs["split"] != "test"]
    with pytest.raises(ValueError, match="part of a backed file, into which no model can be written. Load it"):
        gx.tl.fit(part, "dgex", progress=False)
