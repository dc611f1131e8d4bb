"""The panel is that of the obvious slow selection, holds what was asked for, and predicts better than others."""

from __future__ import annotations

import logging

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer.engine import selection


def standardised(X: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return Z for which Z'Z is the weighted covariance of the standardised genes."""
    mean = weights @ X
    sd = np.sqrt(weights @ (X - mean) ** 2)
    return (X - mean) / (sd + 1e-3) * np.sqrt(weights)[:, None]


def left_by(Z: np.ndarray, panel: list[int]) -> np.ndarray:
    """Return the variance of each gene that least squares on a panel leaves unexplained."""
    return ((Z - Z[:, panel] @ np.linalg.lstsq(Z[:, panel], Z, rcond=None)[0]) ** 2).sum(axis=0)


def check_greedy(
    Z: np.ndarray, table: pd.DataFrame, names: pd.Index, allowed: np.ndarray, n_rows: float, n_first: int = 0
) -> None:
    """Check that each pick of each round leaves as little of the other genes' variance as any gene could.

    And that rounds end when the best gene explains less than 1.5 times what noise would, or after n_rows / 4 picks.
    """
    order, taken = names.get_indexer(table.index), list[int]()
    for number in table["round"].unique():
        panel = list[int]()
        most = max(int(round(n_rows / 4, 6)), 1) + (n_first if number == 1 else 0)
        for gene, told in zip(order[table["round"] == number], table["left"][table["round"] == number], strict=True):
            before = left_by(Z, panel) if panel else (Z**2).sum(axis=0)

            def gain(j, panel=panel, before=before):
                gains = before - left_by(Z, [*panel, j])
                return gains.sum() - gains[j]

            if len(taken) >= n_first:
                others = [
                    j for j in np.flatnonzero(allowed) if j not in taken and before[j] > 2e-3 * (Z[:, j] @ Z[:, j])
                ]
                assert gain(gene) >= max(map(gain, others)) * (1 - 1e-4)
            panel.append(gene)
            taken.append(gene)
            assert told == pytest.approx(left_by(Z, panel).sum() / (Z**2).sum(), abs=1e-5)
        assert len(panel) <= most
        others = [j for j in np.flatnonzero(allowed) if j not in taken]
        if len(panel) < most and others and len(taken) < len(order):
            before = left_by(Z, panel)
            others = [j for j in others if before[j] > 5e-4 * (Z[:, j] @ Z[:, j])]
            assert all(gain(j, panel, before) < 1.5 * before.sum() / (n_rows - len(panel)) * (1 + 1e-4) for j in others)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(12, 60), st.integers(5, 40), st.integers(1, 12), st.booleans())
def test_each_pick_is_that_of_the_slow_version(seed, n_rows, n_genes, rank, grouped):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n_rows, rank)) @ rng.standard_normal((rank, n_genes)) + 7
    X += rng.uniform(0.5, 1, n_genes) * rng.standard_normal(X.shape)
    adata = ad.AnnData(X.astype(np.float32))
    groups = np.sort(rng.integers(0, 3, n_rows))
    adata.obs["type"] = groups.astype(str)
    barred = rng.random(n_genes) < 0.2
    first = np.flatnonzero(~barred)[-1:]
    adata.var["barred"] = barred
    gx.pp.select_landmarks(
        adata,
        max((~barred).sum() // 2, 1),
        include=list(adata.var_names[first]),
        exclude="barred",
        groupby="type" if grouped else None,
        progress=False,
    )
    sizes = np.bincount(groups)
    weights = 1 / (sizes[groups] * (sizes > 0).sum()) if grouped else np.full(n_rows, 1 / n_rows)
    weights = np.minimum(weights, 10 / n_rows)
    weights /= weights.sum()
    table = adata.uns["landmark_picks"]
    assert table.index[0] == adata.var_names[first[0]]
    n_rows = 1 / (weights**2).sum()
    check_greedy(standardised(adata.X.astype(float), weights), table, adata.var_names, ~barred, n_rows, n_first=1)


def test_on_real_data_each_pick_is_that_of_the_slow_version(small):
    small = small[:, 40:110].copy()
    gx.pp.select_landmarks(small, 48, progress=False)
    rows = (small.obs["split"] == "train").to_numpy()
    Z = standardised(small.X[rows].astype(float), np.full(rows.sum(), 1 / rows.sum()))
    table = small.uns["landmark_picks"]
    assert table["round"].tolist() == [1] * 42 + [2] * 6
    check_greedy(Z, table, small.var_names, np.ones(small.n_vars, bool), rows.sum())


def test_a_first_pick_explains_most_and_a_copy_comes_last():
    rng = np.random.default_rng(0)
    common = rng.standard_normal(400)
    X = np.stack([common, *(common + rng.standard_normal(400) for _ in range(8)), common, rng.standard_normal(400)], 1)
    adata = ad.AnnData(X, var=pd.DataFrame(index=["source", *"abcdefgh", "copy", "alone"]))
    gx.pp.select_landmarks(adata, 10, progress=False)
    table = adata.uns["landmark_picks"]
    assert table.index[0] == "source"
    assert table["round"].max() > 1
    assert set(adata.var_names) - set(table.index) == {"copy"}
    adata.X[:] = adata.X[:, :1]
    gx.pp.select_landmarks(adata, 10, progress=False)
    assert adata.var["landmark"].sum() == 10


def panel_error(adata: ad.AnnData, panel: list[str], targets: pd.Index) -> float:
    part = adata[:, pd.Index(panel).append(targets)].copy()
    part.var["landmark"] = part.var_names.isin(panel)
    gx.tl.fit(part, "ridge", progress=False)
    gx.tl.predict(part, progress=False)
    return gx.tl.evaluate(part).loc["ridge", "mae"]


@pytest.mark.parametrize(("groupby", "margin"), [(None, 0.93), ("cohort", 0.97)])
def test_on_real_data_the_panel_beats_random_and_highly_variable_genes(bulk_once, groupby, margin):
    adata, rng = bulk_once.copy(), np.random.default_rng(0)
    gx.pp.split(adata, groupby=groupby)
    targets = adata.var_names[rng.choice(adata.n_vars, 500, replace=False)]
    gx.pp.select_landmarks(adata, 100, exclude=list(targets), progress=False)
    others = adata.var_names.difference(targets, sort=False)
    variance = pd.Series(adata[adata.obs["split"] == "train", others].X.var(axis=0), others)
    chosen = panel_error(adata, list(adata.uns["landmark_picks"].index), targets)
    for draw in range(2):
        assert chosen < margin * panel_error(adata, list(rng.permutation(others)[:100]), targets), draw
    assert chosen < margin * panel_error(adata, list(variance.nlargest(100).index), targets)


def test_it_reads_training_rows_alone(small):
    before = gx.pp.select_landmarks(small, 20, progress=False, copy=True)
    test = (small.obs["split"] != "train").to_numpy()
    small.X[test] = np.random.default_rng(0).standard_normal((test.sum(), small.n_vars))
    gx.pp.select_landmarks(small, 20, progress=False)
    pd.testing.assert_frame_equal(small.uns["landmark_picks"], before.uns["landmark_picks"])
    del small.obs["split"]
    gx.pp.select_landmarks(small, 20, progress=False)
    assert list(small.uns["landmark_picks"].index) != list(before.uns["landmark_picks"].index)


def test_a_smaller_panel_is_the_start_of_a_larger_one_and_may_be_given(small):
    large = gx.pp.select_landmarks(small, 90, progress=False, copy=True).uns["landmark_picks"]
    few = gx.pp.select_landmarks(small, 50, progress=False, copy=True).uns["landmark_picks"]
    pd.testing.assert_frame_equal(few, large[:50])
    # Up to the 42 picks of a round.
    given = gx.pp.select_landmarks(small, 42, include=list(few.index[:30]), progress=False, copy=True)
    pd.testing.assert_frame_equal(given.uns["landmark_picks"], large[:42])


def test_neither_order_of_genes_nor_kind_of_matrix_matters(small, tmp_path):
    def picks(adata, **options):
        gx.pp.select_landmarks(adata, 60, progress=False, **options)
        return list(adata.uns["landmark_picks"].index)

    expected = picks(small.copy())
    assert picks(small[:, ::-1].copy()) == expected
    assert picks(small[np.random.default_rng(0).permutation(small.n_obs)].copy()) == expected
    for convert in (sp.csr_matrix, sp.csc_matrix, sp.csr_array, lambda X: X.astype(np.float64)):
        other = small.copy()
        other.layers["other"] = convert(small.X)
        other.X = np.zeros_like(small.X)
        assert picks(other, layer="other") == expected
    small.write_h5ad(tmp_path / "a.h5ad")
    assert picks(ad.read_h5ad(tmp_path / "a.h5ad", backed="r")) == expected


@pytest.mark.parametrize("n_genes", [40, 80])
def test_many_rows_of_few_genes_are_all_used_and_agree(small, n_genes, monkeypatch):
    """By the covariance of the genes instead of the samples."""
    few = small[:, :n_genes].copy()
    del few.obs["split"]
    gx.pp.select_landmarks(few, 30, progress=False)
    monkeypatch.setattr(selection, "MOST_ROWS", 200)
    Z = standardised(few.X.astype(float), np.full(few.n_obs, 1 / few.n_obs))
    check_greedy(Z, few.uns["landmark_picks"], few.var_names, np.ones(n_genes, bool), few.n_obs)
    before = few.uns["landmark_picks"]
    gx.pp.select_landmarks(few, 30, progress=False)
    pd.testing.assert_frame_equal(few.uns["landmark_picks"], before)


def test_of_too_many_rows_the_largest_groups_are_thinned_out_evenly(monkeypatch):
    monkeypatch.setattr(selection, "MOST_ROWS", 30)
    groups = np.repeat([0, 1, 2], [100, 5, 40])
    rows, weights = selection.drawn(groups, n_genes=31)
    assert np.bincount(groups[rows]).tolist() == [12, 5, 12]
    assert (rows[0], rows[11], rows[-1]) == (0, 99, 144)
    assert np.diff(rows[:12]).tolist() == [9] * 11
    assert np.bincount(groups[rows], weights) == pytest.approx([1 / 3] * 3)
    assert len(selection.drawn(groups, n_genes=30)[0]) == 145
    assert len(selection.drawn(np.arange(50), n_genes=31)[0]) == 50


def test_thinned_rows_choose_a_panel_almost_as_good(bulk_once, monkeypatch):
    adata = bulk_once.copy()
    gx.pp.split(adata)
    targets = adata.var_names[:500]
    whole = gx.pp.select_landmarks(adata, 50, exclude=list(targets), progress=False, copy=True)
    monkeypatch.setattr(selection, "MOST_ROWS", 400)
    gx.pp.select_landmarks(adata, 50, exclude=list(targets), progress=False)
    errors = [panel_error(a, list(a.uns["landmark_picks"].index), targets) for a in (whole, adata)]
    assert errors[1] < 1.04 * errors[0]


def test_groups_count_the_same_whatever_their_size():
    """A rare type has a programme of its own; samples that count the same pass it over."""
    rng = np.random.default_rng(0)
    rare = np.arange(600) < 15
    X = rng.standard_normal((600, 40))
    X[~rare, :20] += 1.5 * rng.standard_normal((585, 1))
    X[rare, 20:] += 6 * rng.standard_normal((15, 1))
    adata = ad.AnnData(
        X, obs=pd.DataFrame({"type": np.where(rare, "rare", "common")}, index=[f"s{i}" for i in range(600)])
    )
    gx.pp.select_landmarks(adata, 1, progress=False)
    assert np.flatnonzero(adata.var["landmark"])[0] < 20
    gx.pp.select_landmarks(adata, 1, groupby="type", progress=False)
    assert np.flatnonzero(adata.var["landmark"])[0] >= 20


@pytest.mark.parametrize("n_rare", [2, 5, 20])
def test_a_few_samples_do_not_make_the_panel_theirs(bulk_once, n_rare):
    """Counting for half of all, they made one that was worse than a random one, in rounds of one pick."""
    adata = bulk_once.copy()
    gx.pp.split(adata)
    targets = adata.var_names[:500]
    train = np.flatnonzero(adata.obs["split"] == "train")
    adata.obs["group"] = "common"
    adata.obs.iloc[train[:n_rare], adata.obs.columns.get_loc("group")] = "rare"
    options = {"exclude": list(targets), "progress": False, "copy": True}
    even, grouped = (gx.pp.select_landmarks(adata, 60, groupby=by, **options) for by in (None, "group"))
    panels = [list(made.uns["landmark_picks"].index) for made in (even, grouped)]
    assert set(panels[0]) != set(panels[1])
    assert grouped.uns["landmark_picks"]["round"].max() == 1
    errors = [panel_error(adata, panel, targets) for panel in panels]
    assert errors[1] < 1.05 * errors[0]


def test_the_order_of_genes_included_changes_nothing(bulk_once):
    adata = bulk_once[::4].copy()
    given = np.random.default_rng(0).choice(adata.var_names, 100, replace=False)
    made = [
        gx.pp.select_landmarks(adata, 120, include=list(order), progress=False, copy=True).uns["landmark_picks"]
        for order in (given, given[::-1])
    ]
    assert set(made[0].index[:100]) == set(given)
    assert list(made[0].index[100:]) == list(made[1].index[100:])
    # The first of the others is that which adds most to all of them, though a round has 87 picks of its own.
    assert (made[0]["round"] == 1).all()


def test_what_is_written_can_be_stored_and_used(small, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    old = small.var["landmark"].copy()
    changed = gx.pp.select_landmarks(small, 30, key_added="mine", progress=False, copy=True)
    assert "mine" not in small.var
    assert "30 of 150 genes by 168 training rows of obs['split']" in caplog.text
    pd.testing.assert_series_equal(changed.var["landmark"], old)
    assert changed.var["mine"].dtype == bool
    assert set(changed.var_names[changed.var["mine"]]) == set(changed.uns["mine_picks"].index)
    changed.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.uns["mine_picks"], changed.uns["mine_picks"], check_names=False)
    assert gx.pp.select_landmarks(small, 30, progress=False) is None
    gx.tl.fit(small, "ridge", progress=False)
    assert small.uns["ridge"]["params"]["n_landmarks"] == 30


def test_genes_that_do_not_vary_are_never_taken(small, caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    small.X[:, 3], small.X[:, 7] = 5, 2
    small.X[:, 8] = 2 + 1e-6 * np.arange(small.n_obs)
    gx.pp.select_landmarks(small, 147, progress=False)
    assert np.flatnonzero(~small.var["landmark"]).tolist() == [3, 7, 8]
    assert "3 genes do not vary" in caplog.text
    with pytest.raises(
        ValueError, match="n=148 .*: 147 of 150 genes vary in the 168 rows and are not excluded. Ask for"
    ):
        gx.pp.select_landmarks(small, 148, progress=False)
    with pytest.warns(UserWarning, match="1 genes of include= do not vary in the 168 rows: "):
        gx.pp.select_landmarks(small, 10, include=[small.var_names[3]], progress=False)
    assert small.var["landmark"].iloc[3]


def spoil(adata: ad.AnnData) -> None:
    adata.X[np.flatnonzero(adata.obs["split"] == "train")[:3], 7] = np.nan


def unsplit(adata: ad.AnnData) -> None:
    adata.obs["split"] = "test"


def no_tissue(adata: ad.AnnData) -> None:
    adata.obs["tissue"] = None


CASES = {
    "no number": ({"n": 2.5}, TypeError, "n=2.5 must be a whole number"),
    "none": ({"n": 0}, ValueError, "n=0 must be at least 1"),
    "all": ({"n": 150}, ValueError, "n=150 must be .* below the 150 genes there are"),
    "fewer than included": (
        {"n": 5, "include": "landmark"},
        ValueError,
        "n=5 must be at least 1 and the 60 genes of include=",
    ),
    "in and out": (
        {"n": 70, "include": "landmark", "exclude": "landmark"},
        ValueError,
        "60 genes are in include= and in exclude=: .*",
    ),
    "unknown gene": (
        {"n": 5, "include": ["TP53", "X1"]},
        KeyError,
        "include names . genes that adata.var_names does not hold: .*'X1'",
    ),
    "unknown column": ({"n": 5, "exclude": "bad"}, KeyError, "no column 'bad'; pass exclude= a bool column"),
    "column of text": ({"n": 5, "exclude": "symbol"}, TypeError, "must be bool"),
    "no such group": ({"n": 5, "groupby": "donor"}, KeyError, "no column 'donor'; it has .*'tissue'"),
    "text lost": (
        {"n": 5, "key_added": "symbol"},
        ValueError,
        r"adata.var\['symbol'\] has dtype .*choose another key_added=",
    ),
    "slash": ({"n": 5, "key_added": "a/b"}, ValueError, "key_added='a/b'"),
    "no layer": ({"n": 5, "layer": "log"}, KeyError, "no 'log'"),
    "nan": ({"n": 5}, ValueError, r"adata.X holds NaN or inf in 1 of 150 genes, over 168 rows: .* \(3 rows\)", spoil),
    "no training row": ({"n": 5}, ValueError, r"There are 0 training rows of obs\['split'\]; at least 10", unsplit),
    "group missing": (
        {"n": 5, "groupby": "tissue"},
        ValueError,
        r"obs\['tissue'\] is missing for 168 of 168 samples",
        no_tissue,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_is_refused_and_changes_nothing(small, case):
    options, error, message, *change = CASES[case]
    for spoiled in change:
        spoiled(small)
    before = small.copy()
    with pytest.raises(error, match=message):
        gx.pp.select_landmarks(small, progress=False, **options)
    pd.testing.assert_frame_equal(small.var, before.var)
    assert set(small.uns) == set(before.uns)


def test_counts_are_warned_of(small):
    small.X = np.rint(2**small.X).astype(np.float32)
    with pytest.warns(UserWarning, match=r"adata.X looks like raw counts.*sc.pp.log1p"):
        gx.pp.select_landmarks(small, 5, progress=False)
