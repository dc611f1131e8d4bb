from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx


def distinct(n: int, **obs) -> ad.AnnData:
    return ad.AnnData(np.arange(n, dtype=np.float32)[:, None], obs=pd.DataFrame(obs, index=[f"s{i}" for i in range(n)]))


def test_fractions_by_sample():
    adata = distinct(1000)
    assert gx.pp.split(adata) is None
    assert adata.obs["split"].cat.categories.tolist() == ["train", "validation", "test"]
    assert adata.obs["split"].value_counts().to_dict() == {"train": 800, "validation": 100, "test": 100}
    assert adata.uns["gexinfer_split"]["by"] == "random"


def test_same_seed_same_split_and_no_global_seed():
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    a, b, c = distinct(100), distinct(100), distinct(100)
    gx.pp.split(a, rng=1)
    gx.pp.split(b, rng=np.random.default_rng(1))
    gx.pp.split(c, rng=2)
    assert (a.obs["split"] == b.obs["split"]).all()
    assert (a.obs["split"] != c.obs["split"]).any()
    np.testing.assert_array_equal(np.random.get_state()[1], state)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), min_size=3, max_size=30), seed=st.integers(0, 10))
def test_no_group_falls_on_two_sides_and_no_side_is_empty(sizes, seed):
    group = np.repeat([f"g{i}" for i in range(len(sizes))], sizes)
    adata = distinct(len(group), donor=group)
    gx.pp.split(adata, groupby="donor", rng=seed)
    assert (adata.obs.groupby("donor")["split"].nunique() == 1).all()
    assert set(adata.obs["split"]) == {"train", "validation", "test"}


def test_the_groups_of_each_side_are_told(bulk_once, capsys):
    split = gx.pp.split(bulk_once, groupby="cohort", copy=True).obs
    groups = split.groupby("split", observed=True)["cohort"].nunique()[["train", "validation", "test"]]
    assert f"samples, of {', '.join(map(str, groups))} in cohort, none divided" in capsys.readouterr().err


def test_group_split_is_near_the_fractions(bulk_once):
    adata = bulk_once.copy()
    gx.pp.split(adata, groupby="subject")
    shares = adata.obs["split"].value_counts(normalize=True)
    assert abs(shares["train"] - 0.8) < 0.02
    assert abs(shares["test"] - 0.1) < 0.02


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix, sp.csc_array])
def test_duplicates_on_two_sides_are_warned_of(form):
    adata = ad.AnnData(form(np.repeat(np.arange(1, 51, dtype=np.float32), 2)[:, None]), obs=distinct(100).obs)
    with pytest.warns(UserWarning, match="samples have an identical copy on another side"):
        gx.pp.split(adata)
    adata.obs["donor"] = np.repeat(np.arange(50), 2)
    gx.pp.split(adata, groupby="donor")  # a warning here would be an error: see pyproject.toml


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"fractions": (0.8, 0.1)}, ValueError, "must be three shares"),
        ({"fractions": (0.8, 0.1, 0.2)}, ValueError, "sum to 1"),
        ({"fractions": (1.2, -0.1, -0.1)}, ValueError, "sum to 1"),
        ({"groupby": "donr"}, KeyError, "no column 'donr'; it has 'donor', 'plate', 'missing'"),
        ({"groupby": "plate"}, ValueError, "2 groups in adata.obs\\['plate'\\] cannot fill 3 sides"),
        ({"groupby": "missing"}, ValueError, "is missing for 1 of 20 samples"),
    ],
)
def test_bad_input_changes_nothing(options, error, match):
    obs = {"donor": np.arange(20), "plate": np.arange(20) % 2, "missing": [np.nan, *range(19)]}
    adata = distinct(20, **obs)
    with pytest.raises(error, match=match):
        gx.pp.split(adata, **options)
    assert list(adata.obs) == list(obs)
    assert not adata.uns
