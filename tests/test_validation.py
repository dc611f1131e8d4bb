"""Validation rows of another object, as the D-GEX paper takes those of another platform."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import gexinfer as gx


@pytest.fixture
def other(small):
    """The validation rows as an object of its own, with its genes in another order."""
    rows = (small.obs["split"] == "validation").to_numpy()
    genes = np.random.default_rng(0).permutation(small.n_vars)
    return ad.AnnData(small.X[rows][:, genes].copy(), small.obs[rows][["tissue"]], small.var.iloc[genes][[]])


@pytest.mark.parametrize(("method", "options"), [("ridge", {}), ("knn", {}), ("dgex", {"epochs": 3, "hidden": 16})])
def test_the_same_rows_elsewhere_choose_the_same(small, other, method, options):
    gx.tl.fit(small, method, key_added="a", progress=False, **options)
    gx.tl.fit(small, method, key_added="b", validation=other, progress=False, **options)
    a, b = (gx.io.read_model(small, key=key) for key in "ab")
    assert {**a.model.notes} == pytest.approx({**b.model.notes})
    for name, array in a.model.arrays.items():
        np.testing.assert_array_equal(array, b.model.arrays[name])
    np.testing.assert_array_equal(a.training_rows, b.training_rows)
    assert (a.provenance["validated_on"], b.provenance["validated_on"]) == ("adata", "another object")
    assert small.uns["b"]["params"]["n_validation"] == other.n_obs


def test_other_rows_choose_otherwise(small, other):
    noisy = other.copy()
    landmarks = noisy.var_names.isin(small.var_names[small.var["landmark"]])
    noisy.X[:, landmarks] += np.random.default_rng(0).normal(0, 2, (noisy.n_obs, landmarks.sum())).astype(np.float32)
    noisy.X = np.abs(noisy.X)
    gx.tl.fit(small, "ridge", key_added="a", progress=False)
    gx.tl.fit(small, "ridge", key_added="b", validation=noisy, progress=False)
    assert small.uns["b"]["params"]["penalty"] > small.uns["a"]["params"]["penalty"]


def test_adata_needs_no_validation_rows_then(small, other):
    small.obs["split"] = small.obs["split"].astype(object).where(small.obs["split"] != "validation", None)
    with pytest.raises(ValueError, match="marks no row as 'validation'"):
        gx.tl.fit(small, "knn", progress=False)
    gx.tl.fit(small, "knn", validation=other, progress=False)


def test_rows_that_chose_are_no_test_rows(small, other):
    gx.tl.fit(small, "ridge", validation=other, progress=False)
    small.obs["split"] = np.where(small.obs_names.isin(other.obs_names), "test", "train")
    gx.tl.predict(small, progress=False)
    with pytest.raises(ValueError, match="were training or validation rows"):
        gx.tl.evaluate(small)


@pytest.mark.parametrize("side", ["train", "test"])
def test_rows_that_are_learned_from_or_judged_cannot_choose(small, side):
    other = small[small.obs["split"] == side].copy()
    with pytest.raises(ValueError, match=rf"shares .* rows of adata that are marked '{side}'.*'other-' \+ other"):
        gx.tl.fit(small, "ridge", validation=other, progress=False)
    other.obs_names = "other-" + other.obs_names
    gx.tl.fit(small, "ridge", validation=other, progress=False)


def test_errors_on_other_rows_do_not_compare(small, other):
    gx.tl.fit(small, "mean", progress=False)
    gx.tl.fit(small, "ridge", key_added="own", progress=False)
    easy = small[small.obs["split"] == "train"].copy()
    easy.obs_names = "other-" + easy.obs_names
    gx.tl.fit(small, "ridge", key_added="other", validation=easy, progress=False)
    best = small.uns["own"]["params"]["validation_mae"], small.uns["other"]["params"]["validation_mae"]
    assert best[1] < best[0]
    made = gx.tl.predict(small, output="anndata", progress=False)
    np.testing.assert_array_equal(made.X, made.layers["own"])


def test_what_another_object_must_hold(small, other):
    target, landmark = (small.var_names[small.var["landmark"] == flag][0] for flag in (False, True))
    with pytest.raises(ValueError, match=rf"validation.var_names lacks 1 of the 90 targets: '{target}'.*targets="):
        gx.tl.fit(small, "ridge", validation=other[:, other.var_names != target].copy(), progress=False)
    with pytest.raises(ValueError, match=rf"validation.var_names lacks 1 of the 60 landmarks: '{landmark}'"):
        gx.tl.fit(small, "ridge", validation=other[:, other.var_names != landmark].copy(), progress=False)
    with pytest.raises(TypeError, match="validation is a str; pass an AnnData"):
        gx.tl.fit(small, "ridge", validation="other", progress=False)
    with pytest.raises(ValueError, match="validation= holds no sample"):
        gx.tl.fit(small, "ridge", validation=other[:0].copy(), progress=False)
    other.X[0, 3] = np.nan
    with pytest.raises(ValueError, match=r"validation= holds NaN or inf in 1 of 150 genes, over 36 rows"):
        gx.tl.fit(small, "ridge", validation=other, progress=False)
    other.X[0, 3] = 1
    other.X *= 3
    with pytest.warns(UserWarning, match=r"(?s)validation: .*another scale.*quantile_normalize"):
        gx.tl.fit(small, "ridge", validation=other, progress=False)
