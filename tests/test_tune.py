"""The search of options: what it finds, what it looks at, how it goes on, and that it is quiet."""

from __future__ import annotations

import logging
import threading

import anndata as ad
import numpy as np
import optuna
import pandas as pd
import pytest

import gexinfer as gx
from gexinfer.tl import _tune
from gexinfer.tl._trials import fit_once

TINY = {"epochs": 4, "hidden": 8}
SPACE = {"learning_rate": (1e-4, 1e-2, "log"), "layers": (1, 3), "activation": ["gelu", "tanh"]}


def trials(adata) -> pd.DataFrame:
    return adata.uns["gexinfer_tune"].drop(columns="seconds")


def tuned(adata, **options):
    return gx.tl.tune(adata, "dgex", **{"space": SPACE, "n_trials": 8, "rng": 2, "progress": False, **TINY, **options})


def test_the_best_goes_straight_into_fit(small, tmp_path):
    best = tuned(small)
    table = small.uns["gexinfer_tune"]
    assert set(small.uns) == {"gexinfer_split", "gexinfer_tune"}
    assert not small.layers
    assert best.keys() == {*TINY, *SPACE}
    assert best["epochs"] == 4
    assert table["number"].tolist() == list(range(8))
    complete = table[table["state"] == "complete"]
    assert complete["validation_mae"].min() <= table.loc[0, "validation_mae"]
    gx.tl.fit(small, "dgex", rng=2, progress=False, **best)
    assert small.uns["dgex"]["params"]["validation_mae"] == complete["validation_mae"].min()
    # It begins with what the method does without tuning.
    assert table.loc[0, ["learning_rate", "layers", "activation"]].tolist() == [2e-3, 1, "gelu"]
    assert table["learning_rate"].between(1e-4, 1e-2).all()
    assert set(table["layers"]) <= {1, 2, 3}
    del small.uns["dgex"]
    small.write_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(ad.read_h5ad(tmp_path / "a.h5ad").uns["gexinfer_tune"], table)


def test_test_rows_are_not_looked_at(small):
    best = tuned(small)
    spoilt = small.copy()
    spoilt.X[(spoilt.obs["split"] == "test").to_numpy()] = np.nan
    assert tuned(spoilt) == best
    pd.testing.assert_frame_equal(trials(spoilt), trials(small))


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_broken_off_and_called_again_it_makes_the_same_trials(small, tmp_path, monkeypatch, sampler):
    space = SPACE if sampler != "grid" else {"layers": [1, 2], "dropout": [0.0, 0.1, 0.2, 0.3]}
    whole = small.copy()
    best = tuned(whole, space=space, sampler=sampler)
    made, storage = [], tmp_path / "runs" / "tune.log"

    def broken_off(*args, true=fit_once, **options):
        made.append(1)
        if len(made) in (1, 4):
            raise KeyboardInterrupt
        return true(*args, **options)

    monkeypatch.setattr(_tune, "fit_once", broken_off)
    with pytest.raises(KeyboardInterrupt):  # in the first trial
        tuned(small, space=space, sampler=sampler, storage=storage)
    assert "gexinfer_tune" not in small.uns
    with pytest.warns(UserWarning, match="interrupted; these options are the best of 2 trials"):
        tuned(small, space=space, sampler=sampler, storage=str(storage))
    assert len(trials(small)) == 2
    tuned(small, space=space, sampler=sampler, storage=storage, n_trials=5)
    assert tuned(small, space=space, sampler=sampler, storage=storage) == best
    pd.testing.assert_frame_equal(trials(small), trials(whole))
    assert len(made) == 8 + 2  # and no trial twice
    assert tuned(small, space=space, sampler=sampler, storage=storage) == best
    assert len(made) == 10
    assert [path.name for path in storage.parent.iterdir()] == ["tune.log"]


def test_other_data_or_options_begin_anew_in_the_same_storage(small, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(_tune, "fit_once", lambda *args, **options: made.append(1) or fit_once(*args, **options))
    file = tmp_path / "tune.log"
    for _ in range(2):
        gx.tl.tune(small, "knn", storage=file, progress=False)
    assert len(made) == 4
    gx.tl.tune(small, "knn", storage=file, progress=False, k=3)
    assert len(made) == 8
    small.X[np.flatnonzero(small.obs["split"] == "train")[0]] += 0.5
    gx.tl.tune(small, "knn", storage=file, progress=False)
    assert len(made) == 12


def test_a_database_goes_by_its_url(small, tmp_path):
    url = f"sqlite:///{tmp_path / 'tune.db'}"
    best = gx.tl.tune(small, "knn", space={"k": [2, 3]}, storage=url, progress=False)
    (study,) = optuna.get_all_study_summaries(url)
    assert (study.n_trials, study.best_trial.params) == (2, best)


def test_networks_that_fall_behind_are_given_up_and_leave_nothing(small):
    threads, seen = threading.active_count(), logging.getLogger("optuna").level
    grid = {"learning_rate": [1e-2, 5e-3, 3e-3, 2e-3, 1e-3, 1e-5, 1e-6]}
    gx.tl.tune(small, "dgex", space=grid, sampler="grid", epochs=8, hidden=8, progress=False)
    table = small.uns["gexinfer_tune"]
    assert table["state"].tolist() == ["complete"] * 5 + ["pruned"] * 2
    assert table["epochs_run"].tolist() == [8] * 5 + [6] * 2
    assert threading.active_count() == threads
    assert logging.getLogger("optuna").level == seen
    assert set(small.uns) == {"gexinfer_split", "gexinfer_tune"}
    # Blocks of targets are trained one after another: there is no error of all to be judged by on the way.
    gx.tl.tune(small, "dgex", space=grid, epochs=2, hidden=8, target_blocks=2, progress=False)
    assert (small.uns["gexinfer_tune"]["state"] == "complete").all()


def test_optuna_is_quiet_and_may_talk_again(small, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    gx.tl.tune(small, "knn", progress=False)
    assert capfd.readouterr() == ("", "")
    assert optuna.logging.get_verbosity() == optuna.logging.INFO
    gx.tl.tune(small, "knn")
    told = capfd.readouterr().err
    assert "tune 4/4: trial 3: complete, the best MAE val 0." in told
    assert len(told.splitlines()) == 1


def test_a_space_without_ranges_is_tried_once_each(small):
    assert gx.tl.tune(small, "kernel", progress=False).keys() == {"kernel"}
    assert small.uns["gexinfer_tune"]["kernel"].tolist() == ["arccos", "rbf", "laplace"]
    assert "epochs_run" not in small.uns["gexinfer_tune"]
    gx.tl.tune(small, "knn", sampler="grid", n_trials=3, metric="correlation", progress=False)
    assert small.uns["gexinfer_tune"]["weights"].tolist() == ["uniform", "distance"]
    # Also a method that would choose by itself, where the user says what to search.
    best = gx.tl.tune(small, "ridge", space={"penalty": (1, 1000, "log")}, n_trials=4, progress=False)
    assert 1 <= best["penalty"] <= 1000


def test_it_comes_near_the_lowest_error_there_is(small):
    gx.tl.tune(small, "knn", space={"k": list(range(1, 41))}, n_trials=40, progress=False)
    every = small.uns["gexinfer_tune"].set_index("k")["validation_mae"]
    best = gx.tl.tune(small, "knn", space={"k": (1, 40)}, n_trials=25, progress=False)
    assert small.uns["gexinfer_tune"]["validation_mae"].min() == every[best["k"]]
    assert every[best["k"]] < 1.02 * every.min()
    assert every.median() > 1.2 * every.min()


def test_trials_that_fail_are_told_and_count(small):
    with pytest.warns(UserWarning, match="knn: 1 fits failed, and count as tried: 'k=500'. The first: k=500 is more"):
        assert gx.tl.tune(small, "knn", space={"k": [500, 3]}, progress=False) == {"k": 3}
    assert small.uns["gexinfer_tune"]["state"].tolist() == ["failed", "complete"]
    del small.uns["gexinfer_tune"]
    with pytest.raises(ValueError, match="No fit succeeded. knn, k=500: k=500 is more than"):
        gx.tl.tune(small, "knn", space={"k": [500]}, progress=False)
    assert "gexinfer_tune" not in small.uns


def test_no_trial_is_begun_after_the_time(small):
    tuned(small, timeout=1e-6)
    assert len(trials(small)) == 1


@pytest.mark.parametrize(
    ("method", "options", "error", "match"),
    [
        (
            "ridge",
            {},
            ValueError,
            "method='ridge' has no options that it does not choose itself.* 'knn', 'kernel', 'dgex'",
        ),
        ("mean", {}, ValueError, "method='mean' has no options"),
        ("dgex", {"space": {}}, ValueError, "space={} must name options"),
        ("dgex", {"space": {"units": [8]}}, TypeError, "units=8 is not an option of method='dgex'; it takes recipe"),
        ("dgex", {"space": {"layers": [1, 2.5]}}, TypeError, "layers=2.5 must be a whole number"),
        ("dgex", {"space": {"layers": (1, 2.5)}}, TypeError, "layers=2.5 must be a whole number"),
        ("dgex", {"space": {"layers": []}}, ValueError, r"space\['layers'\] is \[\]; give a list"),
        ("dgex", {"space": {"dropout": (0.5, 0.1)}}, ValueError, r"space\['dropout'\] is \(0.5, 0.1\); give"),
        ("dgex", {"space": {"dropout": (0.0, 0.1, "log")}}, ValueError, "'log'. with lowest above 0"),
        ("dgex", {"space": {"dropout": (0.1, 0.2, "linear")}}, ValueError, "give a list"),
        ("dgex", {"space": {"dropout": 0.1}}, ValueError, "give a list"),
        ("dgex", {"space": {"activation": ("gelu", "relu")}}, ValueError, "give a list"),
        ("dgex", {"space": {"skip": (False, True)}}, ValueError, "give a list"),
        ("dgex", {"space": {"layers": [1]}, "layers": 2}, ValueError, "layers=2 is given for all trials, and space"),
        ("dgex", {"sampler": "grid"}, ValueError, r"sampler='grid' takes lists .*space\['dropout'\] is a range"),
        ("dgex", {"sampler": "cma"}, ValueError, "sampler='cma' is not known; choose one of tpe, random, grid"),
        ("dgex", {"n_trials": 0}, ValueError, "n_trials=0 must be a whole number"),
        ("dgex", {"timeout": 0}, ValueError, "timeout=0 must be a number of seconds"),
        ("dgex", {"storage": 5}, TypeError, "storage=5 must be the path of a file"),
        ("dgex", {"rng": 1.5}, TypeError, "rng=1.5 must be a whole number"),
    ],
)
def test_bad_input_is_said_before_anything_is_fitted(small, method, options, error, match):
    with pytest.raises(error, match=match):
        gx.tl.tune(small, method, progress=False, **options)
    assert set(small.uns) == {"gexinfer_split"}


def test_what_is_no_storage_is_left_alone(small, tmp_path, monkeypatch):
    file = tmp_path / "notes.txt"
    file.write_text("milk\nbread\n")
    with pytest.raises(ValueError, match=r"notes.txt' is no journal of optuna, or a damaged one .*sqlite:///tune.db"):
        gx.tl.tune(small, "knn", storage=file, progress=False)
    assert file.read_text() == "milk\nbread\n"
    with pytest.raises(ValueError, match="is a directory; name a file"):
        gx.tl.tune(small, "knn", storage=tmp_path, progress=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="tune runs in one process"):
        gx.tl.tune(small, "knn", progress=False)


def test_without_validation_rows_there_is_nothing_to_choose_by(small):
    small.obs["split"] = small.obs["split"].astype(str).replace("validation", "train")
    with pytest.raises(ValueError, match="no row as 'validation', by which tune chooses: run gexinfer.pp.split"):
        gx.tl.tune(small, "ridge", space={"penalty": [1.0, 10.0]}, progress=False)
