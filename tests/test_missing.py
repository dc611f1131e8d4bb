"""Landmarks that a query lacks, as columns or in single samples."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import oas

import gexinfer as gx
from gexinfer.engine.gaussian import Gaussian, packed, shrunk, unpacked


@pytest.fixture
def query(fitted):
    """Test samples with landmarks alone."""
    rows = (fitted.obs["split"] == "test").to_numpy()
    return ad.AnnData(
        fitted.X[rows][:, fitted.var["landmark"]].copy(), fitted.obs[rows][[]], fitted.var[fitted.var["landmark"]][[]]
    )


def test_shrinkage_is_that_of_scikit_learn():
    X = np.random.default_rng(0).standard_normal((30, 12)) @ np.random.default_rng(1).standard_normal((12, 12))
    expected, _ = oas(X)
    np.testing.assert_allclose(shrunk(np.cov(X.T, bias=True), len(X)), expected, rtol=1e-10)


def test_a_triangle_is_unpacked_again():
    C = np.cov(np.random.default_rng(0).standard_normal((20, 7)).T)
    np.testing.assert_allclose(unpacked(packed(C)), C, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(p=st.integers(2, 12), seed=st.integers(0, 999), share=st.floats(0, 0.9))
def test_missing_values_are_the_conditional_mean(p, seed, share):
    rng = np.random.default_rng(seed)
    C = np.cov(rng.standard_normal((3 * p, p)).T, bias=True)
    block = rng.standard_normal((5, p)).astype(np.float32)
    lacks = rng.random(block.shape) < share
    lacks[:, 0] = False
    gaussian = Gaussian(C, 3 * p)
    filled = gaussian.fill(np.where(lacks, np.nan, block))
    S = shrunk(C, 3 * p)
    for row, out, m in zip(block, filled, lacks, strict=True):
        expected = S[np.ix_(m, ~m)] @ np.linalg.solve(S[np.ix_(~m, ~m)], row[~m])
        np.testing.assert_allclose(out[m], expected, atol=1e-4)
        np.testing.assert_array_equal(out[~m], row[~m])


def error(fitted, filled, key="ridge"):
    rows = (fitted.obs["split"] == "test").to_numpy()
    model = gx.io.read_model(fitted, key=key)
    full = gx.tl.predict(filled, model=fitted, key=key, output="anndata", max_missing=1, progress=False)
    away = full[:, list(model.targets)].layers[key] - fitted[rows, list(model.targets)].X
    return float(np.abs(away / model.target_scale.unit).mean())


def test_error_grows_smoothly_with_missing_landmarks_and_is_below_that_of_the_mean(bulk_once):
    full = bulk_once.copy()
    gx.pp.landmarks(full)
    gx.pp.split(full)
    full = full[:, full.var["landmark"] | (np.arange(full.n_vars) % 4 == 0)].copy()
    gx.tl.fit(full, "ridge", progress=False)
    rows, mask = (full.obs["split"] == "test").to_numpy(), full.var["landmark"].to_numpy()
    query = ad.AnnData(full.X[rows][:, mask].copy(), full.obs[rows][[]], full.var[mask][[]])
    order = np.random.default_rng(0).permutation(query.n_vars)
    errors, with_mean = [], []
    for share in (0, 0.1, 0.2, 0.3, 0.4, 0.5):
        lost = order[: int(share * query.n_vars)]
        holed, means = query.copy(), query.copy()
        holed.X[:, lost] = np.nan
        means.X[:, lost] = gx.io.read_model(full, key="ridge").landmark_scale.mean[lost]
        errors.append(error(full, holed))
        with_mean.append(error(full, means))
    steps = np.diff(errors)
    assert (steps > 0).all()
    assert steps.max() < 0.03 * errors[0]
    assert errors[-1] < 1.12 * errors[0]
    assert (np.array(errors[1:]) < 0.9 * np.array(with_mean[1:])).all()


def test_columns_that_are_lacking_are_columns_of_nan(fitted, query):
    holed = query.copy()
    holed.X[:, [0, 5]] = np.nan
    keep = np.setdiff1d(np.arange(query.n_vars), [0, 5])
    for key in ("ridge", "dgex", "knn", "kernel", "sample_lasso"):
        a = gx.tl.predict(holed, model=fitted, key=key, output="anndata", progress=False)
        b = gx.tl.predict(query[:, keep].copy(), model=fitted, key=key, output="anndata", progress=False)
        np.testing.assert_array_equal(a.X, b.X)
        assert np.isfinite(a.X).all()
        np.testing.assert_allclose(a.obs["gexinfer_missing"], 2 / query.n_vars, rtol=1e-6)
        role = a.var["gexinfer_role"]
        assert (role[query.var_names[[0, 5]]] == "inferred").all()
        assert (role[query.var_names[keep]] == "landmark").all()


def test_each_sample_is_filled_by_itself_and_reported(fitted, query):
    query.X[3, 7], query.X[5, :10] = np.nan, np.nan
    whole = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    shares = np.zeros(query.n_obs)
    shares[3], shares[5] = 1 / 60, 10 / 60
    np.testing.assert_allclose(whole.obs["gexinfer_missing"], shares, rtol=1e-6)
    alone = gx.tl.predict(query[[5]].copy(), model=fitted, key="ridge", output="anndata", progress=False)
    np.testing.assert_array_equal(whole.X[[5]], alone.X)
    np.testing.assert_array_equal(whole[:, query.var_names].X[0], query.X[0])
    inferred = whole[:, query.var_names].X[5, :10]
    model = gx.io.read_model(fitted, key="ridge")
    assert np.abs((inferred - model.landmark_scale.mean[:10]) / model.landmark_scale.unit[:10]).max() < 6


def test_too_many_are_refused_unless_asked_for(fitted, query):
    with pytest.raises(ValueError, match=r"lacks 40 of the 60 landmarks of 'ridge'.*max_missing=0.67"):
        gx.tl.predict(query[:, 40:].copy(), model=fitted, key="ridge", output="anndata", progress=False)
    gx.tl.predict(query[:, 40:].copy(), model=fitted, key="ridge", output="anndata", max_missing=0.67, progress=False)
    query.X[2, :31] = np.nan
    with pytest.raises(ValueError, match=r"adata.X lacks more than 50% of the 60 landmarks .* that at row 2 lacks 52%"):
        gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    query.X[2] = np.nan
    for key in ("ridge", "sample_lasso"):
        with pytest.raises(ValueError, match=r"holds none of the 60 landmarks of .* in 1 samples, e.g. at row 2"):
            gx.tl.predict(query, model=fitted, key=key, output="anndata", max_missing=1, progress=False)
    query.X[2] = np.inf
    with pytest.raises(ValueError, match=r"adata.X holds inf in 60 of 60 genes"):
        gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)


def test_what_was_filled_is_no_stale_prediction(fitted):
    rows = np.flatnonzero(fitted.obs["split"] == "test")
    measured = fitted.copy()
    fitted.X[rows[0], np.flatnonzero(fitted.var["landmark"])[:4]] = np.nan
    gx.tl.predict(fitted, key=["ridge", "sample_lasso"], progress=False)
    by_lasso = gx.tl.evaluate(fitted, key="sample_lasso")
    fitted.X = measured.X
    by_ridge = gx.tl.evaluate(fitted, key="ridge")
    assert by_lasso.loc["sample_lasso", "n_samples"] == by_ridge.loc["ridge", "n_samples"] == len(rows)
    fitted.layers["ridge"][rows] += 1
    with pytest.raises(ValueError, match=r"does not hold what adata.uns\['ridge'\] predicts"):
        gx.tl.evaluate(fitted, key="ridge")


def test_many_patterns_in_many_threads_are_forgotten_again():
    rng = np.random.default_rng(0)
    C = np.cov(rng.standard_normal((90, 30)).T, bias=True)
    gaussian, block = Gaussian(C, 90), rng.standard_normal((400, 30)).astype(np.float32)
    block[rng.random(block.shape) < 0.2] = np.nan
    with ThreadPoolExecutor(8) as threads:
        found = np.concatenate([*threads.map(gaussian.fill, np.split(block, 40))])
    assert len(gaussian.weights) <= 16
    np.testing.assert_array_equal(found, Gaussian(C, 90).fill(block))


def test_what_was_put_right_is_told_as_measured_again(fitted, query):
    whole = fitted[:20].copy()
    for name in [name for name in whole.layers if name is not None]:
        del whole.layers[name]
    measured = whole.X.copy()
    gene = whole.var_names[whole.var["landmark"]][0]
    whole.X[0, whole.var_names.get_loc(gene)] = np.nan
    gx.tl.predict(whole, key=["ridge", "ols"], progress=False)
    assert whole.var.loc[gene, "gexinfer_role"] == "inferred"
    whole.X = measured
    gx.tl.predict(whole, key="ridge", progress=False)
    # That of ols is still there.
    assert whole.var.loc[gene, "gexinfer_role"] == "inferred"
    assert whole.obs["gexinfer_missing"].max() == pytest.approx(1 / 60)
    gx.tl.predict(whole, key=["ridge", "ols"], progress=False)
    assert whole.var.loc[gene, "gexinfer_role"] == "landmark"
    assert whole.obs["gexinfer_missing"].max() == 0


def test_standard_deviations_of_samples_that_lack_landmarks_are_warned_of(fitted, query):
    query.X[1, 2] = np.nan
    with pytest.warns(UserWarning, match="kernel: samples lack landmarks, .* standard deviations are too small"):
        gx.tl.predict(query, model=fitted, key="kernel", std=True, output="anndata", progress=False)


def test_landmarks_that_are_there_under_another_name_are_warned_of(bulk_once):
    full = bulk_once.copy()
    gx.pp.landmarks(full)
    full.obs["split"] = "train"
    gx.tl.fit(full, "mean", targets=list(full.var_names[~full.var["landmark"]][:5]), progress=False)
    query = ad.AnnData(full.X[:20][:, full.var["landmark"]], var=full.var[full.var["landmark"]][[]])
    query.var_names = query.var_names.str.replace(r"^GPR56$", "ADGRG1", regex=True)
    with pytest.warns(
        UserWarning, match=r"lacks 1 of the 978 .* under other names, 'GPR56 as ADGRG1': run .*match_genes"
    ):
        gx.tl.predict(query, model=full, output="anndata", progress=False)


def test_a_query_of_constant_landmarks_alone(small):
    genes = small.var_names[small.var["landmark"]][:3]
    small.X[:, small.var_names.get_indexer(genes)] = 1
    with pytest.warns(UserWarning, match="3 genes are constant"):
        gx.tl.fit(small, "ridge", progress=False)
    made = gx.tl.predict(small[:, genes].copy(), model=small, output="anndata", max_missing=1, progress=False)
    assert np.isfinite(made.X).all()


def test_standard_deviations_of_chosen_genes_are_theirs(fitted, query):
    whole = gx.tl.predict(query, model=fitted, key="kernel", std=True, output="anndata", progress=False)
    targets = gx.io.read_model(fitted, key="kernel").targets
    genes = [targets[5], targets[40]]
    some = gx.tl.predict(query, model=fitted, key="kernel", std=True, genes=genes, output="anndata", progress=False)
    np.testing.assert_array_equal(some.layers["kernel_std"], whole[:, some.var_names].layers["kernel_std"])
