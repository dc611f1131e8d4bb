from __future__ import annotations

import warnings

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from conftest import arrays_of, standardised
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import r2_score

import gexinfer as gx
from gexinfer.methods import METHODS

METRICS = ("mae", "mae_data", "rmse", "pearson", "spearman", "r2", "ccc")


def slow(Y, P, unit):
    """Return each metric of each column the obvious way; `unit` is a standard deviation in data units."""

    def concordance(y, p):
        return 2 * np.cov(y, p, ddof=0)[0, 1] / (y.var() + p.var() + (y.mean() - p.mean()) ** 2)

    pairs = list(zip(Y.T, P.T, strict=True))
    found = {"mae": np.abs(P - Y).mean(0) / unit, "mae_data": np.abs(P - Y).mean(0)}
    found["rmse"] = np.sqrt(((P - Y) ** 2).mean(0)) / unit
    found["r2"] = np.array([r2_score(y, p) for y, p in pairs])
    found["ccc"] = np.array([concordance(y, p) for y, p in pairs])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scipy: a constant prediction has no correlation
        found["pearson"] = np.array([pearsonr(y, p).statistic for y, p in pairs])
        found["spearman"] = np.array([spearmanr(y, p).statistic for y, p in pairs])
    return found


def nearest_landmark(adata):
    """Return what the landmark with the largest absolute correlation predicts, for all test rows, the obvious way."""
    (X, Y), (x, _) = standardised(adata, "train", "test")
    r = np.corrcoef(X.T, Y.T)[: X.shape[1], X.shape[1] :]
    best = np.abs(r).argmax(0)
    mean, sd = (getattr(arrays_of(adata, "train")[1], what)(0) for what in ("mean", "std"))
    return mean + (sd + 1e-3) * r[best, np.arange(r.shape[1])] * x[:, best]


def test_every_number_is_the_obvious_one(fitted):
    table = gx.tl.evaluate(fitted)
    assert set(table.index) == {*METHODS, "nearest"}
    _, Y = arrays_of(fitted, "test")
    train = arrays_of(fitted, "train")[1]
    # As float32: a lasso without landmarks predicts it, and must not be told from it.
    mean, unit = train.mean(0).astype(np.float32).astype(float), train.std(0) + 1e-3
    test, target = (fitted.obs["split"] == "test").to_numpy(), ~fitted.var["landmark"].to_numpy()
    errors = {}
    for key in table.index:
        P = nearest_landmark(fitted) if key == "nearest" else fitted.layers[key][test][:, target].astype(float)
        of_genes, row = slow(Y, P, unit), table.loc[key]
        of_samples = slow(((Y - mean) / unit).T, ((P - mean) / unit).T, 1) | {"mae_data": np.abs(P - Y).mean(1)}
        errors[key] = of_genes["mae"]
        for metric in METRICS:
            # The mean is one number for a gene, but not the same for all genes.
            if key == "mean" and metric in ("pearson", "spearman"):
                assert fitted.varm[f"gexinfer_{metric}"][key].isna().all()
                assert fitted.obsm[f"gexinfer_sample_{metric}"][key].isna().all()
                continue
            found = fitted.varm[f"gexinfer_{metric}"][key]
            np.testing.assert_allclose(found[target], of_genes[metric], rtol=1e-4, atol=1e-5, err_msg=metric)
            assert found[~target].isna().all()
            found = fitted.obsm[f"gexinfer_sample_{metric}"][key]
            if (key, metric) == ("knn_genes", "spearman"):
                continue  # genes of the same neighbours are equal but for rounding, which alone orders them
            np.testing.assert_allclose(found[test], of_samples[metric], rtol=1e-4, atol=2e-5, err_msg=metric)
            assert found[~test].isna().all()
            middle = np.mean if metric in ("mae", "mae_data", "rmse") else np.median
            assert row[metric] == pytest.approx(middle(of_genes[metric]), rel=1e-4, abs=1e-5)
        assert row["mae_sd"] == pytest.approx(of_genes["mae"].std(), rel=1e-5)
        assert row["mae_low"] < row["mae"] < row["mae_high"]
        assert (row["n_samples"], row["n_clusters"], row["n_genes"], row["split_by"]) == (36, 36, 90, "random")
    gain = 1 - errors["knn"].mean() / errors["ridge"].mean()
    assert table.loc["knn", "gain_over_ridge"] == pytest.approx(gain, rel=1e-4)
    assert table.loc["dgex", "better_than_ols"] == pytest.approx((errors["dgex"] < errors["ols"]).mean())
    assert table["mae"].is_monotonic_increasing
    assert np.isnan(table.loc["mean", "pearson"])


def test_the_baselines_are_there_even_if_nobody_fitted_them(fitted):
    whole = gx.tl.evaluate(fitted)
    table = gx.tl.evaluate(fitted, key="ridge")
    assert set(table.index) == {"ridge", "mean", "nearest"}
    columns = ["mae", "rmse", "r2", "ccc", "mae_data"]
    pd.testing.assert_frame_equal(table[columns], whole.loc[table.index, columns], rtol=1e-6)
    assert list(fitted.varm["gexinfer_mae"]) == ["ridge", "mean", "nearest"]


def test_models_of_one_reference_agree_on_the_nearest_landmarks(fitted):
    known = [gx.io.read_model(fitted, key=key).known for key in METHODS]
    for name, kind in (("nearest", np.int32), ("nearest_weight", np.float32)):
        assert known[0][name].dtype == kind
        assert all((other[name] == known[0][name]).all() for other in known)


def test_groups_are_scored_as_if_they_were_alone(fitted):
    gx.tl.evaluate(fitted, key=["ridge", "knn"], groupby=["tissue", "pipeline"])
    groups = fitted.uns["gexinfer_evaluation_groups"]
    assert list(groups)[:4] == ["model", "column", "group", "n_samples"]
    test = fitted.obs["split"] == "test"
    for column in ("tissue", "pipeline"):
        counts = fitted.obs.loc[test, column].value_counts()
        told = groups.query("column == @column and model == 'ridge'").set_index("group")["n_samples"]
        assert told.to_dict() == counts[counts > 0].to_dict()
        group = counts.index[0]
        alone = fitted.copy()
        alone.obs.loc[test & (alone.obs[column] != group), "split"] = np.nan
        table = gx.tl.evaluate(alone, key=["ridge", "knn"])
        for model in ("ridge", "knn", "mean", "nearest"):
            row = groups.query("column == @column and group == @group and model == @model").iloc[0]
            assert row["n_samples"] == counts.iloc[0]
            for metric in METRICS:
                assert row[metric] == pytest.approx(table.loc[model, metric], rel=1e-6, nan_ok=True), metric
    few = groups[groups["n_samples"] < 3]
    assert len(few) and few["pearson"].isna().all() and few["mae"].notna().all()
    once = gx.tl.evaluate(fitted, key="ridge")
    # A column that is named twice does not count twice.
    pd.testing.assert_frame_equal(gx.tl.evaluate(fitted, key="ridge", groupby=["tissue", "tissue"]), once)
    gx.tl.evaluate(fitted, key="ridge")
    assert "gexinfer_evaluation_groups" not in fitted.uns  # it would be that of another evaluation


def test_without_ranks_no_old_ones_are_left(fitted):
    ranked = gx.tl.evaluate(fitted, key="ridge")
    plain = gx.tl.evaluate(fitted, key="ridge", spearman=False)
    pd.testing.assert_frame_equal(plain, ranked.drop(columns="spearman"))
    assert not any("spearman" in slot for slot in (*fitted.varm, *fitted.obsm))


@pytest.mark.parametrize(
    "form", [sp.csr_matrix, sp.csc_array, lambda X: da.from_array(X, chunks=(37, 60)), "backed", np.float64]
)
def test_how_values_are_stored_does_not_matter(fitted, tmp_path, form):
    expected = gx.tl.evaluate(fitted, key=["ridge", "knn"], groupby="tissue")
    other = fitted.copy()
    if form == "backed":
        other.write_h5ad(tmp_path / "a.h5ad")
        other = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    else:
        other.X = form(fitted.X)
        other.layers["knn"] = form(fitted.layers["knn"]) if form is not np.float64 else fitted.layers["knn"]
    found = gx.tl.evaluate(other, key=["ridge", "knn"], groupby="tissue")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-9)
    for slot, frame in fitted.obsm.items():
        pd.testing.assert_frame_equal(other.obsm[slot], frame, rtol=1e-5)
    pd.testing.assert_frame_equal(
        other.uns["gexinfer_evaluation_groups"], fitted.uns["gexinfer_evaluation_groups"], rtol=1e-9
    )


def test_the_tables_are_kept_and_can_be_written(fitted, tmp_path):
    table = gx.tl.evaluate(fitted, groupby="tissue")
    fitted.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.uns["gexinfer_evaluation"], table, check_names=False, check_dtype=False)
    assert list(back.varm["gexinfer_mae"]) == [*METHODS, "nearest"]
    for name in ("gexinfer_evaluation_pairs", "gexinfer_evaluation_groups"):
        there = back.uns[name].reset_index(drop=True)
        pd.testing.assert_frame_equal(there, fitted.uns[name], check_dtype=False, check_categorical=False)
    pd.testing.assert_frame_equal(back.obsm["gexinfer_sample_ccc"], fitted.obsm["gexinfer_sample_ccc"])


@pytest.mark.parametrize("column", ["cohort", "sample"])
def test_grouping_is_reported_only_while_it_holds(small, column):
    small.obs = small.obs.rename(columns={"cohort": column})
    gx.pp.split(small, groupby=column, rng=1)
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    assert small.uns["ridge"]["params"]["split_by"] == f"by {column}"
    assert (gx.tl.evaluate(small)["split_by"] == f"by {column}").all()
    part = small[::2].copy()
    part.obs.loc[part.obs_names[part.obs["split"] == "test"][0], "split"] = np.nan  # a dropped row divides nothing
    assert (gx.tl.evaluate(part)["split_by"] == f"by {column}").all()
    moved = small.obs_names[small.obs["split"] == "train"][0]
    small.obs.loc[moved, "split"] = "validation"
    assert (gx.tl.evaluate(small)["split_by"] == "by hand").all()


def test_a_split_by_hand_is_called_so(small):
    small.obs["split"] = ["train"] * 150 + ["validation"] * 50 + ["test"] * 40
    gx.tl.fit(small, "ridge", progress=False)
    assert small.uns["ridge"]["params"]["split_by"] == "by hand"


def test_the_mean_is_scored_on_every_gene_that_a_model_infers(small):
    first = small.var_names[~small.var["landmark"]][:30].tolist()
    gx.tl.fit(small, "ridge", targets=first, key_added="few", progress=False)
    gx.tl.fit(small, "ridge", key_added="all", progress=False)
    gx.tl.predict(small, progress=False)
    with pytest.warns(UserWarning, match="infer different genes .*'few': 30"):
        table = gx.tl.evaluate(small)
    assert table["n_genes"].to_dict() == {"few": 30, "all": 90, "mean": 90, "nearest": 90}


def test_genes_constant_in_training_do_not_enter_the_error(small):
    gene = np.flatnonzero(~small.var["landmark"])[0]
    small.X[(small.obs["split"] != "test").to_numpy(), gene] = 0
    with pytest.warns(UserWarning, match="1 genes are constant"):
        gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    table = gx.tl.evaluate(small)
    assert (table["n_genes"] == 89).all()
    assert table.loc["ridge", "mae"] < 2
    assert np.isnan(small.varm["gexinfer_mae"]["ridge"].iloc[gene])
    assert small.varm["gexinfer_mae_data"]["ridge"].iloc[gene] > 0


@pytest.mark.parametrize("n", [1, 2])
def test_of_a_test_sample_or_two_there_are_errors_and_no_more(fitted, n):
    test = np.flatnonzero(fitted.obs["split"] == "test")
    fitted.obs.iloc[test[n:], fitted.obs.columns.get_loc("split")] = np.nan
    table = gx.tl.evaluate(fitted, key=["ridge", "knn"], groupby="tissue")
    away = np.abs(fitted.layers["ridge"] - fitted.X)[test[:n]][:, ~fitted.var["landmark"]]
    assert table.loc["ridge", "mae_data"] == pytest.approx(away.mean(), rel=1e-5)
    assert (table["n_clusters"] == n).all()
    assert table[["mae_low", "mae_high", "pearson", "spearman", "r2", "ccc"]].isna().all(axis=None)


def test_where_all_genes_were_constant_there_is_no_standardised_error(small):
    small.X[:, ~small.var["landmark"]] = 5
    with pytest.warns(UserWarning, match="90 genes are constant"):
        gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    table = gx.tl.evaluate(small)
    assert table["mae"].isna().all() and (table["n_genes"] == 0).all() and (table["mae_data"] == 0).all()
    with pytest.warns(UserWarning, match="90 genes are constant"):
        folds = gx.tl.evaluate(small, cv=2, progress=False)
    assert folds["mae"].isna().all() and (folds["best"] == 0).all()


def test_models_of_two_layers_are_each_judged_on_its_own(small):
    small.layers["half"] = small.X / 2
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.fit(small, "ridge", layer="half", key_added="of half", progress=False)
    gx.tl.predict(small, key="ridge", progress=False)
    gx.tl.predict(small, key="of half", layer="half", progress=False)
    with pytest.warns(UserWarning, match="different layers .*'of half': 'half'.* baselines are those of 'X'"):
        table = gx.tl.evaluate(small, key=["ridge", "of half"])
    ratio = table["mae_data"]["of half"] / table["mae_data"]["ridge"]
    assert ratio == pytest.approx(0.5, rel=0.01)


def test_an_order_by_mae_that_r2_contradicts_is_warned_of(small):
    # Mostly zeros, as in single cells: answering near zero has the lower MAE, and follows nothing.
    target = ~small.var["landmark"].to_numpy()
    noise = np.random.default_rng(1).exponential(1, small.shape)
    small.X[:, target] = (np.maximum(small.X - np.quantile(small.X, 0.6, axis=0), 0) * noise)[:, target]
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.fit(small, "dgex", epochs=40, hidden=32, skip=False, progress=False)
    gx.tl.predict(small, progress=False)
    with pytest.warns(
        UserWarning, match="'dgex' has the lowest MAE .* but a median R2 of .* and 'ridge' has .*loss='mse'"
    ):
        gx.tl.evaluate(small)


def test_predictions_that_are_not_finite_are_refused(fitted):
    row = np.flatnonzero(fitted.obs["split"] == "test")[7]
    fitted.layers["ridge"][row] = np.nan
    with pytest.raises(
        ValueError, match=r"layers\['ridge'\].*predict\(adata, key='ridge'\) again, without trusted_only"
    ):
        gx.tl.evaluate(fitted)
    gx.tl.predict(fitted, key="ridge", progress=False)
    gx.tl.evaluate(fitted)


def test_an_object_without_targets_has_no_truth(fitted):
    with pytest.raises(ValueError, match="holds none of the 90 targets of 'auto', so there is no truth"):
        gx.tl.evaluate(fitted[:, fitted.var["landmark"].to_numpy()].copy())


def test_rows_the_model_has_seen_are_no_test_rows(fitted):
    gx.pp.split(fitted, rng=99)
    with pytest.raises(ValueError, match=r"of the 24 rows .* 'test' were training or validation rows of 'auto'.*fit"):
        gx.tl.evaluate(fitted)


def test_predictions_of_an_earlier_model_are_not_scored(fitted):
    gx.tl.fit(fitted, "ridge", penalty=1e5, progress=False)
    with pytest.raises(
        ValueError, match=r"layers\['ridge'\] does not hold what adata.uns\['ridge'\] predicts.*key='ridge'"
    ):
        gx.tl.evaluate(fitted)
    gx.tl.predict(fitted, key="ridge", progress=False)
    gx.tl.evaluate(fitted)


def test_blocks_do_not_change_the_result(fitted, monkeypatch):
    from gexinfer.engine import errors
    from gexinfer.tl import _scores

    expected, groups = gx.tl.evaluate(fitted, groupby="tissue"), fitted.uns["gexinfer_evaluation_groups"]
    # Of two models at a time.
    monkeypatch.setattr(_scores, "SUMMED_VALUES", fitted.obs["tissue"].nunique() * 4 * 90 * 3)
    for name, value in (("BLOCK_VALUES", 0), ("TILE_VALUES", 36 * 14 * 7), ("processors", lambda: 4)):
        monkeypatch.setattr(errors, name, value)
    pd.testing.assert_frame_equal(gx.tl.evaluate(fitted, groupby="tissue"), expected)
    pd.testing.assert_frame_equal(fitted.uns["gexinfer_evaluation_groups"], groups)


def test_dropped_genes_are_not_scored(fitted):
    part = fitted[:, ~fitted.var_names.isin(fitted.var_names[~fitted.var["landmark"]][:10])].copy()
    assert (gx.tl.evaluate(part)["n_genes"] == 80).all()


@pytest.mark.parametrize(
    ("break_it", "error", "match"),
    [
        (lambda a: a.obs.drop(columns="split", inplace=True), KeyError, "no column 'split'; run gexinfer.pp.split"),
        (lambda a: a.obs.__setitem__("split", "train"), ValueError, "marks no row as 'test'"),
        (lambda a: a.layers.clear(), KeyError, "no predictions of any model; run gexinfer.tl.predict"),
        (lambda a: a.uns.clear(), KeyError, "holds no gexinfer model"),
        (lambda a: a.X.__setitem__(slice(None), np.nan), ValueError, "adata.X holds NaN or inf in 90 of 90 genes"),
    ],
)
def test_bad_input(fitted, break_it, error, match):
    break_it(fitted)
    with pytest.raises(error, match=match):
        gx.tl.evaluate(fitted)
    assert "gexinfer_mae" not in fitted.varm
