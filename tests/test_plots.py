"""Figures by their contents: what is drawn, named and limited."""

from __future__ import annotations

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

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
    # And the nearest landmark.
    assert len(gx.pl.error_density(evaluated).lines) == len(METHODS) + 1
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
    with pytest.raises(KeyError, match="no model 'lassie'; it has 'auto', 'mean', 'ols'"):
        gx.pl.error_scatter(evaluated, "ridge", against="lassie")
    unknown = evaluated.copy()
    unknown.varm["gexinfer_mae"] = np.nan * unknown.varm["gexinfer_mae"]
    with pytest.raises(ValueError, match="is NaN throughout for 'ridge', 'knn'"):
        gx.pl.error_density(unknown, ["ridge", "knn"])
    with pytest.raises(ValueError, match=r"None of \['ridge'\] was trained by epochs; run gexinfer.tl.fit"):
        gx.pl.training(evaluated, "ridge")
    with pytest.raises(KeyError, match="no gexinfer model 'net'; it holds"):
        gx.pl.training(evaluated, "net")


@pytest.fixture
def with_intervals(fitted):
    gx.tl.predict(fitted, key=["ridge", "knn"], interval=0.8, progress=False)
    gx.tl.coverage(fitted, groupby="source")
    yield fitted
    plt.close("all")


def test_coverage(with_intervals):
    table = with_intervals.uns["gexinfer_coverage"]
    ax = gx.pl.coverage(with_intervals)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["ridge", "knn", "asked for (0.8)"]
    for line, key in zip(ax.lines, ("ridge", "knn"), strict=False):
        wanted = table.loc[(table["kind"] == "genes by error") & (table["model"] == key), "coverage"]
        np.testing.assert_array_equal(line.get_ydata(), wanted)
    assert ax.lines[2].get_ydata() == [0.8, 0.8]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == [str(i + 1) for i in range(10)]
    assert ax.get_ylim()[0] < table["coverage"].min()
    assert drawn(ax) > 5000
    ax = gx.pl.coverage(with_intervals, "knn", kind="source")
    groups = table.query("kind == 'source' and model == 'knn'").sort_values("coverage")
    names = [f"{part} ({n})" for part, n in groups[["part", "n_samples"]].to_numpy()]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == names
    assert ax.lines[0].get_linestyle() == "None"
    assert ax.get_ylim()[0] <= groups["coverage"].min()
    with pytest.raises(KeyError, match="no kind 'tissue'; it has 'all', 'genes by error'.*groupby="):
        gx.pl.coverage(with_intervals, kind="tissue")
    with pytest.raises(KeyError, match="no model 'ols'; it has 'ridge', 'knn'"):
        gx.pl.coverage(with_intervals, "ols")


def test_novelty(with_intervals):
    percentile = with_intervals.obs["gexinfer_novelty_percentile"]
    ax = gx.pl.novelty(with_intervals)
    medians = percentile.groupby(with_intervals.obs["split"].astype(str)).median().sort_values()
    sizes = with_intervals.obs["split"].value_counts()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [f"{name} ({sizes[name]})" for name in medians.index]
    for points, name in zip(ax.collections, medians.index, strict=True):
        np.testing.assert_allclose(points.get_offsets()[:, 0], percentile[with_intervals.obs["split"] == name])
    assert drawn(ax) > 5000
    many = gx.pl.novelty(with_intervals, "cohort")
    labels = [tick.get_text() for tick in many.get_yticklabels()]
    assert len(labels) == 15
    assert labels[0].split(" (")[0] == f"{with_intervals.obs['cohort'].nunique() - 14} others"
    assert sum(len(points.get_offsets()) for points in many.collections) == with_intervals.n_obs
    # Samples may share a name, as after a concatenation.
    twice = with_intervals.copy()
    twice.obs_names = ["a", "b"] * (twice.n_obs // 2)
    for points, same in zip(gx.pl.novelty(twice).collections, ax.collections, strict=True):
        np.testing.assert_array_equal(points.get_offsets(), same.get_offsets())
    twice.obs["mine"] = None
    with pytest.raises(ValueError, match=r"adata.obs\['mine'\] is missing for all 240 samples"):
        gx.pl.novelty(twice, "mine")
    with_intervals.obs["gexinfer_novelty_percentile"] = np.nan
    with pytest.raises(ValueError, match="is NaN for all samples.*without validation rows"):
        gx.pl.novelty(with_intervals)


def test_gene(with_intervals):
    adata = with_intervals
    name = adata.var_names[~adata.var["landmark"]][4]
    test = (adata.obs["split"] == "test").to_numpy()
    x, y = (np.asarray(m)[test, adata.var_names.get_loc(name)] for m in (adata.X, adata.layers["ridge"]))
    ax = gx.pl.gene(adata, name, "ridge")
    bars, points = ax.collections
    np.testing.assert_allclose(points.get_offsets(), np.column_stack([x, y]), rtol=1e-6)
    low, high = np.array([segment[:, 1] for segment in bars.get_segments()]).T
    np.testing.assert_allclose(low, adata[test, name].layers["ridge_lower"][:, 0], rtol=1e-6)
    held = np.mean((low <= x) & (x <= high))
    note = f"r {np.corrcoef(x, y)[0, 1]:.3f}\nMAE {np.abs(x - y).mean():.3g} in data units\n{held:.0%} in interval"
    assert ax.texts[0].get_text() == note
    assert ax.get_xlabel() == f"{name}, measured (data units)"
    assert ax.get_ylabel() == f"{name}, inferred by ridge (data units)"
    assert drawn(ax) > 5000
    ax = gx.pl.gene(adata, name, "ols", groupby="tissue")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[0] == f"{adata.obs['tissue'][test].nunique() - 8} others"
    assert len(labels) == 9
    assert len({tuple(points.get_facecolor()[0]) for points in ax.collections if len(points.get_offsets())}) == 9
    assert labels[1] == adata.obs["tissue"][test].astype(str).value_counts(sort=True).index[0]
    assert sum(len(c.get_offsets()) for c in ax.collections) == test.sum()
    with pytest.raises(ValueError, match="does not infer .*, which is one of its landmarks; it infers"):
        gx.pl.gene(adata, adata.var_names[adata.var["landmark"]][0], "ridge")
    near = adata.var_names[0][:-1] + "#"
    with pytest.raises(KeyError, match=f"adata.var_names has no '{near}'; .*Did you mean '"):
        gx.pl.gene(adata, near, "ridge")
    with pytest.raises(KeyError, match="adata.var_names has no '12345678'; it starts with .* more.\"?$"):
        gx.pl.gene(adata, "12345678", "ridge")
    with pytest.raises(ValueError, match="several models.*name one of them with key="):
        gx.pl.gene(adata, name)
    # Samples in which the gene was not measured are left out.
    adata.X[np.flatnonzero(test)[:3], adata.var_names.get_loc(name)] = np.nan
    note = f"r {np.corrcoef(x[3:], y[3:])[0, 1]:.3f}\nMAE {np.abs(x - y)[3:].mean():.3g} in data units\n"
    assert gx.pl.gene(adata, name, "ridge").texts[0].get_text().startswith(note)
    adata.X[test, adata.var_names.get_loc(name)] = np.nan
    with pytest.raises(ValueError, match=f"'{name}' is measured and inferred by 'ridge' in none of the 36 test rows"):
        gx.pl.gene(adata, name, "ridge")


def test_sample(with_intervals):
    adata, target = with_intervals, ~with_intervals.var["landmark"].to_numpy()
    row = int(np.flatnonzero(adata.obs["split"] == "test")[0])
    name = adata.obs_names[row]
    ax = gx.pl.sample(adata, name, "ridge", n_worst=5)
    x, y = adata.X[row, target], adata.layers["ridge"][row, target]
    np.testing.assert_allclose(ax.collections[0].get_offsets(), np.column_stack([x, y]), rtol=1e-6)
    train = (adata.obs["split"] == "train").to_numpy()
    error = np.abs(x - y) / (adata.X[train][:, target].std(0) + 1e-3)
    assert {text.get_text() for text in ax.texts} == set(adata.var_names[target][np.argsort(-error)[:5]])
    drawn(ax)
    # Of the names without their lines.
    extents = [Text.get_window_extent(text) for text in ax.texts]
    boxes = sorted((extent.y0, extent.y1) for extent in extents)
    assert min(extent.x0 for extent in extents) > ax.get_window_extent().x1
    assert all(below[1] <= above[0] + 1 for below, above in zip(boxes, boxes[1:], strict=False))
    assert (
        ax.get_title()
        == f"{name}\nr {np.corrcoef(x, y)[0, 1]:.3f}, MAE {np.abs(x - y).mean():.3g} in data units, 90 genes"
    )
    seen = adata.obs_names[train][0]
    assert gx.pl.sample(adata, seen, "ridge", n_worst=0).get_title().startswith(f"{seen}, seen by the model\n")
    with pytest.raises(KeyError, match="adata.obs_names has no 'me'"):
        gx.pl.sample(adata, "me", "ridge")
    with pytest.raises(ValueError, match="n_worst=30 must be a number of genes, 0 to 20"):
        gx.pl.sample(adata, name, "ridge", n_worst=30)


def test_figures_of_trust_are_drawn_on_ax_and_say_what_is_lacking(small, with_intervals):
    gene, sample = with_intervals.var_names[~with_intervals.var["landmark"]][0], with_intervals.obs_names[0]
    for function, options in (
        (gx.pl.coverage, {}),
        (gx.pl.novelty, {}),
        (gx.pl.gene, {"gene": gene, "key": "ridge"}),
        (gx.pl.sample, {"sample": sample, "key": "ridge"}),
    ):
        _, ax = plt.subplots()
        assert function(with_intervals, ax=ax, **options) is ax
    with pytest.raises(KeyError, match="no 'gexinfer_coverage'; run gexinfer.tl.predict.*gexinfer.tl.coverage"):
        gx.pl.coverage(small)
    with pytest.raises(KeyError, match="no 'gexinfer_novelty_percentile'; run gexinfer.tl.predict"):
        gx.pl.novelty(small)
    with pytest.raises(KeyError, match="no gexinfer model. Run gexinfer.tl.fit"):
        gx.pl.gene(small, gene)
    gx.tl.fit(small, "mean", progress=False)
    with pytest.raises(KeyError, match="no predictions of any model; run gexinfer.tl.predict"):
        gx.pl.sample(small, sample)


@pytest.fixture
def explained(fitted):
    gx.tl.explain(fitted, "dgex", progress=False)
    gx.tl.explain(fitted, "ridge", genes=list(fitted.var_names[~fitted.var["landmark"]][:9]), progress=False)
    yield fitted
    plt.close("all")


def test_influence_is_that_of_the_slots_in_standard_deviations(explained):
    ax = gx.pl.influence(explained, "dgex", n_genes=7, n_landmarks=5)
    rows, columns = ([label.get_text() for label in labels] for labels in (ax.get_yticklabels(), ax.get_xticklabels()))
    entry = explained.uns["gexinfer_explained"]["dgex"]
    places = explained.var_names.get_indexer(rows)
    influence = explained.varm["gexinfer_influence_dgex"][places][:, entry["landmarks"].index.get_indexer(columns)]
    expected = influence * entry["landmarks"]["sd"][columns].to_numpy() / entry["genes"]["sd"][rows].to_numpy()[:, None]
    image = ax.images[0]
    np.testing.assert_allclose(image.get_array(), expected, rtol=1e-5)
    assert image.get_clim() == pytest.approx((-np.abs(expected).max(), np.abs(expected).max()))
    every = explained.varm["gexinfer_influence_dgex"] * entry["landmarks"]["sd"].to_numpy()
    every = every / entry["genes"]["sd"].reindex(explained.var_names).to_numpy()[:, None]
    assert np.nanmax(np.abs(every)) == pytest.approx(np.abs(expected).max())
    assert ax.figure.axes[1].get_ylabel() == "sd of the gene per sd of the landmark"
    assert drawn(ax) > 5000
    # Neighbours are alike: the order is no longer than that of the names.
    along = np.linalg.norm(np.diff(expected, axis=0), axis=1).sum()
    by_name = np.linalg.norm(np.diff(expected[np.argsort(rows)], axis=0), axis=1).sum()
    assert along < by_name


def test_influence_of_chosen_genes(explained):
    ax = gx.pl.influence(explained, "ridge")
    assert len(ax.get_yticklabels()) == 9
    wanted = list(explained.var_names[~explained.var["landmark"]][2:4])
    assert {label.get_text() for label in gx.pl.influence(explained, "ridge", genes=wanted).get_yticklabels()} == set(
        wanted
    )
    assert len(gx.pl.influence(explained, "ridge", genes=wanted[:1]).get_yticklabels()) == 1
    absent = explained.var_names[~explained.var["landmark"]][20]
    with pytest.raises(
        ValueError, match=f"1 genes that were not explained for 'ridge': '{absent}'. Run gexinfer.tl.explain"
    ):
        gx.pl.influence(explained, "ridge", genes=[absent])
    with pytest.raises(ValueError, match="several models, 'dgex', 'ridge'; name one: key="):
        gx.pl.influence(explained)
    with pytest.raises(ValueError, match="n_genes=1 must be a whole number of at least 2"):
        gx.pl.influence(explained, "dgex", n_genes=1)


def test_weights_are_the_major_ones_of_the_hubs(evaluated):
    arrays = records(evaluated)["dgex"].model.arrays
    into, out = arrays["0.0.weight"].copy(), arrays["0.1.weight"].copy()
    far = [np.abs(w - w.mean()) > sds * w.std() for w, sds in ((into, 4), (out, 5))]
    counts = far[0].sum(axis=1) + far[1].sum(axis=0)
    ax = gx.pl.weights(evaluated, "dgex", n_units=3)
    hubs = np.argsort(-counts, kind="stable")[:3]
    expected = counts[hubs].sum()
    assert sum(len(lines.get_segments()) for lines in ax.collections if hasattr(lines, "get_segments")) == expected
    assert ax.get_title() == f"dgex: {expected:,} of {counts.sum():,} major weights"
    texts = [text.get_text() for text in ax.texts]
    for hub in hubs[counts[hubs] > 0]:
        assert f"{hub} ({counts[hub]})" in texts
    tied = {records(evaluated)["dgex"].landmarks[i] for i in np.flatnonzero(far[0][hubs].any(axis=0))}
    assert len(tied & set(texts)) == min(len(tied), 12)
    assert [label.get_text().split("\n")[0] for label in ax.get_xticklabels()] == ["landmarks", "hidden", "targets"]
    assert drawn(ax) > 5000


def test_weights_of_several_layers_and_what_they_refuse(small, evaluated):
    ax = gx.pl.weights(evaluated, "ggan")
    assert len(ax.get_xticks()) == 4  # a dense trunk of two layers
    with pytest.raises(
        ValueError, match=r"draws one network.*several networks, 'dgex', 'residual', 'ggan', 'semigan'; name one"
    ):
        gx.pl.weights(evaluated)
    with pytest.raises(
        ValueError, match=r"'ridge' is no network; models of method='dgex', 'residual', 'ggan', 'semigan' are"
    ):
        gx.pl.weights(evaluated, "ridge")
    with pytest.raises(ValueError, match="n_units=2.5 must be a whole number of at least 1"):
        gx.pl.weights(evaluated, "dgex", n_units=2.5)
    gx.tl.fit(small, "dgex", trunk="conv1d", epochs=1, hidden=8, progress=False)
    with pytest.raises(ValueError, match=r"'dgex', trunk='conv1d', see mixtures of neighbouring landmarks"):
        gx.pl.weights(small)


def test_nonlinearity_draws_both_sides(explained):
    table = gx.tl.nonlinearity(explained, "dgex", progress=False)
    ax = gx.pl.nonlinearity(explained)
    for side, dots in zip(("train", "test"), ax.collections, strict=True):
        np.testing.assert_allclose(dots.get_offsets(), table[[f"linear_{side}", f"hidden_{side}"]])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    for side, label in zip(("train", "test"), labels, strict=True):
        assert f"{(table[f'hidden_{side}'] > table[f'linear_{side}']).mean():.0%} of 90 above" in label
    assert drawn(ax) > 5000
    table["hidden_train"] = np.nan
    explained.uns["gexinfer_nonlinearity"] = {"dgex": table}
    assert len(gx.pl.nonlinearity(explained).collections) == 1
    explained.uns["gexinfer_nonlinearity"]["other"] = table
    with pytest.raises(ValueError, match="holds 'dgex', 'other'; name one: key="):
        gx.pl.nonlinearity(explained)
    with pytest.raises(KeyError, match="not 'ridge'; run gexinfer.tl.nonlinearity"):
        gx.pl.nonlinearity(explained, "ridge")


def test_partial_dependence_starts_at_zero(explained):
    model = records(explained)["ridge"]
    gx.tl.partial_dependence(explained, model.targets[0], model.landmarks[0], key=["ridge", "dgex"], progress=False)
    ax = gx.pl.partial_dependence(explained)
    found = explained.uns["gexinfer_partial_dependence"]
    named = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert list(named) == ["ridge", "dgex"]
    for name, line in named.items():
        np.testing.assert_allclose(line.get_ydata(), found["mean"][name] - found["mean"][name][0])
    assert len(ax.lines) == 2 * (20 + 1) + 1
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        f"{model.landmarks[0]}, the landmark (data units)",
        f"change of {model.targets[0]}, inferred (data units)",
    )
    assert drawn(ax) > 5000


def test_explanations_are_drawn_where_told_and_say_what_lacks(explained, small):
    gx.tl.nonlinearity(explained, "dgex", progress=False)
    model = records(explained)["ridge"]
    gx.tl.partial_dependence(explained, model.targets[0], model.landmarks[0], key="ridge", progress=False)
    for function, options in (
        (gx.pl.influence, {"key": "ridge"}),
        (gx.pl.weights, {"key": "dgex"}),
        (gx.pl.nonlinearity, {}),
        (gx.pl.partial_dependence, {}),
    ):
        _, ax = plt.subplots()
        assert function(explained, ax=ax, **options) is ax
    for function, call in (
        (gx.pl.influence, "gexinfer.tl.explain"),
        (gx.pl.weights, "gexinfer.tl.fit"),
        (gx.pl.nonlinearity, "gexinfer.tl.nonlinearity"),
        (gx.pl.partial_dependence, "gexinfer.tl.partial_dependence"),
    ):
        with pytest.raises(KeyError, match=call):
            function(small)


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
    # The first epochs would press the ends of the curves into one.
    late = curves[curves["epoch"] > 2]["test_mae"]
    assert ax.get_ylim()[0] < late.min() < late.max() < ax.get_ylim()[1] < curves["test_mae"].max()
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
