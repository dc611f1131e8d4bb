"""Several methods in one call, and reading lazily what is compared."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import quick
from typer.testing import CliRunner

import gexinfer as gx
from gexinfer.cli import app

METHODS = ["mean", "ols", "ridge", "lasso", "rrr", "knn", "knn_genes", "kernel"]


def test_it_is_fit_predict_evaluate(small, fitted_once):
    table = gx.tl.compare(small, METHODS, progress=False)
    expected = fitted_once.copy()
    plain = gx.tl.evaluate(expected, key=METHODS)
    pd.testing.assert_frame_equal(table[plain.columns], plain, rtol=1e-4)
    assert (table.loc[METHODS, ["fit_seconds", "predict_seconds"]] > 0).all(axis=None)
    for method in METHODS:
        np.testing.assert_allclose(small.layers[method], fitted_once.layers[method], atol=1e-4)
        assert small.uns[method]["params"]["method"] == method
    assert "gexinfer_mae" in small.varm


def test_options_and_names(small):
    methods = {"ridge": {}, "each": {"method": "ridge", "per_gene": True}, "dgex": quick("dgex")}
    table = gx.tl.compare(small, methods, progress=False)
    assert set(table.index) == {"ridge", "each", "dgex", "mean", "nearest"}
    assert small.uns["each"]["params"]["per_gene"] is True
    assert small.uns["dgex"]["params"]["epochs"] == 3
    assert methods["each"] == {"method": "ridge", "per_gene": True}
    assert np.isnan(table.loc["mean", "fit_seconds"])


@pytest.mark.parametrize(
    ("methods", "error", "match"),
    [
        (["ridge", "lasagne"], ValueError, "'lasagne' is not a method of gexinfer"),
        ({"ridge": {"alpha": 1}}, TypeError, "alpha=1 is not an option of method='ridge'"),
        ("ridge", ValueError, "must be a list of methods"),
        ([], ValueError, "must be a list of methods"),
        ({"a/b": {"method": "ridge"}}, ValueError, "'a/b' cannot name a model"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_fitted(small, methods, error, match):
    with pytest.raises(error, match=match):
        gx.tl.compare(small, methods, progress=False)
    assert set(small.uns) == {"gexinfer_split"}
    assert not small.layers


def test_a_generator_is_no_seed_for_several_fits(small):
    with pytest.raises(TypeError, match=r"rng=.* must be a whole number from 0 on"):
        gx.tl.compare(small, ["mean"], rng=np.random.default_rng(0), progress=False)


@pytest.mark.parametrize(
    ("methods", "spoil", "match"),
    [
        ({"mean": {}, "rrr": {"rank": 61}}, None, "rank=61 is more than"),
        ({"mean": {}, "knn": {"k": 500}}, None, "k=500 is more than"),
        ({"mean": {}, "ridge": {}}, "target", "holds NaN or inf in 1 of 150 genes, over 36 rows"),
        ({"mean": {}, "ridge": {}}, "landmark", "holds NaN or inf in 1 of 150 genes, over 36 rows"),
    ],
)
def test_what_goes_wrong_while_fitting_writes_nothing(small, methods, spoil, match):
    if spoil:
        gene = np.flatnonzero(small.var["landmark"] == (spoil == "landmark"))[3]
        small.X[np.flatnonzero(small.obs["split"] == "test")[2], gene] = np.nan
    with pytest.raises(ValueError, match=match):
        gx.tl.compare(small, methods, progress=False)
    assert set(small.uns) == {"gexinfer_split"}
    assert not small.layers
    assert "gexinfer_role" not in small.var


def test_without_test_rows_nothing_is_fitted(small):
    small.obs["split"] = small.obs["split"].astype(str).replace("test", "train")
    with pytest.raises(ValueError, match="no row as 'test', on which to compare"):
        gx.tl.compare(small, ["ridge"], progress=False)
    assert "ridge" not in small.uns


def test_from_a_shell(small, tmp_path):
    del small.obs["split"]
    small.write_h5ad(tmp_path / "a.h5ad")
    options = ["--methods", "mean, ridge,knn", "--groupby", "cohort"]
    outputs = ["--csv", str(tmp_path / "t.csv"), "-o", str(tmp_path / "b.h5ad")]
    done = CliRunner().invoke(app, ["compare", str(tmp_path / "a.h5ad"), *options, *outputs])
    assert done.exit_code == 0, done.output
    assert "split by cohort" in done.output
    assert "fit, s" in done.output
    table = pd.read_csv(tmp_path / "t.csv", index_col=0)
    assert set(table.index) == {"mean", "ridge", "knn", "nearest"}
    gx.pp.split(small, groupby="cohort")
    expected = gx.tl.compare(small, ["mean", "ridge", "knn"], progress=False)
    pd.testing.assert_series_equal(table["mae"], expected["mae"], check_names=False, rtol=1e-6)
    assert {"mean", "ridge", "knn"} <= set(ad.read_h5ad(tmp_path / "b.h5ad").uns)


def test_from_a_shell_without_data_the_bundled_ones_are_compared():
    done = CliRunner().invoke(app, ["compare", "--methods", "mean,ridge,kernel"])
    assert done.exit_code == 0, done.output
    assert "Error on 139 test samples (drawn at random)" in done.output
    assert "0.222" in done.output
    done = CliRunner().invoke(app, ["compare", "--methods", "lasagne"])
    assert done.exit_code == 2
    assert "'lasagne'" in done.output


@pytest.mark.parametrize("suffix", [".h5ad", ".zarr"])
def test_values_that_stay_on_disk(small, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata: reading lazily is experimental
        small.write_h5ad(path) if suffix == ".h5ad" else small.write_zarr(path)
        lazy = ad.experimental.read_lazy(path)
        lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    table = gx.tl.compare(lazy, ["ridge", "lasso", "kernel", "knn"], progress=False)
    expected = gx.tl.compare(small, ["ridge", "lasso", "kernel", "knn"], progress=False)
    pd.testing.assert_frame_equal(table.iloc[:, :10], expected.iloc[:, :10], rtol=1e-4)
