from __future__ import annotations

import logging

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import rankdata

import gexinfer as gx
from gexinfer.engine import blocks


def made_of(X, names=None) -> ad.AnnData:
    X = X if hasattr(X, "shape") else np.asarray(X, np.float32)
    genes = [f"g{i}" for i in range(X.shape[1])] if names is None else names
    return ad.AnnData(X, var=pd.DataFrame(index=genes), obs=pd.DataFrame(index=[f"s{i}" for i in range(X.shape[0])]))


def slow(X, profile=None):
    """One sample at a time: sort, average, and interpolate the profile at average ranks."""
    X = np.asarray(X, np.float64)
    profile = np.mean([sorted(row) for row in X], axis=0) if profile is None else np.sort(profile)
    places = np.arange(X.shape[1])
    return np.array([np.interp(rankdata(row) - 1, places, profile) for row in X]), profile


def normalised(X, reference=None, **options):
    return gx.pp.quantile_normalize(made_of(X), reference, copy=True, **options).X


def test_real_samples_as_the_obvious_loop(small):
    expected, profile = slow(small.X)  # RNA-seq: a tenth of the values are tied zeros
    assert (small.X == 0).mean() > 0.01
    assert gx.pp.quantile_normalize(small) is None
    assert small.X.dtype == np.float32
    np.testing.assert_allclose(small.X, expected, atol=2e-6)
    np.testing.assert_allclose(small.uns["gexinfer_quantiles"]["values"], profile, atol=2e-6)
    assert small.uns["gexinfer_quantiles"]["genes"].tolist() == small.var_names.tolist()


def test_a_table_worked_by_hand_with_a_tie():
    """Ties as `limma::normalizeQuantiles(ties=TRUE)` has them."""
    X = np.array([[5, 2, 3, 4], [4, 1, 4, 2], [3, 4, 6, 8]])
    # Sorted: 2 3 4 5, 1 2 4 4, 3 4 6 8; their mean 2, 3, 14/3, 17/3. The two 4 share ranks 3 and 4.
    m = [2, 3, 14 / 3, 17 / 3]
    tied = (m[2] + m[3]) / 2
    expected = [[m[3], m[0], m[1], m[2]], [tied, m[0], tied, m[1]], [m[0], m[1], m[2], m[3]]]
    np.testing.assert_allclose(normalised(X), expected, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(X=arrays(np.float32, (4, 9), elements=st.floats(-50, 50, width=32)), seed=st.integers(0, 99))
def test_what_must_hold_of_any_values(X, seed):
    profile = np.sort(np.random.default_rng(seed).normal(8, 3, 9)).astype(np.float32)
    found = normalised(X, profile)
    for row, values in zip(X, found, strict=True):
        order = np.argsort(row, kind="stable")
        assert (np.diff(values[order]) >= 0).all(), "not monotone"
        assert all(len(set(values[row == value])) == 1 for value in row), "a tie was torn"
        if len(set(row)) == 9:
            np.testing.assert_array_equal(values[order], profile)
    np.testing.assert_array_equal(normalised(found, profile), found)
    np.testing.assert_array_equal(normalised(X[2:3], profile)[0], found[2])


def test_the_sample_of_next_year_alone_gets_the_bits_it_gets_in_a_batch(small, tmp_path):
    reference, later = small[:200].copy(), small[200:, ::-1].copy()
    gx.pp.quantile_normalize(reference)
    together = gx.pp.quantile_normalize(later, reference, copy=True)
    reference.write_h5ad(tmp_path / "reference.h5ad")
    reference.write_zarr(tmp_path / "reference.zarr")
    for stored in (ad.read_h5ad(tmp_path / "reference.h5ad"), ad.read_zarr(tmp_path / "reference.zarr")):
        one = gx.pp.quantile_normalize(later[7].copy(), stored, copy=True)
        np.testing.assert_array_equal(one.X[0], together.X[7])
        np.testing.assert_array_equal(
            one.uns["gexinfer_quantiles"]["values"], np.sort(reference.uns["gexinfer_quantiles"]["values"])
        )
    # Only ranks count, so counts per million land where their logarithms do.
    raw = later.copy()
    raw.X = np.exp2(raw.X.astype(np.float64))
    gx.pp.quantile_normalize(raw, reference)
    np.testing.assert_array_equal(raw.X, together.X)


def test_other_genes_are_refused_and_the_remedies_work(small):
    reference = small.copy()
    gx.pp.quantile_normalize(reference)
    query = small[:5, small.var["landmark"]].copy()
    before = query.X.copy()
    with pytest.raises(
        ValueError, match=r"adata lacks 90 of .*has 0 others.*reference=reference\[:, adata.var_names\]"
    ):
        gx.pp.quantile_normalize(query, reference)
    np.testing.assert_array_equal(query.X, before)
    assert "gexinfer_quantiles" not in query.uns

    part = reference[:, query.var_names]  # it has the uns of the whole
    assert len(part.uns["gexinfer_quantiles"]["genes"]) == 150
    gx.pp.quantile_normalize(query, part)
    np.testing.assert_allclose(query.X, slow(before, slow(part.X)[1])[0], atol=2e-6)

    query.var_names = ["other", *query.var_names[1:]]
    with pytest.raises(ValueError, match=r"has 1 others \('other'\).*var_names.intersection"):
        gx.pp.quantile_normalize(query, part)


def test_the_kept_profile_is_that_of_its_layer_alone(small, caplog):
    """`X` was normalised, `counts` not; a query of each is normalised to what the reference has there."""
    caplog.set_level(logging.INFO, logger="gexinfer")
    reference, query = small[:200].copy(), small[200:].copy()
    for adata in (reference, query):
        adata.layers["counts"] = np.exp2(adata.X) - 1
    gx.pp.quantile_normalize(reference)
    assert reference.uns["gexinfer_quantiles"]["layer"] == "X"
    found = gx.pp.quantile_normalize(query, reference, layer="counts", copy=True)
    expected = slow(query.layers["counts"], slow(reference.layers["counts"])[1])[0]
    np.testing.assert_allclose(found.layers["counts"], expected, rtol=1e-4)
    assert "200 samples, as the kept profile is not that of 'counts'" in caplog.text

    gx.pp.quantile_normalize(reference, layer="counts")
    profile = reference.uns["gexinfer_quantiles"]["values"]
    again = gx.pp.quantile_normalize(query, reference, layer="counts", copy=True)
    np.testing.assert_array_equal(again.uns["gexinfer_quantiles"]["values"], profile)
    found = gx.pp.quantile_normalize(query, reference, copy=True)
    np.testing.assert_allclose(found.X, slow(query.X, slow(reference.X)[1])[0], rtol=1e-4)


def test_a_profile_that_the_values_have_no_more_is_left_aside(small, caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    reference, query = small[:200].copy(), small[200:].copy()
    reference.X[::3, :10] = np.nan  # rows with ties and with NaN do not hold the profile itself
    gx.pp.quantile_normalize(reference)
    same = gx.pp.quantile_normalize(query, reference, copy=True)
    np.testing.assert_array_equal(
        same.uns["gexinfer_quantiles"]["values"], reference.uns["gexinfer_quantiles"]["values"]
    )
    assert "to the profile that the reference was normalised to" in caplog.text
    reference.X *= 10
    found = gx.pp.quantile_normalize(query, reference, copy=True)
    assert "its values were changed since" in caplog.text
    fresh = reference.copy()
    del fresh.uns["gexinfer_quantiles"]
    np.testing.assert_array_equal(found.X, gx.pp.quantile_normalize(query, fresh, copy=True).X)


@pytest.mark.parametrize("kept", [{"genes": 1}, {"genes": 1, "layer": "X"}, {"layer": "X", "values": 1}, {}, 3])
def test_a_damaged_profile_is_left_aside(small, kept):
    small.uns["gexinfer_quantiles"] = kept
    np.testing.assert_allclose(gx.pp.quantile_normalize(small, small, copy=True).X, slow(small.X)[0], atol=2e-6)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.csc_array, lambda X: da.from_array(X, chunks=(50, 40)), np.float64])
@pytest.mark.parametrize("layer", [None, "values"])
def test_every_kind_of_matrix(small, form, layer, monkeypatch):
    monkeypatch.setattr(blocks.row_slices, "__defaults__", (100,))
    expected = gx.pp.quantile_normalize(small, copy=True).X
    adata = made_of(form(small.X) if layer is None else np.zeros(small.shape, np.float32), small.var_names)
    if layer:
        adata.layers[layer] = form(small.X)
    gx.pp.quantile_normalize(adata, layer=layer)
    found = adata.X if layer is None else adata.layers[layer]
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if layer:
        assert not adata.X.any()


def test_missing_values_stay_missing_and_the_measured_are_ranked_among_themselves():
    rng = np.random.default_rng(0)
    profile = np.sort(rng.gamma(3, 2, 500))
    X = rng.normal(size=(40, 500))
    full = normalised(X, profile)
    lost = rng.random(X.shape) < 0.08
    found = normalised(np.where(lost, np.nan, X), profile)
    np.testing.assert_array_equal(np.isnan(found), lost)
    # Which share of genes lies below one is known up to chance: at most the sd of a share of one half in 460 of 500.
    share = (np.searchsorted(profile, found[~lost]) - np.searchsorted(profile, full[~lost])) / 500
    assert share.std() < np.sqrt(0.25 * 0.08 / 460)
    assert abs(share.mean()) < 1e-3

    # Half of the values, evenly spaced: each stands for two of the profile.
    with pytest.warns(UserWarning, match=r"1 samples lack more than 10% of the genes, up to 4 of 8: 's0'"):
        half = normalised([[1, np.nan, 2, np.nan, 3, np.nan, 4, np.nan]], np.arange(8))
    np.testing.assert_array_equal(half[0, ::2], [0.5, 2.5, 4.5, 6.5])
    with pytest.warns(UserWarning, match="lack"):
        own = gx.pp.quantile_normalize(made_of([[1, np.nan, 3, np.nan]] * 2), copy=True)
    np.testing.assert_array_equal(own.uns["gexinfer_quantiles"]["values"], [1, 1.5, 2.5, 3])


def test_a_part_of_an_object_is_normalised_alone(small):
    before = small.X.copy()
    part = small[:50]
    gx.pp.quantile_normalize(part)
    np.testing.assert_array_equal(small.X, before)
    assert "gexinfer_quantiles" not in small.uns
    np.testing.assert_allclose(part.X, slow(before[:50])[0], atol=2e-6)


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (lambda a: a.X.__setitem__((3, 4), np.inf), {}, ValueError, "Samples hold inf: "),
        (lambda a: a.X.__setitem__(3, np.nan), {}, ValueError, "no value at all"),
        (lambda a: None, {"layer": "log"}, KeyError, "no 'log'"),
        (lambda a: None, {"reference": np.arange(5)}, ValueError, r"shape \(5,\); .* each of the 150 genes"),
        (lambda a: None, {"reference": "geo.h5ad"}, TypeError, r"reference is a str .*anndata.read_h5ad\(path\)"),
        (lambda a: None, {"reference": {"values": 1}}, TypeError, "reference is a dict .*an AnnData.*or None"),
    ],
)
def test_bad_input_changes_nothing(small, change, options, error, match):
    change(small)
    before = small.copy()
    with pytest.raises(error, match=match):
        gx.pp.quantile_normalize(small, **options)
    np.testing.assert_array_equal(small.X, before.X)
    assert set(small.uns) == set(before.uns)


def test_data_on_disk_are_refused(small, tmp_path):
    small.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match=r"adata = adata.to_memory\(\)"):
        gx.pp.quantile_normalize(ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))
