"""Which genes are inferred well enough to be recognised."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import gexinfer as gx
from gexinfer.engine.recall import recall
from gexinfer.tl import _trust


@pytest.fixture
def trusted(fitted):
    """One model of each method, of which ridge and knn_genes know their trusted genes."""
    for key in ("ridge", "knn_genes"):
        gx.tl.trust(fitted, key=key)
    return fitted


@pytest.fixture
def query(fitted_once):
    """Landmarks alone of 30 samples."""
    landmark = fitted_once.var["landmark"].to_numpy()
    return ad.AnnData(fitted_once.X[:30][:, landmark].copy(), var=fitted_once.var.loc[landmark, []])


def slow_recall(measured, inferred):
    genes = measured.shape[1]
    found = np.full(genes, np.nan)
    varies = measured.std(0) > 0
    for i in range(genes):
        if varies[i] and inferred[:, i].std() > 0:
            r = [np.corrcoef(inferred[:, i], measured[:, j])[0, 1] if varies[j] else -np.inf for j in range(genes)]
            found[i] = sum(r[j] > r[i] for j in range(genes) if j != i) / (genes - 1)
    return found


def test_recall_is_a_rank_of_correlations(fitted, monkeypatch):
    monkeypatch.setattr("gexinfer.engine.recall.TILE", 7)
    target = ~fitted.var["landmark"].to_numpy()
    test = (fitted.obs["split"] == "test").to_numpy()
    measured, inferred = fitted.X[test][:, target].copy(), fitted.layers["knn_genes"][test][:, target].copy()
    measured[:, 3], inferred[:, 5] = 7, 7
    expected = slow_recall(measured.astype(float), inferred.astype(float))
    assert np.isnan(expected[[3, 5]]).all()
    assert 0.02 < np.nanmean(expected) < 0.5
    np.testing.assert_allclose(recall(measured.copy(), inferred.copy()), expected, atol=1e-6)


def test_trust_writes_beside_the_gene_and_into_the_model(fitted, tmp_path):
    target, test = ~fitted.var["landmark"].to_numpy(), (fitted.obs["split"] == "test").to_numpy()
    for key in ("knn_genes", "ridge", "mean"):
        assert gx.tl.trust(fitted, key=key) is None
        expected = slow_recall(*(np.asarray(m, float)[test][:, target] for m in (fitted.X, fitted.layers[key])))
        np.testing.assert_allclose(fitted.var["gexinfer_recall"][target], expected, atol=1e-6)
        np.testing.assert_allclose(gx.io.read_model(fitted, key=key).known["recall"], expected, atol=1e-6)
        assert fitted.var["gexinfer_recall"][~target].isna().all()
        np.testing.assert_array_equal(fitted.var["gexinfer_trusted"][target], np.nan_to_num(expected, nan=1) <= 0.05)
        assert fitted.var["gexinfer_trusted"][~target].all()
    # The mean says nothing of any gene.
    assert not fitted.var["gexinfer_trusted"][target].any()
    assert gx.tl.evaluate(fitted, key="ridge").loc["ridge", "mae"] > 0
    fitted.write_h5ad(tmp_path / "a.h5ad")
    assert "recall" in gx.io.read_model(tmp_path / "a.h5ad", key="ridge").known


def test_a_query_knows_its_trusted_genes(trusted, query):
    recalls = {k: gx.io.read_model(trusted, key=k).known["recall"] for k in ("ridge", "knn_genes")}
    targets = list(gx.io.read_model(trusted, key="ridge").targets)
    full = gx.tl.predict(query, model=trusted, key="ridge", output="anndata", progress=False)
    np.testing.assert_array_equal(full.var.loc[targets, "gexinfer_recall"], recalls["ridge"])
    np.testing.assert_array_equal(full.var.loc[targets, "gexinfer_trusted"], recalls["ridge"] <= 0.05)
    assert full.var.loc[query.var_names, "gexinfer_trusted"].all()
    both = gx.tl.predict(query, model=trusted, key=["knn_genes", "ridge"], output="anndata", progress=False)
    np.testing.assert_array_equal(both.var.loc[targets, "gexinfer_recall"], np.maximum(*recalls.values()))
    # The mean's profiles are constant, of which nobody can tell a recall.
    gx.tl.trust(trusted, key="mean")
    of_mean = gx.tl.predict(query, model=trusted, key=["mean", "ridge"], output="anndata", progress=False)
    assert of_mean.var.loc[targets, "gexinfer_recall"].isna().all()
    assert not of_mean.var.loc[targets, "gexinfer_trusted"].any()
    unknown = gx.tl.predict(query, model=trusted, key=["ridge", "ols"], output="anndata", progress=False)
    assert "gexinfer_trusted" not in unknown.var
    lacking = gx.tl.predict(query[:, 3:].copy(), model=trusted, key="ridge", output="anndata", progress=False)
    assert not lacking.var.loc[query.var_names[:3], "gexinfer_trusted"].any()


def test_trusted_only(trusted, query, tmp_path):
    recalls = {k: gx.io.read_model(trusted, key=k).known["recall"] for k in ("ridge", "knn_genes")}
    targets = np.array(gx.io.read_model(trusted, key="ridge").targets)
    bad = {k: targets[recall > 0.05] for k, recall in recalls.items()}
    assert 0 < len(bad["ridge"]) < len(bad["knn_genes"]) < 90
    whole = {k: trusted[:30].copy().layers[k] for k in recalls}
    gx.tl.predict(trusted, key=["ridge", "knn_genes"], trusted_only=True, interval=0.8, progress=False)
    for key, layer in whole.items():
        left_out = trusted.var_names.isin(bad[key])
        expected = np.where(left_out, np.nan, layer)
        np.testing.assert_array_equal(trusted.layers[key][:30], expected)
        assert np.isnan(trusted.layers[f"{key}_lower"][:, left_out]).all()
    made = gx.tl.predict(query, model=trusted, key="ridge", output="anndata", trusted_only=True, progress=False)
    assert set(made.var_names) == set(trusted.var_names) - set(bad["ridge"])
    assert np.isfinite(made.X).all()
    assert made.var["gexinfer_trusted"].all()
    gx.tl.predict(query, model=trusted, key="ridge", output=tmp_path / "a.zarr", trusted_only=True, progress=False)
    stored = ad.read_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(stored[:, made.var_names].X, made.X)
    assert stored.var["gexinfer_trusted"].all()
    both = gx.tl.predict(
        query, model=trusted, key=["ridge", "knn_genes"], output="anndata", trusted_only=True, progress=False
    )
    assert set(both.var_names) == set(trusted.var_names) - set(np.intersect1d(*bad.values()))
    assert np.isnan(both[:, np.setdiff1d(bad["knn_genes"], bad["ridge"])].layers["knn_genes"]).all()
    some = [*bad["ridge"][:1], *np.setdiff1d(targets, bad["ridge"])[:2]]
    picked = gx.tl.predict(
        query, model=trusted, key="ridge", output="anndata", trusted_only=True, genes=some, progress=False
    )
    assert set(picked.var_names) == set(some[1:])
    with pytest.raises(ValueError, match="leaves out all genes asked for"):
        gx.tl.predict(query, trusted, key="ridge", output="anndata", trusted_only=True, genes=some[:1], progress=False)
    # What needs all genes says why they are not there.
    again = r"trusted_only=.*tl\.predict\(adata, key='ridge'\)|tl\.predict\(adata, key='ridge'\).*trusted_only="
    for call in (gx.tl.evaluate, gx.tl.trust, gx.tl.coverage):
        with pytest.raises(ValueError, match=again):
            call(trusted, key="ridge")
    with pytest.raises(ValueError, match="left out by trusted_only=True"):
        gx.pl.gene(trusted, bad["ridge"][0], "ridge")


def test_what_is_not_known_of_a_prediction_is_not_said(trusted):
    assert "gexinfer_trusted" in trusted.var
    gx.tl.fit(trusted, "ridge", penalty=1e4, progress=False)
    gx.tl.predict(trusted, key="ridge", progress=False)
    assert not {"gexinfer_trusted", "gexinfer_recall"} & set(trusted.var)


def test_a_landmark_whose_value_is_inferred_is_judged_as_such(small):
    small.var["every"] = True
    gx.tl.fit(small, "mean", targets="every", allow_overlap=True, progress=False)
    gx.tl.predict(small, progress=False)
    gx.tl.trust(small)
    assert not small.var["gexinfer_trusted"].any()
    gx.tl.predict(small, progress=False)
    assert not small.var["gexinfer_trusted"].any()


def test_what_is_refused(small, fitted, query):
    with pytest.raises(
        ValueError, match=r"trusted_only=True: nobody knows yet.*'ridge'.*gexinfer.tl.trust\(ref, key='ridge'\)"
    ):
        gx.tl.predict(query, model=fitted, key="ridge", output="anndata", trusted_only=True, progress=False)
    with pytest.raises(ValueError, match="several models, 'auto', 'mean', 'ols'.*name one of them with key="):
        gx.tl.trust(fitted)
    with pytest.raises(KeyError, match="no gexinfer model 'rigde'"):
        gx.tl.trust(fitted, key="rigde")
    gx.tl.fit(small, "ridge", progress=False)
    with pytest.raises(KeyError, match="no predictions of any model; run gexinfer.tl.predict"):
        gx.tl.trust(small)
    gx.tl.predict(small, progress=False)
    small.obs["before"] = small.obs["split"]
    small.obs.iloc[np.flatnonzero(small.obs["split"] == "test")[9:], small.obs.columns.get_loc("split")] = np.nan
    with pytest.raises(ValueError, match="marks 9 rows as 'test'.*fewer than 10 samples are alike by chance"):
        gx.tl.trust(small)
    small.obs["split"] = small.obs["before"]
    gx.tl.fit(small, "ridge", penalty=1e4, progress=False)
    with pytest.raises(ValueError, match="does not hold what"):
        gx.tl.trust(small)
    gx.tl.predict(small, progress=False)
    with pytest.raises(ValueError, match="holds 1 target|fewer than 2"):
        gx.tl.trust(
            small[:, small.var["landmark"] | (np.arange(150) == np.flatnonzero(~small.var["landmark"])[0])].copy()
        )
    gx.pp.split(small, rng=1)
    with pytest.raises(ValueError, match="were training or validation rows"):
        gx.tl.trust(small)
    assert "gexinfer_recall" not in small.var


def test_of_many_test_rows_some_are_read(fitted, monkeypatch, capsys):
    monkeypatch.setattr(_trust, "MOST_ROWS", 12)
    gx.tl.trust(fitted, key="knn_genes")
    assert "over 12 test rows of 36, evenly spaced" in capsys.readouterr().err
    test, target = np.flatnonzero(fitted.obs["split"] == "test"), ~fitted.var["landmark"].to_numpy()
    rows = test[np.linspace(0, 35, 12).astype(int)]
    expected = slow_recall(*(np.asarray(m, float)[rows][:, target] for m in (fitted.X, fitted.layers["knn_genes"])))
    np.testing.assert_allclose(fitted.var["gexinfer_recall"][target], expected, atol=1e-6)
