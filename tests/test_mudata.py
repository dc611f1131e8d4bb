"""A MuData with a panel and with whole transcriptomes, of different samples."""

from __future__ import annotations

from contextlib import nullcontext

import anndata as ad
import mudata
import numpy as np
import pytest
from mudata import MuData

import gexinfer as gx

# Both modalities measure the landmarks, of which mudata warns.
pytestmark = pytest.mark.filterwarnings(
    "ignore:var_names are not unique:UserWarning",
    "ignore:Cannot join columns:UserWarning",
    "ignore:From 0.4:FutureWarning",
)


@pytest.fixture
def both(small):
    test = (small.obs["split"] == "test").to_numpy()
    mask = small.var["landmark"]
    panel = ad.AnnData(small.X[test][:, mask].copy(), small.obs[test][["tissue"]], small.var[mask][[]])
    # From 0.4 that is how it is.
    with mudata.set_options(pull_on_update=False) if hasattr(mudata, "set_options") else nullcontext():
        return MuData({"full": small[~test].copy(), "panel": panel})


def test_modalities_with_different_samples(both, small):
    expected = small.copy()
    gx.tl.fit(expected, "ridge", progress=False)
    test = (small.obs["split"] == "test").to_numpy()
    wanted = gx.tl.predict(both["panel"], model=expected, output="anndata", progress=False)
    assert gx.tl.fit(both, "ridge", modality="full", progress=False) is None
    assert both["full"].uns["ridge"]["params"]["n_train"] == (small.obs["split"] == "train").sum()
    made = gx.tl.predict(both, modality="panel", output="anndata", progress=False)
    np.testing.assert_array_equal(made.X, wanted.X)
    assert made.n_obs == test.sum()
    three = gx.tl.predict(both, modality="panel", output="mudata", progress=False)
    assert list(three.mod) == ["full", "panel", "inferred"]
    np.testing.assert_array_equal(three["inferred"].X, wanted[:, three["inferred"].var_names].X)
    assert three.n_obs == small.n_obs
    np.testing.assert_array_equal(
        gx.tl.predict(both["panel"], model=both, output="anndata", progress=False).X, wanted.X
    )


def test_a_layer_of_a_modality_and_a_copy(both):
    fitted = gx.tl.fit(both, "ridge", modality="full", copy=True, progress=False)
    assert isinstance(fitted, MuData)
    assert "ridge" not in both["full"].uns
    gx.tl.predict(fitted, modality="full", progress=False)
    assert fitted["full"].layers["ridge"].shape == fitted["full"].shape
    del fitted["full"].layers["ridge"]
    copied = gx.tl.predict(fitted, modality="full", copy=True, progress=False)
    assert "ridge" in copied["full"].layers
    assert "ridge" not in fitted["full"].layers


def test_wrong_modalities_are_named(both, small):
    with pytest.raises(KeyError, match=r"adata is a MuData; name one of its modalities, 'full', 'panel'"):
        gx.tl.fit(both, "ridge", progress=False)
    with pytest.raises(KeyError, match=r"modality='rna' is not one"):
        gx.tl.predict(both, modality="rna", progress=False)
    with pytest.raises(KeyError, match=r"None of the modalities 'full', 'panel' holds models"):
        gx.tl.predict(both, modality="panel", progress=False)
    with pytest.raises(TypeError, match=r"modality='full' is for a MuData, and adata is an AnnData"):
        gx.tl.fit(small, "ridge", modality="full", progress=False)


def test_models_are_found_by_key_in_any_modality(both):
    gx.tl.fit(both, "ridge", modality="full", progress=False)
    gx.tl.fit(both, "knn", modality="full", progress=False)
    both["panel"].uns["mine"] = both["full"].uns["ridge"]
    made = gx.tl.predict(both, modality="panel", key="knn", output="anndata", progress=False)
    assert "knn" in made.layers
    both["panel"].uns["knn"] = both["full"].uns["knn"]
    with pytest.raises(KeyError, match=r"'full', 'panel' hold key='knn'; name the one .* model=mdata\['full'\]"):
        gx.tl.predict(both["panel"], model=both, key="knn", output="anndata", progress=False)


def test_everything_else_of_a_mudata_stays_and_what_was_filled_in_is_kept(both):
    both.uns["origin"] = "here"
    gx.tl.fit(both, "ridge", modality="full", progress=False)
    lacking = both["panel"][:, 2:].copy()
    gone = list(both["panel"].var_names[:2])
    both.mod["panel"] = lacking
    both.update()
    three = gx.tl.predict(both, modality="panel", output="mudata", progress=False)
    assert three.uns["origin"] == "here"
    assert set(gone) <= set(three["inferred"].var_names)
    assert np.isfinite(three["inferred"].X).all()


def test_a_result_is_written(both, tmp_path):
    gx.tl.fit(both, "ridge", modality="full", progress=False)
    three = gx.tl.predict(both, modality="panel", output="mudata", progress=False)
    three.write_h5mu(tmp_path / "a.h5mu")
    again = mudata.read_h5mu(tmp_path / "a.h5mu")
    np.testing.assert_array_equal(again["inferred"].X, three["inferred"].X)


def test_landmarks_that_are_there_with_a_version_are_not_among_the_inferred(small):
    small.var_names = [f"ENSG{i:011}" for i in range(small.n_vars)]
    gx.tl.fit(small, "ridge", progress=False)
    query = small[:5, small.var["landmark"]].copy()
    query.uns.clear()
    query.var_names = query.var_names + ".7"
    made = gx.tl.predict(query, model=small, output="mudata", progress=False)
    assert made["inferred"].n_vars == (~small.var["landmark"]).sum()
