"""Queries of another platform, made from real samples in a known way."""

from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pytest
from scipy.stats import rankdata

import gexinfer as gx


@pytest.fixture
def query(fitted):
    rows = (fitted.obs["split"] != "train").to_numpy()
    mask = fitted.var["landmark"]
    return ad.AnnData(fitted.X[rows][:, mask].copy(), fitted.obs[rows][[]], fitted.var[mask][[]])


@pytest.fixture
def flagged(bulk_once):
    full = bulk_once.copy()
    gx.pp.landmarks(full)
    return full


def infer(fitted, query, **options):
    return gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False, **options)


def landmarks_in(full, query):
    return np.asarray(full[:, query.var_names].X)


def test_quantiles_are_those_of_the_training_rows(fitted, query):
    train = fitted.X[fitted.obs["split"] == "train"][:, fitted.var["landmark"]]
    profile = np.sort(train, axis=1).mean(axis=0)
    other = query.copy()
    other.X = 3 * other.X + 7
    made = landmarks_in(infer(fitted, other, adapt="quantile"), query)
    for row, given in zip(made, other.X, strict=True):
        expected = np.interp(rankdata(given) - 1, np.arange(len(profile)), profile)
        np.testing.assert_allclose(row, expected, atol=2e-5)


def test_a_monotone_platform_is_undone_sample_by_sample(fitted, query):
    other = query.copy()
    other.X = np.exp2(other.X / 3) + 5
    plain = infer(fitted, query, adapt="quantile").X
    np.testing.assert_allclose(infer(fitted, other, adapt="quantile").X, plain, atol=2e-4)
    alone = infer(fitted, other[[4]].copy(), adapt="quantile").X
    np.testing.assert_array_equal(alone, infer(fitted, other, adapt="quantile").X[[4]])


def test_moments_undo_a_shift_and_a_scale_of_each_gene(fitted, query):
    rng = np.random.default_rng(0)
    other = query.copy()
    other.X = (other.X * rng.uniform(0.5, 2, query.n_vars) + rng.normal(0, 6, query.n_vars)).astype(np.float32)
    train = fitted.X[fitted.obs["split"] == "train"][:, fitted.var["landmark"]].astype(float)
    expected = (query.X - query.X.mean(0)) / query.X.std(0) * train.std(0) + train.mean(0)
    found = landmarks_in(infer(fitted, other, adapt="moments"), query)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_moments_need_samples_and_pass_over_what_is_missing(fitted, query):
    with pytest.raises(ValueError, match=r"which has 9 samples; at least 10.*adapt='quantile'"):
        infer(fitted, query[:9].copy(), adapt="moments")
    holed = query.copy()
    holed.X[0, 0] = np.nan
    made = landmarks_in(infer(fitted, holed, adapt="moments"), query)
    np.testing.assert_allclose(
        made[:, 1:], landmarks_in(infer(fitted, query, adapt="moments"), query)[:, 1:], atol=1e-5
    )


@pytest.mark.parametrize("lost", ["highest", "lowest", "single"])
def test_landmarks_that_are_missing_do_not_stretch_the_others(fitted, query, lost):
    """By ranks among those that were measured, half of the landmarks were spread over the range of all."""
    whole = landmarks_in(infer(fitted, query, adapt="quantile"), query)
    order = np.argsort(gx.io.read_model(fitted, key="ridge").landmark_scale.mean)
    holed = query.copy()
    if lost == "single":
        holed.X[np.random.default_rng(0).random(holed.shape) < 0.4] = np.nan
    else:
        holed.X[:, order[30:] if lost == "highest" else order[:30]] = np.nan
    kept = np.isfinite(holed.X)
    made = landmarks_in(infer(fitted, holed, adapt="quantile", max_missing=0.6), query)
    unit = gx.io.read_model(fitted, key="ridge").landmark_scale.unit
    assert np.abs((made - whole) / unit)[kept].mean() < 0.5


def test_moments_are_advised_where_ranks_do_not_help(fitted, query):
    other = query.copy()
    scale = gx.io.read_model(fitted, key="ridge").landmark_scale
    signs = np.random.default_rng(0).choice([-1, 1], 60)
    other.X = np.abs(other.X + 2.2 * signs * scale.unit).astype(np.float32)
    with pytest.warns(UserWarning, match=r"Try adapt='moments', if .*adapt='quantile' would leave"):
        infer(fitted, other)


def test_another_platform_is_warned_of_with_what_to_try(fitted, query):
    other = query.copy()
    rng = np.random.default_rng(0)
    unit = gx.io.read_model(fitted, key="ridge").landmark_scale.unit
    other.X = np.abs(other.X + (4 * unit * rng.choice([-1, 1], query.n_vars))).astype(np.float32)
    with pytest.warns(UserWarning, match=r"looks like another platform: .* away from theirs .*Try adapt='"):
        infer(fitted, other)


def test_mixed_up_names_are_warned_of(flagged):
    flagged.obs["split"] = np.where(np.arange(flagged.n_obs) % 5, "train", "test")
    gx.tl.fit(flagged, "mean", targets=list(flagged.var_names[~flagged.var["landmark"]][:20]), progress=False)
    test, mask = (flagged.obs["split"] == "test").to_numpy(), flagged.var["landmark"].to_numpy()
    scale = gx.io.read_model(flagged, key="mean").landmark_scale
    z = (flagged.X[test][:, mask] - scale.mean) / scale.unit
    order = np.random.default_rng(0).permutation(mask.sum())
    mixed = np.maximum(z[:, order] * scale.unit + scale.mean, 0).astype(np.float32)
    query = ad.AnnData(mixed, var=flagged.var[mask][[]])
    with pytest.warns(UserWarning, match=r"names may be mixed up"):
        gx.tl.predict(query, model=flagged, output="anndata", progress=False)


def test_the_platform_of_the_fit_is_not_warned_of(flagged):
    full = flagged
    seen = full.obs["cohort"].isin(full.obs["cohort"].unique()[::2]).to_numpy()
    full.obs["split"] = np.where(seen, "train", "test")
    gx.tl.fit(full, "mean", targets=list(full.var_names[~full.var["landmark"]][:20]), progress=False)
    cohorts = [part.index for _, part in full[~seen].obs.groupby("cohort", observed=True) if len(part) >= 15]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = [gx.tl.predict(full[part].copy(), model=full, output="anndata", progress=False) for part in cohorts]
    assert sum(part.n_obs for part in found) > 100
    assert [str(warning.message) for warning in caught] == []


def test_an_unknown_choice_names_those_there_are(fitted, query):
    with pytest.raises(
        ValueError, match=r"adapt='quantiles' is not known; choose one of 'none', 'quantile', 'moments'"
    ):
        infer(fitted, query, adapt="quantiles")
