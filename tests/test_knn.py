from __future__ import annotations

import numpy as np
import pytest
from conftest import arrays_of, standardised

import gexinfer as gx


def naive(X, Y, X_query, k):
    distances = ((X_query[:, None, :] - X[None, :, :]) ** 2).sum(-1)
    return np.stack([Y[np.argsort(row, kind="stable")[:k]].mean(0) for row in distances])


def test_knn_is_the_mean_of_the_nearest_training_samples(small):
    gx.tl.fit(small, "knn", k=5, progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    mean, unit = arrays_of(small, "train")[1].mean(0), arrays_of(small, "train")[1].std(0) + 1e-3
    rows = (small.obs["split"] == "test").to_numpy()
    found = (small.layers["knn"][rows][:, ~small.var["landmark"]] - mean) / unit
    np.testing.assert_allclose(found, naive(X, Y, X_test, 5), atol=1e-4)


def test_validation_picks_k(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    candidates = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)
    errors = [np.abs(naive(X, Y, X_val, k) - Y_val).mean() for k in candidates]
    params = fitted.uns["knn"]["params"]
    assert params["k"] == candidates[np.argmin(errors)]
    assert params["validation_mae"] == pytest.approx(min(errors), rel=1e-4)


def test_the_record_says_that_it_holds_samples(fitted):
    assert fitted.uns["knn"]["params"]["holds_training_samples"] is True
    assert fitted.uns["ridge"]["params"]["holds_training_samples"] is False


@pytest.mark.parametrize(("k", "match"), [(0, "k=0 must be"), (1000, "more than the 168 training")])
def test_impossible_k(small, k, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "knn", k=k, progress=False)
    assert "knn" not in small.uns
