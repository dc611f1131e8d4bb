"""GCTX files: CMap's own, written here in every variant, and damaged."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from unittest.mock import patch

import anndata as ad
import h5py
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import psutil
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from typer.testing import CliRunner

import gexinfer as gx
from gexinfer.cli import app
from gexinfer.engine import memory
from gexinfer.io import _cmap, _gctx

DATA = Path(__file__).parent / "data"
LAYOUTS = {
    "contiguous": {},
    "chunked": {"chunks": (3, 4)},
    "compressed": {"chunks": (4, 3), "compression": "gzip"},
    "one chunk": {"chunks": True, "compression": "lzf", "shuffle": True},
}


def write_gctx(path, X, samples=None, genes=None, text="bytes", obs=None, var=None, **layout):
    """Write samples x genes as LINCS does; `text` is stored as bytes or as str of any length."""
    kind = h5py.string_dtype() if text == "str" else None
    samples = [f"s{i}" for i in range(X.shape[0])] if samples is None else samples
    genes = [f"g{i}" for i in range(X.shape[1])] if genes is None else genes
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file.create_dataset("0/DATA/0/matrix", data=X, **layout)
        for group, columns in (
            ("0/META/COL", {"id": samples, **(obs or {})}),
            ("0/META/ROW", {"id": genes, **(var or {})}),
        ):
            for name, values in columns.items():
                is_text = len(values) and isinstance(values[0], str)
                values = np.array(values, dtype=object) if is_text and kind else np.array(values)
                file.create_dataset(
                    f"{group}/{name}",
                    data=values.astype("S") if is_text and not kind else values,
                    dtype=kind if is_text else None,
                )
    return path


def slow(path, rows, columns):
    """Read everything and pick, the obvious way."""
    with h5py.File(path) as file:
        X = file["0/DATA/0/matrix"][:].astype(np.float32)[np.ix_(columns, rows)]
    return np.where(X == -666, np.nan, X)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", ["bytes", "str"])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2"])
def test_values_names_and_metadata(tmp_path, text, dtype, layout):
    X = np.arange(63).reshape(7, 9).astype(dtype)
    X[1, 2] = -666
    obs = {
        "cell_id": ["A375", "-666", "MCF7", "µ", "", "nan", "A375"],
        "none": ["-666"] * 7,
        "slope": [62.0, -666, 1, 2, 3, 4, 5],
    }
    path = write_gctx(tmp_path / "a.bin", X, text="str", obs=obs, **LAYOUTS[layout]) if text == "str" else None
    if path is None:
        obs["cell_id"][3] = "u"
        path = write_gctx(tmp_path / "a.bin", X, obs=obs, **LAYOUTS[layout])
    adata = gx.io.read_gctx(path)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, slow(path, range(9), range(7)))
    assert np.isnan(adata.X).sum() == 1
    assert adata.obs_names.tolist() == [f"s{i}" for i in range(7)]
    assert adata.var_names.tolist() == [f"g{i}" for i in range(9)]
    assert adata.obs["cell_id"].astype(object).fillna("?").tolist() == [
        v if v not in ("-666", "", "nan") else "?" for v in obs["cell_id"]
    ]
    assert adata.obs["none"].isna().all()
    np.testing.assert_array_equal(adata.obs["slope"], [62, np.nan, 1, 2, 3, 4, 5])
    adata.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "a.h5ad").obs, adata.obs)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_both_axes_at_once_whatever_the_layout(tmp_path, data):
    n, m = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    X = np.random.default_rng(n * m).normal(size=(n, m)).astype(data.draw(st.sampled_from(["f4", "f8"])))
    X[X < -1.5] = -666
    layout = data.draw(st.sampled_from([{}, {"compression": "gzip"}, {"shuffle": True}]))
    if layout or data.draw(st.booleans()):
        layout = {**layout, "chunks": (data.draw(st.integers(1, n)), data.draw(st.integers(1, m)))}
    path = write_gctx(tmp_path / "a.gctx", X, **layout)
    rows = data.draw(st.lists(st.integers(0, m - 1), unique=True))
    columns = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    by_id = {"rows": [f"g{i}" for i in rows], "cols": [f"s{i}" for i in columns]}
    # Buffers so small that everything is cut, and calls so dear or cheap that either way of reading is taken.
    with (
        patch.object(_gctx, "BUFFER", data.draw(st.sampled_from([1, 64, 2**20]))),
        patch.object(_gctx, "CALL", data.draw(st.sampled_from([0, 10, 2**20]))),
    ):
        for picks in (by_id, {"rows": rows, "cols": np.array(columns, int)}):
            adata = gx.io.read_gctx(path, **picks)
            np.testing.assert_array_equal(adata.X, slow(path, rows, columns))
            assert (adata.obs_names.tolist(), adata.var_names.tolist()) == (by_id["cols"], by_id["rows"])
            np.testing.assert_array_equal(gx.io.read_gctx(path, lazy=True, **picks).X.compute(), adata.X)


def test_metadata_follow_what_is_picked(tmp_path):
    obs = {"cell": [f"c{i % 3}" for i in range(9)], "n": list(range(9))}
    path = write_gctx(tmp_path / "a.gctx", np.zeros((9, 4)), obs=obs, var={"pr_is_lm": [1, 0, 0, 1]})
    adata = gx.io.read_gctx(path, rows=["g3", "g2"], cols=slice(7, 1, -2))
    assert adata.obs["n"].tolist() == [7, 5, 3]
    assert adata.obs["cell"].tolist() == ["c1", "c2", "c0"]
    assert adata.var["landmark"].tolist() == [True, False]
    mask = np.arange(9) % 4 == 0
    assert gx.io.read_gctx(path, cols=mask, rows=[]).shape == (3, 0)
    assert gx.io.read_gctx(path, cols=mask).obs["n"].tolist() == [0, 4, 8]


@pytest.mark.parametrize(
    ("picks", "error", "match"),
    [
        (
            {"rows": ["g1", "x", "y"]},
            KeyError,
            "rows names 2 ids that .*a.gctx' does not hold: 'x', 'y'. Its genes are called 'g0', 'g1', 'g2'",
        ),
        ({"cols": ["g1"]}, KeyError, "Its samples are called 's0', 's1', 's2'"),
        ({"rows": ["g1", "g1"]}, ValueError, "rows names 'g1' more than once"),
        ({"cols": [3, 3]}, ValueError, "cols names '3' more than once"),
        ({"cols": [0, -1]}, ValueError, "cols holds '-1'; the indices of .* run from 0 to 8"),
        ({"cols": [9]}, ValueError, "run from 0 to 8"),
        ({"cols": [True, False]}, ValueError, "cols is a mask of 2, and .* holds 9 cols"),
        ({"rows": "g1"}, TypeError, "rows is 'g1'; pass a list"),
        ({"rows": {"g1"}}, TypeError, "pass a list"),
        ({"rows": ["g1", 2]}, TypeError, "must be ids .text., or all indices"),
        ({"rows": [1.0]}, TypeError, "must be ids .text., or all indices"),
        ({"rows": 5}, TypeError, "rows is 5; pass a list"),
        ({"rows": slice("g1", "g2")}, TypeError, r"rows is slice\('g1', 'g2', None\), and a slice takes indices alone"),
        ({"cols": ["s1", "twin"]}, ValueError, "cols names 'twin', which .* holds more than once"),
    ],
)
def test_what_cannot_be_picked(tmp_path, picks, error, match):
    samples = [f"s{i}" for i in range(7)] + ["twin", "twin"]
    path = write_gctx(tmp_path / "a.gctx", np.zeros((9, 4)), samples)
    with pytest.raises(error, match=match):
        gx.io.read_gctx(path, **picks)


def test_ids_that_come_twice_are_read(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", np.zeros((2, 3)), genes=["a", "b", "a"])
    with pytest.warns(UserWarning, match="not unique"):
        assert gx.io.read_gctx(path).var_names.tolist() == ["a", "b", "a"]
    assert gx.io.read_gctx(path, rows=["b"]).var_names.tolist() == ["b"]
    assert gx.io.read_gctx(path, rows=[2, 1]).var_names.tolist() == ["a", "b"]


@pytest.mark.parametrize("ids", [np.array([5720, 466]), np.array([5720.0, 466.0])])
def test_numbers_as_gene_ids_become_text(tmp_path, ids):
    path = write_gctx(tmp_path / "a.gctx", np.array([[1.0, 2]]), genes=ids)
    assert gx.io.read_gctx(path).var_names.tolist() == ["5720", "466"]
    assert gx.io.read_gctx(path, rows=["466"]).X.tolist() == [[2]]
    path = write_gctx(tmp_path / "b.gctx", np.array([[1.0, 2]]), genes=ids + 0.5)
    with pytest.raises(ValueError, match="neither text nor whole numbers"):
        gx.io.read_gctx(path)


def test_old_files_hold_latin_1(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", np.ones((2, 2)), obs={"dose": ["1", "2"]})
    with h5py.File(path, "a") as file:
        del file["0/META/COL/dose"], file["0/META/COL/id"]
        file["0/META/COL/dose"] = np.array(["10 µM".encode("latin-1"), "20 µM".encode()])
        file["0/META/COL/id"] = np.array(["µ".encode("latin-1"), "é".encode()])
    adata = gx.io.read_gctx(path, cols=["é", "µ"])
    assert adata.obs["dose"].tolist() == ["20 µM", "10 µM"]


@pytest.mark.parametrize(
    ("var", "landmark", "bing"),
    [
        ({"pr_is_lm": [1, 0, 0], "pr_is_bing": [1, 1, 0]}, [1, 0, 0], [1, 1, 0]),
        ({"pr_is_lm": [1.0, 0.0, 0.0], "pr_is_bing": [0.0, 1.0, 0.0]}, [1, 0, 0], [1, 1, 0]),
        ({"pr_is_lm": ["1", "0", "1"]}, [1, 0, 1], None),
        ({"pr_is_lmark": ["Y", "N", "n"]}, [1, 0, 0], None),
        ({"feature_space": ["landmark", "best inferred", "inferred"]}, [1, 0, 0], [1, 1, 0]),
        ({"feature_space": ["landmark", "best inferred", "inferred"], "pr_is_lm": [1, 0, 0]}, [1, 0, 0], [1, 1, 0]),
        ({"landmark": [True, False, False], "bing": [False, True, False]}, [1, 0, 0], [0, 1, 0]),
        ({"pr_is_lm": [1, 0, 0], "bing": [False, True, False]}, [1, 0, 0], [0, 1, 0]),
        ({"other": [1, 2, 3]}, None, None),
    ],
)
def test_flags_of_genes(tmp_path, var, landmark, bing):
    found = gx.io.read_gctx(write_gctx(tmp_path / "a.gctx", np.ones((2, 3)), var=var)).var
    for slot, flags in (("landmark", landmark), ("bing", bing)):
        assert (slot in found) == (flags is not None)
        if flags is not None:
            assert found[slot].dtype == bool
            assert found[slot].tolist() == [bool(flag) for flag in flags]
    assert set(var) <= set(found)


@pytest.mark.parametrize(
    ("var", "landmark", "match"),
    [
        (
            {"pr_is_lm": [1, 0, -666]},
            [True, False, False],
            "does not say of 1 genes whether they are landmark, e.g. 'g2'",
        ),
        ({"pr_is_lm": [1, 0, 7]}, [True, False, False], "it holds '7'. They count as not"),
        ({"pr_is_lm": [5, 6, 7]}, None, r"var\['pr_is_lm'\] holds '5', '6', '7', which flags no gene"),
        (
            {"pr_is_lm": [1, 0, 0], "pr_is_lmark": ["Y", "Y", "N"]},
            [True, False, False],
            "'pr_is_lm'. and var.'pr_is_lmark'. disagree for 1 genes",
        ),
        (
            {"pr_is_lm": [1, 0, 0], "landmark": ["a", "b", "c"]},
            ["a", "b", "c"],
            "is a column of the file, and var.'pr_is_lm'. was not written over it",
        ),
    ],
)
def test_flags_that_are_unclear_are_told(tmp_path, var, landmark, match):
    path = write_gctx(tmp_path / "a.gctx", np.ones((2, 3)), var=var)
    with pytest.warns(UserWarning, match=match):
        found = gx.io.read_gctx(path).var
    assert (found["landmark"].tolist() if "landmark" in found else None) == landmark


def test_cmaps_own_files():
    binary, text = (gx.io.read_gctx(DATA / f"mini_gctoo_for_testing.{ending}") for ending in ("gctx", "gct"))
    np.testing.assert_array_equal(binary.X, text.X)
    pd.testing.assert_frame_equal(binary.obs, text.obs)
    pd.testing.assert_frame_equal(binary.var, text.var)
    assert binary.obs["distil_nsample"].tolist() == [3, 3, 66, 2, 9, 111111]
    assert binary.X[1, 0] == np.float32(2.0)
    path = DATA / "mini_gctx_with_metadata_n2x3.gctx"
    adata = gx.io.read_gctx(path, rows=["217140_s_at", "200814_at"], cols=["LJP005_A375_24H:BRD-K76908866:10"])
    np.testing.assert_array_equal(adata.X, slow(path, [2, 0], [1]))
    assert adata.var["pr_gene_id"].tolist() == [7416, 5720]
    assert adata.var["pr_model_id"].isna().all()


def test_what_a_file_is_is_seen_from_its_content(tmp_path):
    plain, text = DATA / "mini_gctoo_for_testing.gctx", DATA / "mini_gctoo_for_testing.gct"
    expected = gx.io.read_gctx(plain)
    (tmp_path / "a.gct").write_bytes(plain.read_bytes())
    (tmp_path / "b.gctx").write_bytes(text.read_bytes())
    (tmp_path / "c.gctx").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "d").write_bytes(gzip.compress(text.read_bytes()))
    with h5py.File(plain) as source, h5py.File(tmp_path / "e.gctx", "w", userblock_size=512) as target:
        source.copy("0", target)
    for path in tmp_path.iterdir():
        for read in (gx.io.read_gct, gx.io.read_gctx):
            np.testing.assert_array_equal(read(path).X, expected.X)
            assert read(path, rows=[5, 1], cols=[2]).obs_names.tolist() == [expected.obs_names[2]]
    for name in "bcd":
        path = next(tmp_path.glob(f"{name}*"))
        with pytest.raises(ValueError, match="not with lazy=True. Convert it once: gexinfer convert"):
            gx.io.read_gctx(path, lazy=True)


def test_a_packed_file_is_named_in_messages_and_converted_in_blocks(tmp_path, monkeypatch):
    raw = (DATA / "mini_gctoo_for_testing.gctx").read_bytes()
    path = tmp_path / "my data" / "v1.2_data.gctx.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(ValueError, match="gexinfer convert '.*/my data/v1.2_data.gctx.gz' '.*/my data/v1.2_data.zarr'"):
        gx.io.read_gctx(path, lazy=True)
    with pytest.raises(KeyError, match=r"rows names 1 ids that '.*/my data/v1.2_data.gctx.gz' \(unpacked\) does not"):
        gx.io.read_gctx(path, rows=["x"])
    monkeypatch.setattr(_cmap, "LARGE", 1)
    monkeypatch.setattr(memory, "available", lambda device: 10)
    with pytest.raises(
        ValueError, match=r"of '.*/my data/v1.2_data.gctx.gz' \(unpacked\) need 144 bytes .* 10 are free"
    ):
        gx.io.read_gctx(path)
    out = tmp_path / "v1.zarr"
    done = CliRunner().invoke(app, ["convert", str(path), str(out)])
    assert done.exit_code == 0, done.stderr
    np.testing.assert_array_equal(ad.read_zarr(out).X, slow(DATA / "mini_gctoo_for_testing.gctx", range(6), range(6)))
    path.write_bytes(gzip.compress(raw[:10_000]))
    done = CliRunner().invoke(app, ["convert", str(path), str(out)])
    assert f"{str(path)!r} (unpacked), 10,000 bytes, cannot be read: its header announces 19,568 bytes" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my data", "v1.zarr"]


def test_lazy_values_stay_in_the_file(tmp_path):
    X = np.random.default_rng(0).normal(size=(50, 30)).astype("f4")
    X[3, 4] = -666
    path = write_gctx(tmp_path / "a.gctx", X, chunks=(8, 10))
    with patch.object(_gctx, "LAZY_BLOCK", 4 * 30 * 20):
        adata = gx.io.read_gctx(path, lazy=True)
        part = gx.io.read_gctx(path, lazy=True, rows=["g7", "g4"], cols=[9, 3, 20])
    assert adata.X.chunks[0] == (16, 16, 16, 2)
    assert not [f for f in psutil.Process().open_files() if f.path == str(path)]
    np.testing.assert_array_equal(part.X.compute(), slow(path, [7, 4], [9, 3, 20]))
    whole = slow(path, range(30), range(50))
    np.testing.assert_array_equal(adata[10:40, ["g5", "g1"]].X.compute(), whole[10:40][:, [5, 1]])
    for key in ([30, 2, 2], 7, -1, np.s_[5, 2:4], np.s_[:, 3], np.s_[::-3, 1::2], np.s_[5:5], (slice(None), [9, 0])):
        np.testing.assert_array_equal(adata.X[key].compute(), whole[key])
    # In processes of their own, which open the file themselves.
    np.testing.assert_array_equal(adata.X.compute(scheduler="processes", num_workers=1), whole)
    write_gctx(path, X[:, ::-1], chunks=(8, 10), obs={"new": list(range(50))})
    with pytest.raises(ValueError, match="was changed or moved since it was read"):
        adata.X.compute()


def test_memory_is_bounded_by_what_is_asked_for(tmp_path):
    X = np.random.default_rng(0).random((4000, 4000), np.float32)
    genes, samples = np.random.default_rng(1).choice(4000, (2, 100), replace=False)
    for name, layout in (
        ("a", {}),
        ("b", {"chunks": (262, 1000)}),
        ("c", {"chunks": (262, 1000), "compression": "lzf"}),
    ):
        path = write_gctx(tmp_path / name, X, **layout)
        tracemalloc.start()
        adata = gx.io.read_gctx(path, rows=genes, cols=samples)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        np.testing.assert_array_equal(adata.X, X[np.ix_(samples, genes)])
        assert peak < 20e6  # of 64 MB
        path.unlink()


def test_a_query_from_gctx_is_inferred(fitted, tmp_path):
    model = gx.io.read_model(fitted, key="ridge")
    query = fitted[:3, list(model.landmarks)]
    path = write_gctx(tmp_path / "level3.gctx", np.asarray(query.X), query.obs_names.tolist(), query.var_names.tolist())
    for lazy in (False, True):
        adata = gx.io.read_gctx(path, lazy=lazy)
        full = gx.tl.predict(adata, model=fitted, key="ridge", output="anndata", progress=False)
        np.testing.assert_array_equal(full[:, fitted.var_names].X, fitted.layers["ridge"][:3])


TEXT = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=6).filter(
    lambda text: text not in _cmap.NO_VALUE
)
COLUMNS = {
    "int": st.integers(-600, 2**40),
    "float": st.floats(width=64, allow_nan=True).filter(lambda value: value != -666),
    "bool": st.booleans(),
    "text": TEXT,
    "category": st.one_of(st.none(), TEXT),
}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_written_and_read_back(tmp_path, data):
    n, m = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    frames = []
    for size in (n, m):
        ids = data.draw(st.lists(TEXT, min_size=size, max_size=size, unique=True))
        frame = pd.DataFrame(index=pd.Index(ids, dtype=object))
        for kind in data.draw(st.lists(st.sampled_from(sorted(COLUMNS)), unique=True)):
            values = data.draw(st.lists(COLUMNS[kind], min_size=size, max_size=size))
            frame[kind] = pd.Categorical(np.array(values, object)) if kind in ("text", "category") else values
        frames.append(frame)
    X = data.draw(st.lists(st.floats(width=32).filter(lambda value: value != -666), min_size=n * m, max_size=n * m))
    adata = ad.AnnData(np.array(X, np.float32).reshape(n, m), *frames)
    gx.io.write_gctx(adata, tmp_path / "a.gctx")
    back = gx.io.read_gctx(tmp_path / "a.gctx")
    np.testing.assert_array_equal(back.X, adata.X)
    pd.testing.assert_frame_equal(back.obs, adata.obs)
    pd.testing.assert_frame_equal(back.var, adata.var)


@pytest.mark.parametrize("kind", ["dense", "csr", "csc", "dask", "backed", "backed csc", "layer", "float64"])
def test_any_matrix_is_written(tmp_path, kind):
    X = np.random.default_rng(0).poisson(0.7, (700, 40)).astype(np.float32)
    adata = ad.AnnData(
        X.copy(), obs=pd.DataFrame({"old": pd.array([1, None] * 350)}, index=[f"s{i}" for i in range(700)])
    )
    if kind.endswith(("csr", "csc")):
        adata.X = sp.csc_matrix(X) if kind.endswith("csc") else sp.csr_matrix(X)
    if kind == "dask":
        adata.X = pytest.importorskip("dask.array").from_array(X, chunks=(90, 7))
    if kind == "float64":
        adata.X = X.astype(float)
    if kind == "layer":
        adata.layers["raw"], adata.X = X, X + 1
    if kind.startswith("backed"):
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    gx.io.write_gctx(adata, tmp_path / "a.gctx", layer="raw" if kind == "layer" else None)
    back = gx.io.read_gctx(tmp_path / "a.gctx")
    np.testing.assert_array_equal(back.X, X)
    np.testing.assert_array_equal(back.obs["old"], [1, np.nan] * 350)
    with h5py.File(tmp_path / "a.gctx") as file:
        assert file.attrs["version"] == b"GCTX1.0"
        assert file["0/DATA/0/matrix"].dtype == np.float32
        assert file["0/META/COL/id"].dtype.kind == "S"


@pytest.mark.parametrize(
    ("values", "back"),
    [
        (pd.Categorical([1, None, 2]), [1, np.nan, 2]),
        (pd.Categorical([10, 2, 10]), [10, 2, 10]),
        (pd.Categorical([True, None, False]), [1, np.nan, 0]),
        (np.array([1, 2, 3], object), [1, 2, 3]),
        (np.array([1, 2.5, None], object), [1, 2.5, np.nan]),
        (np.array([1, 2.5, 3], object), [1, 2.5, 3]),
        (pd.array([1, 2, 3], dtype="Int64"), [1, 2, 3]),
    ],
)
def test_columns_of_numbers_come_back_as_numbers(tmp_path, values, back):
    obs = pd.DataFrame({"n": values}, index=["a", "b", "c"])
    gx.io.write_gctx(ad.AnnData(np.ones((3, 1), np.float32), obs), tmp_path / "a.gctx")
    found = gx.io.read_gctx(tmp_path / "a.gctx").obs["n"]
    assert found.dtype == np.array(back).dtype
    np.testing.assert_array_equal(found, back)


@pytest.mark.parametrize(
    ("X", "column", "match", "read"),
    [
        ([1e300, 1], ["a", "b"], "1 values of X are beyond float32, which a GCTX holds: they are inf", [np.inf, 1]),
        ([-666, np.inf], ["a", "b"], "X will be read from a.gctx with more missing values", [np.nan, np.inf]),
        ([2, 1], [-666, 5], r"obs\['n'\] will be read", [2, 1]),
        ([2, 1], ["NA", "b"], r"obs\['n'\] will be read", [2, 1]),
    ],
)
def test_what_is_not_kept_is_told(tmp_path, X, column, match, read):
    adata = ad.AnnData(np.array(X, float)[:, None], pd.DataFrame({"n": column}, index=["NA", "s"]))
    with pytest.warns(UserWarning, match=match) as told:
        gx.io.write_gctx(adata, tmp_path / "a.gctx")
    assert len(told) == 1
    back = gx.io.read_gctx(tmp_path / "a.gctx")
    np.testing.assert_array_equal(back.X[:, 0], read)
    assert back.obs["n"].isna().tolist() == [value in (-666, "NA") for value in column]


def test_tables_that_were_read_lazily_are_refused(small, tmp_path):
    small.write_h5ad(tmp_path / "a.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "a.h5ad")
    with pytest.raises(TypeError, match=r"adata.obs = adata.obs.to_memory"):
        gx.io.write_gctx(lazy, tmp_path / "a.gctx")
    lazy.obs, lazy.var = lazy.obs.to_memory(), lazy.var.to_memory()
    gx.io.write_gctx(lazy, tmp_path / "a.gctx")
    np.testing.assert_array_equal(gx.io.read_gctx(tmp_path / "a.gctx").X, small.X)


def test_what_cannot_be_written_leaves_the_old_file(tmp_path, capsys):
    adata = ad.AnnData(np.ones((2, 2), np.float32), obs=pd.DataFrame({"a": [1, 2]}, index=["x", "y"]))
    path = tmp_path / "a.gctx"
    adata.uns["note"], adata.obsm["pca"] = 1, np.ones((2, 1))
    (tmp_path / "a.gctx.partial").write_text("a user's own")
    gx.io.write_gctx(adata, path)
    assert "left out of a.gctx: obsm['pca'], uns['note']" in capsys.readouterr().err
    old = path.read_bytes()
    for change, error, match in (
        (
            lambda a: a.obs.insert(0, "when", pd.to_datetime(["2020", "2021"])),
            TypeError,
            r"obs\['when'\] holds datetime64 values",
        ),
        (lambda a: a.obs.insert(0, "mixed", np.array([1, "b"], object)), TypeError, r"obs\['mixed'\] holds mixed"),
        (lambda a: a.var.insert(0, "id", [1, 2]), ValueError, "var has a column 'id'"),
        (lambda a: a.obs.insert(0, "a/b", [1, 2]), ValueError, "obs has a column 'a/b'"),
        (lambda a: a.obs.insert(0, ".", [1, 2]), ValueError, "obs has a column '.', .* rename it"),
        (lambda a: a.obs.insert(0, "a\0b", [1, 2]), ValueError, "obs has a column"),
        (
            lambda a: a.obs.insert(0, "a", [1, 2], allow_duplicates=True),
            ValueError,
            "obs has more than one column 'a'; rename or drop",
        ),
        (lambda a: setattr(a, "obs_names", ["x", "x"]), ValueError, "run adata.obs_names_make_unique"),
        (lambda a: setattr(a, "X", None), ValueError, "adata.X is None"),
    ):
        wrong = adata.copy()
        change(wrong)
        with pytest.raises(error, match=f"(?i){match}"):
            gx.io.write_gctx(wrong, path)
    with (
        pytest.raises(OSError, match="disk"),
        patch.object(_gctx.h5py.Dataset, "__setitem__", side_effect=OSError("disk")),
    ):
        gx.io.write_gctx(adata, path)
    with pytest.raises(ValueError, match=r"must end in '.gctx'"):
        gx.io.write_gctx(adata, tmp_path / "a.h5")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        gx.io.write_gctx(adata, tmp_path / "no" / "a.gctx")
    assert path.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gctx", "a.gctx.partial"]


def test_truncated_files_say_so_with_the_bytes_they_have(tmp_path):
    whole = (DATA / "mini_gctoo_for_testing.gctx").read_bytes()
    path = tmp_path / "a.gctx"
    for keep in [0, 1, 7, 8, 20, *range(50, len(whole), 700), len(whole) - 1]:
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match=f"a.gctx', {keep:,} bytes, .*truncated"):
            gx.io.read_gctx(path)
    path.write_bytes(whole[:10_000])
    with pytest.raises(
        ValueError, match="10,000 bytes, cannot be read: its header announces 19,568 bytes, so it is truncated"
    ):
        gx.io.read_gctx(path)
    path.write_bytes(gzip.compress(whole)[:700])
    with pytest.raises(ValueError, match="a.gctx', 700 bytes, cannot be read: Compressed file ended"):
        gx.io.read_gctx(path)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        gx.io.read_gctx(tmp_path / "d.gctx")
    with pytest.raises(ValueError, match="is a folder"):
        gx.io.read_gctx(tmp_path)


def test_files_that_are_no_gctx_or_were_never_finished(tmp_path):
    path = tmp_path / "a.gctx"
    path.write_text("<html>Not found</html>")
    with pytest.raises(ValueError, match="is neither GCTX .HDF5. nor GCT .* starts with b'<html>Not"):
        gx.io.read_gctx(path)
    table = tmp_path / "table.csv"
    table.write_text(",STAT1,GATA3\ns1,1.5,2.5\n")
    with pytest.raises(ValueError, match=r"is no GCT, .*pandas\.read_csv\(path, index_col=0\)"):
        gx.io.read_gctx(table)
    ad.AnnData(np.ones((2, 2), np.float32)).write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(ValueError, match=r"is an \.h5ad, not a GCTX: read it with anndata\.read_h5ad"):
        gx.io.read_gctx(tmp_path / "b.h5ad")

    def broken(match, change):
        write_gctx(path, np.ones((30, 8)), chunks=(10, 8))
        with h5py.File(path, "a") as file:
            change(file)
        with pytest.raises(ValueError, match=f"a.gctx', .* bytes, cannot be read: {match}"):
            gx.io.read_gctx(path)

    def other_matrix(**kind):
        def change(file):
            del file["0/DATA/0/matrix"]
            file.create_dataset("0/DATA/0/matrix", **kind)

        return change

    def part(file):
        other_matrix(shape=(30, 8), dtype="f4", chunks=(10, 8))(file)
        file["0/DATA/0/matrix"][:10] = 1

    def gzip_part(file):
        other_matrix(shape=(30, 8), dtype="f4", chunks=(10, 8), compression="gzip")(file)
        file["0/DATA/0/matrix"][:10] = 1

    broken("it has no '0/META/ROW/id'", lambda file: file.__delitem__("0/META/ROW/id"))
    broken("it has no '0/DATA/0/matrix'", lambda file: file.__delitem__("0"))
    broken("it names 30 samples and 8 genes, but its matrix has shape .30, 9.", other_matrix(data=np.ones((30, 9))))
    broken("its matrix has shape .30,. and type", other_matrix(data=np.ones(30)))
    broken("its matrix has shape .30, 8. and type .S1", other_matrix(data=np.full((30, 8), b"a")))
    broken("/0/DATA/0/matrix holds 0 of its 960 bytes", other_matrix(shape=(30, 8), dtype="f4"))
    broken("/0/DATA/0/matrix holds 320 of its 960 bytes", part)
    broken("/0/DATA/0/matrix holds 1 of its 3 chunks", gzip_part)
    broken(
        "/0/META/COL/short has 5 entries for 30 ids",
        lambda file: file.create_dataset("0/META/COL/short", data=np.ones(5)),
    )
    write_gctx(path, np.ones((30, 8)))
    with h5py.File(path, "a") as file:
        file.create_group("0/META/COL/nested")
    with pytest.warns(UserWarning, match="/0/META/COL holds 'nested', which are no columns"):
        assert list(gx.io.read_gctx(path).obs) == []


# HDF5 is a C library, so whatever it does with damaged bytes happens in a process of its own.
MUTATE = """
import faulthandler, random, signal, sys, warnings
faulthandler.enable()
import resource, gexinfer as gx
from pathlib import Path
source, path, n = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]), int(sys.argv[3])
good = gx.io.read_gctx(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
warnings.simplefilter("ignore")
for seed in range(n):
    print(seed, flush=True)
    draw, data = random.Random(seed), bytearray(source)
    for _ in range(draw.choice([1, 1, 3, 20])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if draw.random() < 0.2:
        del data[draw.randrange(len(data)):]
    path.write_bytes(data)
    signal.alarm(20)
    try:
        adata = gx.io.read_gctx(path)
        assert adata.shape == good.shape or adata.shape[0] * adata.shape[1] < len(source) * 2000, adata.shape
        assert (adata.X == 0).sum() <= (good.X == 0).sum() + 60, "values have become zeros"
    except ValueError as error:
        assert f"{str(path)!r}, {len(data):,} bytes, " in str(error) or "Metadata columns" in str(error), error
    signal.alarm(0)
"""


MINI = ["mini_gctoo_for_testing.gctx", "mini_gctx_with_metadata_n2x3.gctx", "mini_gctoo_for_testing.gct"]


@pytest.mark.parametrize("name", [*MINI, "a.gctx", "str.gctx", "a.gct.gz"])
def test_mutated_bytes_give_an_error_or_values(tmp_path, name):
    source = DATA / name
    if name == "a.gctx":
        source = tmp_path / name
        gx.io.write_gctx(gx.io.read_gctx(DATA / "mini_gctoo_for_testing.gctx"), source)
    if name == "str.gctx":
        source = write_gctx(
            tmp_path / name, np.ones((40, 20)), text="str", obs={"cell": ["A375", "b"] * 20}, chunks=(9, 8)
        )
    if name == "a.gct.gz":
        source = tmp_path / name
        source.write_bytes(gzip.compress((DATA / "mini_gctoo_for_testing.gct").read_bytes()))
    done = subprocess.run(
        [sys.executable, "-c", MUTATE, source, tmp_path / "mutated", "60"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.stdout.splitlines()[-1:], done.stderr[-2000:])


@pytest.mark.parametrize("layout", [{}, {"chunks": (90,)}, {"chunks": (90,), "compression": "gzip", "shuffle": True}])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_sound_heaps_of_texts_are_read(tmp_path, layout, libver):
    path = write_gctx(tmp_path / "a.gctx", np.ones((400, 2)), text="str")
    old, new = ([letter * (i * i % 9000) for i in range(400)] for letter in "aé")
    with h5py.File(tmp_path / "b.gctx", "w", libver=libver, userblock_size=512) as file:
        with h5py.File(path) as source:
            source.copy("0", file)
        column = file.create_dataset("0/META/COL/about", (400,), h5py.string_dtype(), **layout)
        column[:] = np.array(old, object)
        column[::3] = np.array(new[::3], object)
    expected = [new[i] if i % 3 == 0 else old[i] for i in range(400)]
    assert gx.io.read_gctx(tmp_path / "b.gctx").obs["about"].astype(object).fillna("").tolist() == expected


def test_a_hole_of_zeros_in_a_heap_of_texts_does_not_hang(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", np.ones((40, 20)), text="str", obs={"cell": ["A375", "b"] * 20})
    data = bytearray(path.read_bytes())
    heap = data.index(b"GCOL")
    data[heap + 160 : heap + 224] = bytes(64)
    path.write_bytes(data)
    read = "import sys, gexinfer as gx; gx.io.read_gctx(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", read, path], capture_output=True, text=True, timeout=60)
    assert f"the heap of texts at byte {heap:,} is damaged" in done.stderr


def test_convert(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(DATA / "mini_gctoo_for_testing.gctx", "a.gctx")
    expected = gx.io.read_gctx("a.gctx")
    Path("a.gct.gz").write_bytes(gzip.compress((DATA / "mini_gctoo_for_testing.gct").read_bytes()))

    def run(*arguments):
        return CliRunner().invoke(app, ["convert", *arguments])

    for source, out in (
        ("a.gctx", "a.zarr"), ("a.gctx", "a.h5ad"), ("a.gct.gz", "b.h5ad"), ("a.gct.gz", "b.zarr"), ("a.gct.gz", "c.gctx"),
        ("a.zarr", "d.gctx"), ("a.h5ad", "e.gctx"), ("a.gctx", "a.gctx"), ("a.h5ad", "a.zarr"), ("a.h5ad", "a.h5ad"),
    ):  # fmt: skip
        done = run(source, out)
        assert done.exit_code == 0, done.stderr
        reader = {".zarr": ad.read_zarr, ".h5ad": ad.read_h5ad, ".gctx": gx.io.read_gctx}[Path(out).suffix]
        back = reader(out)
        np.testing.assert_array_equal(back.X, expected.X)
        pd.testing.assert_frame_equal(back.obs, expected.obs)
        pd.testing.assert_frame_equal(back.var, expected.var)
    files = sorted(p.name for p in Path().iterdir())
    for arguments, match in (
        (("a.gctx", "a.csv"), "'a.csv' must end in .h5ad or .zarr or .gctx"),
        (("no.gctx", "b.zarr"), "There is no file 'no.gctx'"),
        (("a.gctx", "no/b.zarr"), "There is no folder"),
    ):
        done = run(*arguments)
        assert (done.exit_code, match in done.stderr, done.stderr.count("\n")) == (1, True, 1)
    assert sorted(p.name for p in Path().iterdir()) == files


def test_other_commands_read_gctx(fitted, tmp_path):
    model = gx.io.read_model(fitted, key="ridge")
    gx.io.write_model(model, tmp_path / "ridge.safetensors")
    gx.io.write_gctx(fitted[:5, list(model.landmarks)], tmp_path / "query.gctx")
    arguments = [tmp_path / "query.gctx", "-o", tmp_path / "full.h5ad", "--model", tmp_path / "ridge.safetensors"]
    done = CliRunner().invoke(app, ["predict", *map(str, arguments), "--output", "anndata"])
    assert done.exit_code == 0, done.stderr
    full = ad.read_h5ad(tmp_path / "full.h5ad")
    np.testing.assert_allclose(full[:, fitted.var_names].X, fitted.layers["ridge"][:5], rtol=1e-5, atol=1e-5)
