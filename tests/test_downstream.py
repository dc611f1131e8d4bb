from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scipy.sparse as sp
from scipy.stats import spearmanr

import gexinfer as gx
from gexinfer.tl import _agreement, _downstream
from gexinfer.tl._agreement import Groups, classification, divisions

TUMOURS = {"groupby": "source", "control": "TCGA normal", "within": "tissue", "min_samples": 3}


@pytest.fixture(scope="module")
def halves_once(bulk_once, small_once):
    """Tumours and normal samples of three tissues, and others; half are test samples, so that groups are large enough."""
    obs = bulk_once.obs[["tissue", "source"]].astype(str).agg(" ".join, axis=1)
    wanted = {"read TCGA normal": 10, "kich TCGA normal": 12, "chol TCGA normal": 9, "lihc TCGA normal": 8}
    wanted |= {
        "read TCGA tumour": 20,
        "kich TCGA tumour": 20,
        "chol TCGA tumour": 20,
        "uterus GTEx": 24,
        "blood GEO": 24,
    }
    rows = np.concatenate([np.flatnonzero(obs == name)[:n] for name, n in wanted.items()])
    halves = bulk_once[np.sort(rows), small_once.var_names].copy()
    halves.uns.clear()
    halves.var["landmark"] = small_once.var["landmark"]
    gx.pp.split(halves, fractions=(0.4, 0.1, 0.5))
    for method in ("mean", "ridge"):
        gx.tl.fit(halves, method, progress=False)
    gx.tl.predict(halves, progress=False)
    return halves


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Divide samples into folds once, to save time."""
    monkeypatch.setattr(_agreement, "REPEATS", 1)


@pytest.fixture
def halves(halves_once):
    return halves_once.copy()


@pytest.fixture
def any_layer(monkeypatch):
    """Let a layer hold what the model did not predict, to see what perfect or false values come to."""
    monkeypatch.setattr(_downstream, "refuse_stale", lambda *_: None)


def value(table, analysis, measure, values, group="all"):
    found = table.query("analysis == @analysis and measure == @measure and values == @values and group == @group")
    assert len(found) == 1
    return found["value"].item()


def test_measured_values_agree_with_themselves(halves, any_layer):
    halves.layers["ridge"] = halves.X.copy()
    table = gx.tl.downstream(halves, **TUMOURS)
    per_group = table[table["analysis"] == "classification"].pivot(
        index=["measure", "group"], columns="values", values="value"
    )
    np.testing.assert_array_equal(per_group["ridge"], per_group["measured"])
    assert value(table, "neighbors", "shared", "ridge") == 1
    share = table[table["measure"] == "called"].pivot(index="group", columns="values", values="value")
    np.testing.assert_array_equal(share["ridge"], share["measured"])
    perfect = table[table["values"].eq("ridge") & table["analysis"].isin(["expression", "deltas"])]
    perfect = perfect[perfect["measure"] != "called"]
    zero = perfect["measure"].isin(["false_discovery", "relative_error"])
    assert set(perfect["measure"]) == {
        *("top_overlap", "sensitivity", "false_discovery"),
        *("pearson", "spearman", "slope", "relative_error", "gene_pearson"),
    }
    np.testing.assert_allclose(perfect["value"], np.where(zero, 0, 1), atol=1e-6)


def test_the_mean_adds_nothing_to_landmarks_and_infers_no_change(halves):
    table = gx.tl.downstream(halves, **TUMOURS)
    for analysis, measure in (("classification", "balanced_accuracy"), ("neighbors", "shared")):
        assert value(table, analysis, measure, "mean") == pytest.approx(
            value(table, analysis, measure, "landmarks"), abs=1e-12
        )
    expected = {"slope": 0, "relative_error": 1, "pearson": np.nan, "spearman": np.nan, "gene_pearson": np.nan}
    for measure, of_none in expected.items():
        assert value(table, "deltas", measure, "mean") == pytest.approx(of_none, abs=1e-6, nan_ok=True)
    assert value(table, "expression", "sensitivity", "mean") == 0
    assert np.isnan(value(table, "expression", "top_overlap", "mean"))
    # Also where nobody fitted it.
    alone = gx.tl.downstream(halves, **TUMOURS, key="ridge")
    both = (t.query("analysis == 'deltas' and values == 'mean'").reset_index(drop=True) for t in (alone, table))
    pd.testing.assert_frame_equal(*both, atol=1e-6)


def test_false_values_lose(halves, any_layer):
    """Each sample gets the inferred targets of another."""
    honest = gx.tl.downstream(halves, **TUMOURS, key="ridge")
    test, target = np.flatnonzero(halves.obs["split"] == "test"), ~halves.var["landmark"].to_numpy()
    moved = np.random.default_rng(0).permutation(test)
    halves.layers["ridge"][np.ix_(test, target)] = halves.layers["ridge"][np.ix_(moved, target)]
    false = gx.tl.downstream(halves, **TUMOURS, key="ridge")
    for analysis, measure in honest[["analysis", "measure"]].drop_duplicates().itertuples(index=False):
        if measure not in ("recall", "called"):
            good, bad = (value(table, analysis, measure, "ridge") for table in (honest, false))
            better = good < bad if measure in ("false_discovery", "relative_error") else good > bad
            assert better or (measure == "false_discovery" and np.isnan(bad)), measure
    assert value(false, "deltas", "gene_pearson", "ridge") < 0.3 < value(honest, "deltas", "gene_pearson", "ridge")


def test_expression_is_that_of_scanpy(halves):
    table = gx.tl.downstream(halves, "source", key="ridge")
    test = halves[(halves.obs["split"] == "test").to_numpy(), ~halves.var["landmark"]].copy()
    assert test.obs["source"].value_counts().min() >= 5
    measured, inferred = ad.AnnData(test.X, test.obs, test.var), ad.AnnData(test.layers["ridge"], test.obs, test.var)
    for of_kind in (measured, inferred):
        sc.tl.rank_genes_groups(of_kind, "source", method="t-test")
    for group in test.obs["source"].unique():
        true, guess = (
            sc.get.rank_genes_groups_df(of_kind, group).set_index("names").loc[test.var_names]
            for of_kind in (measured, inferred)
        )
        tops = [set(t["scores"].abs().nlargest(4).index) for t in (true, guess)]  # a twentieth of 90
        assert value(table, "expression", "top_overlap", "ridge", group) == len(tops[0] & tops[1]) / 4
        calls = [
            set(zip(t.index, t["scores"] > 0, strict=True)) for t in (t[t["pvals_adj"] < 0.05] for t in (true, guess))
        ]
        both = len(calls[0] & calls[1])
        for values, of_kind in zip(("measured", "ridge"), calls, strict=True):
            assert value(table, "expression", "called", values, group) == pytest.approx(len(of_kind) / 90)
        assert value(table, "expression", "sensitivity", "ridge", group) == pytest.approx(both / len(calls[0]))
        assert value(table, "expression", "false_discovery", "ridge", group) == pytest.approx(1 - both / len(calls[1]))


def test_deltas_are_the_obvious_ones(halves):
    table = gx.tl.downstream(halves, **TUMOURS, key="ridge")
    test = halves[(halves.obs["split"] == "test").to_numpy(), ~halves.var["landmark"]]
    true, guess = (pd.DataFrame(np.asarray(X, float), test.obs_names) for X in (test.X, test.layers["ridge"]))
    samples, found = [], {}
    for tissue in test.obs["tissue"].unique():
        source = test.obs["source"].where(test.obs["tissue"] == tissue)
        if source.eq("TCGA tumour").sum() >= 3 and source.eq("TCGA normal").sum() >= 3:
            of_kind = [X[source == "TCGA tumour"] - X[source == "TCGA normal"].mean() for X in (true, guess)]
            samples.append(of_kind)
            t, g = (X.mean() for X in of_kind)
            found[f"TCGA tumour, {tissue}"] = {
                "pearson": t.corr(g),
                "spearman": spearmanr(t, g).statistic,
                "slope": np.linalg.lstsq(t.to_numpy()[:, None], g, rcond=None)[0].item(),
                "relative_error": (t - g).abs().mean() / t.abs().mean(),
            }
    assert len(found) >= 2
    for group, measures in found.items():
        for measure, expected in measures.items():
            assert value(table, "deltas", measure, "ridge", group) == pytest.approx(expected, rel=1e-4)
    rows = table.query("analysis == 'deltas' and measure == 'slope' and values == 'ridge' and group == 'all'")
    slopes = [measures["slope"] for measures in found.values()]
    assert rows[["value", "sd", "n"]].iloc[0].tolist() == pytest.approx(
        [np.mean(slopes), np.std(slopes), len(found)], rel=1e-4
    )
    trues, guesses = (pd.concat(of_kind) for of_kind in zip(*samples, strict=True))
    assert value(table, "deltas", "gene_pearson", "ridge") == pytest.approx(trues.corrwith(guesses).median(), rel=1e-4)
    # A tissue with controls alone, or with tumours alone, says nothing.
    assert set(table.loc[table["analysis"].eq("deltas"), "group"]) == {"all", *found}


def test_neighbors_are_the_obvious_ones(halves):
    table = gx.tl.downstream(halves, "source", key="ridge")
    rows, landmark = (halves.obs["split"] == "test").to_numpy(), halves.var["landmark"].to_numpy()
    near = []
    for X in (halves.X[rows], halves.X[rows][:, landmark], halves.layers["ridge"][rows]):
        U, s, _ = np.linalg.svd(X.astype(float) - X.mean(axis=0, dtype=float), full_matrices=False)
        space = U[:, :50] * s[:50]
        apart = ((space[:, None] - space) ** 2).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        near.append(np.argsort(apart, axis=1)[:, :7])  # a tenth of the test samples
    for values, found in (("landmarks", near[1]), ("ridge", near[2])):
        shares = [len(set(a) & set(b)) / 7 for a, b in zip(near[0], found, strict=True)]
        assert value(table, "neighbors", "shared", values) == pytest.approx(np.mean(shares), abs=1e-9)


@pytest.mark.parametrize("known", [True, False])
def test_no_donor_is_learned_from_and_judged(known, monkeypatch):
    """Two samples of each donor, and labels that are drawn: only who knows the donor can tell them."""
    monkeypatch.setattr(_agreement, "REPEATS", 5)
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(60), 2)
    X = np.repeat(rng.normal(size=(60, 80)), 2, axis=0).astype(np.float32)
    labels = Groups(np.repeat(rng.integers(0, 2, 60), 2), ["a", "b"])
    folds = divisions(labels, Groups(donors, [str(i) for i in range(60)]) if known else None, np.random.default_rng(0))
    assert len(folds) == 5
    for train, test in (fold for division in folds for fold in division):
        assert known != bool(set(donors[train]) & set(donors[test]))
        assert not set(train) & set(test)
    assert all(sorted(np.concatenate([test for _, test in division])) == list(range(120)) for division in folds)
    accuracy = classification("X", X, labels, folds)[0].value
    assert accuracy < 0.6 if known else accuracy > 0.75


def test_the_classification_divides_nothing_that_the_split_kept_together(small, monkeypatch, capsys):
    gx.pp.split(small, "cohort", fractions=(0.4, 0.1, 0.5))
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    given = []
    monkeypatch.setattr(_downstream, "classification", lambda *arguments: given.append(arguments) or [])
    capsys.readouterr()
    gx.tl.downstream(small, "source", min_samples=2)
    test = small.obs[small.obs["split"] == "test"]
    able = test.groupby("source", observed=True)["cohort"].nunique() > 1
    assert given[0][2].names == sorted(able.index[able])
    for train, held_out in (fold for division in given[0][3] for fold in division):
        assert not set(test["cohort"].iloc[train]) & set(test["cohort"].iloc[held_out])
    gx.tl.downstream(small, "cohort", min_samples=2)
    told = capsys.readouterr().err
    assert "lie in one cohort are not classified, because the split was made by cohort" in told
    assert "no classification, because no two groups of obs['cohort']" in told
    del small.obs["cohort"]
    with pytest.raises(KeyError, match="no column 'cohort', by which the split was made. Put it back"):
        gx.tl.downstream(small, "source", min_samples=2)


def test_groups_too_small_are_left_out_and_told(halves, capsys):
    test = halves.obs["split"] == "test"
    sizes = halves.obs.loc[test, "tissue"].value_counts()
    few = sizes[(sizes > 0) & (sizes < 11)]
    table = gx.tl.downstream(halves, "tissue", key="ridge", min_samples=11)
    recall = table.query("measure == 'recall' and values == 'ridge'")
    assert dict(zip(recall["group"], recall["n"], strict=True)) == sizes[sizes >= 11].to_dict()
    told = f"{len(few)} of {(sizes > 0).sum()} groups of obs['tissue'] with fewer than 11 test samples are left out: "
    assert len(few)
    assert told + ", ".join(repr(name) for name in sorted(few.index)) in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"0 of \d+ groups of adata.obs\['subject'\] have at least min_samples=5"):
        gx.tl.downstream(halves, "subject")
    halves.obs["nothing"] = None
    with pytest.raises(ValueError, match=r"0 of 0 groups of adata.obs\['nothing'\]"):
        gx.tl.downstream(halves, "nothing")


def test_samples_without_a_group_are_in_none(halves):
    halves.obs["status"] = halves.obs["source"].astype(object).where(halves.obs["source"] != "GEO")
    table = gx.tl.downstream(halves, "status", key="ridge")
    assert set(table["group"]) == {"all", "GTEx", "TCGA normal", "TCGA tumour"}
    n = (halves.obs["status"].notna() & halves.obs["split"].eq("test")).sum()
    assert table.loc[table["measure"] == "balanced_accuracy", "n"].eq(n).all()
    assert table.loc[table["measure"] == "shared", "n"].eq((halves.obs["split"] == "test").sum()).all()


def test_without_controls_there_are_no_changes(halves, capsys):
    table = gx.tl.downstream(halves, **(TUMOURS | {"control": "GTEx"}), key="ridge")
    assert set(table["analysis"]) == {"classification", "neighbors"}
    assert "no tissue has 3 test samples of 'GTEx' and of another group" in capsys.readouterr().err


def test_only_its_slot_is_written_and_survives_files(halves, tmp_path):
    before = halves.copy()
    table = gx.tl.downstream(halves, **TUMOURS)
    pd.testing.assert_frame_equal(halves.uns["gexinfer_downstream"], table)
    halves.write_h5ad(tmp_path / "a.h5ad")
    halves.write_zarr(tmp_path / "a.zarr")
    for back in (ad.read_h5ad(tmp_path / "a.h5ad"), ad.read_zarr(tmp_path / "a.zarr")):
        pd.testing.assert_frame_equal(back.uns["gexinfer_downstream"], table, check_dtype=False, check_index_type=False)
    del halves.uns["gexinfer_downstream"]
    assert set(halves.uns) == set(before.uns)
    for one in ("obs", "var"):
        pd.testing.assert_frame_equal(getattr(halves, one), getattr(before, one))
    for X, Y in ((halves.X, before.X), *((halves.layers[name], before.layers[name]) for name in before.layers)):
        np.testing.assert_array_equal(X, Y)
    again = gx.tl.downstream(halves, **TUMOURS, rng=np.random.default_rng(0))
    pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("kind", ["csc", "backed"])
def test_where_values_are_does_not_matter(halves, kind, tmp_path):
    expected = gx.tl.downstream(halves, "source", key="ridge")
    if kind == "backed":
        halves.write_h5ad(tmp_path / "a.h5ad")
        halves = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    else:
        halves.X = sp.csc_matrix(halves.X)
    pd.testing.assert_frame_equal(gx.tl.downstream(halves, "source", key="ridge"), expected)


@pytest.mark.parametrize(
    ("break_it", "error", "match"),
    [
        (lambda a: gx.pp.split(a, rng=9), ValueError, "rows .* 'test' were training or validation rows of 'mean'"),
        (lambda a: gx.tl.fit(a, "ridge", penalty=1e5, progress=False), ValueError, "does not hold what .* predicts"),
        (lambda a: a.layers.clear(), KeyError, "no predictions of any model; run gexinfer.tl.predict"),
        (lambda a: a.obs.__setitem__("split", "train"), ValueError, "marks no row as 'test'"),
        (lambda a: a.X.__setitem__(slice(None), np.nan), ValueError, "adata.X holds NaN or inf in 150 of 150 genes"),
        (lambda a: a.obs.drop(columns="source", inplace=True), KeyError, "no column 'source'; it has 'cohort'"),
        (lambda a: gx.tl.fit(a, "ridge", key_added="landmarks", progress=False), ValueError, None),
    ],
)
def test_bad_input(halves, break_it, error, match):
    break_it(halves)
    if match is None:
        gx.tl.predict(halves, progress=False)
        match = "A model named 'landmarks' could not be told from measured values"
    with pytest.raises(error, match=match):
        gx.tl.downstream(halves, "source")
    assert "gexinfer_downstream" not in halves.uns


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"control": "healthy"}, ValueError, r"No test sample has control='healthy' in adata.obs\['source'\]; .*GEO"),
        ({"within": "tissue"}, ValueError, r"within='tissue' needs control=, the group of adata.obs\['source'\]"),
        ({"control": "GEO", "within": "study"}, KeyError, "no column 'study'"),
        ({"min_samples": 1}, ValueError, "min_samples=1 must be at least 2"),
        ({"key": "kernel"}, KeyError, "no gexinfer model 'kernel'; it holds 'mean', 'ridge'"),
    ],
)
def test_bad_arguments(halves, arguments, error, match):
    with pytest.raises(error, match=match):
        gx.tl.downstream(halves, "source", **arguments)


def test_models_of_different_genes_do_not_compare(halves):
    few = halves.var_names[~halves.var["landmark"]][:40].tolist()
    gx.tl.fit(halves, "ridge", targets=few, key_added="few", progress=False)
    gx.tl.predict(halves, key="few", progress=False)
    with pytest.raises(ValueError, match="'mean' and 'few' have different .* e.g. key='mean'"):
        gx.tl.downstream(halves, "source")
    assert len(gx.tl.downstream(halves, "source", key="few"))
