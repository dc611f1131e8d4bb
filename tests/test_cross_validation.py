"""Fit and evaluation over folds, and how sure an evaluation is."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control, rankdata, spearmanr, ttest_rel

import gexinfer as gx
from gexinfer.engine.ranks import ranks
from gexinfer.engine.resampling import batches, draws, interval, paired_test, resampled
from gexinfer.pp._split import assign
from gexinfer.tl import _cross_validate


@pytest.fixture
def seen(monkeypatch):
    """The sides of each fit of a cross-validation."""
    sides, look = [], _cross_validate.look
    monkeypatch.setattr(_cross_validate, "look", lambda a, layer, s, **o: (sides.append(s), look(a, layer, s, **o))[1])
    return sides


@pytest.mark.parametrize(("cv", "split_by", "folds"), [(3, None, 3), (4, "cohort", 4), ("tissue", None, 5)])
def test_no_test_row_of_a_fold_is_learned_from(small, seen, cv, split_by, folds):
    gx.pp.split(small, groupby=split_by)
    small.obs.loc[small.obs_names[:7], "split"] = np.nan  # on no side, and so in no fold
    gx.tl.fit(small, "ridge", progress=False)
    before = small.copy()
    table = gx.tl.evaluate(small, cv=cv, progress=False)
    tested = []
    for sides in seen:
        train, validation = sides.train.rows, sides.validation.rows
        test = np.setdiff1d(np.arange(7, 240), np.concatenate([train, validation]))
        assert len(train) and len(validation) and len(test)
        assert not set(train) & set(validation)
        column = split_by or (cv if isinstance(cv, str) else None)
        if column:
            groups = [set(small.obs[column].iloc[rows]) for rows in (train, validation, test)]
            assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
        tested += list(test)
    # Each row of the split is a test row once.
    assert sorted(tested) == list(range(7, 240))
    assert len(seen) == folds
    assert (table["split_by"] == (f"by {column}" if column else "random")).all()
    assert (table["n_samples"] == 233).all()
    every = small.uns.pop("gexinfer_evaluation_folds")
    assert list(every["fold"].unique()) == list(range(folds))
    # Nothing else is written.
    assert set(small.uns) == set(before.uns)
    np.testing.assert_array_equal(small.uns["ridge"]["state"], before.uns["ridge"]["state"])
    pd.testing.assert_frame_equal(small.obs, before.obs)
    assert not [name for name in small.layers if name is not None] and not small.obsm


def test_a_fold_is_fit_predict_evaluate(small, seen):
    for method, options in (("ridge", {}), ("knn", {"metric": "correlation"})):
        gx.tl.fit(small, method, progress=False, **options)
    table = gx.tl.evaluate(small, cv=3, progress=False)
    every = small.uns["gexinfer_evaluation_folds"]
    assert len(seen) == 3  # once a fold, for both
    tables = []
    for sides in seen:
        side = np.full(small.n_obs, "test", object)
        side[sides.train.rows], side[sides.validation.rows] = "train", "validation"
        fold = small.copy()
        fold.obs["split"] = side
        gx.tl.fit(fold, "ridge", progress=False)
        gx.tl.fit(fold, "knn", metric="correlation", progress=False)
        gx.tl.predict(fold, progress=False)
        tables.append(gx.tl.evaluate(fold))
    for number, expected in enumerate(tables):
        found = every[every["fold"] == number].set_index("model")
        columns = [c for c in found if c != "fold"]
        pd.testing.assert_frame_equal(found[columns], expected[columns], check_names=False, rtol=1e-4)
    mae = pd.DataFrame([t["mae"] for t in tables])
    for column, expected in {
        "mae": mae.mean(),
        "mae_fold_sd": mae.std(),
        "mae_min": mae.min(),
        "mae_max": mae.max(),
        "best": (mae.rank(axis=1) == 1).mean(),
        "r2": pd.DataFrame([t["r2"] for t in tables]).mean(),
    }.items():
        np.testing.assert_allclose(table[column], expected[table.index], rtol=1e-4)
    assert (table["n_folds"] == 3).all()


def test_folds_of_values_on_disk_and_the_way_to_a_file(small, tmp_path):
    small.X = sp.csr_matrix(small.X)
    small.layers["log"] = small.X.copy()
    gx.tl.fit(small, "ridge", layer="log", progress=False)
    expected = gx.tl.evaluate(small, cv=2, spearman=False, progress=False)
    assert "spearman" not in expected
    small.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    pd.testing.assert_frame_equal(
        back.uns["gexinfer_evaluation_folds"].reset_index(drop=True),
        small.uns["gexinfer_evaluation_folds"],
        check_categorical=False,
        check_dtype=False,
    )
    pd.testing.assert_frame_equal(gx.tl.evaluate(back, cv=2, spearman=False, progress=False), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"cv": 1}, r"cv=1 must be a number of folds, 2 or more, or a column of obs"),
        ({"cv": True}, r"cv=True must be"),
        ({"cv": 0.2}, r"cv=0.2 must be"),
        ({"cv": 300}, r"240 samples do not fill 300 folds"),
        ({"cv": "half"}, r"2 groups in adata.obs\['half'\] do not fill 2 folds with training and validation rows"),
        ({"cv": np.int64(1)}, r"cv=.*1.* must be"),
        ({"cv": 3, "groupby": "tissue"}, r"groupby='tissue' is for one split; with cv= leave it out"),
    ],
)
def test_folds_that_cannot_be_made(small, options, match):
    gx.tl.fit(small, "ridge", progress=False)
    small.obs["half"] = np.arange(240) % 2
    with pytest.raises(ValueError, match=match):
        gx.tl.evaluate(small, progress=False, **options)
    assert "gexinfer_evaluation_folds" not in small.uns
    with pytest.raises(KeyError, match="no column 'plate'; it has"):
        gx.tl.evaluate(small, cv="plate", progress=False)


def test_models_that_learned_from_more_than_there_is_are_not_fitted_again(small):
    part, other = small[:, ~small.var_names.isin(small.var_names[~small.var["landmark"]][:5])].copy(), small[:20].copy()
    other.obs_names = "other-" + other.obs_names
    quick = {"epochs": 1, "hidden": 8, "progress": False}
    gx.tl.fit(small, "ridge", progress=False)
    part.uns["ridge"] = small.uns["ridge"]
    with pytest.raises(ValueError, match="lacks 5 landmarks or targets of 'ridge'.*fitted again, on the genes"):
        gx.tl.evaluate(part, cv=2, progress=False)
    gx.tl.fit(small, "ridge", validation=other, key_added="judged", progress=False)
    gx.tl.fit(small, "dgex", **quick)
    gx.tl.fit(small, "dgex", init=small, key_added="tuned", **quick)
    for key, what in (("judged", "validation samples of another object"), ("tuned", "another model to start from")):
        with pytest.raises(ValueError, match=f"'{key}' was fitted with {what}, .* Name the other models with key="):
            gx.tl.evaluate(small, cv=2, key=key, progress=False)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ranks_are_those_of_scipy(data):
    # Few values, so that many are equal.
    few = st.sampled_from([-np.inf, -1e30, -2.5, -1e-42, -0.0, 0.0, 1e-42, 1.0, 1.0000001, 3e38])
    n, length = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    values = np.array(data.draw(st.lists(few, min_size=n * length, max_size=n * length)), np.float32).reshape(n, length)
    expected = np.apply_along_axis(rankdata, 1, values) - (length + 1) / 2
    np.testing.assert_array_equal(ranks(values), expected)


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 40), q=st.integers(1, 30), seed=st.integers(0, 10), shift=st.sampled_from([0.0, 1e3]))
def test_sums_give_the_obvious_numbers(n, q, seed, shift):
    from gexinfer.engine.errors import Genes, Source, gene_ranks, measures, sums_of

    rng = np.random.default_rng(seed)
    Y, P = rng.standard_normal((2, n, q)).astype(np.float32) + np.float32(shift)
    batch, classes = rng.integers(0, 3, n), rng.integers(0, 2, (n, 1))
    genes = Genes(np.full(q, shift), np.full(q, 2.0), np.zeros(1), np.ones(1), np.zeros(q, np.intp), np.zeros(q))
    rows = np.arange(n)
    measured, inferred = (
        Source(np.hstack([Y, Y[:, :1]]), rows, np.append(np.arange(q), q)),
        Source(P, rows, np.arange(q)),
    )
    found = sums_of(measured, [inferred], genes, batch, classes, (3, 2), ranks=True)
    y, e = (Y.astype(float) - shift) * 2, (P.astype(float) - Y) * 2
    for b in range(3):
        np.testing.assert_allclose(found.errors[2][b], np.abs(e[batch == b]).sum(0) / 2, rtol=1e-9, atol=1e-9)
    for c in range(2):
        of = (classes == c)[:, 0]
        expected = [np.abs(e[of]).sum(0) / 2, e[of].sum(0) / 2, (e[of] ** 2).sum(0) / 4, (e[of] * y[of]).sum(0) / 4]
        np.testing.assert_allclose(found.classes[2][c], expected, rtol=1e-7, atol=1e-6)
    per_sample = measures(q, np.abs(e).sum(1), e.sum(1), (e**2).sum(1), (e * y).sum(1), y.sum(1), (y**2).sum(1))
    told = dict(zip(("mae", "rmse"), (found.samples[2][:, 1] / q, np.sqrt(found.samples[2][:, 3] / q)), strict=True))
    for name, values in told.items():
        np.testing.assert_allclose(values, per_sample[name], rtol=1e-9)
    rho = gene_ranks(measured, [inferred], genes, [slice(None)])[2, 0]
    expected = [spearmanr(a, b).statistic for a, b in zip(Y.T, P.T, strict=True)]
    np.testing.assert_allclose(rho, expected, atol=1e-9)


def test_pairs_of_models_are_compared_on_the_genes_of_both(small):
    first = small.var_names[~small.var["landmark"]][:30].tolist()
    gx.tl.fit(small, "ridge", targets=first, key_added="few", progress=False)
    gx.tl.fit(small, "knn", progress=False)
    gx.tl.predict(small, progress=False)
    with pytest.warns(UserWarning, match="infer different genes"):
        table = gx.tl.evaluate(small)
    pairs = small.uns["gexinfer_evaluation_pairs"].set_index(["first", "second"])
    # The first is the one that stands higher in the table.
    place = {name: i for i, name in enumerate(table.index)}
    assert len(pairs) == 6 and all(place[a] < place[b] for a, b in pairs.index)
    test = (small.obs["split"] == "test").to_numpy()
    genes = small.var_names.isin(first)
    unit = np.asarray(small.X)[(small.obs["split"] == "train").to_numpy()][:, genes].std(0) + 1e-3
    few, knn = (np.abs(small.layers[k] - small.X)[test][:, genes] / unit for k in ("few", "knn"))
    row, sign = (pairs.loc[("few", "knn")], 1) if ("few", "knn") in pairs.index else (pairs.loc[("knn", "few")], -1)
    apart = sign * (few - knn)
    assert row["n_genes"] == 30
    assert row["difference"] == pytest.approx(apart.mean(), rel=1e-4)
    assert row["better"] == pytest.approx((apart.mean(0) < 0).mean())
    assert row["difference_low"] < row["difference"] < row["difference_high"]
    assert row["gain_low"] < row["gain"] < row["gain_high"]
    # With 36 samples a batch is a sample, and the test the ordinary one.
    found = false_discovery_control(ttest_rel(*(few, knn)[::sign]).pvalue) <= 0.05
    assert row["significantly_better"] == pytest.approx((found & (apart.mean(0) < 0)).mean())
    assert row["significantly_worse"] == pytest.approx((found & (apart.mean(0) > 0)).mean())


def test_models_without_a_gene_in_common_have_no_difference(small):
    names = small.var_names[~small.var["landmark"]]
    for key, targets in (("one", names[:5]), ("other", names[5:12])):
        gx.tl.fit(small, "ridge", targets=targets.tolist(), key_added=key, progress=False)
    gx.tl.predict(small, progress=False)
    with pytest.warns(UserWarning, match="infer different genes"):
        gx.tl.evaluate(small)
    row = small.uns["gexinfer_evaluation_pairs"].query("first in ['one', 'other'] and second in ['one', 'other']")
    assert (row["n_genes"] == 0).all()
    assert row[["better", "difference", "gain"]].isna().all(axis=None)
    with pytest.warns(UserWarning, match="infer different genes"):
        folds = gx.tl.evaluate(small, cv=np.int64(2), progress=False)
    assert folds["n_genes"].to_dict() == {"one": 5, "other": 7, "nearest": 12, "mean": 12}


def test_whole_groups_are_resampled(small):
    gx.pp.split(small, groupby="cohort", fractions=(0.5, 0.2, 0.3))
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    cohorts = small.obs.loc[small.obs["split"] == "test", "cohort"]
    table = gx.tl.evaluate(small)
    assert (table["n_clusters"] == cohorts.nunique()).all()
    assert cohorts.nunique() >= 5
    by_cohort = table.loc["ridge"]
    assert by_cohort["mae_low"] < by_cohort["mae"] < by_cohort["mae_high"]
    alone = small.copy()
    alone.obs["split"] = alone.obs["split"].where(~alone.obs["cohort"].isin(cohorts.unique()[4:]))
    told = gx.tl.evaluate(alone)
    assert (told["n_clusters"] == 4).all()
    assert told[["mae_low", "mae_high"]].isna().all(axis=None)
    pairs = alone.uns["gexinfer_evaluation_pairs"]
    assert pairs["significantly_better"].isna().all() and pairs["better"].notna().all()
    del small.obs["cohort"]
    with pytest.warns(UserWarning, match="no column 'cohort', by which the split was made.*put the column back"):
        lost = gx.tl.evaluate(small).loc["ridge"]
    assert lost["mae_high"] - lost["mae_low"] < by_cohort["mae_high"] - by_cohort["mae_low"]


def test_equal_models_are_rarely_called_different():
    """Errors that go together within 8 uneven groups, as those of a study do."""
    rng = np.random.default_rng(0)
    below, discoveries, covered = [], [], []
    for _ in range(40):
        sizes = np.maximum(rng.multinomial(160, rng.dirichlet(np.full(8, 1.5))), 1)
        cluster = np.repeat(np.arange(8), sizes)
        apart = rng.standard_normal((len(cluster), 300)) + rng.standard_normal((8, 300))[cluster]
        batch, count = batches(cluster, rng)
        summed = np.stack([apart[batch == b].sum(0) for b in range(count)])
        p = paired_test(summed, np.bincount(batch))
        below.append((p < 0.05).mean())
        discoveries.append((false_discovery_control(p) <= 0.05).mean())
        n = np.bincount(batch)
        low, high = interval(resampled(summed, n, draws(n, rng)), n)
        covered.append(((low < 0) & (high > 0)).mean())
    assert 0.02 < np.mean(below) < 0.06
    assert np.mean(discoveries) < 0.005
    assert 0.92 < np.mean(covered) < 0.98


def test_true_differences_are_found_among_equal_genes():
    rng = np.random.default_rng(1)
    apart = rng.standard_normal((1000, 500))
    apart[:, :100] -= 0.3
    batch, count = batches(np.arange(1000), rng)
    assert count == 100
    summed = np.stack([apart[batch == b].sum(0) for b in range(count)])
    found = false_discovery_control(paired_test(summed, np.bincount(batch))) <= 0.05
    assert found[:100].mean() > 0.98
    assert found[100:].sum() / found.sum() < 0.1
    assert (paired_test(np.zeros((100, 2)), np.full(100, 10)) == 1).all()


def test_batches_do_not_divide_clusters():
    cluster = np.random.default_rng(0).integers(0, 250, 2000)
    cluster = np.unique(cluster, return_inverse=True)[1]
    batch, count = batches(cluster, np.random.default_rng(0))
    assert count == 100 and set(batch) == set(range(100))
    assert pd.Series(batch).groupby(cluster).nunique().max() == 1
    assert batches(np.arange(7), np.random.default_rng(0))[1] == 7


def test_folds_are_even_and_whole():
    sizes = np.random.default_rng(0).integers(1, 30, 40)
    fold = assign(sizes, np.full(5, 0.2), np.random.default_rng(0))
    assert set(fold) == set(range(5))
    assert np.ptp(np.bincount(fold, sizes)) < 30
    assert np.ptp(np.bincount(assign(np.ones(103), np.full(5, 0.2), np.random.default_rng(0)))) <= 1


def test_a_column_of_too_many_groups_is_refused(fitted, monkeypatch):
    monkeypatch.setattr("gexinfer.tl._scores.MOST_GROUPS", 2)
    with pytest.raises(ValueError, match=r"obs\['cohort'\] has \d+ groups among 36 test samples, and groupby= takes 2"):
        gx.tl.evaluate(fitted, key="ridge", groupby="cohort")
    with pytest.raises(KeyError, match="no column 'plate'; it has 'cohort'"):
        gx.tl.evaluate(fitted, key="ridge", groupby="plate")
    assert "gexinfer_evaluation" not in fitted.uns
