from __future__ import annotations

import numpy as np
import pytest
from conftest import arrays_of, standardised

import gexinfer as gx


def predicted(adata, key):
    """Return what a model infers for the test rows, standardised."""
    gx.tl.predict(adata, progress=False)
    measured = arrays_of(adata, "train")[1]
    rows, target = (adata.obs["split"] == "test").to_numpy(), ~adata.var["landmark"].to_numpy()
    return (adata.layers[key][rows][:, target] - measured.mean(0)) / (measured.std(0) + 1e-3)


def naive(X, Y, X_query, k):
    distances = ((X_query[:, None, :] - X[None, :, :]) ** 2).sum(-1)
    return np.stack([Y[np.argsort(row, kind="stable")[:k]].mean(0) for row in distances])


def test_knn_is_the_mean_of_the_nearest_training_samples(small):
    gx.tl.fit(small, "knn", k=5, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    np.testing.assert_allclose(predicted(small, "knn"), naive(X, Y, X_test, 5), atol=1e-4)


def test_validation_picks_k(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    candidates = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)
    errors = [np.abs(naive(X, Y, X_val, k) - Y_val).mean() for k in candidates]
    params = fitted.uns["knn"]["params"]
    assert params["k"] == candidates[np.argmin(errors)]
    assert params["validation_mae"] == pytest.approx(min(errors), rel=1e-4)


def naive_genes(X, Y, X_query, k):
    distances = ((X[:, :, None] - Y[:, None, :]) ** 2).sum(0)
    return np.stack([X_query[:, np.argsort(d, kind="stable")[:k]].mean(1) for d in distances.T], axis=1)


def test_knn_genes_is_the_mean_of_the_nearest_landmark_genes(small):
    gx.tl.fit(small, "knn_genes", k=4, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    np.testing.assert_allclose(predicted(small, "knn_genes"), naive_genes(X, Y, X_test, 4), atol=1e-4)


def test_validation_picks_the_number_of_genes(fitted):
    (X, Y), (X_val, Y_val) = standardised(fitted, "train", "validation")
    candidates = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30, 50)  # of 60 landmarks
    errors = [np.abs(naive_genes(X, Y, X_val, k) - Y_val).mean() for k in candidates]
    params = fitted.uns["knn_genes"]["params"]
    assert params["k"] == candidates[np.argmin(errors)]
    assert params["validation_mae"] == pytest.approx(min(errors), rel=1e-4)
    assert params["holds_training_samples"] is False


def test_the_record_says_that_it_holds_samples(fitted):
    assert fitted.uns["knn"]["params"]["holds_training_samples"] is True
    assert fitted.uns["ridge"]["params"]["holds_training_samples"] is False


@pytest.mark.parametrize(("k", "match"), [(0, "k=0 must be"), (1000, "more than the 168 training")])
def test_impossible_k(small, k, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "knn", k=k, progress=False)
    assert "knn" not in small.uns


@pytest.mark.parametrize(("k", "match"), [(0, "k=0 must be"), (61, "more than the 60 landmarks")])
def test_impossible_number_of_genes(small, k, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "knn_genes", k=k, progress=False)
