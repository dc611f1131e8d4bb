"""The report: one page that holds what the slots say, and opens without anything else."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import gexinfer as gx
from gexinfer.io._report_findings import level_ones


class Page(HTMLParser):
    """What a browser would show of a page: its text, images and tables."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.images, self.links, self.rows = "", [], [], []
        self.feed(html)
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.links += [attrs[name] for name in ("src", "href") if name in attrs]
        if tag == "img":
            self.images.append(attrs)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture
def read(tmp_path):
    def page_of(adata, **options):
        gx.io.write_report(adata, tmp_path / "report.html", progress=False, **options)
        return Page((tmp_path / "report.html").read_text(encoding="utf-8"))

    return page_of


def test_the_page_says_what_evaluate_says_and_changes_nothing(fitted, read):
    before = fitted.copy()
    page = read(fitted, key="ridge", groupby="source")
    for slot in ("layers", "obsm", "varm", "uns"):
        assert set(getattr(fitted, slot)) == set(getattr(before, slot))
    assert list(fitted.obs) == list(before.obs)
    np.testing.assert_array_equal(fitted.uns["ridge"]["state"], before.uns["ridge"]["state"])

    table = gx.tl.evaluate(fitted, groupby="source")
    rows = {row[0]: row for row in page.rows}
    for name in table.index:
        assert rows[name][1] == f"{table.loc[name, 'mae']:.3f}"
    assert f"the mean error over 90 genes is {table.loc['ridge', 'mae']:.3f}" in page.text
    groups = fitted.uns["gexinfer_evaluation_groups"].query("model == 'ridge'")
    for group, n in groups[["group", "n_samples"]].to_numpy():
        assert rows[group][1] == str(n)
    r = fitted.varm["gexinfer_pearson"]["ridge"].sort_values()
    assert rows[r.index[0]][1] == f"{r.iloc[0]:.3f}"
    assert "split at random" in page.text


def test_the_page_needs_nothing_else(fitted, read):
    page = read(fitted, key="dgex")
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    for image in page.images:
        assert image["alt"]
        assert base64.b64decode(image["src"].split(",")[1])[:4] == b"\x89PNG"
    # Density, two scatters, three genes, coverage, novelty, training.
    assert len(page.images) == 9
    assert "after each epoch" in page.text


@pytest.fixture
def ridge(small):
    gx.tl.fit(small, "ridge", progress=False)
    return small


def test_a_model_from_elsewhere_is_judged_on_all_samples(ridge, read):
    test = ridge[ridge.obs["split"] == "test"].copy()
    del test.obs["split"]
    test.uns.clear()
    page = read(test, model=gx.io.read_model(ridge), key="shared")
    assert f"On {test.n_obs} samples" in page.text
    assert "shared: 60 landmarks to 90 targets" in page.text
    with pytest.raises(ValueError, match="204 of the 240 samples were training or validation rows of 'ridge'. With mo"):
        read(ridge, model=ridge)
    with pytest.raises(TypeError, match=r"model='ridge.safetensors' is a str; .*gexinfer.io.read_model\(path\)"):
        read(test, model="ridge.safetensors")


def test_names_are_text_and_no_markup(ridge, read):
    names = ridge.var_names.to_series()
    gx.tl.predict(ridge, progress=False)
    gx.tl.evaluate(ridge)
    best = ridge.varm["gexinfer_pearson"]["ridge"].idxmax()
    ridge.var_names = names.replace(best, "<script>alert(1)</script>")
    ridge.obs["tissue"] = ["<b>blood</b>"] * ridge.n_obs
    gx.tl.fit(ridge, "ridge", progress=False)
    page = read(ridge, groupby="tissue")
    assert "<script>alert(1)</script>" in {row[0] for row in page.rows if row}
    assert "<b>blood</b>" in {row[0] for row in page.rows if row}


def test_what_speaks_against_a_model_comes_first(small, read):
    rng = np.random.default_rng(0)
    # Test samples of another kind, of a single study, whose targets are those of other samples.
    test = np.flatnonzero(small.obs["split"] == "test")
    small.obs["study"] = np.where(small.obs["split"] == "test", "strange", "known")
    targets = np.flatnonzero(~small.var["landmark"])
    small.X[np.ix_(test, targets)] = small.X[np.ix_(rng.permutation(test), targets)]
    small.X[test] += rng.normal(0, np.where(small.var["landmark"], 3, 30), (len(test), small.n_vars))
    small.uns["gexinfer_split"]["by"] = "by study"
    gx.tl.fit(small, "knn", progress=False)
    gx.tl.fit(small, "ridge", progress=False)
    with pytest.warns(UserWarning, match="the query holds negative values"):
        text = read(small, key="knn").text
    for finding in (
        "It is not better than the training mean",
        "of too few groups (split by study)",
        "They are too narrow here",
        "stranger than 99 % of the samples",
        "the query holds negative values",
        "holds its 168 training samples, and expression profiles identify people",
    ):
        assert finding in text
    assert text.index("Read this first") < text.index("How large is the error?")


def test_what_nobody_knows_is_left_out(small, read):
    target = small.var_names[~small.var["landmark"]][0]
    gx.tl.fit(small, "knn", targets=[target], progress=False)
    assert "Trusted genes" not in read(small).text
    del small.uns["knn"]
    gx.tl.fit(small, "mean", progress=False)
    text = read(small, key="mean").text
    assert "nan" not in text
    assert re.search(r"Trusted genes ?0% ?recall", text)
    assert "here 90 of 90" in text
    small.obs.loc[small.obs["split"] == "validation", "split"] = "train"
    del small.uns["mean"]
    gx.tl.fit(small, "ridge", progress=False)
    text = read(small).text
    assert "It has no intervals" in text
    assert "Strange samples" not in text
    test = small[small.obs["split"] == "test"]
    for n in (1, 3):
        text = read(test[:n].copy(), model=small).text
        assert f"judged on {n} samples only" in text
        assert "nan" not in text


def test_strange_samples_are_those_of_the_model_that_the_page_is_about(small, read):
    gx.tl.fit(small, "ridge", progress=False)
    alone = read(small, key="ridge").text
    usual = small[small.obs["split"] != "test"].copy()
    # All test samples are strange to this one.
    usual.X = usual.X * np.float32(0.1)
    gx.tl.fit(usual, "ridge", key_added="other", progress=False)
    small.uns["other"] = usual.uns["other"]
    with pytest.warns(UserWarning):
        both = read(small, key="ridge").text
    share = re.compile(r"Strange samples ?(\d+%)")
    assert share.search(both).group(1) == share.search(alone).group(1)


def test_what_cannot_be_reported_is_refused_and_writes_nothing(small, ridge, read, tmp_path):
    with pytest.raises(ValueError, match=r"'report.pdf' must end in '.html'"):
        gx.io.write_report(ridge, "report.pdf")
    with pytest.raises(FileNotFoundError, match="no folder"):
        gx.io.write_report(ridge, tmp_path / "none" / "report.html")
    with pytest.raises(KeyError, match="no column 'organ'"):
        read(ridge, groupby="organ")
    with pytest.raises(KeyError, match="no gexinfer model 'dgex'; it holds 'ridge'"):
        read(ridge, key="dgex")
    ridge.obs["split"] = "train"
    with pytest.raises(ValueError, match="marks no row as 'test', on which to judge"):
        read(ridge)
    assert list(tmp_path.iterdir()) == []


def test_from_a_shell(ridge, tmp_path):
    from typer.testing import CliRunner

    from gexinfer.cli import app

    ridge.write_h5ad(tmp_path / "ref.h5ad")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "ref.h5ad"), "--out", str(tmp_path / "page.html")])
    assert done.exit_code == 0, done.output
    assert "ridge: 60 landmarks to 90 targets" in (tmp_path / "page.html").read_text()


def test_a_model_that_is_ahead_by_its_mean_alone_is_not_called_better():
    adata = AnnData(np.zeros((1, 1), np.float32))
    adata.uns["gexinfer_evaluation_pairs"] = pd.DataFrame(
        [
            ("net", "ridge", 0.22, 0.006, 0.002),
            ("net", "ols", 0.90, 0.4, -0.1),
            ("net", "knn", 0.40, 0.1, -0.05),
            ("net", "mean", 0.99, 0.5, np.nan),
            ("kernel", "net", 0.3, 0.1, 0.1),
        ],
        columns=["first", "second", "better", "gain", "difference_high"],
    )
    assert list(level_ones(adata, "net")) == [
        "Its mean error is 0.6% below that of ridge, but that may be chance and it is better for only 22% of the genes.",
        "Its mean error is 10.0% below that of knn, but it is better for only 40% of the genes.",
    ]
