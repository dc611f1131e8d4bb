"""Error against the number of training samples: which rows, in which unit, and what goes wrong on the way."""

from __future__ import annotations

import signal

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer.engine.run import Run
from gexinfer.methods import configure, get_method
from gexinfer.tl import _learning_curve
from gexinfer.tl._learning_curve import nested, references
from gexinfer.tl._reference import look, resolve_rows
from gexinfer.tl._trials import fit_once

SCORES = ["mae", "mae_data", "pearson", "r2"]


def test_at_all_rows_it_is_what_compare_says(small):
    methods = {"ridge": {}, "near": {"method": "knn"}, "dgex": {"epochs": 3, "hidden": 8}}
    before = small.copy()
    table = gx.tl.learning_curve(small, methods, repeats=1, rng=3, progress=False)
    assert set(small.uns) == {"gexinfer_split", "gexinfer_learning_curve"}
    assert not small.layers
    assert not small.varm
    np.testing.assert_array_equal(small.X, before.X)
    pd.testing.assert_frame_equal(small.uns["gexinfer_learning_curve"], table)
    assert sorted(set(table["size"])) == [10, 21, 42, 84, 168]
    expected = gx.tl.compare(small, methods, rng=3, progress=False).drop("nearest")
    last = table[table["size"] == 168].set_index("model").loc[expected.index]
    pd.testing.assert_frame_equal(last[SCORES], expected[SCORES], rtol=1e-4, check_names=False)


def test_with_fewer_rows_it_is_a_model_of_these_in_the_unit_of_all(small):
    table = gx.tl.learning_curve(small, ["ridge"], sizes=[30, 100], repeats=2, rng=5, progress=False)
    train = np.flatnonzero(small.obs["split"] == "train")
    sd = np.asarray(small.X, float)[train][:, ~small.var["landmark"]].std(0) + 1e-3
    for repeat in range(2):
        ((_, part), _) = nested(np.arange(len(train)), [30, 100], 5 + repeat)
        assert len(part) == 30
        few = small.copy()
        few.obs.iloc[np.setdiff1d(train, train[part]), few.obs.columns.get_loc("split")] = np.nan
        gx.tl.fit(few, "ridge", progress=False)
        gx.tl.predict(few, progress=False)
        test = (few.obs["split"] == "test").to_numpy()
        away = np.abs(few.layers["ridge"] - few.X)[test][:, ~few.var["landmark"]].mean(0)
        row = table.query("model == 'ridge' and size == 30 and repeat == @repeat").iloc[0]
        assert row["mae"] == pytest.approx((away / sd).mean(), rel=1e-5)
        assert row["mae_data"] == pytest.approx(away.mean(), rel=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    groups=st.lists(st.integers(1, 40), min_size=1, max_size=20).filter(lambda sizes: sum(sizes) >= 10),
    shares=st.lists(st.floats(0, 1), min_size=1, max_size=5),
    seed=st.integers(0, 5),
)
def test_parts_are_whole_groups_each_within_the_next_and_near_what_was_asked(groups, shares, seed):
    codes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(groups)), groups))
    n = len(codes)
    sizes = sorted({max(10, round(share * n)) for share in shares})
    parts = nested(codes, sizes, seed)
    assert [size for sized, _ in parts for size in sized] == sizes
    for sized, part in parts:
        inside = np.isin(codes, codes[part])
        np.testing.assert_array_equal(part, np.flatnonzero(inside))
        assert len(part) >= 10
        assert all(abs(len(part) - size) < max(max(groups), 10) for size in sized)
    for (_, one), (_, next_one) in zip(parts[:-1], parts[1:], strict=True):
        assert set(one) < set(next_one)
    if n in sizes:
        assert len(parts[-1][1]) == n


def test_moments_of_a_part_are_those_of_its_rows(small):
    sides = resolve_rows(small, None, None, False)
    whole = look(small, None, sides, products=True)
    X = np.asarray(small.X, float)
    places = np.concatenate([sides.train.landmarks, sides.train.targets])
    parts = nested(np.arange(len(sides.train)), [20, 50, len(sides.train)], 0)
    for (_, part), (_, reference) in zip(parts, references(whole, parts), strict=True):
        rows = X[sides.train.rows[part]][:, places]
        near = rows - rows.mean(0)
        np.testing.assert_allclose(reference.moments.mean, rows.mean(0), rtol=1e-6)
        np.testing.assert_allclose(reference.moments.xy, near[:, :60].T @ near[:, 60:], rtol=1e-4, atol=1e-3)
        assert reference.moments.n == len(part)


def test_a_split_by_groups_has_parts_of_whole_groups(small):
    gx.pp.split(small, groupby="cohort")
    train = small.obs[small.obs["split"] == "train"]
    table = gx.tl.learning_curve(small, ["ridge"], repeats=2, progress=False)
    counts = train["cohort"].value_counts()
    assert table.loc[table["size"] == len(train), "n_groups"].eq(train["cohort"].nunique()).all()
    assert table.loc[table["size"] == len(train), "n_train"].eq(len(train)).all()
    for _, row in table.iterrows():
        assert counts.iloc[-row["n_groups"] :].sum() <= row["n_train"] <= counts.iloc[: row["n_groups"]].sum()
    by_hand = gx.tl.learning_curve(small, ["ridge"], repeats=2, groupby="tissue", progress=False)
    assert by_hand["n_groups"].max() == train["tissue"].nunique()
    with pytest.raises(KeyError, match="adata.obs has no column 'donor'"):
        gx.tl.learning_curve(small, ["ridge"], groupby="donor", progress=False)


def test_a_method_that_fails_at_a_size_does_not_lose_the_rest(small):
    methods = {"ridge": {}, "many": {"method": "knn", "k": 50}}
    with pytest.warns(
        UserWarning, match=r"many: 2 fits failed, and their rows hold NaN: '20 rows'.*k=50 is more"
    ) as told:
        table = gx.tl.learning_curve(small, methods, sizes=[20, 60], repeats=2, progress=False)
    assert len(told) == 1
    assert told[0].filename == __file__
    assert table.query("model == 'many' and size == 20")[SCORES].isna().all(axis=None)
    assert table.query("model != 'many' or size == 60")[["mae", "seconds"]].notna().all(axis=None)
    del small.uns["gexinfer_learning_curve"]
    with pytest.raises(ValueError, match="No fit succeeded. many, 20 rows: k=50 is more than"):
        gx.tl.learning_curve(small, {"many": methods["many"]}, sizes=[20], progress=False)
    assert set(small.uns) == {"gexinfer_split"}


def test_what_fits_warn_of_is_told_once_for_each_method(small):
    with pytest.warns(
        UserWarning, match="ols: a warning in these fits: '15 rows', '40 rows'.*The first: ols: 15"
    ) as told:
        gx.tl.learning_curve(small, ["ols", "ridge"], sizes=[15, 40, 168], repeats=3, progress=False)
    assert len(told) == 1


def test_interrupted_it_keeps_what_is_there(small, monkeypatch):
    made = []

    def interrupted(*args, true=fit_once, **options):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(1)
        return true(*args, **options)

    monkeypatch.setattr(_learning_curve, "fit_once", interrupted)
    with pytest.warns(UserWarning, match="interrupted; the table holds the 5 fits before"):
        table = gx.tl.learning_curve(small, ["ridge"], progress=False)
    assert len(table) == len(small.uns["gexinfer_learning_curve"]) == 5
    monkeypatch.setattr(_learning_curve, "fit_once", lambda *args, **options: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        gx.tl.learning_curve(small, ["ridge"], progress=False)


def test_a_network_cut_short_does_not_pass_for_a_whole_one(small):
    def press(told):
        if told["epoch"] == 2:
            signal.raise_signal(signal.SIGINT)

    method = get_method("dgex")
    reference = look(small, None, resolve_rows(small, None, None, False), products=False)
    config = configure(method, {"epochs": 5, "hidden": 8})
    with pytest.warns(UserWarning, match="interrupted in epoch"), pytest.raises(KeyboardInterrupt):
        fit_once(small, reference, method, config, rng=0, device="cpu", run=Run(False, press))


def test_values_on_disk_and_the_table_in_files(small, tmp_path):
    expected = gx.tl.learning_curve(small, ["ridge", "knn"], sizes=[40, 168], repeats=1, progress=False)
    small.write_zarr(tmp_path / "a.zarr")
    small.write_h5ad(tmp_path / "a.h5ad")
    for there in (ad.read_zarr(tmp_path / "a.zarr"), ad.read_h5ad(tmp_path / "a.h5ad", backed="r")):
        pd.testing.assert_frame_equal(there.uns["gexinfer_learning_curve"], expected)
        table = gx.tl.learning_curve(there, ["ridge", "knn"], sizes=[40, 168], repeats=1, progress=False)
        pd.testing.assert_frame_equal(table.drop(columns="seconds"), expected.drop(columns="seconds"), rtol=1e-5)


def test_progress_is_one_line_in_a_pipe(small, capsys):
    gx.tl.learning_curve(small, ["ridge"], sizes=[168], repeats=1)
    assert "learning curve 2/2: ridge, 168 rows: MAE 0." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"methods": "ridge"}, ValueError, "methods='ridge' must be a list of methods"),
        ({"methods": {"ridge": {"alpha": 1}}}, TypeError, "alpha=1 is not an option"),
        ({"sizes": [5, 100]}, ValueError, "whole numbers from 10 to 168, the rows that"),
        ({"sizes": [100, 169]}, ValueError, "from 10 to 168"),
        ({"sizes": [0.5]}, ValueError, "from 10 to 168"),
        ({"sizes": []}, ValueError, "from 10 to 168"),
        ({"repeats": 0}, ValueError, "repeats=0 must be a whole number"),
        ({"rng": np.random.default_rng(0)}, TypeError, "rng=.* must be a whole number from 0 on"),
        ({"layer": "log"}, KeyError, "adata.layers has no 'log'"),
    ],
)
def test_bad_input_changes_nothing(small, options, error, match):
    with pytest.raises(error, match=match):
        gx.tl.learning_curve(small, **{"methods": ["ridge"], "progress": False, **options})
    assert set(small.uns) == {"gexinfer_split"}


def test_test_rows_must_be_there_and_finite(small):
    test = np.flatnonzero(small.obs["split"] == "test")
    small.X[test[0], 3] = np.nan
    with pytest.raises(ValueError, match="holds NaN or inf in 1 of 150 genes, over 36 rows"):
        gx.tl.learning_curve(small, ["ridge"], progress=False)
    small.obs["split"] = small.obs["split"].astype(str).replace("test", "train")
    small.X[test[0], 3] = 1
    with pytest.raises(ValueError, match="no row as 'test', on which to judge: run gexinfer.pp.split"):
        gx.tl.learning_curve(small, ["ridge"], progress=False)
