from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import gexinfer as gx


def layers_of(adata):
    """Return the names of layers; newer AnnData lists X among them, as None."""
    return sorted(name for name in adata.layers if name is not None)


@pytest.fixture
def query(fitted_once):
    """Landmarks alone of 30 samples, without any slot of gexinfer's."""
    landmark = fitted_once.var["landmark"].to_numpy()
    return ad.AnnData(
        fitted_once.X[:30][:, landmark].copy(),
        obs=fitted_once.obs[["tissue"]][:30],
        var=fitted_once.var.loc[landmark, ["ensembl"]],
    )


def test_layer_holds_measured_landmarks_inferred_targets_and_nan(small):
    small.var["target"] = ~small.var["landmark"] & (np.arange(small.n_vars) % 2 == 0)
    gx.tl.fit(small, "ridge", targets="target", progress=False)
    measured = small.X.copy()
    gx.tl.predict(small, progress=False)
    layer, landmark, target = small.layers["ridge"], small.var["landmark"].to_numpy(), small.var["target"].to_numpy()
    assert (type(layer), layer.dtype, layer.shape) == (np.ndarray, np.float32, small.shape)
    np.testing.assert_array_equal(layer[:, landmark], measured[:, landmark])
    assert np.isfinite(layer[:, target]).all()
    assert np.isnan(layer[:, ~landmark & ~target]).all()
    np.testing.assert_array_equal(small.X, measured)
    expected = np.select([landmark, target], ["landmark", "inferred"], "not in model")
    np.testing.assert_array_equal(small.var["gexinfer_role"], expected)


def test_predictions_come_in_data_units(fitted):
    target = ~fitted.var["landmark"].to_numpy()
    error = np.abs(fitted.layers["ridge"] - fitted.X)[:, target].mean()
    spread = np.abs(fitted.X - fitted.X.mean(0))[:, target].mean()
    assert error < 0.7 * spread


def test_all_models_or_those_named(small, fitted):
    small.uns["ridge"], small.uns["mean"] = fitted.uns["ridge"], fitted.uns["mean"]
    gx.tl.predict(small, key="ridge", progress=False)
    assert layers_of(small) == ["ridge"]
    gx.tl.predict(small, key=["mean", "ridge"], progress=False)
    assert layers_of(small) == ["mean", "ridge"]
    with pytest.raises(KeyError, match="no gexinfer model 'rigde'; it holds 'ridge', 'mean'"):
        gx.tl.predict(small, key="rigde", progress=False)
    with pytest.raises(KeyError, match=r"no gexinfer model \[\]; it holds"):
        gx.tl.predict(small, key=[], progress=False)


def test_key_added_names_record_and_layer(small):
    gx.tl.fit(small, "ridge", key_added="weak", penalty=1.0, progress=False)
    gx.tl.fit(small, "ridge", key_added="strong", penalty=1e4, progress=False)
    gx.tl.predict(small, progress=False)
    assert layers_of(small) == ["strong", "weak"]
    assert (small.layers["weak"] != small.layers["strong"]).any()


def test_new_anndata_from_landmarks_alone(fitted, query):
    before = query.copy()
    full = gx.tl.predict(query, model=fitted, key=["ridge", "knn"], output="anndata", progress=False)
    assert full.shape == (30, 150)
    assert full.obs["tissue"].tolist() == query.obs["tissue"].tolist()
    np.testing.assert_array_equal(full[:, fitted.var_names].layers["knn"], fitted.layers["knn"][:30])
    np.testing.assert_array_equal(full.X, full.layers["ridge"])
    best = min(
        fitted.uns,
        key=lambda k: (
            fitted.uns[k].get("params", {}).get("validation_mae", 9) if isinstance(fitted.uns[k], dict) else 9
        ),
    )
    every = gx.tl.predict(query, model=fitted, output="anndata", progress=False)
    np.testing.assert_array_equal(every.X, every.layers[best])
    assert full.var["gexinfer_role"].value_counts().to_dict() == {"inferred": 90, "landmark": 60, "not in model": 0}
    full.X[:] = 0
    assert (full.layers["ridge"] != 0).any()
    assert (layers_of(query), dict(query.uns)) == ([], {})
    pd.testing.assert_frame_equal(query.var, before.var)


def test_mudata_of_measured_and_inferred(fitted, query, tmp_path):
    both = gx.tl.predict(query, model=fitted, key="ridge", output="mudata", progress=False)
    assert list(both.mod) == ["measured", "inferred"]
    np.testing.assert_array_equal(both["measured"].X, query.X)
    target = fitted.var_names[~fitted.var["landmark"]]
    np.testing.assert_array_equal(both["inferred"][:, target].X, fitted[:30, target].layers["ridge"])
    assert both.obs["tissue"].tolist() == query.obs["tissue"].tolist()
    assert list(both.obs) == ["tissue"]
    both.write_h5mu(tmp_path / "a.h5mu")


def test_a_layer_cannot_hold_what_var_lacks(fitted, query):
    with pytest.raises(ValueError, match=r"lacks 90 of the 90 targets of 'ridge'.*output='anndata' or output='mudata'"):
        gx.tl.predict(query, model=fitted, key="ridge", progress=False)
    assert "gexinfer_role" not in query.var


def test_genes_are_matched_by_name(fitted, query):
    expected = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    shuffled = query[:, ::-1].copy()
    extra = ad.AnnData(np.full((30, 2), 99, np.float32), obs=query.obs, var=pd.DataFrame(index=["EXTRA1", "EXTRA2"]))
    wide = ad.concat([extra, shuffled], axis=1, merge="first")
    for other in (shuffled, wide):
        found = gx.tl.predict(other, model=fitted, key="ridge", output="anndata", progress=False)
        np.testing.assert_array_equal(found.X, expected.X)


@pytest.mark.parametrize(("of_model", "of_query"), [("", ".3"), (".7", ""), (".7", ".3")])
def test_ensembl_ids_match_with_and_without_version(small, of_model, of_query):
    small.var_names = small.var["ensembl"].to_numpy()
    small = small[:, small.var["ensembl"].ne("") & ~small.var["ensembl"].duplicated()].copy()
    stems = small.var_names
    small.var_names = stems + of_model
    gx.tl.fit(small, "ridge", progress=False)
    gx.tl.predict(small, progress=False)
    query = ad.AnnData(small.X.copy(), var=pd.DataFrame(index=stems + of_query))
    gx.tl.predict(query, model=small, progress=False)
    np.testing.assert_array_equal(query.layers["ridge"], small.layers["ridge"])


def test_missing_landmarks_are_named(fitted, query):
    lacking = query[:, 31:].copy()
    with pytest.raises(
        ValueError, match=rf"lacks 31 of the 60 landmarks of 'ridge': '{query.var_names[0]}'.*starts with"
    ):
        gx.tl.predict(lacking, model=fitted, key="ridge", output="anndata", progress=False)


def test_the_layer_of_the_fit_is_read_unless_another_is_named(small):
    small.layers["log"] = small.X.copy()
    small.X = np.zeros_like(small.X)
    gx.tl.fit(small, "ridge", layer="log", progress=False)
    gx.tl.predict(small, progress=False)
    expected = small.layers["ridge"]
    query = ad.AnnData(small.layers["log"].copy(), var=small.var[[]])
    gx.tl.predict(query, model=small, progress=False)
    np.testing.assert_array_equal(query.layers["ridge"], expected)
    with pytest.raises(KeyError, match=r"adata.layers has no 'lg'; it has \['log'"):
        gx.tl.predict(small, layer="lg", progress=False)


@pytest.mark.parametrize("form", [np.asarray, sp.csr_matrix])
def test_counts_for_a_model_of_log_values_are_warned_of_with_both_quantiles(fitted, query, form):
    query.X = form(np.round(2**query.X * 30))
    with pytest.warns(
        UserWarning, match=r"(?s)fitted on values that are no counts, and the query holds counts.*5%.*fitted on .*query"
    ):
        gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda X: X * 10, "another scale"),
        (lambda X: X * np.log(2), "another scale"),
        (lambda X: X + 3, "another scale"),
        (lambda X: 2**X - 0.99, "another scale"),
        (lambda X: np.zeros_like(X), "counts|another scale"),
        (lambda X: (X - X.mean(0)) / (X.std(0) + 1e-3), "negative values"),
    ],
)
def test_another_scale_is_warned_of(fitted, query, change, match):
    query.X = change(query.X)
    with pytest.warns(UserWarning, match=match):
        gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)


def test_real_cohorts_are_on_one_scale(bulk_once):
    adata = bulk_once.copy()
    gx.pp.landmarks(adata)
    gx.pp.split(adata, groupby="cohort")
    gx.tl.fit(adata, "mean", progress=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for cohort in adata.obs["cohort"].cat.categories:
            gx.tl.predict(adata[adata.obs["cohort"] == cohort].copy(), progress=False)
    assert not [str(w.message) for w in caught if w.category is UserWarning]


def test_roles_of_several_models_in_turn(small):
    targets = small.var_names[~small.var["landmark"]]
    gx.tl.fit(small, "ridge", targets=targets[:5].tolist(), key_added="a", progress=False)
    gx.tl.fit(small, "ridge", targets=targets[5:9].tolist(), key_added="b", progress=False)
    for key in ("a", "b"):
        gx.tl.predict(small, key=key, progress=False)
    assert small.var_names[small.var["gexinfer_role"] == "inferred"].tolist() == targets[:9].tolist()


@pytest.mark.filterwarnings("ignore::anndata.ImplicitModificationWarning")
def test_a_view_becomes_an_object_of_its_own(fitted, small):
    view = small[:50]
    gx.pp.split(view)
    gx.tl.fit(view, "ridge", progress=False)
    gx.tl.predict(view, progress=False)
    assert layers_of(view) == ["ridge"]
    assert (layers_of(small), "ridge" in small.uns) == ([], False)


@pytest.mark.parametrize("dtype", [np.float16, np.int32, np.uint16])
def test_other_numbers(small, dtype):
    small.X = np.round(small.X * 4).astype(dtype)
    expected = small.copy()
    expected.X = expected.X.astype(np.float64)
    for adata in (small, expected):
        with pytest.warns(UserWarning, match="raw counts"):
            gx.tl.fit(adata, "ridge", progress=False)
        gx.tl.predict(adata, progress=False)
    np.testing.assert_allclose(small.layers["ridge"], expected.layers["ridge"], atol=1e-4)


def test_nullable_split_and_landmark_columns(small, fitted_once):
    small.obs["split"] = small.obs["split"].astype("string")
    dropped = np.flatnonzero(small.obs["split"] == "test")[0]
    small.obs.iloc[dropped, small.obs.columns.get_loc("split")] = pd.NA
    small.var["landmark"] = small.var["landmark"].astype("boolean")
    gx.tl.fit(small, "ridge", progress=False)
    expected, found = gx.io.read_model(fitted_once, key="ridge"), gx.io.read_model(small)
    np.testing.assert_array_equal(found.model.arrays["coefficients"], expected.model.arrays["coefficients"])


def test_backed_and_lazy_queries(fitted, query, tmp_path):
    query.write_h5ad(tmp_path / "q.h5ad")
    expected = gx.tl.predict(query, model=fitted, key="ridge", output="anndata", progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata: reading lazily is experimental
        lazy = ad.experimental.read_lazy(tmp_path / "q.h5ad")
    for other in (ad.read_h5ad(tmp_path / "q.h5ad", backed="r"), lazy):
        for output in ("anndata", "mudata"):
            made = gx.tl.predict(other, model=fitted, key="ridge", output=output, progress=False)
            found = made if output == "anndata" else made["inferred"]
            np.testing.assert_array_equal(found.X, expected[:, found.var_names].X)
            assert isinstance(made.obs, pd.DataFrame)
    with pytest.raises(TypeError, match="read lazily, its tables too. Load those.*adata.obs.to_memory"):
        gx.tl.fit(lazy, "ridge", progress=False)


def test_a_copy(fitted):
    del fitted.layers["ridge"]
    changed = gx.tl.predict(fitted, key="ridge", copy=True, progress=False)
    assert "ridge" in changed.layers
    assert "ridge" not in fitted.layers


def test_no_sample_and_one_sample(fitted, query):
    for n in (0, 1):
        full = gx.tl.predict(query[:n].copy(), model=fitted, output="anndata", progress=False)
        assert full.layers["dgex"].shape == (n, 150)


def test_memory_is_bounded_by_blocks(bulk_once):
    import tracemalloc

    adata = bulk_once[:400].copy()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    gx.tl.fit(adata, "ridge", progress=False)
    query = ad.AnnData(
        sp.csr_matrix(np.tile(adata[:, adata.var["landmark"]].X, (20, 1))), var=adata.var.loc[adata.var["landmark"], []]
    )
    model = gx.io.read_model(adata)
    result = query.n_obs * 2000 * 4
    tracemalloc.start()
    gx.tl.predict(query, model=model, output="mudata", progress=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The layer, X, and the copy of the sparse query; never the dense query, nor a second result.
    assert peak < 2 * result + 2.5 * query.X.data.nbytes
