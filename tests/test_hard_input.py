"""Few rows, copies among them, collinear, constant and hardly varying landmarks: still the textbook's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import arrays_of, standardised
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Lasso, Ridge
from sklearn.neighbors import KNeighborsRegressor

import gexinfer as gx
from gexinfer.methods import METHODS, get_method

pytestmark = pytest.mark.filterwarnings("ignore:(ols|1 genes are constant|The models infer|'.*' has the lowest)")


@pytest.fixture
def hard(small):
    """30 training rows, a third of them copies, for 60 landmarks."""
    side = np.array(["test"] * small.n_obs, dtype=object)
    side[:30], side[30:40] = "train", "validation"
    small.obs["split"] = side
    landmarks = np.flatnonzero(small.var["landmark"])
    small.X[10:20] = small.X[0:1]
    small.X[:, landmarks[1]] = 2 * small.X[:, landmarks[0]] - small.X[:, landmarks[2]]
    small.X[:, landmarks[3]] = 2.5
    small.X[:, landmarks[4]] = 14 + 1e-3 * small.X[:, landmarks[4]]
    return small


def rbf(A, B, X):
    def squared(A, B):
        return ((A[:, None] - B[None]) ** 2).mean(-1)

    return np.exp(-squared(A, B) / (2 * np.median(np.sqrt(squared(X, X))) ** 2))


def by_kernel(X, Y, x):
    return KernelRidge(alpha=0.1, kernel="precomputed").fit(rbf(X, X, X), Y).predict(rbf(x, X, X))


def by_lasso(X, Y, x):
    return Lasso(alpha=0.1, fit_intercept=False, tol=1e-10, max_iter=100_000).fit(X, Y).predict(x)


def by_sample_lasso(X, Y, x):
    return by_lasso(X.T, x.T, np.eye(len(X))).T @ Y


EXPECTED = {
    "ols": ({}, lambda X, Y, x: x @ np.linalg.pinv(X, rcond=1e-6) @ Y, 5e-3),
    "ridge": ({"penalty": 1.0}, lambda X, Y, x: Ridge(1.0).fit(X, Y).predict(x), 1e-5),
    "rrr": ({"penalty": 1.0, "rank": 60}, lambda X, Y, x: Ridge(1.0).fit(X, Y).predict(x), 1e-5),
    "lasso": ({"penalty": 0.1}, by_lasso, 1e-4),
    "knn": ({"k": 1}, lambda X, Y, x: KNeighborsRegressor(1).fit(X, Y).predict(x), 1e-5),
    "sample_lasso": ({"penalty": 0.1}, by_sample_lasso, 1e-3),
    "kernel": ({"kernel": "rbf", "bandwidth": 1.0, "linear": 0.0, "penalty": 0.1, "huber": 0.0}, by_kernel, 1e-4),
}


@pytest.mark.parametrize("method", EXPECTED)
def test_predictions_are_the_textbook_s(hard, method):
    options, expected, tolerance = EXPECTED[method]
    gx.tl.fit(hard, method, progress=False, **options)
    gx.tl.predict(hard, progress=False)
    (X, Y), (x, _) = standardised(hard, "train", "test")
    # A constant landmark enters as 0, whatever rounding left of its spread.
    constant = arrays_of(hard, "train")[0].std(0) == 0
    X[:, constant], x[:, constant] = 0, 0
    rows, target = (hard.obs["split"] == "test").to_numpy(), ~hard.var["landmark"].to_numpy()
    mean, unit = arrays_of(hard, "train")[1].mean(0), arrays_of(hard, "train")[1].std(0) + 1e-3
    found = (hard.layers[method][rows][:, target] - mean) / unit
    np.testing.assert_allclose(found, expected(X, Y, x), atol=tolerance)


def test_every_method_chooses_and_is_finite(hard):
    quick = {m: {"epochs": 3, "hidden": 16} if get_method(m).by_epochs else {} for m in METHODS}
    table = gx.tl.compare(hard, quick, progress=False)
    assert np.isfinite(table["mae"]).all()
    # With 20 different rows for 60 landmarks whatever shrinks is better than the mean.
    for method in ("ridge", "rrr", "lasso", "kernel", "sample_lasso"):
        assert table.loc[method, "mae"] < table.loc["mean", "mae"], method
