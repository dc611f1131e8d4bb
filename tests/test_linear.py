"""OLS, ridge and reduced-rank ridge against scikit-learn and against the obvious way."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import arrays_of, standardised
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV

import gexinfer as gx


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


def test_collinear_landmarks_say_so_and_name_ridge(small):
    first, second = np.flatnonzero(small.var["landmark"])[:2]
    small.X[:, second] = small.X[:, first]
    with pytest.warns(UserWarning, match="60 landmarks that vary are collinear, with 59 .* method='ridge'"):
        gx.tl.fit(small, "ols", progress=False)
    gx.tl.predict(small, progress=False)
    X, Y = arrays_of(small, "train")
    expected = LinearRegression().fit(X, Y).predict(arrays_of(small, "test")[0])
    np.testing.assert_allclose(predicted(small, "ols"), expected, atol=1e-3)


def test_nearly_collinear_landmarks_say_so(small):
    a, b, c = np.flatnonzero(small.var["landmark"])[:3]
    small.X = small.X.astype(np.float64)
    jitter = 4e-5 * np.random.default_rng(0).standard_normal(small.n_obs)
    small.X[:, c] = small.X[:, a] + small.X[:, b] + jitter
    with pytest.warns(UserWarning, match="60 landmarks that vary are nearly collinear.* method='ridge'"):
        gx.tl.fit(small, "ols", progress=False)


def test_a_constant_landmark_is_no_collinearity(small):
    small.X[:, np.flatnonzero(small.var["landmark"])[3]] = 1
    with pytest.warns(UserWarning, match="1 genes are constant") as told:
        gx.tl.fit(small, "ols", progress=False)
    assert not any("collinear" in str(w.message) for w in told)


def test_without_validation_rows_generalised_cross_validation_picks_the_penalty(small):
    small.obs["split"] = small.obs["split"].astype(str).replace("validation", "test")
    gx.tl.fit(small, "ridge", progress=False)
    ((X, Y),) = standardised(small, "train")
    n, grid, errors = len(X), np.logspace(-4, 2, 25) * len(X), []
    for penalty in grid:
        hat = X @ np.linalg.solve(X.T @ X + penalty * np.eye(X.shape[1]), X.T) + 1 / n
        errors.append((((Y - hat @ Y) ** 2).sum() / n) / (1 - np.trace(hat) / n) ** 2)
    params = small.uns["ridge"]["params"]
    assert params["penalty"] == pytest.approx(grid[np.argmin(errors)])
    assert "validation_mae" not in params
    # Leaving out one row after another chooses about the same.
    left_out = RidgeCV(alphas=grid).fit(X, Y).alpha_
    assert 0.5 < params["penalty"] / left_out < 2


@pytest.mark.parametrize("side", ["validation", "test"])
def test_per_gene_is_the_best_penalty_of_each_gene(small, side):
    small.obs["split"] = small.obs["split"].astype(str).replace("validation", side)
    gx.tl.fit(small, "ridge", per_gene=True, progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    found = small.varm["gexinfer_penalty"]["ridge"]
    landmark = small.var["landmark"].to_numpy()
    assert found[landmark].isna().all()
    expected = np.stack(
        [Ridge(alpha=a).fit(X, y).predict(X_test) for a, y in zip(found[~landmark], Y.T, strict=True)], 1
    )
    mean, unit = arrays_of(small, "train")[1].mean(0), arrays_of(small, "train")[1].std(0) + 1e-3
    np.testing.assert_allclose((predicted(small, "ridge") - mean) / unit, expected, atol=1e-5)
    if side == "validation":
        ((X_val, Y_val),) = standardised(small, "validation")
        grid = np.logspace(-4, 2, 25) * len(X)
        errors = [np.abs(Ridge(alpha=a).fit(X, Y).predict(X_val) - Y_val).mean(0) for a in grid]
        np.testing.assert_allclose(found[~landmark], grid[np.argmin(errors, axis=0)])


def test_a_fit_of_another_kind_takes_the_old_column_with_it(small):
    gx.tl.fit(small, "ridge", per_gene=True, key_added="a", progress=False)
    gx.tl.fit(small, "ridge", per_gene=True, key_added="b", progress=False)
    gx.tl.fit(small, "ridge", key_added="a", progress=False)
    assert list(small.varm["gexinfer_penalty"]) == ["b"]
    gx.tl.fit(small, "lasso", penalty=0.1, key_added="b", progress=False)
    assert "gexinfer_penalty" not in small.varm
    assert list(small.varm["gexinfer_n_landmarks"]) == ["b"]


@pytest.mark.parametrize(
    ("options", "match"),
    [({"penalty": 0.0}, "must be positive"), ({"penalty": 1.0, "per_gene": True}, "leave out penalty=1.0")],
)
def test_impossible_penalties(small, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "ridge", progress=False, **options)


def reduced_rank(X, Y, rank, penalty):
    """Ridge regression of rank `rank`: the obvious way, on rows that the penalty adds."""
    p = X.shape[1]
    X_all, Y_all = np.vstack([X, np.sqrt(penalty) * np.eye(p)]), np.vstack([Y, np.zeros((p, Y.shape[1]))])
    B = np.linalg.lstsq(X_all, Y_all)[0]
    V = np.linalg.svd(X_all @ B, full_matrices=False)[2][:rank].T
    return B @ V @ V.T


def test_rrr_is_the_truncated_svd_of_the_penalised_fit(small):
    gx.tl.fit(small, "rrr", rank=5, penalty=30.0, progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    mean, unit = arrays_of(small, "train")[1].mean(0), arrays_of(small, "train")[1].std(0) + 1e-3
    found = (predicted(small, "rrr") - mean) / unit
    np.testing.assert_allclose(found, X_test @ reduced_rank(X, Y, 5, 30.0), atol=1e-5)
    assert small.uns["rrr"]["params"]["rank"] == 5


def test_validation_picks_rank_and_penalty(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    errors = {
        (r, a): np.abs(X_val @ reduced_rank(X, Y, r, a) - Y_val).mean()
        for r in (1, 2, 3, 5, 7, 10, 14, 20, 30, 40, 50, 60)
        for a in np.logspace(-4, 2, 25) * len(X)
    }
    rank, penalty = min(errors, key=errors.get)
    params = fitted.uns["rrr"]["params"]
    assert params["rank"] == rank
    assert params["penalty"] == pytest.approx(penalty)
    assert params["validation_mae"] == pytest.approx(min(errors.values()), rel=1e-4)


def test_rrr_at_full_rank_is_ridge(small):
    gx.tl.fit(small, "rrr", rank=60, penalty=9.0, progress=False)
    gx.tl.fit(small, "ridge", penalty=9.0, progress=False)
    gx.tl.predict(small, progress=False)
    np.testing.assert_allclose(predicted(small, "rrr"), predicted(small, "ridge"), atol=1e-5)


def test_impossible_ranks(small):
    for rank, match in ((0, "rank=0 must be"), (61, "more than the 60 landmarks or targets")):
        with pytest.raises(ValueError, match=match):
            gx.tl.fit(small, "rrr", rank=rank, progress=False)


@pytest.mark.parametrize("length", [0.5, 2.0, 2.1, 60.0])
def test_predictions_are_those_of_float64_whatever_the_length_of_coefficients(length):
    from gexinfer.methods import Model
    from gexinfer.methods._linear import predict

    rng = np.random.default_rng(0)
    coefficients = rng.standard_normal((978, 50))
    coefficients = (coefficients * length / np.linalg.norm(coefficients, axis=0)).astype(np.float32)
    x = rng.standard_normal((256, 978)).astype(np.float32)
    (found,) = predict(Model({"coefficients": coefficients}), None, [x], "cpu")
    expected = x.astype(np.float64) @ coefficients.astype(np.float64)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-5)
