from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import arrays_of, standardised
from sklearn.neighbors import KNeighborsRegressor

import gexinfer as gx
from gexinfer.methods.knn import KNN, by_products, by_search, profiles, search


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


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_metrics_and_weights_are_scikit_learn_s(small, metric, weights):
    gx.tl.fit(small, "knn", k=6, metric=metric, weights=weights, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    expected = KNeighborsRegressor(6, metric=metric, weights=weights, algorithm="brute").fit(X, Y).predict(X_test)
    np.testing.assert_allclose(predicted(small, "knn"), expected, atol=1e-4)


def test_a_training_sample_is_its_own_nearest_neighbour(small):
    gx.tl.fit(small, "knn", k=3, weights="distance", progress=False)
    gx.tl.predict(small, progress=False)
    train = (small.obs["split"] == "train").to_numpy()
    np.testing.assert_allclose(small.layers["knn"][train], small.X[train], atol=1e-2)


@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
@pytest.mark.parametrize("weights", ["uniform", "distance"])
def test_the_search_of_gpus_finds_what_the_other_finds(small, metric, weights):
    (X, _), (X_test, _) = standardised(small, "train", "test")
    X, x, config = X.astype(np.float32), X_test.astype(np.float32), KNN(metric=metric, weights=weights)
    samples = profiles(X) if metric == "correlation" else X
    query = profiles(x) if metric == "correlation" else x
    distances, places = by_products(samples, 7, torch.device("cpu"))(query)
    expected_distances, expected_places = by_search(samples, 7)(query)
    np.testing.assert_array_equal(places, expected_places)
    np.testing.assert_allclose(distances, expected_distances, rtol=1e-4)
    assert search(X, 7, config, torch.device("cpu"))(x)[1].shape == (len(x), 7)


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
