from __future__ import annotations

import logging
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import gexinfer as gx
from gexinfer.pp._panels import bundled

PANEL = bundled()


def made_of(names, **columns) -> ad.AnnData:
    return ad.AnnData(np.zeros((2, len(names)), np.float32), var=pd.DataFrame(columns, index=pd.Index(names)))


def test_all_landmarks_of_real_data_are_found_and_said(bulk_once, caplog):
    caplog.set_level(logging.INFO, logger="gexinfer")
    adata = bulk_once.copy()
    assert gx.pp.landmarks(adata) is None
    assert adata.var["landmark"].dtype == bool
    assert adata.var["landmark"].sum() == 978
    assert "978 of 978 genes of l1000 found by symbol in var_names" in caplog.text


def test_dgex_panel_is_the_paper_s_943():
    adata = made_of(PANEL["symbol"])
    gx.pp.landmarks(adata, panel="dgex943")
    assert adata.var["landmark"].sum() == 943


@pytest.mark.parametrize(
    "change",
    [lambda v: v["ensembl"], lambda v: v["ensembl"] + ".17", lambda v: v["entrez"], lambda v: v["entrez"] + ".0"],
)
@pytest.mark.parametrize("id_column", [None, "id"])
def test_each_kind_of_id_is_recognised(bulk_once, change, id_column):
    var = bulk_once.var[
        ~bulk_once.var["ensembl"].duplicated(keep=False) & ~bulk_once.var["entrez"].duplicated(keep=False)
    ]
    expected = var["entrez"].isin(PANEL["entrez"]).to_numpy()
    ids = change(var).to_numpy()
    adata = made_of(ids) if id_column is None else made_of([f"g{i}" for i in range(len(ids))], id=ids)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gx.pp.landmarks(adata, id_column=id_column)
    assert expected.sum() > 970
    np.testing.assert_array_equal(adata.var["landmark"], expected)


def test_symbols_of_today_are_found_by_alias():
    # H2BC21 was HIST2H2BE, ADGRG1 was GPR56, CARMIL1 was LRRC16A when the panel was named.
    adata = made_of(["H2BC21", "ADGRG1", "CARMIL1", "TP53", "GENE1"])
    with pytest.warns(UserWarning, match="4 of 978"):
        gx.pp.landmarks(adata)
    assert adata.var["landmark"].tolist() == [True, True, True, True, False]


def test_own_symbol_wins_over_alias():
    adata = made_of(["ADGRG1", "GPR56", "TP53"])
    with pytest.warns(UserWarning, match="more than one gene.*GPR56"), pytest.warns(UserWarning, match="2 of 978"):
        gx.pp.landmarks(adata)
    assert adata.var["landmark"].tolist() == [False, True, True]


def test_missing_landmarks_are_counted_and_named():
    adata = made_of(PANEL["symbol"][3:])
    with pytest.warns(UserWarning, match="975 of 978 .* missing: 'PSME1', 'CISD1', 'SPDEF'"):
        gx.pp.landmarks(adata)


def test_lists_and_files(tmp_path):
    adata = made_of(["TP53", "MYC", "EGFR", "KRAS"])
    gx.pp.landmarks(adata, panel=["EGFR", "TP53"])
    assert adata.var_names[adata.var["landmark"]].tolist() == ["TP53", "EGFR"]

    (tmp_path / "bare.txt").write_text("MYC\nKRAS\n")
    gx.pp.landmarks(adata, panel=tmp_path / "bare.txt")
    assert adata.var_names[adata.var["landmark"]].tolist() == ["MYC", "KRAS"]

    (tmp_path / "table.csv").write_text("gene,weight\nMYC,1\nEGFR,2\n")
    gx.pp.landmarks(adata, panel=str(tmp_path / "table.csv"))
    assert adata.var_names[adata.var["landmark"]].tolist() == ["MYC", "EGFR"]


def test_a_list_of_ensembl_ids_finds_symbols_that_the_panel_table_knows():
    adata = made_of(["PSME1", "CISD1", "MYC"])
    gx.pp.landmarks(adata, panel=["ENSG00000092010", "ENSG00000122873.11"])
    assert adata.var["landmark"].tolist() == [True, True, False]


def test_almost_no_match_names_both_sides(small):
    small.var_names = [f"probe_{i}" for i in range(small.n_vars)]
    before = small.var.copy()
    with pytest.raises(ValueError, match=r"0 of the 978 .*'probe_0', 'probe_1'.*'PSME1', 'CISD1'.*id_column="):
        gx.pp.landmarks(small)
    pd.testing.assert_frame_equal(small.var, before)


@pytest.mark.parametrize("start", [0, 1])
def test_row_numbers_are_not_entrez_ids(start):
    with pytest.raises(ValueError, match=f"row numbers {start} to {start + 19_999}, not gene ids"):
        gx.pp.landmarks(made_of([str(i) for i in range(start, start + 20_000)]))


def test_a_handful_by_accident_is_no_match():
    names = [*PANEL["symbol"][:10], *(f"g{i}" for i in range(20_000))]
    with pytest.raises(ValueError, match="10 of the 978 landmarks"):
        gx.pp.landmarks(made_of(names))


def test_unknown_panel_and_column_say_what_there_is(small):
    with pytest.raises(ValueError, match="panel='l100' is neither 'l1000', 'dgex943' nor a file"):
        gx.pp.landmarks(small, panel="l100")
    with pytest.raises(KeyError, match="no column 'gene'; it has 'symbol', 'ensembl', 'entrez'"):
        gx.pp.landmarks(small, id_column="gene")


def test_a_mask_is_no_panel(small):
    with pytest.raises(TypeError, match=r"panel starts with \[.*False.*adata.var\['landmark'\] = mask"):
        gx.pp.landmarks(small, panel=~small.var["landmark"])


def test_copy_leaves_the_original(small):
    del small.var["landmark"]
    with pytest.warns(UserWarning, match="60 of 978"):
        changed = gx.pp.landmarks(small, copy=True)
    assert "landmark" not in small.var
    assert changed.var["landmark"].sum() == 60
