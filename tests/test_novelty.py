"""How unlike the training rows a sample is."""

from __future__ import annotations

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from conftest import standardised
from sklearn.covariance import OAS

import gexinfer as gx

COLUMNS = ["gexinfer_novelty", "gexinfer_novelty_percentile"]


@pytest.fixture
def query(fitted_once):
    """Landmarks alone of 30 samples."""
    landmark = fitted_once.var["landmark"].to_numpy()
    return ad.AnnData(fitted_once.X[:30][:, landmark].copy(), var=fitted_once.var.loc[landmark, []])


def test_novelty_is_a_mahalanobis_distance(fitted):
    sides = ("train", "validation", "test")
    train, *others = (x for x, _ in standardised(fitted, *sides))
    precision = OAS(assume_centered=True).fit(train).precision_
    expected = {s: np.einsum("ij,jk,ik->i", x, precision, x) / 60 for s, x in zip(sides, (train, *others), strict=True)}
    for side in sides:
        rows = (fitted.obs["split"] == side).to_numpy()
        np.testing.assert_allclose(fitted.obs["gexinfer_novelty"][rows], expected[side], rtol=1e-3)
        share = [(expected["validation"] <= value * (1 + 1e-5)).mean() * 100 for value in expected[side]]
        np.testing.assert_allclose(fitted.obs["gexinfer_novelty_percentile"][rows], share, atol=3)


@pytest.mark.parametrize("method", ["ridge", "sample_lasso"])
def test_of_missing_landmarks_only_the_others_count(fitted_once, query, method):
    fitted = gx.io.read_model(fitted_once, key=method)
    query.X[::2, :20] = np.nan
    query = query[:, 5:].copy()
    full = gx.tl.predict(query, model=fitted_once, key=method, output="anndata", progress=False)
    X = query[:, [g for g in fitted.landmarks if g in query.var_names]].X
    places = [i for i, g in enumerate(fitted.landmarks) if g in query.var_names]
    z = ((X - fitted.landmark_scale.mean[places]) / fitted.landmark_scale.unit[places]).astype(float)
    for row, found in zip(z, full.obs["gexinfer_novelty"], strict=True):
        there = np.isfinite(row)
        block = fitted.gaussian.covariance[np.ix_(places, places)][np.ix_(there, there)]
        assert found == pytest.approx(row[there] @ np.linalg.solve(block, row[there]) / there.sum(), rel=1e-3)


def test_a_cohort_unlike_any_seen_lights_up(bulk_once, capsys):
    adata = bulk_once.copy()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    thyroid = adata.obs["tissue"].eq("thca").to_numpy() | adata.obs["cohort"].eq("TCGA normal:thca").to_numpy()
    blood = adata.obs["tissue"].eq("blood_pbmc").to_numpy()
    unseen = {"thyroid": thyroid, "blood": blood}
    adata.obs.loc[thyroid | blood, "split"] = np.nan
    gx.tl.fit(adata, "mean", progress=False)
    gx.tl.predict(adata, progress=False)
    percentile = adata.obs["gexinfer_novelty_percentile"]
    seen = percentile[(adata.obs["split"] == "test").to_numpy()]
    assert 35 < seen.median() < 65
    for rows in unseen.values():
        assert rows.sum() > 20
        assert percentile[rows].median() > 90
        assert percentile[rows].min() > 50
    strange = adata[thyroid].copy()
    strange.X = strange.X[:, np.random.default_rng(0).permutation(strange.n_vars)]
    capsys.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gx.tl.predict(strange, progress=False)
    n = strange.n_obs
    assert (
        f"predict: {n} of {n} samples are less like the training rows than 99 % of the validation"
        in capsys.readouterr().err
    )
    assert (strange.obs["gexinfer_novelty_percentile"] == 100).all()


def test_of_several_models_the_largest(fitted_once, query):
    landmarks = fitted_once.var_names[fitted_once.var["landmark"]]
    few = fitted_once[:, ~fitted_once.var_names.isin(landmarks[:30])].copy()
    gx.tl.fit(few, "mean", key_added="few", progress=False)
    fitted_once = fitted_once.copy()
    fitted_once.uns["few"] = few.uns["few"]
    each = {
        k: gx.tl.predict(query, model=fitted_once, key=k, output="anndata", progress=False).obs for k in ("few", "ols")
    }
    both = gx.tl.predict(query, model=fitted_once, key=["few", "ols"], output="anndata", progress=False)
    for column in COLUMNS:
        np.testing.assert_array_equal(both.obs[column], np.maximum(each["few"][column], each["ols"][column]))


def test_without_validation_rows_there_is_no_percentile(small):
    small.obs.loc[small.obs["split"] == "validation", "split"] = np.nan
    gx.tl.fit(small, "ols", progress=False)
    gx.tl.predict(small, progress=False)
    assert small.obs["gexinfer_novelty"].notna().all()
    assert small.obs["gexinfer_novelty_percentile"].isna().all()


def test_novelty_does_not_depend_on_how_samples_are_read(fitted_once, query, tmp_path):
    asked = {"model": fitted_once, "key": "ridge", "progress": False}
    expected = gx.tl.predict(query, output="anndata", **asked).obs
    alone = gx.tl.predict(query[7:8].copy(), output="anndata", **asked).obs
    pd.testing.assert_frame_equal(alone, expected[7:8])
    gx.tl.predict(query, output=tmp_path / "a.zarr", **asked)
    pd.testing.assert_frame_equal(ad.read_zarr(tmp_path / "a.zarr").obs, expected)
    lazy = ad.AnnData(da.from_array(query.X, chunks=(10, -1)), obs=expected.copy(), var=query.var)
    assert not set(COLUMNS) & set(gx.tl.predict(lazy, output="anndata", **asked).obs)
