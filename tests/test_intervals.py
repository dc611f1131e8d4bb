"""Intervals of a stated probability, and what share of measured values they hold."""

from __future__ import annotations

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from conftest import arrays_of, standardised
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import gexinfer as gx
from gexinfer._record import to_bytes
from gexinfer.cli import app
from gexinfer.engine import conformal
from gexinfer.methods import METHODS
from gexinfer.tl import _held_out


def by_hand(adata, key):
    """Return absolute standardised residuals and the root of the novelty of the validation rows."""
    (x, y) = standardised(adata, "validation")[0]
    target = ~adata.var["landmark"].to_numpy()
    validation = (adata.obs["split"] == "validation").to_numpy()
    Y = arrays_of(adata, "train")[1]
    unit = Y.std(0) + 1e-3
    inferred = (adata[validation, target].layers[key] - Y.mean(0)) / unit
    covariance = gx.io.read_model(adata, key=key).gaussian.covariance
    novelty = np.einsum("ij,jk,ik->i", x, np.linalg.inv(covariance), x) / x.shape[1]
    return np.abs(inferred - y), np.sqrt(novelty), unit


@given(n=st.integers(1, 5000), level=st.floats(0.01, 0.999))
@settings(max_examples=200, deadline=None)
def test_the_residual_taken_is_the_least_that_has_the_level(n, level):
    rank = conformal.rank_of(level, n)
    # The probability that the next of n + 1 exchangeable rows is not above the rank-th of the others.
    assert rank / (n + 1) >= level - 1e-9
    assert (rank - 1) / (n + 1) < level
    assert (rank <= n) == (n >= conformal.rows_needed(level))
    kept = conformal.ranks(n)
    assert kept[-1] == n
    assert len(kept) <= 62
    if rank <= n:
        taken = kept[np.searchsorted(kept, rank)]
        # At most to the next percent, or the next twentieth below a half.
        assert taken / (n + 1) <= level + (0.01 if level >= 0.5 else 0.05) + 1 / (n + 1)
        if round(level * 100) / 100 == level and level >= 0.5:
            assert taken == rank


@pytest.mark.parametrize("scaled", [False, True])
def test_bounds_are_order_statistics_of_validation_residuals(small, scaled):
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, interval=0.9, interval_scaled=scaled, progress=False)
    residuals, root, unit = by_hand(small, "ridge")
    n, target = len(root), ~small.var["landmark"].to_numpy()
    novelty = small.obs["gexinfer_novelty"].to_numpy()
    scale = np.sqrt(novelty)[:, None] if scaled else np.ones((small.n_obs, 1))
    rank = int(np.ceil(0.9 * (n + 1) - 1e-9))
    half = np.sort(residuals / root[:, None] if scaled else residuals, axis=0)[rank - 1] * unit * scale
    found = small.layers["ridge_upper"] - small.layers["ridge"]
    np.testing.assert_allclose(found[:, target], half, rtol=3e-3)
    # Rounded up, and rounded no further than float16 does.
    assert (found[:, target] >= half * (1 - 1e-4)).all()
    np.testing.assert_allclose(small.layers["ridge"] - small.layers["ridge_lower"], found, rtol=1e-3, atol=1e-5)
    for bound in ("lower", "upper"):
        layer = small.layers[f"ridge_{bound}"]
        assert layer.dtype == np.float32
        assert np.isnan(layer[:, ~target]).all()
    assert small.uns["gexinfer_intervals"].to_dict("index") == {"ridge": {"level": 0.9, "scaled": scaled}}


def test_every_method_has_intervals_that_hold_about_what_they_say(fitted):
    gx.tl.predict(fitted, interval=0.8, progress=False)
    table = gx.tl.coverage(fitted)
    whole = table[table["kind"] == "all"].set_index("model")
    assert set(whole.index) == set(METHODS)
    # 36 test and 36 validation rows that resemble each other: a standard error of about .05.
    assert whole["coverage"].between(0.65, 0.95).all()


def test_coverage_of_a_file(small, tmp_path):
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, interval=0.8, progress=False)
    table = gx.tl.coverage(small, groupby="source")
    pd.testing.assert_frame_equal(small.uns["gexinfer_coverage"], table)
    small.write_h5ad(tmp_path / "a.h5ad")
    small.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        stored = back.uns["gexinfer_coverage"].astype({name: table[name].dtype for name in table})
        pd.testing.assert_frame_equal(stored, table, check_index_type=False)
        pd.testing.assert_frame_equal(gx.tl.coverage(back, groupby="source"), table)


def test_coverage_is_what_is_counted_by_hand(small):
    small.obs["half"] = np.where(np.arange(small.n_obs) % 2, "odd", "even")
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, interval=0.8, progress=False)
    table = gx.tl.coverage(small, groupby="half")
    test, target = (small.obs["split"] == "test").to_numpy(), ~small.var["landmark"].to_numpy()
    y, p, low, high = (
        np.asarray(m)[np.ix_(test, target)]
        for m in (small.X, *(small.layers[f"ridge{e}"] for e in ("", "_lower", "_upper")))
    )
    held, unit = (low <= y) & (y <= high), arrays_of(small, "train")[1].std(0) + 1e-3
    widths = high - low

    def check(row, rows, genes):
        part = np.ix_(rows, genes)
        assert row["coverage"] == pytest.approx(held[part].mean())
        assert row["width"] == pytest.approx((widths / unit)[part].mean(), rel=1e-5)
        assert row["width_data"] == pytest.approx(widths[part].mean(), rel=1e-5)
        assert (row["n_samples"], row["n_genes"]) == (len(rows), len(genes))

    every, genes = np.arange(test.sum()), np.arange(target.sum())
    check(table.query("kind == 'all'").iloc[0], every, genes)
    by_error = np.argsort((np.abs(y - p) / unit).mean(0), kind="stable")
    for (_, row), part in zip(
        table.query("kind == 'genes by error'").iterrows(), np.array_split(by_error, 10), strict=True
    ):
        check(row, every, part)
    novel = np.argsort(small.obs["gexinfer_novelty"].to_numpy()[test], kind="stable")
    for (_, row), part in zip(
        table.query("kind == 'samples by novelty'").iterrows(), np.array_split(novel, 10), strict=True
    ):
        check(row, part, genes)
    for _, row in table.query("kind == 'half'").iterrows():
        check(row, np.flatnonzero(small.obs["half"].to_numpy()[test] == row["part"]), genes)
    np.testing.assert_allclose(small.varm["gexinfer_coverage"].loc[target, "ridge"], held.mean(0))
    assert small.varm["gexinfer_coverage"].loc[~target, "ridge"].isna().all()


def test_nine_tenths_are_held_on_real_data_and_of_novel_samples_too(bulk_once):
    adata = bulk_once.copy()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge", progress=False)
    spread = {}
    for scaled in (True, False):
        gx.tl.predict(adata, interval=0.9, interval_scaled=scaled, progress=False)
        table = gx.tl.coverage(adata).set_index("kind")["coverage"]
        assert table["all"] == pytest.approx(0.9, abs=0.02)
        spread[scaled] = table["samples by novelty"].max() - table["samples by novelty"].min()
    assert spread[True] < 0.05 < 0.25 < spread[False]


def test_no_more_memory_than_some_validation_rows(small, monkeypatch):
    gx.tl.fit(small, "ridge", key_added="every", progress=False)
    monkeypatch.setattr(_held_out, "MOST_ROWS", 12)
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, key="ridge", progress=False)
    known, every = (gx.io.read_model(small, key=key) for key in ("ridge", "every"))
    residuals = by_hand(small, "ridge")[0][np.linspace(0, 35, 12).astype(int)]
    assert known.known["residual_ranks"].tolist() == list(range(1, 13))
    np.testing.assert_allclose(known.known["residuals"], np.sort(residuals, axis=0), rtol=2e-3, atol=1e-4)
    assert known.model.notes["validation_mae"] == every.model.notes["validation_mae"]
    # What is kept is a small part of the record: the coefficients are 60 float32 a gene.
    assert sum(array.nbytes for array in every.known.values()) < 0.5 * len(to_bytes(every))


def test_lazy_intervals_are_those_in_memory(fitted_once):
    landmark = fitted_once.var["landmark"].to_numpy()
    query = ad.AnnData(fitted_once.X[:, landmark].copy(), var=fitted_once.var.loc[landmark, []])
    for scaled in (True, False):
        asked = {"model": fitted_once, "key": "ridge", "interval": 0.9, "interval_scaled": scaled, "progress": False}
        expected = gx.tl.predict(query, output="anndata", **asked)
        lazy = ad.AnnData(da.from_array(query.X, chunks=(100, -1)), var=query.var)
        found = gx.tl.predict(lazy, output="anndata", **asked)
        for name in ("ridge_lower", "ridge_upper"):
            assert isinstance(found.layers[name], da.Array)
            np.testing.assert_allclose(found.layers[name].compute(), expected.layers[name], rtol=1e-5, atol=1e-5)
    both = gx.tl.predict(query, output="mudata", **asked)
    np.testing.assert_array_equal(
        both["inferred"].layers["ridge_lower"], expected[:, both["inferred"].var_names].layers["ridge_lower"]
    )
    assert list(both["measured"].obs) == []


def test_intervals_that_nobody_can_give(small, fitted, tmp_path):
    for wrong in (0, 1, 1.5, True, "0.9"):
        with pytest.raises(ValueError, match="interval=.*between 0 and 1"):
            gx.tl.predict(fitted, key="ridge", interval=wrong, progress=False)
    with pytest.raises(
        ValueError, match=r"interval=0.99 needs at least 99 validation rows.*residuals of 36 are.*up to 0.973"
    ):
        gx.tl.predict(fitted, key="ridge", interval=0.99, progress=False)
    with pytest.raises(ValueError, match="no standard deviations or intervals.*leave out std= and interval="):
        gx.tl.predict(fitted, key="ridge", interval=0.9, output=tmp_path / "a.zarr", progress=False)
    fitted.layers["ridge_lower"] = fitted.X.copy()
    with pytest.raises(ValueError, match=r"adata.layers\['ridge_lower'\] is there already"):
        gx.tl.predict(fitted, key="ridge", interval=0.9, progress=False)
    fitted.uns["knn_upper"] = fitted.uns["knn"]
    with pytest.raises(ValueError, match="interval= would write layers 'knn_upper', which are those of models"):
        gx.tl.predict(fitted, key="knn", interval=0.9, progress=False)
    assert "gexinfer_intervals" not in fitted.uns
    small.obs.loc[small.obs["split"] == "validation", "split"] = np.nan
    gx.tl.fit(small, "ridge", progress=False)
    with pytest.raises(ValueError, match="'ridge' was fitted without validation rows.*fit again"):
        gx.tl.predict(small, interval=0.9, progress=False)


def test_samples_unlike_the_validation_rows_are_warned_of(fitted_once):
    landmark = fitted_once.var["landmark"].to_numpy()
    query = ad.AnnData(fitted_once.X[:30][:, landmark].copy(), var=fitted_once.var.loc[landmark, []])
    asked = {"model": fitted_once, "key": "ridge", "interval": 0.9, "output": "anndata", "progress": False}
    with pytest.warns(UserWarning, match="ridge: intervals were learned.*adapt='quantile'.*too narrow"):
        gx.tl.predict(query, adapt="quantile", **asked)
    with pytest.warns(UserWarning, match="ridge: samples lack landmarks.*too narrow"):
        gx.tl.predict(query[:, 5:].copy(), **asked)


def test_the_command_line_writes_intervals(fitted, tmp_path):
    source, made = tmp_path / "a.h5ad", tmp_path / "b.h5ad"
    fitted.write_h5ad(source)
    arguments = ["predict", str(source), "--key", "ridge", "--interval", ".8", "--out", str(made)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.stderr
    back = ad.read_h5ad(made)
    assert back.uns["gexinfer_intervals"].loc["ridge", "level"] == 0.8
    assert {"ridge_lower", "ridge_upper"} <= set(back.layers)


def test_coverage_of_what_does_not_belong_together(small):
    with pytest.raises(KeyError, match="no gexinfer model"):
        gx.tl.coverage(small)
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    with pytest.raises(KeyError, match=r"no intervals of any model; run gexinfer.tl.predict\(adata, interval=.9\)"):
        gx.tl.coverage(small)
    gx.tl.predict(small, interval=0.9, progress=False)
    with pytest.raises(KeyError, match="no column 'donor'"):
        gx.tl.coverage(small, groupby="donor")
    gx.tl.fit(small, "ridge", penalty=1e3, progress=False)
    with pytest.raises(ValueError, match="does not hold what"):
        gx.tl.coverage(small)
    gx.tl.predict(small, interval=0.9, progress=False)
    small.layers["ridge_upper"] = small.layers["ridge_upper"] + 1
    with pytest.raises(ValueError, match="do not lie around.*a layer was changed"):
        gx.tl.coverage(small)
    gx.tl.predict(small, progress=False)
    assert {name for name in small.layers if name is not None} == {"ridge"}
    assert "gexinfer_intervals" not in small.uns
    assert "gexinfer_coverage" not in small.varm
    gx.tl.predict(small, interval=0.9, progress=False)
    gx.tl.coverage(small)
    gx.pp.split(small, rng=1)
    with pytest.raises(ValueError, match="were training or validation rows"):
        gx.tl.coverage(small)


def test_a_gene_that_was_constant_has_no_interval(small):
    gene = small.var_names[~small.var["landmark"]][0]
    values = small.X.copy()
    values[(small.obs["split"] != "test").to_numpy(), small.var_names.get_loc(gene)] = 3
    small.X = values
    with pytest.warns(UserWarning, match="constant"):
        gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, interval=0.9, progress=False)
    assert np.isnan(small[:, gene].layers["ridge_upper"]).all()
    assert gx.tl.coverage(small)["n_genes"].iloc[0] == 89
    assert np.isnan(small.varm["gexinfer_coverage"].loc[gene, "ridge"])
