"""The answers to frequent questions run, and do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import gexinfer as gx

DOCS = Path(__file__).parents[1] / "docs"


def code(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the blocks of the page leave behind; they run once, in their order."""
    names: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("faq"))
        exec(code("api.md")[0], names)
        for block in code("faq.md"):
            exec(block, names)
        names["written"] = ad.read_zarr("full.zarr")
    return names


def test_ids_and_panels(names):
    ref, part = names["ref"], names["part"]
    assert set(names["query"].var_names) == set(ref.var_names[ref.var["landmark"]])
    np.testing.assert_allclose(part.obs["gexinfer_missing"], 10 / 94, rtol=1e-6)
    assert (part.var["gexinfer_role"] == "inferred").sum() == 204 + 10
    assert gx.io.read_model(ref, key="few").targets == ("A2M", "LDLR")
    with pytest.raises(ValueError, match="1 targets are landmarks too: 'STAT1'"):
        gx.tl.fit(ref, "ridge", targets=names["wanted"], progress=False)


def test_size(names):
    assert "from_disk" in names["backed"].uns
    assert names["some"].shape == (3, 2)
    assert hasattr(names["lazy"].X, "compute")
    assert names["written"].var_names.tolist() == ["A2M", "LDLR"]


def test_values(names):
    ref, full = names["ref"], names["full"]
    assert gx.io.read_model(ref, key="ridge").input["layer"] == "X"
    model = gx.io.read_model(ref, key="ridge")
    well = np.asarray(model.targets)[model.known["recall"] <= 0.05]
    assert set(names["trusted"].var_names) == {*model.landmarks, *well}
    assert 0 < len(well) < len(model.targets)
    assert set(names["named"].var_names) == {"LDLR", "A2M"}
    measured = names["measured"]
    np.testing.assert_array_equal(measured.layers["ridge"], names["query"][:, measured.var_names].X)
    assert full.var["gexinfer_role"].value_counts().to_dict() == {"inferred": 204, "landmark": 94, "not in model": 0}
    assert np.isnan(ref[:, "CDH17"].layers["few"]).all()
    assert not np.isnan(ref[:, ref.var["landmark"]].layers["few"]).any()


def test_what_is_refused_is_refused_as_the_page_says(names, tmp_path):
    broken = names["ref"].copy()
    broken.X[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or inf in 1 of 298 genes.*'A2M'"):
        gx.tl.fit(broken, "dgex", progress=False)
    gx.io.write_gctx(names["query"], tmp_path / "whole.gctx")
    whole = (tmp_path / "whole.gctx").read_bytes()
    (tmp_path / "cut.gctx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"announces {len(whole):,} bytes, so it is truncated"):
        gx.io.read_gctx(tmp_path / "cut.gctx")
    assert "dgex" in names["ref"].uns
