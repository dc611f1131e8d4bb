"""Lassos over landmarks and over samples against scikit-learn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from conftest import arrays_of, standardised
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods._descent import descend

PENALTIES = np.logspace(-0.5, -3, 11)


def scikit_learn_s(X, Y, penalty):
    """Return (columns of X, columns of Y) coefficients."""
    model = Lasso(alpha=penalty, fit_intercept=False, tol=1e-10, max_iter=1_000_000)
    return np.stack([model.fit(X, y).coef_ for y in Y.T], axis=1)


def coefficients(adata, key="lasso"):
    import scipy.sparse as sp

    a = records(adata, key)[key].model.arrays
    parts = [a[f"coefficients.{name}"] for name in ("data", "indices", "indptr")]
    return sp.csr_array(tuple(parts), shape=(90, 60)).toarray().T


@pytest.mark.parametrize("penalty", [0.3, 0.1, 0.03, 0.01, 0.001])
def test_coefficients_are_scikit_learn_s(small, penalty):
    gx.tl.fit(small, "lasso", penalty=penalty, progress=False)
    ((X, Y),) = standardised(small, "train")
    expected = scikit_learn_s(X, Y, penalty)
    np.testing.assert_allclose(coefficients(small), expected, atol=1e-5)
    used = small.varm["gexinfer_n_landmarks"]["lasso"]
    landmark = small.var["landmark"].to_numpy()
    assert used[landmark].isna().all()
    np.testing.assert_array_equal(used[~landmark], (np.abs(coefficients(small)) > 0).sum(0))
    assert np.abs(used[~landmark] - (np.abs(expected) > 1e-7).sum(0)).max() <= 1


def test_predictions_are_scikit_learn_s(fitted):
    (X, Y), (X_test, _) = standardised(fitted, "train", "test")
    expected = X_test @ scikit_learn_s(X, Y, fitted.uns["lasso"]["params"]["penalty"])
    mean, unit = arrays_of(fitted, "train")[1].mean(0), arrays_of(fitted, "train")[1].std(0) + 1e-3
    rows, target = (fitted.obs["split"] == "test").to_numpy(), ~fitted.var["landmark"].to_numpy()
    np.testing.assert_allclose((fitted.layers["lasso"][rows][:, target] - mean) / unit, expected, atol=1e-4)


def test_validation_picks_the_penalty_down_the_path(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    errors = [np.abs(X_val @ scikit_learn_s(X, Y, a) - Y_val).mean() for a in PENALTIES[:9]]
    params = fitted.uns["lasso"]["params"]
    assert params["penalty"] == pytest.approx(PENALTIES[np.argmin(errors)])
    assert params["validation_mae"] == pytest.approx(min(errors), rel=1e-3)


@pytest.mark.parametrize("penalty", [0.2, 0.01])
def test_fewer_rows_than_landmarks(bulk_once, penalty):
    adata = bulk_once[:200, :340].copy()
    adata.var["landmark"] = np.arange(340) < 300
    gx.pp.split(adata)
    gx.tl.fit(adata, "lasso", penalty=penalty, progress=False)
    (X, Y), (X_test, _) = standardised(adata, "train", "test")
    gx.tl.predict(adata, progress=False)
    mean, unit = arrays_of(adata, "train")[1].mean(0), arrays_of(adata, "train")[1].std(0) + 1e-3
    rows = (adata.obs["split"] == "test").to_numpy()
    found = (adata.layers["lasso"][rows][:, 300:] - mean) / unit
    np.testing.assert_allclose(found, X_test @ scikit_learn_s(X, Y, penalty), atol=1e-3)


def test_as_many_landmarks_as_rows_are_used_and_still_exact(bulk_once):
    adata = bulk_once[:80, :320].copy()
    adata.var["landmark"] = np.arange(320) < 300
    gx.pp.split(adata, fractions=(0.5, 0.25, 0.25))
    gx.tl.fit(adata, "lasso", penalty=0.001, progress=False)
    ((X, Y),) = standardised(adata, "train")
    a = records(adata)["lasso"].model.arrays
    parts = [a[f"coefficients.{name}"] for name in ("data", "indices", "indptr")]
    import scipy.sparse as sp

    found = sp.csr_array(tuple(parts), shape=(20, 300)).toarray().T
    np.testing.assert_allclose(found, scikit_learn_s(X, Y, 0.001), atol=1e-4)
    assert np.median(a["n_landmarks"]) > 30


def objective(G, t, w, penalty):
    return 0.5 * w @ G @ w - t @ w + penalty * np.abs(w).sum()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 12), st.floats(0.001, 0.8), st.booleans(), st.booleans()
)
def test_no_weight_can_be_moved_to_its_gain(seed, n, k, penalty, twins, warm):
    """The conditions of a minimum, on few rows, collinear columns, constant columns, from any start."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, k))
    if twins and k > 2:
        X[:, 1], X[:, 2] = X[:, 0], 0
    Y = rng.standard_normal((n, 3))
    G, t = X.T @ X / n, np.ascontiguousarray((X.T @ Y).T / n)
    w = rng.standard_normal((3, k)) if warm else np.zeros((3, k))
    w[:, np.diag(G) == 0] = 0
    descend(G, t, penalty, w)
    for row, target in zip(w, t, strict=True):
        slope = target - G @ row
        assert np.abs(slope).max() <= penalty + 1e-5
        np.testing.assert_allclose(slope[row != 0], penalty * np.sign(row[row != 0]), atol=1e-5)
        assert objective(G, target, row, penalty) <= 1e-12


def test_twin_landmarks_give_the_same_prediction(small):
    first, second = np.flatnonzero(small.var["landmark"])[:2]
    small.X[:, second] = small.X[:, first]
    gx.tl.fit(small, "lasso", penalty=0.05, progress=False)
    ((X, Y),) = standardised(small, "train")
    np.testing.assert_allclose(X @ coefficients(small), X @ scikit_learn_s(X, Y, 0.05), atol=1e-4)


# Over samples.


def inferred(adata, key="sample_lasso"):
    rows, target = (adata.obs["split"] == "test").to_numpy(), ~adata.var["landmark"].to_numpy()
    mean, unit = arrays_of(adata, "train")[1].mean(0), arrays_of(adata, "train")[1].std(0) + 1e-3
    return (adata.layers[key][rows][:, target] - mean) / unit


def test_each_sample_is_scikit_learn_s_lasso_over_the_training_samples(small):
    gx.tl.fit(small, "sample_lasso", penalty=0.1, progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    weights = scikit_learn_s(X.T, X_test.T, 0.1)
    np.testing.assert_allclose(inferred(small), weights.T @ Y, atol=1e-3)


def test_validation_picks_the_penalty_over_samples(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    errors = [np.abs(scikit_learn_s(X.T, X_val.T, a).T @ Y - Y_val).mean() for a in PENALTIES[:8]]
    params = fitted.uns["sample_lasso"]["params"]
    assert params["penalty"] == pytest.approx(PENALTIES[np.argmin(errors)])
    assert params["validation_mae"] == pytest.approx(min(errors), rel=2e-3)
    assert params["holds_training_samples"] is True


@pytest.fixture
def panels(small):
    """A fitted reference, and its test samples with a part of the landmarks, some of them measured in half the samples."""
    gx.tl.fit(small, "sample_lasso", penalty=0.1, progress=False)
    query = small[small.obs["split"] == "test", small.var["landmark"].to_numpy()][:, 20:].copy()
    query.uns.clear()
    query.X[:10, :5] = np.nan
    return small, query


def test_a_query_may_lack_landmarks(panels):
    reference, query = panels
    full = gx.tl.predict(query, model=reference, output="anndata", progress=False)
    (X, Y), (X_test, _) = standardised(reference, "train", "test")
    landmarks, targets = reference.var_names[reference.var["landmark"]], reference.var_names[~reference.var["landmark"]]
    train = (reference.obs["split"] == "train").to_numpy()
    mean, unit = reference.X[train].mean(0, dtype=float), reference.X[train].std(0, dtype=float) + 1e-3
    found = (full[:, reference.var_names].X - mean) / unit
    for rows, panel in ((slice(0, 10), slice(25, 60)), (slice(10, None), slice(20, 60))):
        weights = scikit_learn_s(X[:, panel].T, X_test[rows, panel].T, 0.1).T
        np.testing.assert_allclose(found[rows][:, ~reference.var["landmark"]], weights @ Y, atol=1e-3)
        np.testing.assert_allclose(found[rows][:, reference.var["landmark"]][:, :20], weights @ X[:, :20], atol=1e-3)
    measured = ~np.isnan(query.X)
    np.testing.assert_array_equal(full[:, query.var_names].X[measured], query.X[measured])
    role = full.var["gexinfer_role"]
    assert (role[landmarks[:25]] == "inferred").all()
    assert (role[landmarks[25:]] == "landmark").all()
    assert (role[targets] == "inferred").all()
    assert np.isfinite(full.X).all()


def test_a_sample_without_any_landmark_is_refused(panels):
    reference, query = panels
    query.X[3] = np.nan
    with pytest.raises(ValueError, match="none of the 60 landmarks of 'sample_lasso' in 1 samples, e.g. at row 3"):
        gx.tl.predict(query, model=reference, output="anndata", progress=False)


def test_no_samples_have_no_similar_ones(panels):
    reference, query = panels
    none = gx.tl.similar_samples(query[:0].copy(), model=reference, copy=True)
    assert none.obsm["sample_lasso_similar"].shape == (0, 10)


def test_other_methods_say_which_one_takes_such_a_query(panels):
    reference, query = panels
    gx.tl.fit(reference, "ridge", progress=False)
    with pytest.raises(
        ValueError, match="lacks 20 of the 60 landmarks of 'ridge'.*model of method='sample_lasso', for which"
    ):
        gx.tl.predict(query, model=reference, key="ridge", output="anndata", max_missing=0.3, progress=False)
    nothing = ad.AnnData(np.ones((2, 3), np.float32), var={"a": [1, 2, 3]})
    with pytest.raises(ValueError, match="lacks 60 of the 60 landmarks of 'sample_lasso'"):
        gx.tl.predict(nothing, model=reference, key="sample_lasso", output="anndata", progress=False)


def test_similar_samples_are_those_with_the_largest_weights(small):
    gx.tl.fit(small, "sample_lasso", penalty=0.1, progress=False)
    gx.tl.similar_samples(small)
    (X, _), (X_test, _) = standardised(small, "train", "test")
    names = small.obs_names[small.obs["split"] == "train"]
    weights = scikit_learn_s(X.T, X_test.T, 0.1).T
    table = small.obsm["sample_lasso_similar"][(small.obs["split"] == "test").to_numpy()]
    assert list(table) == [f"{what}_{i}" for i in range(1, 6) for what in ("sample", "weight")]
    best = np.argsort(-weights, axis=1)[:, :2]
    assert (table["sample_1"] == names[best[:, 0]]).all()
    np.testing.assert_allclose(table["weight_2"], np.take_along_axis(weights, best, 1)[:, 1], atol=1e-4)
    train = (small.obs["split"] == "train").to_numpy()
    assert (small.obsm["sample_lasso_similar"]["sample_1"][train] == names).all()


def test_similar_samples_survive_a_file(small, tmp_path):
    gx.tl.fit(small, "sample_lasso", penalty=0.1, progress=False)
    copy = gx.tl.similar_samples(small, n_samples=2, copy=True)
    copy.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").obsm["sample_lasso_similar"]
    assert list(back["sample_1"]) == list(copy.obsm["sample_lasso_similar"]["sample_1"])
    assert "sample_lasso_similar" not in small.obsm


def test_similar_samples_of_another_method(fitted):
    with pytest.raises(
        ValueError, match="method='ridge' does not say which training samples it used; 'sample_lasso' does"
    ):
        gx.tl.similar_samples(fitted, key="ridge")
    with pytest.raises(KeyError, match="no gexinfer model 'nothing'"):
        gx.tl.similar_samples(fitted, key="nothing")
    with pytest.raises(ValueError, match="n_samples=9 must be 1 to 5"):
        gx.tl.similar_samples(fitted, n_samples=9)


def test_too_many_samples_for_the_memory_say_so(small, monkeypatch):
    monkeypatch.setattr("gexinfer.methods.sample_lasso.available", lambda device: 1000)
    with pytest.raises(ValueError, match=r"all 168 training samples .* needs 1 MB for it; .* or use method='lasso'"):
        gx.tl.fit(small, "sample_lasso", progress=False)
