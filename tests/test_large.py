"""Queries that are dask arrays, answers that go to disk, and a cluster of two workers."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import signal
import time
from types import SimpleNamespace

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from filelock import FileLock

import gexinfer as gx
from gexinfer.tl import _lazy, _stream


@pytest.fixture
def query(fitted):
    """Landmarks alone of all samples."""
    mask = fitted.var["landmark"]
    return ad.AnnData(fitted.X[:, mask].copy(), fitted.obs[["tissue"]], fitted.var[mask][[]])


def lazily(query, rows=37):
    lazy = query.copy()
    lazy.X = da.from_array(query.X, chunks=(rows, 25))
    return lazy


@pytest.fixture
def small_blocks(monkeypatch):
    """Shards and blocks of 256 rows of 9 genes, so that the small data have several."""
    for module in (_lazy, _stream):
        monkeypatch.setattr(module, "rows_per_block", lambda genes: 64)
    monkeypatch.setattr(_stream, "PREDICT_ROWS", 32)
    monkeypatch.setattr(_stream, "CHUNK_GENES", 50)


@pytest.mark.parametrize("key", ["ridge", "dgex", "knn", "kernel", "sample_lasso"])
def test_a_dask_query_gets_a_dask_layer_with_the_same_numbers(fitted, query, key):
    std = key == "kernel"
    expected = gx.tl.predict(query, model=fitted, key=key, output="anndata", std=std, progress=False)
    read = []
    lazy = lazily(query)
    lazy.X = lazy.X.map_blocks(
        lambda block: read.append(1) or block, dtype=np.float32, meta=np.empty((0, 0), np.float32)
    )
    found = gx.tl.predict(lazy, model=fitted, key=key, output="anndata", std=std, progress=False)
    # Only the first chunk's scale is looked at.
    assert len(read) <= 6
    for name in [key, *([f"{key}_std"] if std else [])]:
        assert isinstance(found.layers[name], da.Array)
        np.testing.assert_array_equal(found.layers[name].compute(), expected.layers[name])
    np.testing.assert_array_equal(found.var["gexinfer_role"], expected.var["gexinfer_role"])
    assert "gexinfer_missing" not in found.obs


def test_a_lazy_layer_of_a_whole_object_is_evaluated(fitted):
    expected = gx.tl.evaluate(fitted, key=["ridge", "dgex"])
    fitted.X = da.from_array(fitted.X, chunks=(50, fitted.n_vars))
    gx.tl.predict(fitted, key=["ridge", "dgex"], progress=False)
    assert isinstance(fitted.layers["ridge"], da.Array)
    found = gx.tl.evaluate(fitted, key=["ridge", "dgex"])
    np.testing.assert_array_equal(found["mae"], expected["mae"])


def test_a_store_read_lazily_is_inferred(fitted, query, tmp_path):
    with ad.settings.override(zarr_write_format=2):
        query.write_zarr(tmp_path / "query.zarr")
    expected = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    lazy = ad.experimental.read_lazy(tmp_path / "query.zarr")
    found = gx.tl.predict(lazy, model=fitted, key="ridge", output="anndata", progress=False)
    np.testing.assert_array_equal(found.X.compute(), expected.X)
    assert found.obs["tissue"].tolist() == query.obs["tissue"].tolist()


@pytest.mark.parametrize("suffix", [".zarr", ".h5ad"])
def test_predictions_that_are_read_lazily_are_known_as_such(fitted, tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    fitted.write_zarr(path) if suffix == ".zarr" else fitted.write_h5ad(path)
    lazy = ad.experimental.read_lazy(path)
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    gx.tl.fit(lazy, "ridge", progress=False)
    gx.tl.predict(lazy, key="ridge", progress=False)
    np.testing.assert_allclose(lazy.layers["ridge"].compute(), fitted.layers["ridge"], atol=1e-5)


@pytest.mark.parametrize("form", ["dense", "csr", "dask"])
def test_a_store_on_disk_holds_the_same_numbers(fitted, query, tmp_path, form, small_blocks):
    query.X[3, 5] = np.nan if form != "csr" else query.X[3, 5]
    expected = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    query.X = {"dense": query.X, "csr": sp.csr_matrix(query.X), "dask": da.from_array(query.X, chunks=(37, 25))}[form]
    gx.tl.predict(query, model=fitted, key="ridge", output=tmp_path / "out.zarr", progress=False)
    found = ad.read_zarr(tmp_path / "out.zarr")
    np.testing.assert_array_equal(found.X, expected.X)
    assert found.var_names.tolist() == expected.var_names.tolist()
    assert found.obs["tissue"].tolist() == query.obs["tissue"].tolist()
    np.testing.assert_array_equal(found.obs["gexinfer_missing"], expected.obs["gexinfer_missing"])
    np.testing.assert_array_equal(found.var["gexinfer_role"], expected.var["gexinfer_role"])
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]
    stored = zarr.open_array(tmp_path / "out.zarr/X", mode="r")
    assert (stored.metadata.zarr_format, stored.shards, stored.chunks) == (3, (64, 150), (32, 50))


def test_half_precision_and_chosen_genes(fitted, query, tmp_path):
    genes = [fitted.var_names[~fitted.var["landmark"]][i] for i in (7, 3, 50)]
    gx.tl.predict(
        query, model=fitted, key="ridge", output=tmp_path / "a.zarr", dtype="float16", genes=genes, progress=False
    )
    found = ad.read_zarr(tmp_path / "a.zarr")
    whole = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", genes=genes, progress=False)
    assert set(found.var_names) == set(genes)
    assert found.X.dtype == np.float16
    np.testing.assert_array_equal(found.X, whole.X.astype(np.float16))
    with pytest.raises(KeyError, match=r"genes= names 1 of 2 genes that the models do not give: 'nil'"):
        gx.tl.predict(query, model=fitted, output="anndata", genes=[genes[0], "nil"], progress=False)
    with pytest.raises(ValueError, match="dtype='float16': results are float32"):
        gx.tl.predict(query, model=fitted, output="anndata", dtype="float16", progress=False)


def test_values_beyond_half_precision_are_refused(small, tmp_path):
    small.X = small.X * 10_000
    gx.tl.fit(small, "ridge", progress=False)
    with pytest.raises(ValueError, match=r"dtype='float16' holds values up to 65,504, and there are"):
        gx.tl.predict(small, output=tmp_path / "a.zarr", dtype="float16", progress=False)


def test_what_a_store_cannot_be(fitted, query, tmp_path):
    with pytest.raises(ValueError, match="holds the values of one model"):
        gx.tl.predict(query, model=fitted, key=["ridge", "ols"], output=tmp_path / "a.zarr", progress=False)
    with pytest.raises(ValueError, match=r"output='a.h5ad' is not known; choose one of"):
        gx.tl.predict(query, model=fitted, key="ridge", output="a.h5ad", progress=False)
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(FileExistsError, match="delete it, or choose another output="):
        gx.tl.predict(query, model=fitted, key="ridge", output=tmp_path / "a.zarr", progress=False)


def test_a_refusal_names_the_row_of_the_whole_query(fitted, query, tmp_path):
    query.X[100, :40] = np.nan
    model = gx.io.read_model(fitted, key="ridge")
    made = gx.tl.predict(lazily(query), model=model, output="anndata", progress=False)
    with pytest.raises(ValueError, match="that at row 100 lacks 67%"):
        made.X.compute()
    with pytest.raises(ValueError, match="that at row 100 lacks 67%"):
        gx.tl.predict(lazily(query), model=model, output=tmp_path / "a.zarr", progress=False)
    # As the message says.
    gx.tl.predict(lazily(query), model=model, output=tmp_path / "a.zarr", max_missing=0.7, progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("where", ["create_array", "write_elem"])
def test_a_run_that_was_stopped_as_it_began_begins_again(fitted, query, tmp_path, monkeypatch, where):
    model = gx.io.read_model(fitted, key="ridge")
    with monkeypatch.context() as stop:
        stop.setattr(*{"create_array": (zarr, where), "write_elem": (ad.io, where)}[where], interrupt)
        with pytest.raises(KeyboardInterrupt):
            gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_a_run_that_was_stopped_as_it_ended_has_lost_nothing(fitted, query, tmp_path, monkeypatch):
    model = gx.io.read_model(fitted, key="ridge")
    with monkeypatch.context() as stop:
        # zarr has use of it, too.
        stop.setattr(_stream, "shutil", SimpleNamespace(rmtree=interrupt, disk_usage=shutil.disk_usage))
        with pytest.raises(KeyboardInterrupt):
            gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    expected = gx.tl.predict(query, model=model, output="anndata", progress=False)
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "a.zarr").X, expected.X)
    shutil.rmtree(tmp_path / "a.zarr")
    gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def interrupt(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("other", ["model", "samples", "adapt", "dtype", "genes"])
def test_what_another_job_left_is_not_gone_on_with(fitted, query, tmp_path, monkeypatch, small_blocks, other):
    model = gx.io.read_model(fitted, key="ridge")
    with monkeypatch.context() as stop:
        stop.setattr(_stream, "finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    options = {"adapt": {"adapt": "quantile"}, "dtype": {"dtype": "float16"}, "genes": {"genes": [model.targets[0]]}}
    if other == "model":
        model = gx.io.read_model(fitted, key="ols")
    if other == "samples":
        query.obs_names = "other-" + query.obs_names
    with pytest.raises(ValueError, match="was left by another job: .* Delete it"):
        gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False, **options.get(other, {}))


def test_two_runs_at_once_and_a_folder_that_is_not_there(fitted, query, tmp_path):
    model = gx.io.read_model(fitted, key="ridge")
    with FileLock(tmp_path / "a.zarr.partial.lock"), pytest.raises(ValueError, match="Another process is writing"):
        gx.tl.predict(query, model=model, output=tmp_path / "a.zarr", progress=False)
    with pytest.raises(FileNotFoundError, match="There is no folder .*nil' for output='a.zarr'"):
        gx.tl.predict(query, model=model, output=tmp_path / "nil" / "a.zarr", progress=False)
    with pytest.raises(ValueError, match="output='s3://b/a.zarr' is not known"):
        gx.tl.predict(query, model=model, output="s3://b/a.zarr", progress=False)


def test_a_zarr_array_and_an_unknown_length(fitted, query, tmp_path):
    expected = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    on_disk = zarr.create_array(tmp_path / "x.zarr", data=query.X, chunks=(50, 10))
    found = gx.tl.predict(
        ad.AnnData(on_disk, var=query.var), model=fitted, key="ridge", output="anndata", progress=False
    )
    assert isinstance(found.X, da.Array)
    np.testing.assert_array_equal(found.X.compute(), expected.X)


@pytest.mark.parametrize("n", [0, 1])
def test_none_and_one_sample(fitted, query, tmp_path, n):
    gx.tl.predict(query[:n].copy(), model=fitted, key="ridge", output=tmp_path / "a.zarr", progress=False)
    expected = gx.tl.predict(query[:n].copy(), model=fitted, key="ridge", output="anndata", progress=False)
    np.testing.assert_array_equal(ad.read_zarr(tmp_path / "a.zarr").X, expected.X)


def slowly(path, query, model):
    write = _stream.Store.write
    _stream.Store.write = lambda *args: (write(*args), time.sleep(0.3))
    _stream.rows_per_block, _stream.PREDICT_ROWS = lambda genes: 64, 32
    gx.tl.predict(query, model=model, output=path, progress=False)


def test_a_killed_run_goes_on_where_it_was(fitted, query, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_stream, "rows_per_block", lambda genes: 64)
    monkeypatch.setattr(_stream, "PREDICT_ROWS", 32)
    model = gx.io.read_model(fitted, key="ridge")
    path, partial = tmp_path / "out.zarr", tmp_path / "out.zarr.partial"
    process = multiprocessing.get_context("fork").Process(target=slowly, args=(path, query, model))
    process.start()
    while process.is_alive() and len(list(partial.glob("marks/[0-9]*.npz"))) < 2:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not path.exists()
    with pytest.raises(ValueError, match="was left by another job"):
        gx.tl.predict(query[:, ::-1].copy(), model=model, output=path, genes=list(model.targets), progress=False)
    written = []
    write = _stream.Store.write
    monkeypatch.setattr(
        _stream.Store, "write", lambda store, shard, *rest: (written.append(shard), write(store, shard, *rest))
    )
    with caplog.at_level(logging.INFO, "gexinfer"):
        gx.tl.predict(query, model=model, output=path, progress=False)
    assert "goes on with" in caplog.text
    assert 1 <= len(written) < 4
    expected = gx.tl.predict(query, model=model, output="anndata", progress=False)
    np.testing.assert_array_equal(ad.read_zarr(path).X, expected.X)


def test_a_cluster_fits_predicts_and_evaluates(small, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    local = small.copy()
    for method in ("ridge", "lasso"):
        gx.tl.fit(local, method, progress=False)
    gx.tl.predict(local, key="ridge", progress=False)
    expected = gx.tl.evaluate(local, key="ridge", groupby="tissue")
    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=":0", processes=True) as cluster,
        distributed.Client(cluster) as client,
    ):
        for form in (lambda X: X, sp.csr_matrix):
            there = small.copy()
            there.X = da.from_array(form(small.X), chunks=(40, small.n_vars), asarray=False)
            seen = []
            monkeypatch.setattr("gexinfer.tl._reference.total", spy(seen, "gexinfer.engine.cluster"))
            monkeypatch.setattr("gexinfer.tl._scores.total", spy(seen, "gexinfer.engine.cluster"))
            for method in ("ridge", "lasso"):
                gx.tl.fit(there, method, progress=False)
            assert there.uns["ridge"]["params"]["penalty"] == local.uns["ridge"]["params"]["penalty"]
            gx.tl.predict(there, key="ridge", progress=False)
            np.testing.assert_allclose(there.layers["ridge"].compute(), local.layers["ridge"], atol=2e-4)
            found = gx.tl.evaluate(there, key="ridge", groupby="tissue")
            columns = list(found.columns[:-1])
            np.testing.assert_allclose(found[columns], expected.loc[found.index, columns], atol=2e-4)
            for slot in ("gexinfer_sample_mae", "gexinfer_sample_spearman"):
                np.testing.assert_allclose(there.obsm[slot], local.obsm[slot], atol=2e-3)
            groups = local.uns["gexinfer_evaluation_groups"]
            pd.testing.assert_frame_equal(there.uns["gexinfer_evaluation_groups"], groups, atol=2e-3)
            # Moments of the training and validation rows for each fit, then all errors at once.
            assert seen == ["part_moments"] * 4 + ["part_sums"]
        path = tmp_path / "out.zarr"
        gx.tl.predict(there, key="ridge", output=path, progress=False)
        np.testing.assert_allclose(ad.read_zarr(path)[:, small.var_names].X, there.layers["ridge"].compute(), atol=0)
        monkeypatch.setattr(_stream, "write_here", None)
        with pytest.raises(FileExistsError):
            gx.tl.predict(there, key="ridge", output=path, progress=False)
        monkeypatch.chdir(tmp_path)
        client.run(os.chdir, "/")
        gx.tl.predict(there, key="ridge", output="relative.zarr", progress=False)
        np.testing.assert_array_equal(ad.read_zarr("relative.zarr").X, ad.read_zarr(path).X)


def spy(seen, module):
    import importlib

    total = importlib.import_module(module).total

    def told(*args):
        seen.append(args[3].__name__)
        return total(*args)

    return told
