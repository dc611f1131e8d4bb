"""One contract for every method of the registry, over every kind of array."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp
from conftest import quick
from hypothesis import given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods import METHODS, get_method

FORMS = {
    "float64": lambda X: np.asarray(X, np.float64),
    "F order": np.asfortranarray,
    "csr_matrix": sp.csr_matrix,
    "csc_matrix": sp.csc_matrix,
    "csr_array": sp.csr_array,
    "csc_array": sp.csc_array,
    "csr float64": lambda X: sp.csr_matrix(np.asarray(X, np.float64)),
}


def inferred(adata, key):
    return adata.layers[key][:, ~adata.var["landmark"].to_numpy()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_every_kind_of_array_gives_the_same(small, fitted_once, method, form):
    small.X = FORMS[form](small.X)
    gx.tl.fit(small, method, progress=False, **quick(method))
    gx.tl.predict(small, progress=False)
    np.testing.assert_allclose(inferred(small, method), inferred(fitted_once, method), atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_layer_and_X_give_the_same(small, fitted_once, method):
    small.layers["log"] = small.X
    small.X = np.full(small.shape, -1, np.float32)
    gx.tl.fit(small, method, layer="log", progress=False, **quick(method))
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(inferred(small, method), inferred(fitted_once, method))
    assert small.uns[method]["params"]["layer"] == "log"


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_target_is_its_mean_and_a_constant_landmark_says_nothing(small, method):
    constant_target = np.flatnonzero(~small.var["landmark"])[4]
    constant_landmark = np.flatnonzero(small.var["landmark"])[4]
    small.X[:, [constant_target, constant_landmark]] = 2.5
    with pytest.warns(UserWarning, match="2 genes are constant in the 168 training rows"):
        gx.tl.fit(small, method, progress=False, **quick(method))
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(small.layers[method][:, constant_target], np.float32(2.5))
    before = inferred(small, method).copy()
    small.X[:, constant_landmark] = 7
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(inferred(small, method), before)


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_record(small, method):
    states = []
    for _ in range(2):
        gx.tl.fit(small, method, rng=1, progress=False, **quick(method))
        states.append(small.uns[method]["state"])
    np.testing.assert_array_equal(*states)


@pytest.mark.parametrize("method", METHODS)
def test_params_are_plain_scalars_and_arrays_are_finite(fitted, method):
    assert all(isinstance(v, bool | int | float | str) for v in fitted.uns[method]["params"].values())
    model = records(fitted, method)[method].model
    assert all(np.isfinite(a).all() for a in model.arrays.values())
    assert fitted.uns[method]["params"]["method"] == method == get_method(method).name


@pytest.mark.parametrize("method", METHODS)
def test_no_test_row_is_looked_at(small, fitted_once, method):
    small.X[(small.obs["split"] == "test").to_numpy()] = np.nan
    gx.tl.fit(small, method, progress=False, **quick(method))
    np.testing.assert_array_equal(small.uns[method]["state"], fitted_once.uns[method]["state"])


# One sample alone may be unlike the others.
@pytest.mark.filterwarnings("ignore:.*looks like another platform:UserWarning")
@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_sample_s_result_does_not_depend_on_its_neighbours(fitted_once, method, data):
    rows = data.draw(st.lists(st.integers(0, fitted_once.n_obs - 1), min_size=1, max_size=300))
    landmark = fitted_once.var["landmark"].to_numpy()
    query = ad.AnnData(fitted_once.X[rows][:, landmark], var=fitted_once.var[landmark])
    full = gx.tl.predict(query, model=fitted_once, key=method, output="anndata", progress=False)
    np.testing.assert_array_equal(full[:, fitted_once.var_names].X, fitted_once.layers[method][rows])


@pytest.mark.parametrize(
    ("method", "options", "match"),
    [
        ("dgex", {"hidden": 10.5}, "hidden=10.5 must be a whole number"),
        ("dgex", {"hidden": True}, "hidden=True must be a whole number"),
        ("dgex", {"dropout": "a"}, "dropout='a' must be a number"),
        ("dgex", {"layer_norm": "no"}, "layer_norm='no' must be True or False"),
        ("knn", {"k": 2.5}, "k=2.5 must be a whole number"),
        ("ridge", {"penalty": "x"}, "penalty='x' must be a number"),
    ],
)
def test_an_option_of_the_wrong_type_says_which_is_right(small, method, options, match):
    with pytest.raises(TypeError, match=match):
        gx.tl.fit(small, method, progress=False, **options)


def test_numpy_scalars_are_numbers(small):
    gx.tl.fit(small, "ridge", penalty=np.float32(2), progress=False)
    gx.tl.fit(small, "knn", k=np.int64(3), progress=False)
    assert (small.uns["ridge"]["params"]["penalty"], small.uns["knn"]["params"]["k"]) == (2, 3)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_option_names_those_there_are(small, method):
    with pytest.raises(TypeError, match=f"alpha=1 is not an option of method='{method}'; it takes "):
        gx.tl.fit(small, method, alpha=1, progress=False)
