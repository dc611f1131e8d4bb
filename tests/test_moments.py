"""Sums over blocks of rows against the obvious sums, whatever holds the rows."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gexinfer as gx
from gexinfer.engine import blocks as blocks_module
from gexinfer.engine.blocks import ahead, dense
from gexinfer.engine.moments import EXACT_ROWS, moments

TABLES = hnp.arrays(
    np.float32, st.tuples(st.integers(2, 40), st.integers(2, 6)), elements=st.floats(-100, 100, width=32)
)


def cut(values, size):
    return [values[i : i + size] for i in range(0, len(values), size)]


def centred(values):
    return values.astype(np.float64) - values.astype(np.float64).mean(0)


@settings(max_examples=50, deadline=None)
@given(TABLES, st.integers(1, 40), st.integers(0, 2))
def test_moments_are_numpy_s(values, size, p):
    found = moments(cut(values, size), p)
    c = centred(values)
    assert found.n == len(values)
    np.testing.assert_allclose(found.mean, values.astype(np.float64).mean(0), atol=1e-9, rtol=1e-12)
    np.testing.assert_allclose(found.scale.sd, values.astype(np.float64).std(0), atol=2e-6, rtol=1e-9)
    np.testing.assert_allclose(found.xx, c[:, :p].T @ c[:, :p], rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(found.xy, c[:, :p].T @ c[:, p:], rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(found.yy, (c[:, p:] ** 2).sum(0), rtol=1e-8, atol=1e-4)


@settings(max_examples=50, deadline=None)
@given(TABLES, st.data())
def test_two_halves_add_up_to_the_whole(values, data):
    at = data.draw(st.integers(1, len(values) - 1))
    whole, halves = moments([values], 1), moments([values[:at]], 1) + moments([values[at:]], 1)
    assert halves.n == whole.n
    for name in ("mean", "squares", "xx", "xy"):
        np.testing.assert_allclose(getattr(halves, name), getattr(whole, name), rtol=1e-5, atol=2e-2, err_msg=name)


def test_moments_lose_nothing_far_from_zero():
    rng = np.random.default_rng(0)
    values = (14 + 0.1 * rng.standard_normal((5000, 4)) @ rng.standard_normal((4, 4))).astype(np.float32)
    constant = np.full((5000, 1), 0.1, np.float32)
    found = moments(cut(np.hstack([values, constant]), 700), 2, n_rows=5000)
    c = centred(values)
    np.testing.assert_allclose(found.scale.sd[:4], values.astype(np.float64).std(0), rtol=1e-10)
    np.testing.assert_allclose(found.xx, c[:, :2].T @ c[:, :2], rtol=1e-6)
    np.testing.assert_allclose(found.xy[:, :2], c[:, :2].T @ c[:, 2:], rtol=1e-5, atol=1e-5 * 5000 * 0.01)
    assert found.scale.sd[4] == 0
    assert (found.xy[:, 2] == 0).all()


def test_many_rows_are_multiplied_in_float32_and_summed_in_float64():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((EXACT_ROWS + 1000, 30)).astype(np.float32)
    c = centred(values)
    exact, fast = moments(cut(values, 1024), 20), moments(cut(values, 1024), 20, n_rows=len(values))
    np.testing.assert_allclose(exact.xy, c[:, :20].T @ c[:, 20:], rtol=1e-6, atol=1e-3)
    away = np.abs(fast.xy - c[:, :20].T @ c[:, 20:]).max() / len(values)
    assert 0 < away < 1e-6
    np.testing.assert_allclose(fast.xx, c[:, :20].T @ c[:, :20], rtol=1e-6, atol=1e-3)


def test_rows_that_are_not_finite_are_counted():
    values = np.ones((100, 3), np.float32)
    values[[3, 70, 99], 1] = [np.nan, np.inf, -np.inf]
    assert list(moments(cut(values, 40), 1).not_finite) == [0, 3, 0]


def on_disk(form, X, folder):
    """Return the same matrix in memory or on disk."""
    adata = ad.AnnData(
        {"csc": sp.csc_matrix, "csr backed": sp.csr_matrix, "csc backed": sp.csc_matrix}.get(form, np.asarray)(X)
    )
    if form.endswith("backed"):
        adata.write_h5ad(folder / "a.h5ad")
        return ad.read_h5ad(folder / "a.h5ad", backed="r").X
    if form == "zarr":
        array = zarr.create_array(str(folder / "a.zarr"), shape=X.shape, chunks=(50, 40), dtype=X.dtype)
        array[:] = X
        return array
    if form == "dask":
        import dask.array as da

        return da.from_array(X, chunks=(70, 60))
    return adata.X


FORMS = ["dense", "csc", "dense backed", "csr backed", "csc backed", "zarr", "dask"]


@pytest.mark.parametrize("form", FORMS)
def test_every_place_gives_the_same_model(small, fitted_once, form, tmp_path):
    X = np.asarray(small.X)
    source = on_disk(form, X, tmp_path)
    stored = ad.AnnData(source, obs=small.obs, var=small.var) if form not in ("dense", "csc") else small
    if form == "csc":
        stored.X = source
    gx.tl.fit(stored, "ridge", progress=False)
    penalty = stored.uns["ridge"]["params"]["penalty"]
    assert penalty == pytest.approx(fitted_once.uns["ridge"]["params"]["penalty"])
    gx.tl.predict(stored, progress=False)
    np.testing.assert_allclose(stored.layers["ridge"], fitted_once.layers["ridge"], atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_are_picked_right_wherever_they_are(tmp_path_factory, form, data):
    X = np.arange(3000 * 5, dtype=np.float32).reshape(3000, 5)
    folder = tmp_path_factory.mktemp("rows")
    source = blocks_module.in_row_order(on_disk(form, X, folder))
    for _ in range(5):
        rows = np.array(sorted(data.draw(st.sets(st.integers(0, 2999), max_size=60))), dtype=np.intp)
        columns = np.array(data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=5)), dtype=np.intp)
        np.testing.assert_array_equal(dense(source, rows, columns), X[np.ix_(rows, columns)])


def test_only_some_rows_are_read_at_a_time(small):
    """Of a source that counts how many rows it is asked for at once."""

    class Watched:
        def __init__(self, X):
            self.X, self.shape, self.most = X, X.shape, 0

        def __getitem__(self, rows):
            block = self.X[rows]
            self.most = max(self.most, len(block))
            return block

    X = np.random.default_rng(0).standard_normal((9000, 3)).astype(np.float32)
    watched = Watched(X)
    rows = blocks_module.Rows(watched, np.flatnonzero(np.arange(9000) % 5), np.array([0, 1]), np.array([2]))
    found = moments(rows.blocks(), 2, len(rows))
    assert watched.most <= blocks_module.BLOCK_ROWS
    np.testing.assert_allclose(found.mean, X[np.arange(9000) % 5 > 0].mean(0, dtype=float), atol=1e-9)


def test_what_goes_wrong_while_reading_ahead_reaches_the_caller():
    def failing():
        yield 1
        raise OSError("truncated")

    found = ahead(failing())
    assert next(found) == 1
    with pytest.raises(OSError, match="truncated"):
        next(found)
