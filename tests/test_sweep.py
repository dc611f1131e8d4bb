"""A grid of options: each setting is the model that `fit` would make, with its errors after each epoch."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import gexinfer as gx
from gexinfer._record import records
from gexinfer.tl import _sweep
from gexinfer.tl._trials import fit_once

SCORES = ["mae", "mae_data", "pearson", "r2"]
TINY = {"epochs": 4, "hidden": 16}


def test_each_row_is_what_fit_predict_and_evaluate_say(small):
    before = small.copy()
    grid = {"dropout": [0.0, 0.3], "skip": [True, False]}
    table = gx.tl.sweep(small, "dgex", grid, against=["mean", "ridge"], rng=7, progress=False, **TINY)
    assert set(small.uns) == {"gexinfer_split", "gexinfer_sweep", "gexinfer_sweep_curves"}
    assert not small.layers
    np.testing.assert_array_equal(small.X, before.X)
    assert table.index.tolist()[:2] == ["dropout=0, skip=True", "dropout=0, skip=False"]
    assert table["reference"].tolist() == [False] * 4 + [True] * 2
    assert table.loc["ridge", ["dropout", "skip", "best_epoch", "n_parameters"]].isna().all()

    methods = {"dropout=0.3, skip=True": {"method": "dgex", "dropout": 0.3, "skip": True, **TINY}, "ridge": {}}
    models = small.copy()
    expected = gx.tl.compare(models, methods, rng=7, progress=False)
    pd.testing.assert_frame_equal(
        table.loc[[*methods, "mean"], SCORES], expected.loc[[*methods, "mean"], SCORES], rtol=1e-5
    )
    fitted = records(models)["dropout=0.3, skip=True"].model
    row = table.loc["dropout=0.3, skip=True"]
    # To the same bits: to measure the test error changes nothing of the training.
    assert row["validation_mae"] == fitted.notes["validation_mae"]
    assert row["best_epoch"] == fitted.notes["best_epoch"]
    assert row["n_parameters"] == (60 * 16 + 16) + 2 * 16 + (16 * 90 + 90) + 60 * 90
    curve = small.uns["gexinfer_sweep_curves"].query("setting == 'dropout=0.3, skip=True'")
    assert curve["epoch"].tolist() == [1, 2, 3, 4]
    for name in ("train_mae", "validation_mae"):
        np.testing.assert_array_equal(curve[name], fitted.arrays[f"0.history.{name}"])


@pytest.mark.parametrize("options", [{}, {"target_blocks": 2}, {"ema": 0.9}])
def test_the_test_error_after_an_epoch_is_that_of_its_model(small, options):
    table = gx.tl.sweep(small, "dgex", {"epochs": [3]}, against=[], hidden=16, progress=False, **options)
    row, curve = table.iloc[0], small.uns["gexinfer_sweep_curves"]
    kept = curve["validation_mae"].argmin()
    if "target_blocks" not in options:  # each of several networks keeps an epoch of its own
        assert row["best_epoch"] == kept + 1
    assert curve["test_mae"].iloc[kept] == pytest.approx(row["mae"], rel=1e-5)
    assert curve["validation_mae"].iloc[kept] == pytest.approx(row["validation_mae"], rel=1e-5)


@pytest.mark.parametrize("method", ["ggan", "semigan"])
def test_gans_have_curves_too(small, method):
    options = {"epochs": 2, "hidden": 8, "discriminator_hidden": 8}
    table = gx.tl.sweep(small, method, {"lambda_adv": [0.1, 0.3]}, against=(), progress=False, **options)
    assert table[["mae", "n_parameters"]].notna().all(axis=None)
    assert small.uns["gexinfer_sweep_curves"]["test_mae"].notna().sum() == 4


def test_options_keep_their_kind_in_files(small, tmp_path):
    grid = {"kernel": ["arccos", "laplace"], "penalty": [None, 0.1], "n_inducing": [40, None]}
    small.uns["gexinfer_sweep_curves"] = pd.DataFrame({"setting": ["of a sweep before"]})
    table = gx.tl.sweep(small, "kernel", grid, progress=False)
    # A method without epochs has no curves, and those of another sweep would be taken for its own.
    assert "gexinfer_sweep_curves" not in small.uns
    assert len(table) == 8 + 2
    assert table["kernel"].tolist()[:8] == ["arccos"] * 4 + ["laplace"] * 4
    assert table["penalty"].dtype == float
    assert table["n_inducing"].iloc[0] == 40
    gx.tl.sweep(small, "dgex", {"layer_norm": [True], "activation": ["relu"], "layers": [1, 2]}, progress=False, **TINY)
    small.write_h5ad(tmp_path / "a.h5ad")
    small.write_zarr(tmp_path / "a.zarr")
    for there in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        for slot in ("gexinfer_sweep", "gexinfer_sweep_curves"):
            pd.testing.assert_frame_equal(there.uns[slot], small.uns[slot])


def test_a_setting_that_diverges_does_not_lose_the_rest(small):
    grid = {"learning_rate": [1e6, 1e-3]}
    with pytest.warns(
        UserWarning, match=r"dgex: 1 fits failed, and their rows hold NaN: 'learning_rate=1e\+06'.*diverged"
    ):
        table = gx.tl.sweep(small, "dgex", grid, recipe="paper", batch_size=50, progress=False, **TINY)
    assert table["mae"].isna().tolist() == [True, False, False, False]
    assert set(small.uns["gexinfer_sweep_curves"]["setting"]) == {"learning_rate=0.001"}


def test_interrupted_it_keeps_what_is_there(small, monkeypatch):
    made = []

    def interrupted(*args, true=fit_once, **options):
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(1)
        return true(*args, **options)

    monkeypatch.setattr(_sweep, "fit_once", interrupted)
    with pytest.warns(UserWarning, match="interrupted; the table holds the 1 of 4 fits before"):
        table = gx.tl.sweep(small, "dgex", {"layers": [1, 2]}, progress=False, **TINY)
    assert table.index.tolist() == ["layers=1"]


@pytest.mark.parametrize(
    ("grid", "options", "error", "match"),
    [
        ({}, {}, ValueError, "grid={} must name options"),
        ([1, 2], {}, ValueError, "must name options"),
        ({"layers": 2}, {}, ValueError, r"grid\['layers'\] is 2; give a list of values, e.g. {'layers': \[2\]}"),
        ({"activation": "gelu"}, {}, ValueError, r"e.g. {'activation': \['gelu'\]}"),
        ({"layers": []}, {}, ValueError, r"grid\['layers'\] is \[\]"),
        ({"layers": [1, 1]}, {}, ValueError, "names a setting more than once"),
        ({"layers": [1, 2]}, {"layers": 1}, ValueError, "layers=1 is given for all settings, and grid names it"),
        ({"units": [8]}, {}, TypeError, "units=8 is not an option of method='dgex'"),
        ({"trunk": ["mlp", "dense"]}, {"skip": False}, ValueError, "always sees the landmarks"),
        ({"layers": [1, 0]}, {}, ValueError, "layers=0 must be at least 1"),
        ({"layers": [1]}, {"against": "ridge"}, ValueError, "against='ridge' must be a list"),
        ({"layers": [1]}, {"rng": -1}, TypeError, "rng=-1 must be a whole number"),
    ],
)
def test_bad_input_is_said_before_anything_is_fitted(small, grid, options, error, match):
    with pytest.raises(error, match=match):
        gx.tl.sweep(small, "dgex", grid, progress=False, **options)
    assert set(small.uns) == {"gexinfer_split"}
