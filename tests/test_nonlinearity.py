"""R2 of linear fits on hidden units and on landmarks, against scikit-learn."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from conftest import standardised
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.metrics import r2_score

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods import get_method

COLUMNS = ["hidden_train", "linear_train", "hidden_test", "linear_test"]


def hidden_by_hand(arrays, b, X):
    """A network of one hidden layer of ReLU units, without a norm."""
    return np.maximum(X @ arrays[f"{b}.0.weight"].T + arrays[f"{b}.0.bias"], 0)


def by_hand(train, test):
    """Adjusted R2 of least squares on the training rows, R2 of ridge on test rows, for each target."""
    (H, Y), (h, y) = train, test
    left = 1 - r2_score(Y, LinearRegression().fit(H, Y).predict(H), multioutput="raw_values")
    k = np.linalg.matrix_rank(H - H.mean(0), rtol=1e-6)
    adjusted = 1 - left * (len(H) - 1) / (len(H) - 1 - k)
    scale = H.std(0) + 1e-3
    H, h = ((a - H.mean(0)) / scale for a in (H, h))
    fits = [Ridge(penalty).fit(H, Y) for penalty in np.logspace(-4, 2, 25) * len(H)]
    # Generalised cross-validation: the error over the share of freedom that the fit has left, the mean's taken off.
    errors = []
    for fit in fits:
        hat = 1 / len(H) + H @ np.linalg.solve(H.T @ H + fit.alpha * np.eye(H.shape[1]), H.T)
        errors.append(((Y - fit.predict(H)) ** 2 / Y.var(0)).mean() / (1 - np.trace(hat) / len(H)) ** 2)
    return adjusted, r2_score(y, fits[np.argmin(errors)].predict(h), multioutput="raw_values")


@pytest.mark.parametrize("blocks", [1, 2])
def test_is_what_scikit_learn_says(small, blocks):
    options = {"hidden": 40, "activation": "relu", "layer_norm": False, "target_blocks": blocks}
    gx.tl.fit(small, "dgex", epochs=10, progress=False, **options)
    table = gx.tl.nonlinearity(small, progress=False)
    assert list(table.columns) == COLUMNS
    arrays = records(small)["dgex"].model.arrays
    (X, Y), (x, y) = standardised(small, "train", "test")
    expected = pd.DataFrame(index=table.index, columns=COLUMNS, dtype=float)
    expected["linear_train"], expected["linear_test"] = by_hand((X, Y), (x, y))
    for b in range(blocks):
        own = arrays["block"] == b
        found = by_hand((hidden_by_hand(arrays, b, X), Y[:, own]), (hidden_by_hand(arrays, b, x), y[:, own]))
        for column, values in zip(["hidden_train", "hidden_test"], found, strict=True):
            expected.loc[own, column] = values
    pd.testing.assert_frame_equal(table, expected, atol=2e-3, rtol=0, check_names=False)
    assert table["hidden_test"].median() > 0


def test_units_as_many_as_samples_fit_anything(small, tmp_path):
    gx.tl.fit(small, "dgex", epochs=1, hidden=300, progress=False)
    gx.tl.fit(small, "ggan", epochs=1, hidden=16, discriminator_hidden=8, progress=False)
    with pytest.raises(ValueError, match=r"several networks, 'dgex', 'ggan'; name one: key="):
        gx.tl.nonlinearity(small)
    table = gx.tl.nonlinearity(small, "dgex", progress=False)
    assert table["hidden_train"].isna().all()
    assert table[["linear_train", "hidden_test", "linear_test"]].notna().all(axis=None)
    dense = gx.tl.nonlinearity(small, "ggan", progress=False)
    # Landmarks, which the output of a dense trunk sees, are none of its hidden units.
    (units,) = next(iter(hidden_units(small, "ggan")))
    assert units.shape[1] == 32
    assert (dense["hidden_train"] < dense["linear_train"]).mean() > 0.9
    small.obs["split"] = small.obs["split"].where(small.obs["split"] != "test")
    assert gx.tl.nonlinearity(small, "dgex", progress=False)[["hidden_test", "linear_test"]].isna().all(axis=None)
    small.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad").uns["gexinfer_nonlinearity"]
    assert set(back) == {"dgex", "ggan"}
    pd.testing.assert_frame_equal(back["ggan"], dense, check_names=False)


def hidden_units(adata, key):
    fitted = records(adata)[key]
    return get_method(fitted.method).hidden(fitted.model, fitted.config, [np.zeros((2, 60), np.float32)], "cpu")


def test_what_it_refuses(fitted):
    with pytest.raises(
        ValueError,
        match=r"'ridge' in adata.uns has no hidden units; models of method='dgex', 'residual', 'ggan', 'semigan' have",
    ):
        gx.tl.nonlinearity(fitted, "ridge")
    alone = fitted.copy()
    for name in ("dgex", "residual", "ggan", "semigan"):
        del alone.uns[name]
    with pytest.raises(ValueError, match="'mean', 'ols'.*in adata.uns has no hidden units"):
        gx.tl.nonlinearity(alone)
    shuffled = fitted.copy()
    shuffled.obs["split"] = np.random.default_rng(0).permutation(shuffled.obs["split"])
    with pytest.raises(ValueError, match=r"marks as 'train' are not those of 'dgex'"):
        gx.tl.nonlinearity(shuffled, "dgex")
    with pytest.raises(ValueError, match=r"lacks 1 of the 60 landmarks of 'dgex'"):
        gx.tl.nonlinearity(fitted[:, fitted.var_names != records(fitted)["dgex"].landmarks[0]].copy(), "dgex")
    fitted.X[
        np.flatnonzero(fitted.obs["split"] == "test")[0], fitted.var_names.get_loc(records(fitted)["dgex"].targets[3])
    ] = np.nan
    with pytest.raises(
        ValueError, match=f"adata.X holds NaN or inf in 1 of 90 genes.*{records(fitted)['dgex'].targets[3]}"
    ):
        gx.tl.nonlinearity(fitted, "dgex", progress=False)
