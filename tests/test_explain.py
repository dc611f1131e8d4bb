"""Influence against finite differences, autograd and coefficients; enrichment against scipy; partial dependence."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import quick
from scipy.stats import false_discovery_control, fisher_exact
from test_trunks import TRUNK_NAMES, network

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods import METHODS, get_method
from gexinfer.methods._kernels import Form, Inner
from gexinfer.methods.dgex import Regression

HAVING = [name for name in METHODS if get_method(name).jacobian]
SIZE = {"n_in": 13, "n_out": 5}


def doubled(**options) -> Regression:
    """A small network in float64."""
    rng = np.random.default_rng(3)
    fixed = {"order": rng.permutation(13), "neighbours": rng.integers(0, 13, (13, 4))}
    made = network(fixed, **options)
    wide = {name: p.detach().double() for name, p in made.parameters.items()}
    return Regression(made.config, wide, made.fixed)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "leaky_relu"])
@pytest.mark.parametrize("trunk", TRUNK_NAMES)
def test_slopes_of_every_trunk_are_those_of_autograd(trunk, activation, monkeypatch):
    # So few tangents at a time that they come in several chunks.
    monkeypatch.setattr("gexinfer.methods._perceptron.TANGENTS", 2000)
    made = doubled(trunk=trunk, activation=activation, layer_norm=True, layers=2)
    # mixed() makes its neighbours' matrix in torch's default precision.
    torch.set_default_dtype(torch.float64)
    try:
        x = torch.randn(4, 13, generator=torch.Generator().manual_seed(1))
        weights = torch.rand(4, 13, generator=torch.Generator().manual_seed(2))
        found = made.jacobian(x, weights)
        each = torch.stack([torch.autograd.functional.jacobian(lambda r: made.infer(r[None])[0], row) for row in x])
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found, torch.einsum("rql,rl->lq", each, weights), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("linear", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["arccos", "rbf", "laplace"])
def test_slopes_of_every_kernel_are_finite_differences(kind, linear):
    form = Form(kind, 3 if kind == "arccos" else 0, 1.3, linear)
    generator = torch.Generator().manual_seed(0)
    x, known = (torch.randn(n, 7, generator=generator, dtype=torch.float64) for n in (3, 5))
    by_product, by_left = Inner.of(x, known).slopes(form)
    for landmark in range(7):
        step = torch.zeros(7, dtype=torch.float64)
        step[landmark] = 1e-6
        far = Inner.of(x + step, known).kernel(form) - Inner.of(x - step, known).kernel(form)
        expected = (by_product * known[:, landmark] + 2 * by_left * x[:, [landmark]]) / 7
        torch.testing.assert_close(far / 2e-6, expected, rtol=1e-6, atol=1e-9)


def test_a_training_sample_itself_has_finite_slopes():
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0))
    for kind in ("arccos", "rbf", "laplace"):
        for found in Inner.of(x, x, 4).slopes(Form(kind, 2, 1.0, 0.0)):
            assert torch.isfinite(found).all()


@pytest.mark.parametrize("method", HAVING)
def test_influence_is_what_a_nudge_of_a_landmark_does_in_data_units(fitted, method):
    """Of FittedModel.predict, which knows nothing of slopes; summed over landmarks, so that none can be left out."""
    found = gx.tl.explain(fitted, method, progress=False)
    model = records(fitted)[method]
    X = np.asarray(fitted[fitted.obs["split"] == "test", list(model.landmarks)].X, float)
    for step in (np.eye(60)[17] * 0.05, np.random.default_rng(0).normal(0, 0.02, 60)):
        change = (model.predict(X + step).astype(float) - model.predict(X - step)).mean(axis=0) / 2
        np.testing.assert_allclose(step @ found.to_numpy(), change, rtol=0, atol=0.02 * np.abs(change).max())
    written = pd.DataFrame(fitted.varm[f"gexinfer_influence_{method}"], fitted.var_names)
    assert written.isna().all(axis=1).sum() == 60
    np.testing.assert_array_equal(written.loc[found.columns].T, found)


@pytest.mark.parametrize("how", ["gradient", "integrated"])
@pytest.mark.parametrize("method", ["ols", "ridge", "lasso", "rrr"])
def test_influence_of_a_linear_model_is_its_coefficients(fitted, method, how):
    found = gx.tl.explain(fitted, method, how=how, progress=False)
    model = records(fitted)[method]
    unit_at, unit = np.eye(60) * model.landmark_scale.unit[:, None], model.target_scale.unit
    mean = model.landmark_scale.mean
    coefficients = model.predict(mean + 1000 * unit_at).astype(float) - model.predict(mean[None])
    np.testing.assert_allclose(found * model.landmark_scale.unit[:, None], coefficients / 1000, atol=1e-5 * unit.max())
    if how == "integrated":
        assert fitted.uns["gexinfer_explained"][method]["incomplete"] < 1e-4


def test_integrated_gradients_that_do_not_add_up_are_told(fitted):
    """A network of three epochs, whose layer norm makes it jump at the training mean."""
    with pytest.warns(UserWarning, match=r"ggan: what landmarks add is \d+% off what is inferred.*how='gradient'"):
        gx.tl.explain(fitted, "ggan", how="integrated", n_samples=6, progress=False)
    assert fitted.uns["gexinfer_explained"]["ggan"]["incomplete"] > 0.05


@pytest.mark.parametrize("method", ["dgex", "kernel"])
def test_integrated_gradients_add_up_and_are_lines_through_what_landmarks_add(fitted, method):
    found = gx.tl.explain(fitted, method, how="integrated", n_samples=6, progress=False)
    entry = fitted.uns["gexinfer_explained"][method]
    assert entry["n_samples"] == 6
    assert entry["incomplete"] < 0.03
    model = records(fitted)[method]
    test = np.flatnonzero(fitted.obs["split"] == "test")
    X = np.asarray(fitted[np.sort(np.random.default_rng(0).choice(test, 6, replace=False)), list(model.landmarks)].X)
    away = X.astype(float) - model.landmark_scale.mean
    # The obvious way: what each landmark adds to each sample, by many small steps, then a line for each landmark.
    added, at = np.zeros((6, *found.shape)), (np.arange(2000) + 0.5)[:, None] / 2000
    for i in range(6):
        added[i] = model.jacobian(model.landmark_scale.mean + at * away[i], weights=np.tile(away[i] / 2000, (2000, 1)))
    change = model.predict(X) - model.predict(model.landmark_scale.mean[None])
    np.testing.assert_allclose(added.sum(axis=1), change, atol=0.01 * np.abs(change).max())
    line = np.einsum("ilq,il->lq", added, away) / (away**2).sum(axis=0)[:, None]
    np.testing.assert_allclose(found, line, atol=0.02 * np.abs(line).max())


def test_genes_that_were_constant_move_nothing_and_are_not_moved(small):
    landmark, target = small.var_names[small.var["landmark"]][4], small.var_names[~small.var["landmark"]][4]
    small.X[:, small.var_names.get_indexer([landmark, target])] = 2.5
    for method in ("ridge", "kernel", "dgex"):
        with pytest.warns(UserWarning, match="2 genes are constant"):
            gx.tl.fit(small, method, progress=False, **quick(method))
        how = "gradient" if method == "dgex" else "integrated"
        found = gx.tl.explain(small, method, how=how, n_samples=3, progress=False)
        assert (found.loc[landmark] == 0).all()
        assert (found[target] == 0).all()
        assert np.isfinite(found).all(axis=None)


def test_each_network_explains_its_own_targets(small):
    gx.tl.fit(small, "dgex", epochs=2, hidden=16, target_blocks=3, progress=False)
    found = gx.tl.explain(small, n_samples=5, progress=False)
    model = records(small)["dgex"]
    X = np.asarray(small[small.obs["split"] == "test", list(model.landmarks)].X, float)
    rows = np.sort(np.random.default_rng(0).choice(len(X), 5, replace=False))
    step = np.random.default_rng(1).normal(0, 0.02, 60)
    change = (model.predict(X[rows] + step).astype(float) - model.predict(X[rows] - step)).mean(axis=0) / 2
    np.testing.assert_allclose(step @ found.to_numpy(), change, rtol=0, atol=0.02 * np.abs(change).max())
    assert (found.abs().max() > 0).all()


def test_agreement_is_with_least_squares_where_rows_are_enough(fitted):
    gx.tl.explain(fitted, "ols", progress=False)
    entry = fitted.uns["gexinfer_explained"]["ols"]
    assert entry["agreement_with"] == "ols"  # 168 rows for 60 landmarks
    np.testing.assert_allclose(entry["genes"]["agreement"], 1, atol=1e-6)
    gx.tl.explain(fitted, "knn_genes", progress=False)
    assert fitted.uns["gexinfer_explained"]["knn_genes"]["genes"]["agreement"].median() < 0.9
    renamed = fitted.copy()
    renamed.obs_names = "x" + renamed.obs_names
    gx.tl.explain(renamed, "ols", progress=False)
    assert renamed.uns["gexinfer_explained"]["ols"]["agreement_with"] == "none"
    assert renamed.uns["gexinfer_explained"]["ols"]["genes"]["agreement"].isna().all()


def test_agreement_is_with_ridge_where_least_squares_fits_noise(small):
    train = np.flatnonzero(small.obs["split"] == "train")
    small.obs.iloc[train[100:], small.obs.columns.get_loc("split")] = np.nan
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.explain(small, progress=False)
    entry = small.uns["gexinfer_explained"]["ridge"]
    assert entry["agreement_with"] == "ridge"
    assert entry["genes"]["agreement"].median() > 0.9


def test_genes_and_slots_survive_a_file(small, tmp_path):
    fitted = small
    fitted.obs_names = "of/" + fitted.obs_names
    for method in ("dgex", "ridge", "knn"):
        gx.tl.fit(fitted, method, progress=False, **quick(method))
    genes = fitted.var_names[~fitted.var["landmark"]][[5, 2]].tolist()
    before = fitted.copy()
    found = gx.tl.explain(fitted, "dgex", genes=genes, how="integrated", n_samples=4, progress=False)
    assert found.columns.tolist() == genes
    assert np.isfinite(fitted.varm["gexinfer_influence_dgex"]).any(axis=1).sum() == 2
    fitted.var["mine"] = fitted.var_names.isin(genes)
    again = gx.tl.explain(fitted, "dgex", genes="mine", how="integrated", n_samples=4, progress=False)
    pd.testing.assert_frame_equal(again[genes], found)
    gx.tl.explain(fitted, "ridge", progress=False)
    gx.tl.partial_dependence(fitted, genes[0], found.index[3], key=["ridge", "knn"], n_points=3, progress=False)
    sets = {"one": found.index[:9].tolist(), "two": found.index[5:20].tolist()}
    gx.tl.enrich(fitted, sets, "ridge", top=10)
    np.testing.assert_array_equal(fitted.X, before.X)
    fitted.write_h5ad(tmp_path / "a.h5ad")
    # Only what is written here, because zarr is slow with many arrays.
    ours = {name: entry for name, entry in fitted.uns.items() if name.startswith("gexinfer_")}
    ad.AnnData(obs=fitted.obs, var=fitted.var, varm=dict(fitted.varm), uns=ours).write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        np.testing.assert_array_equal(back.varm["gexinfer_influence_dgex"], fitted.varm["gexinfer_influence_dgex"])
        for name, entry in fitted.uns["gexinfer_explained"].items():
            read = back.uns["gexinfer_explained"][name]
            pd.testing.assert_frame_equal(read["genes"], entry["genes"], check_names=False)
            pd.testing.assert_frame_equal(read["landmarks"], entry["landmarks"], check_names=False)
            assert (read["how"], read["samples"]) == (entry["how"], "test rows")
        pd.testing.assert_frame_equal(
            back.uns["gexinfer_enrichment"], fitted.uns["gexinfer_enrichment"], check_index_type=False
        )
        read, entry = (a.uns["gexinfer_partial_dependence"] for a in (back, fitted))
        np.testing.assert_array_equal(read["curves"]["knn"], entry["curves"]["knn"])
        assert read["measured"].index.tolist() == entry["measured"].index.tolist()
        gx.tl.enrich(back, sets, "dgex", top=10)


def test_ensembl_ids_match_with_and_without_version(small):
    small.var["symbol"] = small.var_names.astype(str)
    small.var_names = [f"ENSG{i:011d}.{i % 9 + 1}" for i in range(small.n_vars)]
    gx.tl.fit(small, "ridge", progress=False)
    versioned = gx.tl.explain(small, progress=False)
    small.var_names = small.var_names.str.replace(r"\.\d+$", "", regex=True)
    found = gx.tl.explain(small, progress=False)
    np.testing.assert_array_equal(found, versioned)
    assert found.columns.isin(small.var_names).all()
    symbols = small.var["symbol"][small.var["landmark"]]
    table = gx.tl.enrich(small, {"a": symbols[:9].tolist()}, genes=[found.columns[3]], top=30, symbols="symbol")
    assert table["in_set"].tolist() == [9]


def test_samples_that_lack_landmarks_are_filled_in(fitted):
    whole = gx.tl.explain(fitted, "dgex", progress=False)
    landmarks = np.flatnonzero(fitted.var["landmark"])
    fitted.X[np.flatnonzero(fitted.obs["split"] == "test")[0], landmarks[:5]] = np.nan
    holed = gx.tl.explain(fitted, "dgex", progress=False)
    assert np.isfinite(holed).all(axis=None)
    assert np.abs(holed - whole).max(axis=None) < 0.2 * np.abs(whole).max(axis=None)
    del fitted.obs["split"]
    gx.tl.explain(fitted, "dgex", n_samples=10, progress=False)
    assert fitted.uns["gexinfer_explained"]["dgex"]["samples"] == "all rows"


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (
            {"key": "knn"},
            ValueError,
            "method='knn' has no slopes.*Models of method='auto', 'mean', 'ols'.*'kernel', 'dgex'.*have",
        ),
        ({"key": "sample_lasso"}, ValueError, "method='sample_lasso' has no slopes"),
        ({}, ValueError, "several models, 'auto', 'mean'.*name the one to explain: key="),
        ({"key": "ridge", "how": "shap"}, ValueError, "how='shap' is not known; choose one of gradient, integrated"),
        ({"key": "ridge", "n_samples": 0}, ValueError, "n_samples=0 must be a whole number of at least 1"),
        ({"key": "ridge", "genes": []}, ValueError, "genes= selects no gene; leave it out for all 90 targets"),
        ({"key": "ridge", "genes": ["nobody"]}, KeyError, "genes names 1 genes that adata.var_names does not hold"),
    ],
)
def test_what_explain_refuses(fitted, arguments, error, match):
    slots = set(fitted.uns), set(fitted.varm)
    with pytest.raises(error, match=match):
        gx.tl.explain(fitted, progress=False, **arguments)
    assert (set(fitted.uns), set(fitted.varm)) == slots


def test_a_landmark_is_not_explained_and_inf_is_named(fitted):
    landmark = fitted.var_names[fitted.var["landmark"]][0]
    with pytest.raises(
        ValueError, match=f"genes= names 1 genes that 'ridge' does not infer: '{landmark}'. Its 90 targets"
    ):
        gx.tl.explain(fitted, "ridge", genes=[landmark], progress=False)
    fitted.X[fitted.obs["split"] == "test", fitted.var_names.get_loc(landmark)] = np.inf
    with pytest.raises(ValueError, match=f"adata.X holds inf in 1 of 60 genes.*'{landmark}'"):
        gx.tl.explain(fitted, "ridge", progress=False)


@pytest.fixture
def explained(small):
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.explain(small, progress=False)
    return small


def test_enrichment_is_fisher_s_test(explained):
    found = explained.varm["gexinfer_influence_ridge"]
    landmarks = explained.uns["gexinfer_explained"]["ridge"]["landmarks"]
    gene = explained.var_names[~explained.var["landmark"]][7]
    strength = pd.Series(found[explained.var_names.get_loc(gene)], landmarks.index) * landmarks["sd"]
    best = strength.abs().sort_values(ascending=False).index
    rng = np.random.default_rng(0)
    sets = {"planted": [*best[:6], "nowhere"], "spread": best[::4].tolist(), "few": best[:4].tolist()}
    sets |= {f"random {i}": rng.choice(best, 12, replace=False).tolist() for i in range(5)}
    table = gx.tl.enrich(explained, sets, genes=[gene], top=10)
    tested = {name: genes for name, genes in sets.items() if name != "few"}
    p = {}
    for name, genes in tested.items():
        inside, top = set(genes) & set(best), set(best[:10])
        cells = [[len(top & inside), len(top - inside)], [len(inside - top), 60 - len(top | inside)]]
        p[name] = fisher_exact(cells, alternative="greater")
    rows = table.set_index("gene_set")
    assert set(rows.index) <= set(tested)
    for name, row in rows.iterrows():
        assert row["p"] == pytest.approx(p[name].pvalue, rel=1e-9)
        assert row["odds_ratio"] == pytest.approx(p[name].statistic)
    fdr = dict(zip(p, false_discovery_control([r.pvalue for r in p.values()]), strict=True))
    assert rows["fdr"].to_dict() == pytest.approx({name: fdr[name] for name in rows.index})
    assert table["gene_set"][0] == "planted"
    assert table.loc[0, ["overlap", "in_set", "expected"]].tolist() == [6, 6, 1]
    assert table["landmarks"][0].split(", ") == list(best[:6])
    assert table["p"].is_monotonic_increasing
    pd.testing.assert_frame_equal(explained.uns["gexinfer_enrichment"], table)


def test_landmarks_that_move_nothing_are_not_among_the_top(small):
    gx.tl.fit(small, "knn_genes", k=3, progress=False)
    slopes = gx.tl.explain(small, progress=False)
    gene = slopes.columns[2]
    used = slopes.index[slopes[gene] != 0].tolist()
    others = slopes.index.drop(used)[:4].tolist()
    table = gx.tl.enrich(
        small, {"used": used + others, "other": slopes.index.drop(used)[:9].tolist()}, genes=[gene], top=20
    )
    assert table["gene_set"].tolist() == ["used"]
    assert table["p"][0] == pytest.approx(fisher_exact([[3, 0], [4, 53]], alternative="greater").pvalue)
    assert set(table["landmarks"][0].split(", ")) == set(used)


def test_gene_sets_are_matched_by_another_column(explained):
    landmarks = explained.var_names[explained.var["landmark"]]
    sets = {"a": landmarks[:8].tolist(), "b": landmarks[20:50].tolist()}
    expected = gx.tl.enrich(explained, sets, top=15)
    explained.var["symbol"] = pd.Categorical(explained.var_names.where(explained.var_names != landmarks[3], None))
    renamed = explained[:, ::-1].copy()
    gx.tl.enrich(renamed, {"a": landmarks[:8].tolist()}, top=15)
    renamed.var["symbol"] = renamed.var_names.astype(str)
    renamed.var_names = [f"ENSG{i:011d}" for i in range(renamed.n_vars)]
    gx.tl.fit(renamed, "ridge", progress=False)
    gx.tl.explain(renamed, progress=False)
    with pytest.raises(ValueError, match=r"None of the 2 gene sets holds 5 or more of the 60 landmarks.*symbols="):
        gx.tl.enrich(renamed, sets, top=15)
    found = gx.tl.enrich(renamed, sets, top=15, symbols="symbol")
    found["gene"] = found["gene"].map(renamed.var["symbol"])
    columns = ["gene", "gene_set", "overlap", "p"]
    order = ["gene", "gene_set"]
    pd.testing.assert_frame_equal(
        found[columns].sort_values(order, ignore_index=True), expected[columns].sort_values(order, ignore_index=True)
    )
    lacking = gx.tl.enrich(explained, sets, top=15, symbols="symbol")
    assert (lacking.query("gene_set == 'a'")["in_set"] == 7).all()


def test_what_enrich_refuses(small, explained):
    with pytest.raises(KeyError, match=r"no 'gexinfer_explained'; run gexinfer.tl.explain\(adata\) first"):
        gx.tl.enrich(small[:, :].copy() if "gexinfer_explained" not in small.uns else stripped(small), {"a": ["b"]})
    with pytest.raises(TypeError, match=r"gene_sets is a str; pass the sets by name, of a file gexinfer.io.read_gmt"):
        gx.tl.enrich(explained, "h.all.gmt")
    with pytest.raises(KeyError, match=r"holds 'ridge'.*run gexinfer.tl.explain\(adata, key='dgex'\) first"):
        gx.tl.enrich(explained, {}, "dgex")
    with pytest.raises(ValueError, match="top=60 must be a whole number of at least 1 and below the 60 landmarks"):
        gx.tl.enrich(explained, {}, top=60)
    with pytest.raises(KeyError, match="adata.var has no column 'name'; it has"):
        gx.tl.enrich(explained, {}, symbols="name")
    with pytest.raises(ValueError, match="genes= selects no gene; leave it out for all that were explained"):
        gx.tl.enrich(explained, {}, genes=[], top=5)
    with pytest.raises(ValueError, match="holds none of the genes that were explained for 'ridge'"):
        gx.tl.enrich(explained[:, explained.var["landmark"]].copy(), {}, top=5)


def stripped(adata: ad.AnnData) -> ad.AnnData:
    bare = adata.copy()
    del bare.uns["gexinfer_explained"]
    return bare


def test_gmt_files(tmp_path):
    from pathlib import Path

    found = gx.io.read_gmt(Path(__file__).parent / "data" / "hallmark_extract.gmt")
    assert list(found) == ["HALLMARK_CHOLESTEROL_HOMEOSTASIS", "HALLMARK_INTERFERON_ALPHA_RESPONSE"]
    assert [len(genes) for genes in found.values()] == [74, 97]
    assert {"HMGCR", "IDI1"} <= set(found["HALLMARK_CHOLESTEROL_HOMEOSTASIS"])
    path = tmp_path / "a.gmt"
    path.write_text("a\t\tX\tY\tX\t\r\n\r\nb\tsays\tZ\r\n")
    assert gx.io.read_gmt(path) == {"a": ["X", "Y"], "b": ["Z"]}
    path.write_text("a\tsays\tX\na\tsays\tY\n")
    with pytest.raises(ValueError, match="two sets that are called 'a', the second in line 2"):
        gx.io.read_gmt(path)
    path.write_text("a\tsays\tX\nTP53,MYC\n")
    with pytest.raises(ValueError, match=r"is no GMT file: line 2 \('TP53,MYC'\)"):
        gx.io.read_gmt(path)


def test_partial_dependence_is_the_mean_of_predictions_with_one_landmark_moved(fitted):
    model = records(fitted)["dgex"]
    landmark, target = model.landmarks[4], model.targets[6]
    table = gx.tl.partial_dependence(fitted, target, landmark, key=["dgex", "knn"], n_points=5, progress=False)
    X = np.asarray(fitted[fitted.obs["split"] == "test", list(model.landmarks)].X, float)
    np.testing.assert_allclose(table.index, np.linspace(*np.quantile(X[:, 4], [0.01, 0.99]), 5))
    for name in ("dgex", "knn"):
        for value in table.index:
            moved = X.copy()
            moved[:, 4] = value
            expected = records(fitted)[name].predict(moved)[:, 6]
            assert table.loc[value, name] == pytest.approx(expected.mean(), abs=1e-5)
    found = fitted.uns["gexinfer_partial_dependence"]
    np.testing.assert_allclose(
        found["curves"]["dgex"][-1],
        records(fitted)["dgex"].predict(np.where(np.arange(60) == 4, table.index[-1], X))[:, 6],
        atol=1e-5,
    )
    np.testing.assert_allclose(found["measured"]["landmark"], X[:, 4])
    ridge = gx.tl.partial_dependence(fitted, target, landmark, key="ridge", progress=False)["ridge"]
    slope = np.diff(ridge) / np.diff(ridge.index)
    expected = gx.tl.explain(fitted, "ridge", genes=[target], progress=False).loc[landmark, target]
    np.testing.assert_allclose(slope, expected, atol=1e-4)


def test_what_partial_dependence_refuses(fitted):
    landmark, target = records(fitted)["dgex"].landmarks[4], records(fitted)["dgex"].targets[6]
    with pytest.raises(ValueError, match=f"target='{landmark}' is no target of 'auto'; its 90 targets start with"):
        gx.tl.partial_dependence(fitted, landmark, target, progress=False)
    with pytest.raises(ValueError, match="n_points=1 must be a whole number of at least 2"):
        gx.tl.partial_dependence(fitted, target, landmark, n_points=1, progress=False)
    fitted.layers["z"] = 100 * fitted.X
    gx.tl.fit(fitted, "ridge", layer="z", key_added="other", progress=False)
    with pytest.raises(ValueError, match=r"different layers, \{'ridge': 'X', 'other': 'z'\}.*Name those of one layer"):
        gx.tl.partial_dependence(fitted, target, landmark, key=["ridge", "other"], progress=False)
    fitted.X[:, fitted.var_names.get_loc(landmark)] = 3
    with pytest.raises(ValueError, match=f"'{landmark}' has the same value, 3, in the 36 samples looked at"):
        gx.tl.partial_dependence(fitted, target, landmark, key="ridge", progress=False)


def test_what_was_explained_of_another_model_is_refused(explained):
    gx.tl.fit(explained, "ridge", penalty=3.0, progress=False)
    with pytest.raises(
        ValueError, match=r"uns\['ridge'\] was fitted again after.*gexinfer.tl.explain\(adata, key='ridge'\)"
    ):
        gx.tl.enrich(explained, {"a": list(explained.var_names)})
