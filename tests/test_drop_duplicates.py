from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

import gexinfer as gx
from gexinfer.engine import blocks
from gexinfer.pp import _drop_duplicates

FORMS = [np.asarray, sp.csr_matrix, sp.csc_array, lambda X: da.from_array(X, chunks=(50, 40))]


def kept_of(X, *args, **options) -> list[str]:
    adata = ad.AnnData(X)
    adata.obs_names = [f"s{i}" for i in range(adata.n_obs)]
    return gx.pp.drop_duplicates(adata, *args, copy=True, **options).obs_names.tolist()


def slow(X, distance=1.0) -> list[str]:
    """Of each pair nearer than the distance the later is dropped."""
    near = cdist(X.astype(float), X.astype(float)) < distance
    return [f"s{j}" for j in range(len(X)) if not any(near[i, j] for i in range(j))]


@pytest.fixture
def planted(small) -> np.ndarray:
    """120 samples, of which 20 come again, moved by between 0.3 and 1.7, and five unchanged."""
    rng = np.random.default_rng(0)
    X = small.X[:120].astype(np.float64)
    away = rng.normal(size=(20, X.shape[1]))
    away *= np.linspace(0.3, 1.7, 20)[:, None] / np.linalg.norm(away, axis=1, keepdims=True)
    X = np.concatenate([X, X[:20] + away, X[50:55]])
    return X[rng.permutation(len(X))]


@pytest.mark.parametrize("form", FORMS)
def test_near_samples_as_by_all_pairs(planted, form, monkeypatch):
    expected = slow(planted)
    assert len(planted) - len(expected) in range(13, 20)  # those nearer than 1, and the five
    assert kept_of(form(planted)) == expected
    monkeypatch.setattr(blocks.row_slices, "__defaults__", (17,))
    assert kept_of(form(planted)) == expected


@pytest.mark.parametrize("form", FORMS)
def test_clusters_find_what_all_pairs_find(planted, form, monkeypatch):
    """The copies lie much nearer than samples do, so no cluster parts them."""
    monkeypatch.setattr(_drop_duplicates, "SAMPLES_PER_CLUSTER", 20)
    assert kept_of(form(planted), rng=3) == slow(planted)
    calls = []
    real = _drop_duplicates.closer
    monkeypatch.setattr(_drop_duplicates, "closer", lambda *a: calls.append(a[0].shape) or real(*a))
    kept_of(form(planted), rng=3)
    assert len(calls) == 7  # 145 samples, at least 20 a cluster
    calls.clear()
    kept_of(form(planted), rng=3, n_clusters=2)
    assert len(calls) == 2


@settings(max_examples=25, deadline=None)
@given(
    places=st.lists(st.integers(0, 40), min_size=2, max_size=25),
    distance=st.sampled_from([0.5, 1.0, 3.0]),
    far=st.sampled_from([0.0, 3e4, 0.1]),
)
@pytest.mark.filterwarnings("ignore:drop_duplicates")
def test_the_distance_is_exact_also_far_from_zero(places, distance, far):
    """On a grid many pairs are exactly as far apart as the limit; those stay. One more sample far off spoils digits."""
    X = np.array([[place / 4 + far, far, 7] for place in places] + [[-far, 0, 5e4]])
    assert kept_of(X, distance=distance) == slow(X, distance)


def test_the_later_of_each_pair_goes_in_a_chain_too():
    X = np.array([[0.0], [0.8], [1.6], [2.7]])
    assert kept_of(X) == ["s0", "s3"]


@pytest.mark.parametrize("form", FORMS)
def test_exact_copies_of_any_scale(form):
    X = np.random.default_rng(0).poisson(0.5, (60, 5)).astype(np.float32)
    X[X == 0] *= np.where(np.random.default_rng(1).random((X == 0).sum()) < 0.5, -1, 1)  # -0.0 is 0.0
    expected = [f"s{i}" for i in range(60) if not any((X[j] == X[i]).all() for j in range(i))]
    assert 10 < len(expected) < 50
    assert kept_of(form(X), "exact") == expected


def test_missing_values_are_equal_in_copies_and_refused_for_distances():
    X = np.array([[1, np.nan], [1, -np.nan], [1, 2], [np.nan, 1]], np.float32)
    assert kept_of(X, "exact") == ["s0", "s2", "s3"]
    with pytest.raises(ValueError, match="3 samples hold NaN or inf.*'s0', 's1', 's3'.*how='exact'"):
        kept_of(X)


def test_slots_follow_and_the_message_names_pairs(small, caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    small.X[7] = small.X[3]
    small.layers["other"] = np.arange(small.n_obs * small.n_vars, dtype=np.float32).reshape(small.shape)
    names = small.obs_names.copy()
    small.obsm["row"] = np.arange(small.n_obs)[:, None]
    assert gx.pp.drop_duplicates(small, "exact", layer="other") is None
    assert small.n_obs == 240
    part = small[:100]
    gx.pp.drop_duplicates(part)
    assert small.n_obs == 240
    assert part.n_obs == 99
    assert part.obsm["row"][:, 0].tolist() == [i for i in range(100) if i != 7]
    assert f"1 of 100 samples dropped: '{names[7]} (as {names[3]})'" in caplog.text


def test_a_distance_that_does_not_suit_is_warned_of(small):
    small.X /= 100
    with pytest.warns(UserWarning, match="239 of 240 samples dropped.*distance=1.0 is large for these data"):
        gx.pp.drop_duplicates(small)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"how": "fuzzy"}, ValueError, "how='fuzzy' must be 'near' or 'exact'"),
        ({"distance": 0}, ValueError, "distance=0 must be above 0"),
        ({"distance": "1"}, TypeError, "distance='1' must be a number"),
        ({"n_clusters": 2.5}, TypeError, "n_clusters=2.5 a whole number"),
        ({"n_clusters": 0}, ValueError, "n_clusters=0 must be 1 or more"),
        ({"layer": "log"}, KeyError, "no 'log'"),
    ],
)
def test_bad_input_changes_nothing(small, options, error, match):
    small.X[7] = small.X[3]  # it would be dropped
    before = small.copy()
    with pytest.raises(error, match=match):
        gx.pp.drop_duplicates(small, **options)
    assert small.obs.equals(before.obs)
    assert small.var.equals(before.var)
    assert set(small.uns) == set(before.uns)
    np.testing.assert_array_equal(small.X, before.X)
