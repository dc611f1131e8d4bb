"""Kernel ridge regression against scikit-learn and the obvious formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import arrays_of, standardised
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from sklearn.kernel_ridge import KernelRidge

import gexinfer as gx
from gexinfer.methods import kernel as module
from gexinfer.methods._kernels import Form, Inner


def arccos(A, B, depth):
    """The kernel of Cho and Saul, layer by layer, one pair at a time."""
    values = np.empty((len(A), len(B)))
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            aa, bb, ab = a @ a / len(a), b @ b / len(a), a @ b / len(a)
            for _ in range(depth):
                t = np.arccos(np.clip(ab / np.sqrt(aa * bb), -1, 1))
                ab = np.sqrt(aa * bb) * (np.sin(t) + (np.pi - t) * np.cos(t)) / np.pi
            values[i, j] = ab
    return values


def distances(A, B):
    return np.sqrt(((A[:, None] - B[None]) ** 2).mean(-1))


def naive(A, B, X, form, bandwidth, depth, linear):
    unit = np.median(distances(X, X))
    values = {
        "arccos": lambda: arccos(A, B, depth),
        "rbf": lambda: np.exp(-(distances(A, B) ** 2) / (2 * (bandwidth * unit) ** 2)),
        "laplace": lambda: np.exp(-distances(A, B) / (bandwidth * unit)),
    }[form]()
    return values + linear * A @ B.T / A.shape[1]


def inferred(adata, layer="kernel"):
    rows, target = (adata.obs["split"] == "test").to_numpy(), ~adata.var["landmark"].to_numpy()
    mean, unit = arrays_of(adata, "train")[1].mean(0), arrays_of(adata, "train")[1].std(0) + 1e-3
    return (adata.layers[layer][rows][:, target] - (0 if layer.endswith("_std") else mean)) / unit


FORMS = [("arccos", None, 1), ("arccos", None, 3), ("rbf", 0.7, None), ("laplace", 2.0, None)]


@pytest.mark.parametrize(("form", "bandwidth", "depth"), FORMS)
@pytest.mark.parametrize("linear", [0.0, 0.3])
def test_predictions_are_scikit_learn_s_with_the_obvious_kernel(small, form, bandwidth, depth, linear):
    options = {"kernel": form, "linear": linear, "penalty": 0.05, "huber": 0.0}
    options |= {"depth": depth} if depth else {"bandwidth": bandwidth}
    gx.tl.fit(small, "kernel", progress=False, **options)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    K, K_test = (naive(A, X, X, form, bandwidth, depth, linear) for A in (X, X_test))
    expected = KernelRidge(alpha=0.05, kernel="precomputed").fit(K, Y).predict(K_test)
    np.testing.assert_allclose(inferred(small), expected, atol=5e-4)


def test_arccos_is_a_network_with_many_random_relu_units(small):
    (X, _), (X_test, _) = standardised(small, "train", "test")
    rng = np.random.default_rng(0)
    W = rng.standard_normal((X.shape[1], 200_000)).astype(np.float32) / np.sqrt(X.shape[1])
    a, b = np.maximum(X_test[:5] @ W, 0), np.maximum(X[:20] @ W, 0)
    inner = Inner.of(*(torch.from_numpy(z.astype(np.float32)) for z in (X_test[:5], X[:20])))
    found = inner.kernel(Form("arccos", 1, 0.0, 0.0)).numpy()
    np.testing.assert_allclose(found, 2 * a @ b.T / W.shape[1], atol=0.02)


@pytest.mark.parametrize(("form", "grid"), [("rbf", (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)), ("arccos", (1, 2, 3, 4))])
def test_validation_picks_shape_and_penalty(small, form, grid):
    gx.tl.fit(small, "kernel", kernel=form, linear=0.0, huber=0.0, progress=False)
    (X, Y), (X_val, Y_val) = standardised(small, "train", "validation")
    errors = {}
    for shape in grid:
        K, K_val = (naive(A, X, X, form, shape, shape, 0.0) for A in (X, X_val))
        for penalty in np.logspace(0.5, -4, 10):
            fitted = KernelRidge(alpha=penalty, kernel="precomputed").fit(K, Y)
            errors[shape, penalty] = np.abs(fitted.predict(K_val) - Y_val).mean()
    params = small.uns["kernel"]["params"]
    chosen = params["depth" if form == "arccos" else "bandwidth"], params["penalty"]
    assert params["validation_mae"] == pytest.approx(min(errors.values()), rel=1e-3)
    best = min(errors, key=errors.get)
    assert chosen == pytest.approx(best)


def test_the_default_tries_depths_and_says_which(fitted):
    params = fitted.uns["kernel"]["params"]
    assert params["kernel"] == "arccos"
    assert params["depth"] in (1, 2, 3, 4)
    assert params["holds_training_samples"] is True


@pytest.mark.parametrize("linear", [0.0, 0.2])
def test_inducing_rows_that_are_all_rows_give_the_exact_solution(small, linear):
    options = {"kernel": "rbf", "bandwidth": 0.7, "penalty": 0.05, "linear": linear, "progress": False}
    gx.tl.fit(small, "kernel", huber=0.0, **options)
    gx.tl.fit(small, "kernel", key_added="nystroem", n_inducing=168, **options)
    gx.tl.predict(small, std=True, progress=False)
    np.testing.assert_allclose(inferred(small, "nystroem"), inferred(small), atol=2e-3)
    np.testing.assert_allclose(inferred(small, "nystroem_std"), inferred(small, "kernel_std"), rtol=5e-3)


def test_inducing_rows_are_the_subset_of_regressors(small):
    gx.tl.fit(small, "kernel", kernel="rbf", bandwidth=1.0, penalty=0.1, linear=0.0, n_inducing=40, progress=False)
    gx.tl.predict(small, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    from gexinfer._record import records

    Z = records(small)["kernel"].model.arrays["landmarks"].astype(float)
    assert Z.shape == (40, 60)
    unit = float(small.uns["kernel"]["params"]["median_distance"])
    K_zx, K_zz, K_tz = (np.exp(-(distances(a, b) ** 2) / (2 * unit**2)) for a, b in ((Z, X), (Z, Z), (X_test, Z)))
    expected = K_tz @ np.linalg.solve(K_zx @ K_zx.T + 0.1 * K_zz, K_zx @ Y)
    np.testing.assert_allclose(inferred(small), expected, atol=2e-3)


def test_more_inducing_rows_come_closer_to_the_exact_solution(small):
    gx.tl.fit(small, "kernel", depth=2, penalty=0.05, huber=0.0, progress=False)
    for m in (20, 80, 150):
        gx.tl.fit(small, "kernel", depth=2, penalty=0.05, n_inducing=m, key_added=str(m), progress=False)
    gx.tl.predict(small, progress=False)
    away = [np.abs(inferred(small, str(m)) - inferred(small)).mean() for m in (20, 80, 150)]
    assert away[0] > away[1] > away[2]


def test_beyond_the_memory_inducing_rows_are_used_and_that_is_said(small, monkeypatch, caplog):
    monkeypatch.setattr(module, "available", lambda device: 1e5)
    monkeypatch.setattr(module, "INDUCING", 50)
    with caplog.at_level("INFO", "gexinfer"):
        gx.tl.fit(small, "kernel", progress=False)
    assert small.uns["kernel"]["params"]["n_inducing"] == 50
    assert "exact would take 1 MB for 168 training rows" in caplog.text
    assert "50 rows stand for all (n_inducing=50)" in caplog.text
    with pytest.warns(UserWarning, match="huber=2 is for the exact solution, for which there is no memory"):
        gx.tl.fit(small, "kernel", huber=2.0, progress=False)


def test_the_memory_is_said_before_it_is_taken(small, caplog):
    with caplog.at_level("INFO", "gexinfer"):
        gx.tl.fit(small, "kernel")
    assert caplog.messages[0].startswith("kernel: exact, about 1 MB for 168 training rows, ")


def test_std_is_the_gaussian_process_s(small):
    gx.tl.fit(small, "kernel", kernel="rbf", bandwidth=0.8, linear=0.0, penalty=0.07, huber=0.0, progress=False)
    gx.tl.predict(small, std=True, progress=False)
    (X, Y), (X_test, _) = standardised(small, "train", "test")
    bandwidth = 0.8 * np.median(distances(X, X)) * np.sqrt(X.shape[1])
    found = inferred(small, "kernel_std")
    for j in (0, 7, 50):
        K = np.exp(-(distances(X, X) ** 2) / (2 * (0.8 * np.median(distances(X, X))) ** 2)) + 0.07 * np.eye(len(X))
        signal = Y[:, j] @ np.linalg.solve(K, Y[:, j]) / len(X)
        process = GaussianProcessRegressor(
            ConstantKernel(signal, "fixed") * RBF(bandwidth, "fixed"), alpha=0.07 * signal, optimizer=None
        ).fit(X, Y[:, j])
        latent = process.predict(X_test, return_std=True)[1]
        np.testing.assert_allclose(found[:, j], np.sqrt(latent**2 + 0.07 * signal), rtol=2e-3)
    landmark = small.var["landmark"].to_numpy()
    assert np.isnan(small.layers["kernel_std"][:, landmark]).all()
    # Of other values than those of the next prediction.
    gx.tl.predict(small, progress=False)
    assert "kernel_std" not in small.layers


def test_std_is_about_as_large_as_the_errors_and_larger_for_strange_samples(bulk_once):
    adata = bulk_once.copy()
    gx.pp.landmarks(adata)
    gx.pp.split(adata)
    table = gx.tl.compare(adata, ["ridge", "kernel"], progress=False)
    assert table.loc["kernel", "gain_over_ridge"] > 0.07  # .084 in docs/which_method.md
    query = adata[adata.obs["split"] == "test"].copy()
    query.layers.clear()
    full = gx.tl.predict(query, model=adata, key="kernel", output="anndata", std=True, progress=False)
    target = ~adata.var["landmark"].to_numpy()
    names = adata.var_names[target]
    away = (full[:, names].X - query[:, names].X) / full[:, names].layers["kernel_std"]
    assert 0.7 < np.sqrt((away**2).mean()) < 1.3
    strange = query.copy()
    strange.X = strange.X[:, np.random.default_rng(0).permutation(strange.n_vars)]
    with pytest.warns(UserWarning, match="names may be mixed up"):
        odd = gx.tl.predict(strange, model=adata, key="kernel", output="anndata", std=True, progress=False)
    assert (odd[:, names].layers["kernel_std"] > full[:, names].layers["kernel_std"]).mean() > 0.99


def test_std_of_a_method_without_one_says_which_have_it(fitted):
    with pytest.raises(ValueError, match="'ridge' has no standard deviation; models of method='kernel' have one"):
        gx.tl.predict(fitted, key=["ridge", "kernel"], std=True)
    assert "kernel_std" not in fitted.layers


def test_std_does_not_overwrite_a_layer_of_the_user(fitted):
    fitted.layers["kernel_std"] = fitted.X.copy()
    with pytest.raises(ValueError, match=r"layers\['kernel_std'\] is there already"):
        gx.tl.predict(fitted, key="kernel", std=True)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"bandwidth": 1.0}, "bandwidth=1.0 is no option of kernel='arccos'"),
        ({"kernel": "rbf", "depth": 2}, "depth=2 is no option of kernel='rbf'"),
        ({"kernel": "rbf", "bandwidth": 0.0}, "bandwidth=0.0 must be positive"),
        ({"linear": -1.0}, "linear=-1.0 must not be negative"),
        ({"depth": 0}, "depth=0 must be at least 1"),
        ({"n_inducing": 1000}, "n_inducing=1000 is more than the 168 training rows"),
        ({"kernel": "cosine"}, "choose one of arccos, rbf, laplace"),
        ({"penalty": 0.0}, "must be positive"),
    ],
)
def test_impossible_options(small, options, match):
    with pytest.raises(ValueError, match=match):
        gx.tl.fit(small, "kernel", progress=False, **options)
    assert "kernel" not in small.uns


def test_too_weak_a_penalty_names_the_remedy(small):
    small.X[1:] = small.X[:1] + 1e-4 * small.X[1:]
    with pytest.raises(FloatingPointError, match="too weak for float32; fit again with a larger penalty="):
        gx.tl.fit(small, "kernel", kernel="rbf", bandwidth=100.0, linear=0.0, penalty=1e-12, progress=False)


def test_too_weak_a_penalty_is_not_replaced_by_another(small):
    small.X[1:] = small.X[:1] + 1e-4 * small.X[1:]
    with pytest.raises(FloatingPointError, match="penalty=1e-12 is too weak"):
        gx.tl.fit(small, "kernel", kernel="rbf", bandwidth=100.0, penalty=1e-12, progress=False)


def test_std_does_not_overwrite_another_model(small):
    for key in ("kernel", "kernel_std"):
        gx.tl.fit(small, "kernel", depth=1, penalty=0.1, key_added=key, progress=False)
    gx.tl.predict(small, progress=False)
    for key in ("kernel", ["kernel", "kernel_std"]):
        with pytest.raises(ValueError, match="would write layers 'kernel_std', which are those of models"):
            gx.tl.predict(small, key=key, std=True, progress=False)


def test_what_is_searched_on_some_rows_serves_for_all(small, monkeypatch):
    monkeypatch.setattr(module, "SEARCH_ROWS", 100)
    gx.tl.fit(small, "kernel", progress=False)
    params = dict(small.uns["kernel"]["params"])
    told = {name: params[name] for name in ("depth", "penalty", "huber")}
    gx.tl.fit(small, "kernel", key_added="told", progress=False, **told)
    gx.tl.predict(small, progress=False)
    np.testing.assert_array_equal(small.layers["kernel"], small.layers["told"])


def test_outliers_are_drawn_in_to_what_the_other_rows_say(small):
    (X, Y), _ = standardised(small, "train", "test")
    X, Y = X[:40], Y[:40, :7]
    K, expected = naive(X, X, X, "arccos", None, 2, 0.0), Y.copy()
    for _ in range(module.ROUNDS):
        others = np.empty_like(Y)
        for i in range(len(Y)):
            rest = np.arange(len(Y)) != i
            weights = np.linalg.solve(K[np.ix_(rest, rest)] + 0.05 * np.eye(len(Y) - 1), K[rest, i])
            others[i] = weights @ expected[rest]
        most = 1.25 * np.abs(Y - others).mean(axis=0)
        expected = others + np.clip(Y - others, -most, most)
    lower = torch.linalg.cholesky(torch.from_numpy(K + 0.05 * np.eye(len(K))))
    np.testing.assert_allclose(module.drawn_in(torch.from_numpy(Y), lower, 1.25), expected, atol=1e-6)


def test_wild_values_do_little_harm(small):
    """One value in fifty of the training rows is a zero, as where a transcript was missed."""
    clean, rng = small.copy(), np.random.default_rng(0)
    train = np.flatnonzero(small.obs["split"] == "train")
    targets = np.flatnonzero(~small.var["landmark"])
    small.X[np.ix_(train, targets)] *= rng.random((len(train), len(targets))) > 0.02
    for adata, options in ((clean, {}), (small, {}), (small, {"huber": 0.0})):
        key = "drawn" if adata is small and not options else "plain"
        gx.tl.fit(adata, "kernel", key_added=key, progress=False, **options)
    assert small.uns["drawn"]["params"]["huber"] > 0
    gx.tl.predict(small, progress=False)
    gx.tl.predict(clean, progress=False)
    test = (small.obs["split"] == "test").to_numpy()
    away = {
        k: np.abs((a.layers[k] - clean.X)[test][:, targets]).mean() for k, a in (("drawn", small), ("plain", small))
    }
    at_best = np.abs((clean.layers["plain"] - clean.X)[test][:, targets]).mean()
    assert away["drawn"] - at_best < 0.5 * (away["plain"] - at_best)


def test_huber_is_of_the_exact_solution(small):
    with pytest.raises(ValueError, match="huber=2.0 is for the exact solution; leave out n_inducing=40"):
        gx.tl.fit(small, "kernel", huber=2.0, n_inducing=40, progress=False)
    with pytest.raises(ValueError, match="huber=-1.0 must not be negative, or None to choose it"):
        gx.tl.fit(small, "kernel", huber=-1.0, progress=False)
