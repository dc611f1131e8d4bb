"""A model survives everything that AnnData does to it, and a damaged one is recognised."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings

import anndata as ad
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer._record import digest, from_bytes, from_uns, stored_length, to_bytes, to_uns
from gexinfer.methods import METHODS


def again(fitted, model, **options):
    """Return predictions for all samples of `fitted` by the models in `model`."""
    query = fitted[:, fitted.var["landmark"].to_numpy()].copy()
    query.uns = {}
    full = gx.tl.predict(query, model=model, output="anndata", progress=False, **options)
    return full[:, fitted.var_names]


def assert_same(fitted, model):
    found = again(fitted, model)
    for method in (method for method in METHODS if method in fitted.uns):
        np.testing.assert_array_equal(found.layers[method], fitted.layers[method])


def test_h5ad(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "a.h5ad")
    assert_same(fitted, ad.read_h5ad(tmp_path / "a.h5ad"))
    assert_same(fitted, ad.read_h5ad(tmp_path / "a.h5ad", backed="r"))


def test_zarr(fitted, tmp_path):
    fitted.write_zarr(tmp_path / "a.zarr")
    assert_same(fitted, ad.read_zarr(tmp_path / "a.zarr"))


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_read_lazy(fitted, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for name in set(METHODS) - {"dgex", "sample_lasso", "ridge"}:
        del fitted.uns[name]
    getattr(fitted, f"write_{suffix}")(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata: reading lazily is experimental
        lazy = ad.experimental.read_lazy(path)
    assert_same(fitted, lazy)
    found = gx.tl.predict(lazy, key=["dgex", "sample_lasso"], output="anndata", progress=False)
    np.testing.assert_array_equal(found[:, fitted.var_names].layers["dgex"], fitted.layers["dgex"])


def test_copy_and_subset_of_samples(fitted):
    assert_same(fitted, fitted.copy())
    assert_same(fitted, fitted[3:5])
    part = fitted[10:20].copy()
    gx.tl.predict(part, progress=False)
    np.testing.assert_array_equal(part.layers["dgex"], fitted[10:20].layers["dgex"])


def test_concat(fitted):
    halves = [fitted[:100].copy(), fitted[100:].copy()]
    assert_same(fitted, ad.concat(halves, uns_merge="same"))
    with pytest.raises(KeyError, match="concat drops uns: pass it uns_merge='same'"):
        gx.tl.predict(ad.concat(halves), progress=False)


def test_different_models_are_never_mixed(fitted):
    other = fitted[:100].copy()
    gx.tl.fit(other, "ridge", penalty=1.0, progress=False)
    joined = ad.concat([fitted, other], uns_merge="first", index_unique="-")
    assert_same(fitted, joined)


def test_another_process_reads_it_and_writes_the_same_bytes(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "a.h5ad")
    script = (
        "import sys, anndata as ad, gexinfer as gx\n"
        "a = ad.read_h5ad(sys.argv[1]); gx.tl.predict(a, progress=False)\n"
        "gx.tl.fit(a, 'ridge', key_added='again', progress=False); a.write_h5ad(sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "a.h5ad", tmp_path / "b.h5ad"], check=True)
    other = ad.read_h5ad(tmp_path / "b.h5ad")
    for method in METHODS:
        np.testing.assert_array_equal(other.layers[method], fitted.layers[method])
    np.testing.assert_array_equal(other.uns["again"]["state"], fitted.uns["ridge"]["state"])


def test_shape_of_the_state(fitted):
    state = fitted.uns["ridge"]["state"]
    assert (state.dtype, state.shape[1]) == (np.uint8, 2**20)
    length = stored_length(state.reshape(-1))
    assert not state.reshape(-1)[length:].any()
    # A plain safetensors reader reads it, without this package.
    arrays = safetensors.numpy.load(state.tobytes()[:length])
    assert arrays["model.coefficients"].shape == (60, 90)


def test_file_round_trip(fitted, tmp_path):
    gx.io.write_model(fitted, tmp_path / "ridge.safetensors", key="ridge")
    model = gx.io.read_model(tmp_path / "ridge.safetensors")
    state = fitted.uns["ridge"]["state"].tobytes()
    assert (tmp_path / "ridge.safetensors").read_bytes() == state[: stored_length(np.frombuffer(state, np.uint8))]
    np.testing.assert_array_equal(again(fitted, model).layers["ridge"], fitted.layers["ridge"])
    assert list(tmp_path.iterdir()) == [tmp_path / "ridge.safetensors"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_one_model_out_of_a_file(fitted, tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    model = gx.io.read_model(path, key="ridge")
    np.testing.assert_array_equal(again(fitted, model).layers["ridge"], fitted.layers["ridge"])
    with pytest.raises(ValueError, match=f"holds {len(METHODS)} models, .*; name one with key="):
        gx.io.read_model(path)


def test_sharing_training_samples_needs_a_yes(fitted, tmp_path):
    path = tmp_path / "knn.safetensors"
    with pytest.raises(ValueError, match="holds its 168 training samples.*include_samples=True"):
        gx.io.write_model(fitted, path, key="knn")
    assert not path.exists()
    gx.io.write_model(fitted, path, key="knn", include_samples=True)
    assert gx.io.read_model(path).holds_samples


def test_model_predicts_from_an_array(fitted):
    model = gx.io.read_model(fitted, key="ridge")
    X = fitted[:, list(model.landmarks)].X
    np.testing.assert_array_equal(model.predict(X), fitted[:, list(model.targets)].layers["ridge"])
    with pytest.raises(
        ValueError, match=r"X has shape \(240, 59\); this model needs an array of \(samples, 60 landmarks\)"
    ):
        model.predict(X[:, 1:])


def test_any_damage_to_the_header_is_noticed(fitted):
    whole = to_bytes(gx.io.read_model(fitted, key="mean"))
    for place in range(8 + int.from_bytes(whole[:8], "little")):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        with pytest.raises(ValueError, match="m is damaged|m was written by gexinfer"):
            from_bytes(bytes(damaged), "m")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_flipped_byte_is_noticed(fitted_once, data):
    state = fitted_once.uns["ridge"]["state"].copy()
    flat = state.reshape(-1)
    flat[data.draw(st.integers(0, stored_length(flat) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read = from_uns({"params": {}, "state": state}, "adata.uns['x']")
    except ValueError as error:
        assert re.search(r"adata.uns\['x'\] is damaged|written by gexinfer", str(error))
    else:
        # The last of 17 digits of a number: it is the same number.
        assert to_bytes(read) == to_bytes(from_uns(fitted_once.uns["ridge"], "adata.uns['x']"))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_truncation_is_noticed(fitted_once, data):
    state = fitted_once.uns["ridge"]["state"].tobytes()
    whole = state[: stored_length(np.frombuffer(state, np.uint8))]
    with pytest.raises(ValueError, match="m.safetensors is damaged or truncated"):
        from_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))], "m.safetensors")


def test_a_damaged_record_names_its_slot(fitted):
    entry = fitted.uns["ridge"]
    fitted.uns["ridge"] = {"params": entry["params"], "state": entry["state"][:, :1000].copy()}
    with pytest.raises(ValueError, match=r"adata.uns\['ridge'\] is damaged or truncated.*fit the model again"):
        gx.tl.predict(fitted, key="ridge", progress=False)


def test_a_newer_schema_says_what_to_do(fitted):
    data = to_bytes(gx.io.read_model(fitted, key="ridge"))
    head = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["gexinfer"])
    head["schema"], head["provenance"]["gexinfer"] = 99, "7.0"
    newer = safetensors.numpy.save(safetensors.numpy.load(data), {"gexinfer": json.dumps(head)})
    with pytest.raises(ValueError, match=r"gexinfer 7.0 in record schema 99; .* reads schema 3. Run pip install --up"):
        from_bytes(newer, "uns")
    head["schema"] = 1
    older = safetensors.numpy.save(safetensors.numpy.load(data), {"gexinfer": json.dumps(head)})
    with pytest.raises(
        ValueError, match=r"before its release, in record schema 1; .* reads schema 3. Fit the model again"
    ):
        from_bytes(older, "uns")


def test_a_record_with_an_option_of_the_future_says_what_to_do(fitted):
    data = to_bytes(gx.io.read_model(fitted, key="ridge"))
    head = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["gexinfer"])
    arrays = safetensors.numpy.load(data)
    head["config"]["per_pathway"] = True
    head["digest"] = digest(head, arrays)
    with pytest.raises(
        ValueError, match="uns was written by gexinfer .* per_pathway=True is not an option .*pip install --up"
    ):
        from_bytes(safetensors.numpy.save(arrays, {"gexinfer": json.dumps(head)}), "uns")


def test_a_truncated_file_is_named(fitted, tmp_path):
    fitted.write_h5ad(tmp_path / "a.h5ad")
    whole = (tmp_path / "a.h5ad").read_bytes()
    (tmp_path / "a.h5ad").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="a.h5ad' cannot be read as .h5ad: .*truncated"):
        gx.io.read_model(tmp_path / "a.h5ad")


def test_an_entry_that_only_looks_like_a_model_is_none(fitted):
    fitted.uns["other"] = {"params": {"method": "x"}, "state": "done"}
    gx.tl.predict(fitted, progress=False)
    with pytest.raises(ValueError, match=r"uns\['other'\] holds something that is no gexinfer model"):
        gx.tl.fit(fitted, "ridge", key_added="other", progress=False)


def test_only_the_state_is_trusted(fitted):
    entry = to_uns(gx.io.read_model(fitted, key="ridge"))
    entry["params"] = {"method": "dgex", "n_landmarks": -1}
    fitted.uns["ridge"] = entry
    np.testing.assert_array_equal(again(fitted, fitted, key="ridge").layers["ridge"], fitted.layers["ridge"])


@pytest.mark.parametrize(
    ("name", "match"), [("m.h5ad", "There is no file"), ("m.pt", "There is no file"), ("there.pt", "ends in '.pt'")]
)
def test_files_that_hold_no_model(tmp_path, name, match):
    (tmp_path / "there.pt").write_bytes(b"x")
    with pytest.raises((FileNotFoundError, ValueError), match=match):
        gx.io.read_model(tmp_path / name)
