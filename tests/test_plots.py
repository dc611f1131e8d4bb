"""Figures by their contents: what is drawn, named and limited."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest

import gexinfer as gx
from gexinfer._record import records
from gexinfer.methods import METHODS


@pytest.fixture
def evaluated(fitted):
    gx.tl.evaluate(fitted)
    yield fitted
    plt.close("all")


def drawn(ax) -> int:
    """Return the size of the figure as a PNG: it renders."""
    file = io.BytesIO()
    ax.figure.savefig(file, format="png")
    return file.tell()


def test_error_scatter(evaluated):
    ax = gx.pl.error_scatter(evaluated, "ridge", against="knn")
    points = ax.collections[0].get_offsets()
    errors = evaluated.varm["gexinfer_mae"].dropna()
    np.testing.assert_allclose(points, errors[["ridge", "knn"]], rtol=1e-6)
    above = (errors["knn"] > errors["ridge"]).sum()
    assert f"{above} of 90 genes ({above / 90:.1%})\nabove the diagonal" in ax.texts[0].get_text()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("MAE of ridge (sd units)", "MAE of knn (sd units)")
    assert ax.get_xlim()[1] >= errors["ridge"].max()
    assert ax.get_ylim()[1] >= errors["knn"].max()
    assert drawn(ax) > 5000


def test_error_scatter_against_several(evaluated):
    axes = gx.pl.error_scatter(evaluated, "dgex", against=["ols", "knn"])
    assert list(axes) == ["ols", "knn"]
    assert axes["ols"].get_figure() is axes["knn"].get_figure()
    _, own = plt.subplots(1, 2)
    assert list(gx.pl.error_scatter(evaluated, "dgex", against=["ols", "knn"], ax=own).values()) == list(own)
    with pytest.raises(ValueError, match="2 axes for 1 models"):
        gx.pl.error_scatter(evaluated, "dgex", against=["ols"], ax=own)


def test_error_density(evaluated):
    ax = gx.pl.error_density(evaluated, ["ridge", "knn"])
    table = evaluated.uns["gexinfer_evaluation"]["mae"]
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == [f"{n} ({table[n]:.3f})" for n in table.index if n in ("ridge", "knn")]
    assert len(gx.pl.error_density(evaluated).lines) == len(METHODS)
    for line in ax.lines:
        x, y = line.get_data()
        assert np.trapezoid(y, x) == pytest.approx(1, abs=0.1)
    assert drawn(ax) > 5000


def test_training(evaluated):
    ax = gx.pl.training(evaluated, against=["ridge"])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    ridge = evaluated.uns["ridge"]["params"]["validation_mae"]
    assert any(label.startswith(f"ridge ({ridge:.3f})") for label in labels)
    curve = next(line for line in ax.lines if line.get_label().startswith("dgex, validation"))
    assert len(curve.get_xdata()) == 3
    assert min(curve.get_ydata()) == pytest.approx(evaluated.uns["dgex"]["params"]["validation_mae"], rel=1e-5)
    assert drawn(ax) > 5000


def test_training_leaves_off_what_would_flatten_the_curves(evaluated):
    train = np.flatnonzero(evaluated.obs["split"] == "train")
    evaluated.obs.iloc[train[61:], evaluated.obs.columns.get_loc("split")] = np.nan
    with pytest.warns(UserWarning, match="61 training rows for 60 landmarks"):
        gx.tl.fit(evaluated, "ols", key_added="wild", progress=False)
    ax = gx.pl.training(evaluated, "dgex", against=["wild", "ridge"])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    wild = evaluated.uns["wild"]["params"]["validation_mae"]
    assert f"wild ({wild:.3f}), above the axis" in labels
    assert ax.get_ylim()[1] < wild
    assert not any("ridge" in label and "above" in label for label in labels)


def test_terms(evaluated):
    ax = gx.pl.terms(evaluated, "ggan")
    arrays = records(evaluated)["ggan"].model.arrays
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert {"loss", "l1", "adversarial", "consistency", "discriminator_loss", "told_apart", "spread"} == set(lines)
    for name, values in lines.items():
        np.testing.assert_array_equal(values, arrays[f"0.history.{name}"])
    assert ax.get_yscale() == "log"
    assert drawn(ax) > 5000
    assert [line.get_label() for line in gx.pl.terms(evaluated, "dgex").lines] == ["loss"]
    many = [(line.get_color(), line.get_linestyle()) for line in gx.pl.terms(evaluated, "semigan").lines]
    assert len(set(many)) == len(many)
    with pytest.raises(ValueError, match="there are several.*'dgex'.*name one with key="):
        gx.pl.terms(evaluated)
    with pytest.raises(ValueError, match="trained by epochs: run gexinfer.tl.fit"):
        gx.pl.terms(evaluated, "ridge")


def test_ax_is_drawn_on(evaluated):
    for function, options in (
        (gx.pl.error_density, {}),
        (gx.pl.training, {}),
        (gx.pl.terms, {"key": "semigan"}),
        (gx.pl.error_scatter, {"key": "ridge", "against": "ols"}),
    ):
        _, ax = plt.subplots()
        assert function(evaluated, ax=ax, **options) is ax


def test_nothing_to_draw(small, evaluated):
    with pytest.raises(KeyError, match="gexinfer_mae.*gexinfer.tl.predict.*gexinfer.tl.evaluate"):
        gx.pl.error_density(small)
    with pytest.raises(KeyError, match="no model 'lassie'; it has 'mean', 'ols'"):
        gx.pl.error_scatter(evaluated, "ridge", against="lassie")
    with pytest.raises(ValueError, match=r"None of \['ridge'\] was trained by epochs; run gexinfer.tl.fit"):
        gx.pl.training(evaluated, "ridge")
    with pytest.raises(KeyError, match="no gexinfer model 'net'; it holds"):
        gx.pl.training(evaluated, "net")


@pytest.mark.filterwarnings("ignore:ols")
def test_learning_curve(small, evaluated):
    table = gx.tl.learning_curve(small, ["ridge", "ols", "knn"], repeats=2, sizes=[60, 120, 168], progress=False)
    ax = gx.pl.learning_curve(small)
    means = table.groupby(["model", "size"])["mae"].mean()
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["ridge", "ols", "knn", "mean predictor"]
    for name, line in lines.items():
        np.testing.assert_allclose(line.get_ydata(), means[name.removesuffix(" predictor")], rtol=1e-6)
        np.testing.assert_array_equal(line.get_xdata(), [60, 120, 168])
    assert len(ax.collections) == 3
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["70", "100", "150"]
    low, high = ax.get_ylim()
    assert all(low < tick < high for tick in ax.get_yticks())
    assert 2 < len(ax.get_yticks()) < 12
    # Least squares with hardly more rows than landmarks is beyond the axis.
    assert means["mean"].max() < high < means["ols"].max()
    assert drawn(ax) > 5000
    assert [line.get_label() for line in gx.pl.learning_curve(small, "knn").lines] == ["knn"]
    with pytest.raises(
        KeyError, match="no model 'lasso'; it has 'mean', 'ridge', 'ols', 'knn'. Name it in gexinfer.tl"
    ):
        gx.pl.learning_curve(small, ["ridge", "lasso"])
    with pytest.raises(KeyError, match="no 'gexinfer_learning_curve'; run gexinfer.tl.learning_curve"):
        gx.pl.learning_curve(evaluated)


def test_error_by_size(small, evaluated):
    grid = {"layers": [1, 2], "hidden": [8, 16, 32], "dropout": [0.0, 0.2]}
    table = gx.tl.sweep(small, "dgex", grid, against=["mean", "ridge"], epochs=20, progress=False)
    ax = gx.pl.error_by_size(small)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines)[:2] == ["1 hidden layer", "2 hidden layers"]
    for depth, line in zip((1, 2), lines.values(), strict=False):
        np.testing.assert_array_equal(line.get_xdata(), [8, 16, 32])
        for width, y in zip([8, 16, 32], line.get_ydata(), strict=True):
            of_size = table[(table["layers"] == depth) & (table["hidden"] == width)]
            assert y == of_size.loc[of_size["validation_mae"].idxmin(), "mae"]
    assert f"ridge ({table['mae']['ridge']:.3f})" in lines
    assert f"mean ({table['mae']['mean']:.3f}), above the axis" in lines
    assert ax.get_ylim()[1] < table["mae"]["mean"]
    assert drawn(ax) > 5000
    gx.tl.sweep(small, "dgex", {"hidden": [8, 16]}, against=[], epochs=2, progress=False)
    assert [line.get_label() for line in gx.pl.error_by_size(small).lines] == ["dgex"]
    gx.tl.sweep(small, "kernel", {"depth": [1, 2]}, progress=False)
    with pytest.raises(ValueError, match="is not over hidden=, the width of a network; run gexinfer.tl.sweep"):
        gx.pl.error_by_size(small)
    with pytest.raises(ValueError, match="does not learn by epochs; run gexinfer.tl.sweep"):
        gx.pl.training(small, sweep=True)
    with pytest.raises(KeyError, match="no 'gexinfer_sweep'; run gexinfer.tl.sweep"):
        gx.pl.error_by_size(evaluated)


def test_training_of_a_sweep(small, evaluated):
    grid = {"dropout": [0.0, 0.1, 0.25]}
    table = gx.tl.sweep(small, "dgex", grid, against=["ridge", "knn"], epochs=6, hidden=16, progress=False)
    ax = gx.pl.training(small, sweep=True)
    curves = small.uns["gexinfer_sweep_curves"]
    for setting, found in curves.groupby("setting"):
        (line,) = [one for one in ax.lines if one.get_label() == f"{setting} ({table['mae'][setting]:.3f})"]
        np.testing.assert_array_equal(line.get_ydata(), found["test_mae"])
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [dot.get_xdata()[0] for dot in dots] == table["best_epoch"].dropna().tolist()
    assert any(line.get_label() == f"ridge ({table['mae']['ridge']:.3f})" for line in ax.lines)
    assert ax.get_ylabel() == "test MAE over genes (sd units)"
    assert drawn(ax) > 5000
    some = gx.pl.training(small, ["dropout=0.1"], against="knn", sweep=True)
    assert len(some.lines) == 3
    with pytest.raises(
        KeyError, match="has no 'dropout=0.2'; it has the settings 'dropout=0', .* against 'ridge', 'knn'"
    ):
        gx.pl.training(small, "dropout=0.2", sweep=True)
    with pytest.raises(KeyError, match="no 'gexinfer_sweep'; run gexinfer.tl.sweep"):
        gx.pl.training(evaluated, sweep=True)
    gx.tl.sweep(small, "dgex", {"hidden": [8]}, against=[], epochs=1, progress=False)
    gx.tl.learning_curve(small, ["ridge"], sizes=[168], repeats=1, progress=False)
    _, own = plt.subplots()
    assert gx.pl.training(small, sweep=True, ax=own) is own
    assert gx.pl.error_by_size(small, ax=own) is own
    assert gx.pl.learning_curve(small, ax=own) is own
