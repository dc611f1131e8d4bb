from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from conftest import arrays_of
from scipy.stats import pearsonr
from sklearn.metrics import r2_score

import gexinfer as gx
from gexinfer.methods import METHODS


def test_every_number_is_the_obvious_one(fitted):
    table = gx.tl.evaluate(fitted)
    _, Y = arrays_of(fitted, "test")
    unit = arrays_of(fitted, "train")[1].std(0) + 1e-3
    test, target = (fitted.obs["split"] == "test").to_numpy(), ~fitted.var["landmark"].to_numpy()
    errors = {}
    for key in METHODS:
        P = fitted.layers[key][test][:, target].astype(float)
        mae = np.abs(P - Y).mean(0)
        errors[key] = mae / unit
        np.testing.assert_allclose(fitted.varm["gexinfer_mae"][key][target], mae / unit, rtol=1e-5)
        np.testing.assert_allclose(fitted.varm["gexinfer_mae_data"][key][target], mae, rtol=1e-5)
        r2 = [r2_score(y, p) for y, p in zip(Y.T, P.T, strict=True)]
        np.testing.assert_allclose(fitted.varm["gexinfer_r2"][key][target], r2, rtol=1e-4, atol=1e-5)
        row = table.loc[key]
        assert row["mae"] == pytest.approx((mae / unit).mean(), rel=1e-5)
        assert row["mae_sd"] == pytest.approx((mae / unit).std(), rel=1e-5)
        assert row["mae_data"] == pytest.approx(mae.mean(), rel=1e-5)
        assert row["r2"] == pytest.approx(np.median(r2), abs=1e-5)
        assert (row["n_samples"], row["n_genes"], row["split_by"]) == (36, 90, "random")
        if key != "mean":
            r = [pearsonr(y, p).statistic for y, p in zip(Y.T, P.T, strict=True)]
            np.testing.assert_allclose(fitted.varm["gexinfer_pearson"][key][target], r, rtol=1e-4, atol=1e-6)
            assert row["pearson"] == pytest.approx(np.median(r), rel=1e-4)
    assert table.loc["knn", "gain_over_ridge"] == pytest.approx(
        1 - errors["knn"].mean() / errors["ridge"].mean(), rel=1e-4
    )
    assert table.loc["dgex", "better_than_ols"] == pytest.approx((errors["dgex"] < errors["ols"]).mean())
    assert table["mae"].is_monotonic_increasing
    assert np.isnan(fitted.varm["gexinfer_mae"].to_numpy()[~target]).all()
    assert np.isnan(table.loc["mean", "pearson"])


def test_the_mean_is_there_even_if_nobody_fitted_it(fitted):
    expected = gx.tl.evaluate(fitted).loc["mean", "mae"]
    table = gx.tl.evaluate(fitted, key="ridge")
    assert set(table.index) == {"ridge", "mean"}
    assert table.loc["mean", "mae"] == pytest.approx(expected, rel=1e-6)


def test_the_table_is_kept_and_can_be_written(fitted, tmp_path):
    import anndata as ad

    table = gx.tl.evaluate(fitted)
    fitted.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.uns["gexinfer_evaluation"], table, check_names=False, check_dtype=False)
    assert list(back.varm["gexinfer_mae"]) == list(METHODS)


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
    assert table["n_genes"].to_dict() == {"few": 30, "all": 90, "mean": 90}


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
    with pytest.raises(ValueError, match=r"layers\['ridge'\]"):
        gx.tl.evaluate(fitted)


def test_an_object_without_targets_has_no_truth(fitted):
    with pytest.raises(ValueError, match="holds none of the 90 targets of 'mean', so there is no truth"):
        gx.tl.evaluate(fitted[:, fitted.var["landmark"].to_numpy()].copy())


def test_rows_the_model_has_seen_are_no_test_rows(fitted):
    gx.pp.split(fitted, rng=99)
    with pytest.raises(ValueError, match=r"of the 24 rows .* 'test' were training or validation rows of 'mean'.*fit"):
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
    import gexinfer.tl._evaluate as module

    expected = gx.tl.evaluate(fitted)
    slices = module.row_slices
    monkeypatch.setattr(module, "row_slices", lambda n: slices(n, 5))
    pd.testing.assert_frame_equal(gx.tl.evaluate(fitted), expected)


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
