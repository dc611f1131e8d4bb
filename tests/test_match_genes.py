from __future__ import annotations

import logging
from importlib.resources import files

import anndata as ad
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer.engine import blocks
from gexinfer.pp._match_genes import genes
from gexinfer.pp._panels import bundled

TABLE = genes()
# Two probes of GAPDH, one of BIRC5, MYC by symbol, ADGRE5 by alias, a probe of two genes, and no gene.
MIXED = [
    "217398_x_at",
    "202095_s_at",
    "212581_x_at",
    "MYC",
    "CD97",
    "204006_s_at",
    "ENSG00000141510.18",
    "7124.0",
    "odd",
]


def made_of(names) -> ad.AnnData:
    X = np.arange(1, 2 * len(names) + 1, dtype=np.float32).reshape(2, -1) ** 2
    return ad.AnnData(X, var=pd.DataFrame({"place": np.arange(len(names))}, index=list(names)))


def test_names_of_all_kinds_may_be_mixed(caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    adata = made_of(MIXED)
    X = adata.X.copy()
    with pytest.warns(UserWarning, match=r"2 others dropped \(1 ambiguous\): '204006_s_at', 'odd'.*unmatched='keep'"):
        assert gx.pp.match_genes(adata) is None
    assert adata.var_names.tolist() == ["GAPDH", "BIRC5", "MYC", "ADGRE5", "TP53", "TNF"]
    np.testing.assert_array_equal(adata.X, np.column_stack([(X[:, 0] + X[:, 2]) / 2, X[:, [1, 3, 4, 6, 7]]]))
    assert adata.var["gexinfer_matched_from"].iloc[0] == "217398_x_at|212581_x_at"
    assert adata.var["place"].tolist() == [0, 1, 3, 4, 6, 7]

    kept = gx.pp.match_genes(made_of(MIXED), "entrez", unmatched="keep", copy=True)
    assert kept.var_names.tolist() == ["2597", "332", "4609", "976", "204006_s_at", "7157", "7124", "odd"]
    assert "7 of 9 names in var_names found (3 by probe, 1 by symbol, 1 by alias" in caplog.text
    assert "which are 6 genes; 2 others kept (1 ambiguous)" in caplog.text


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_array, lambda X: da.from_array(X, chunks=(50, 40))])
@pytest.mark.parametrize("aggregate", ["mean", "sum"])
def test_columns_of_one_gene_as_by_a_loop(small, form, aggregate, monkeypatch):
    monkeypatch.setattr(blocks.row_slices, "__defaults__", (100,))
    table = TABLE[TABLE["symbol"].isin(small.var_names)].set_index("symbol")
    own = small.var_names[small.var_names.isin(table.index)]
    twice = own[::3]
    names = [*own, *table.loc[twice, "ensembl"].str.split("|").str[0], "odd"]
    X = np.column_stack([small[:, own].X, small[:, twice].X ** 2, small.X[:, 0]])
    X[5, 0] = np.nan
    adata = ad.AnnData(form(X), var=pd.DataFrame(index=names), layers={"again": form(X)})
    gx.pp.match_genes(adata, aggregate=aggregate)
    columns = [[i, *np.flatnonzero(twice == gene) + len(own)] for i, gene in enumerate(own)]
    expected = np.column_stack([getattr(X[:, of_one].astype(float), aggregate)(axis=1) for of_one in columns])
    assert adata.var_names.tolist() == own.tolist()
    for found in (adata.X, adata.layers["again"]):
        if form in (sp.csr_matrix, sp.csc_array):
            assert sp.issparse(found)
            found = found.toarray()
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("to", ["symbol", "ensembl", "entrez"])
@pytest.mark.parametrize("change", ["symbol", "ensembl", "entrez"])
def test_bulk_data_by_each_kind_of_id(bulk_once, change, to):
    """`datasets.bulk` names each gene in three ways, which lead to the same gene."""
    var = bulk_once.var[~bulk_once.var["ensembl"].duplicated(keep=False)]
    adata = made_of(var[change].tolist())
    gx.pp.match_genes(adata, to)
    expected = var[to].iloc[adata.var["place"]].to_numpy()
    assert adata.n_vars > 0.98 * len(var)
    # The rest are newer symbols, and Ensembl ids of alternative contigs.
    assert (adata.var_names == expected).mean() > 0.98


def test_landmarks_are_found_afterwards_whatever_the_names_were(caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    panel = bundled()
    probes = TABLE.set_index("entrez")["probes"].str.split("|").explode()
    probe = probes[~probes.duplicated(keep=False)].groupby(level=0).last()[panel["entrez"]]
    for names in (panel["symbol"], panel["ensembl"].str.split("|").str[-1], panel["entrez"], probe):
        for to in ("symbol", "ensembl", "entrez"):
            caplog.clear()
            adata = made_of(names)
            gx.pp.match_genes(adata, to)
            gx.pp.landmarks(adata)  # a missing one would be warned of
            assert "landmarks: 978 of 978" in caplog.text


def test_an_alias_yields_to_the_own_symbol():
    """GPR56 is ADGRG1; where both are there, the annotation means two things by them."""
    adata = made_of(["GPR56", "TP53", "ADGRG1", *TABLE["symbol"][100:130]])
    gx.pp.match_genes(adata)
    assert adata.var_names[:2].tolist() == ["TP53", "ADGRG1"]
    assert adata.var["place"].iloc[1] == 2
    alone = gx.pp.match_genes(made_of(["GPR56", "TP53"]), copy=True)
    assert alone.var_names.tolist() == ["ADGRG1", "TP53"]


def test_genes_without_the_id_that_is_wanted_are_counted():
    no_entrez = TABLE.loc[TABLE["entrez"] == "", "symbol"].iloc[0]
    with pytest.warns(UserWarning, match=f"1 others dropped \\(1 without a known entrez\\): '{no_entrez}'"):
        adata = gx.pp.match_genes(made_of(["TP53", no_entrez, "MYC"]), "entrez", copy=True)
    assert adata.var_names.tolist() == ["7157", "4609"]


def test_the_table_is_small_and_says_one_thing_of_each_id():
    assert (files("gexinfer.pp") / "genes.tsv.gz").stat().st_size < 2e6
    assert len(TABLE) == 40_133
    for column in ("symbol", "entrez", "ensembl"):
        ids = TABLE[column].str.split("|").explode()
        assert ids[ids != ""].is_unique, column
    aliases = TABLE["aliases"].str.split("|").explode()
    assert aliases[aliases != ""].is_unique
    assert not aliases[aliases != ""].isin(TABLE["symbol"]).any()
    probes = TABLE["probes"].str.split("|").explode()
    probes = probes[probes != ""]
    assert probes[probes.duplicated()].nunique() == 440
    assert probes.nunique() == 20_778


def test_slots_follow_and_a_part_leaves_its_parent_alone(small, tmp_path):
    """Columns 5 and 30 are one gene, so are 7, 8 and 21, and 12 and 33 are none."""
    small = small[:, :40].copy()
    names = small.var["ensembl"].tolist()
    names[30], (names[8], names[21]) = small.var["symbol"].iloc[5], [f"{names[7]}.{i}" for i in (1, 2)]
    names[12], names[33] = "odd", "strange"
    small.var_names = names
    groups = {i: [i] for i in range(40) if i not in (8, 12, 21, 30, 33)} | {5: [5, 30], 7: [7, 8, 21]}
    firsts = list(groups)
    rng = np.random.default_rng(0)
    small.layers["counts"] = rng.poisson(5, small.shape)
    small.varm["loading"], small.varp["pair"] = rng.random((40, 3)), rng.random((40, 40))
    small.obsm["pca"], small.obsp["near"] = rng.random((small.n_obs, 2)), sp.csr_matrix(np.eye(small.n_obs))
    before = small.copy()
    part = small[:10]
    gx.pp.match_genes(part, "ensembl", aggregate="sum")
    assert part.var_names.tolist() == before.var["ensembl"].iloc[firsts].tolist()
    for found, of_all in ((part.X, before.X), (part.layers["counts"], before.layers["counts"])):
        expected = [[sum(row[column] for column in groups[first]) for first in firsts] for row in of_all[:10]]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(part.varm["loading"], before.varm["loading"][firsts])
    np.testing.assert_array_equal(part.varp["pair"], before.varp["pair"][np.ix_(firsts, firsts)])
    np.testing.assert_array_equal(part.obsm["pca"], before.obsm["pca"][:10])
    assert part.obsp["near"].shape == (10, 10)
    assert part.var["symbol"].tolist() == before.var["symbol"].iloc[firsts].tolist()
    assert small.var_names.equals(before.var_names)
    assert small.shape == before.shape
    part.write_h5ad(tmp_path / "part.h5ad")


@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(7)))
@pytest.mark.filterwarnings("ignore:match_genes")
def test_a_gene_is_flagged_if_any_of_its_columns_is(order):
    """Whatever the order of the columns: GAPDH by three names, one flagged, MYC by two, none flagged, TP53, and none."""
    names = np.array(["217398_x_at", "GAPDH", "2597", "MYC", "4609", "TP53", "odd"])
    var = pd.DataFrame({"landmark": names == "2597", "bing": np.isin(names, ["GAPDH", "TP53", "odd"])}, index=names)
    var["known"] = pd.array([None, False, None, None, None, True, True], "boolean")
    adata = ad.AnnData(np.ones((2, 7), np.float32), var=var.iloc[order])
    gx.pp.match_genes(adata)
    assert adata.var["landmark"].to_dict() == {"GAPDH": True, "MYC": False, "TP53": False}
    assert adata.var["bing"].to_dict() == {"GAPDH": True, "MYC": False, "TP53": True}
    assert adata.var["landmark"].dtype == bool
    assert adata.var["known"].astype(str).to_dict() == {"GAPDH": "False", "MYC": "<NA>", "TP53": "True"}


FORMS = [np.asarray, sp.csr_matrix, sp.csc_array, lambda X: da.from_array(X, chunks=(1, 2))]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_sums_of_integers_do_not_wrap_around(form, dtype):
    largest = 1 if dtype is bool else np.iinfo(dtype).max // (2 if np.dtype(dtype).itemsize == 8 else 1)
    X = np.array([[largest, largest, 1], [largest, 0, 0]]).astype(dtype)
    adata = ad.AnnData(form(X), var=pd.DataFrame(index=["TP53", "7157", "MYC"]))
    gx.pp.match_genes(adata, aggregate="sum")
    found = adata.X.toarray() if sp.issparse(adata.X) else adata.X
    assert [[int(value) for value in row] for row in found] == [[2 * int(largest), 1], [int(largest), 0]]
    assert found.dtype == (np.uint64 if dtype is np.uint64 else np.int64)


@pytest.mark.parametrize("aggregate", ["mean", "sum"])
def test_half_floats_become_whole_ones(aggregate):
    adata = ad.AnnData(np.array([[60_000, 60_000, 1]], np.float16), var=pd.DataFrame(index=["TP53", "7157", "MYC"]))
    expected = getattr(adata.X[:, :2].astype(float), aggregate)()
    gx.pp.match_genes(adata, aggregate=aggregate)
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, [[expected, 1]])


@pytest.mark.parametrize("form", FORMS[:3])
def test_no_samples(form):
    adata = ad.AnnData(form(np.zeros((0, 3), np.float32)), var=pd.DataFrame(index=["TP53", "7157", "MYC"]))
    gx.pp.match_genes(adata)
    assert adata.shape == adata.X.shape == (0, 2)


@pytest.mark.parametrize(
    ("names", "ids", "twice"),
    [(["TP53", "g1", "g2"], ["odd", "7157", "4609"], "'TP53'"), (["XYZ1", "XYZ1", "EGFR"], None, "'XYZ1'")],
)
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_no_two_columns_get_one_name(names, ids, twice):
    adata = ad.AnnData(np.ones((2, 3), np.float32), var=pd.DataFrame({"id": ids or names}, index=names))
    with pytest.raises(ValueError, match=f"would call several columns {twice}: .*Rename .*unmatched='drop'"):
        gx.pp.match_genes(adata, id_column="id", unmatched="keep")
    assert adata.var_names.tolist() == names
    with pytest.warns(UserWarning, match="dropped"):
        gx.pp.match_genes(adata, id_column="id")
    assert adata.var_names.is_unique


def test_row_numbers_out_of_order_are_refused_and_entrez_ids_are_not():
    rng = np.random.default_rng(0)
    rows = rng.choice(22_268, 500, replace=False).astype(str)
    with pytest.raises(ValueError, match=r"numbers only, of which \d+ of 500 are Entrez ids.*Row numbers.*id_column="):
        gx.pp.match_genes(made_of(rows))
    ids = [
        *rng.choice(TABLE.loc[TABLE["entrez"] != "", "entrez"], 300, replace=False),
        *map(str, range(10**9, 10**9 + 200)),
    ]
    with pytest.warns(UserWarning, match="300 of 500 names in var_names found"):
        gx.pp.match_genes(made_of(ids))


@pytest.mark.parametrize(
    ("change", "options", "error", "match"),
    [
        (None, {"to": "gene"}, ValueError, "to='gene' must be one of 'symbol', 'ensembl', 'entrez'"),
        (None, {"aggregate": "max"}, ValueError, "aggregate='max' must be one of 'mean', 'sum'"),
        (None, {"unmatched": "raise"}, ValueError, "unmatched='raise' must be one of 'drop', 'keep'"),
        (None, {"id_column": "gene"}, KeyError, "no column 'gene'; it has 'symbol'"),
        (lambda i: f"Gene{i}", {}, ValueError, "0 of the 150 names in var_names match a human gene .*'Gene0'"),
        (str, {}, ValueError, "row numbers 0 to 149, not gene ids"),
    ],
)
def test_bad_input_changes_nothing(small, change, options, error, match):
    if change:
        small.var_names = [change(i) for i in range(small.n_vars)]
    before = small.copy()
    with pytest.raises(error, match=match):
        gx.pp.match_genes(small, **options)
    assert small.var.equals(before.var)
    np.testing.assert_array_equal(small.X, before.X)
