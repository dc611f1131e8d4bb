"""OLS and ridge against scikit-learn, moments against the obvious sums."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import arrays_of, standardised
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.linear_model import LinearRegression, Ridge

import gexinfer as gx
from gexinfer.engine.moments import column_moments, cross_moments


def predicted(adata, key, side="test"):
    rows = (adata.obs["split"] == side).to_numpy()
    return adata.layers[key][rows][:, ~adata.var["landmark"].to_numpy()]


def test_ols_is_scikit_learn_s(fitted):
    X, Y = arrays_of(fitted, "train")
    expected = LinearRegression().fit(X, Y).predict(arrays_of(fitted, "test")[0])
    np.testing.assert_allclose(predicted(fitted, "ols"), expected, atol=1e-4)


def test_ridge_is_scikit_learn_s_at_the_chosen_penalty(fitted):
    (X, Y), (X_test, _) = standardised(fitted, "train", "test")
    expected = Ridge(alpha=fitted.uns["ridge"]["params"]["penalty"]).fit(X, Y).predict(X_test)
    mean, unit = arrays_of(fitted, "train")[1].mean(0), arrays_of(fitted, "train")[1].std(0) + 1e-3
    np.testing.assert_allclose((predicted(fitted, "ridge") - mean) / unit, expected, atol=1e-5)


@pytest.mark.parametrize("penalty", [1e-2, 1.0, 1e3])
def test_ridge_with_more_landmarks_than_rows(bulk_once, penalty):
    adata = bulk_once[::3, :1500].copy()
    adata.var["landmark"] = np.arange(1500) < 700
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge", penalty=penalty, progress=False)
    gx.tl.predict(adata, progress=False)
    (X, Y), (X_test, _) = standardised(adata, "train", "test")
    expected = Ridge(alpha=penalty).fit(X, Y).predict(X_test)
    mean, unit = arrays_of(adata, "train")[1].mean(0), arrays_of(adata, "train")[1].std(0) + 1e-3
    np.testing.assert_allclose((predicted(adata, "ridge") - mean) / unit, expected, atol=1e-5)


def test_validation_picks_the_penalty(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    grid = np.logspace(-4, 2, 25) * len(X)
    errors = [np.abs(Ridge(alpha=a).fit(X, Y).predict(X_val) - Y_val).mean() for a in grid]
    params = fitted.uns["ridge"]["params"]
    assert params["penalty"] == pytest.approx(grid[np.argmin(errors)])
    assert params["validation_mae"] == pytest.approx(min(errors), rel=1e-4)


def test_fewer_rows_than_landmarks_gives_the_minimum_norm_solution_and_says_so(small):
    small.obs.loc[small.obs_names[40:], "split"] = "test"
    small.obs.loc[small.obs_names[:40], "split"] = "train"
    with pytest.warns(UserWarning, match="40 training rows for 60 landmarks .* minimum-norm .* method='ridge'"):
        gx.tl.fit(small, "ols", progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    expected = X_test @ np.linalg.pinv(X) @ Y
    mean, unit = arrays_of(small, "train")[1].mean(0), arrays_of(small, "train")[1].std(0) + 1e-3
    np.testing.assert_allclose((predicted(small, "ols") - mean) / unit, expected, atol=1e-3)


def test_collinear_landmarks_do_not_break_ols(small):
    first, second = np.flatnonzero(small.var["landmark"])[:2]
    small.X[:, second] = small.X[:, first]
    gx.tl.fit(small, "ols", progress=False)
    gx.tl.predict(small, progress=False)
    X, Y = arrays_of(small, "train")
    expected = LinearRegression().fit(X, Y).predict(arrays_of(small, "test")[0])
    np.testing.assert_allclose(predicted(small, "ols"), expected, atol=1e-3)


@settings(max_examples=50, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(2, 40), st.integers(1, 5)), elements=st.floats(-100, 100, width=32)),
    st.integers(1, 40),
)
def test_column_moments_are_numpy_s(values, size):
    found = column_moments(values[i : i + size] for i in range(0, len(values), size))
    np.testing.assert_allclose(found.scale.mean, values.astype(np.float64).mean(0), atol=1e-9, rtol=1e-12)
    np.testing.assert_allclose(found.scale.sd, values.astype(np.float64).std(0), atol=1e-6, rtol=1e-9)


def test_moments_lose_nothing_far_from_zero():
    values = (14 + 0.1 * np.random.default_rng(0).standard_normal((5000, 3))).astype(np.float32)
    constant = np.full((5000, 1), 0.1, np.float32)
    found = column_moments([np.hstack([values, constant])])
    np.testing.assert_allclose(found.scale.sd[:3], values.astype(np.float64).std(0), rtol=1e-10)
    assert found.scale.sd[3] == 0


def test_cross_moments_of_blocks_are_those_of_the_whole():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((50, 7)).astype(np.float32), rng.standard_normal((50, 4)).astype(np.float32)
    found = cross_moments([(x[:20], y[:20]), (x[20:], y[20:])])
    assert found.n == 50
    np.testing.assert_allclose(found.xx, x.astype(float).T @ x.astype(float), rtol=1e-12)
    np.testing.assert_allclose(found.xy, x.astype(float).T @ y.astype(float), rtol=1e-12)
