"""GCT files: CMap's own, written here in every variant, and damaged."""

from __future__ import annotations

import csv
import gzip
import tracemalloc
from pathlib import Path
from unittest.mock import patch

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import gexinfer as gx
from gexinfer.io import _gct

DATA = Path(__file__).parent / "data"
OLD = "#1.2\n2\t3\nNAME\tDescription\ts1\ts2\ts3\ng1\tfirst\t1\t2.5\t-3e2\ng2\tna\t-666\tNaN\t\n"
NEW = (
    "#1.3\n3\t2\t2\t2\nid\tpr_is_lmark\tsymbol\ts1\ts2\ncell\tna\tna\tA\t-666\ndose\tna\tna\t1.5\t-666\n"
    "g1\tY\tTP53\t1\t2\ng2\tN\tMYC\t3\tNA\ng3\tN\t-666\t5\t-666.0\n"
)


def written(path, text, compressed=False):
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    return path


def slow(path):
    """Read a GCT the obvious way: values as samples x genes, ids of samples and genes."""
    lines = list(csv.reader(path.open(), delimiter="\t", quoting=csv.QUOTE_NONE))
    sizes = [int(field) for field in lines[1] if field]
    n_genes, n_samples, n_columns, n_lines = sizes if len(sizes) == 4 else (*sizes, 1, 0)
    first = 1 + n_columns
    body = [line[first : first + n_samples] for line in lines[3 + n_lines : 3 + n_lines + n_genes]]
    values = np.array([[float(v) if v not in ("", "NA", "na") else np.nan for v in row] for row in body], np.float32).T
    return (
        np.where(values == -666, np.nan, values),
        lines[2][first : first + n_samples],
        [line[0] for line in lines[3 + n_lines : 3 + n_lines + n_genes]],
    )


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\t\t\n", "\t\r\n", "\n\n", "\n\t\t\n"])
@pytest.mark.parametrize("text", [OLD, NEW, "\ufeff" + NEW, NEW.rstrip("\n")], ids=["1.2", "1.3", "mark", "no end"])
def test_variants(tmp_path, text, ends, compressed):
    expected = slow(written(tmp_path / "plain", text.removeprefix("\ufeff")))
    adata = gx.io.read_gct(written(tmp_path / "a.txt", text.replace("\n", ends), compressed))
    np.testing.assert_array_equal(adata.X, expected[0])
    assert (adata.obs_names.tolist(), adata.var_names.tolist()) == expected[1:]
    if "1.2" in text:
        assert adata.var["Description"].astype(object).fillna("?").tolist() == ["first", "?"]
    else:
        assert adata.obs["cell"].astype(object).fillna("?").tolist() == ["A", "?"]
        np.testing.assert_array_equal(adata.obs["dose"], [1.5, np.nan])
        assert adata.var["landmark"].tolist() == [True, False, False]
    adata.write_h5ad(tmp_path / "a.h5ad")
    adata.write_zarr(tmp_path / "a.zarr")


@pytest.mark.parametrize("name", ["mini_gctoo_for_testing.gct", "older_version_v1_2.gct"])
def test_cmaps_own_files(name):
    X, samples, genes = slow(DATA / name)
    adata = gx.io.read_gct(DATA / name)
    np.testing.assert_array_equal(adata.X, X)
    assert (adata.obs_names.tolist(), adata.var_names.tolist()) == (samples, genes)
    part = gx.io.read_gct(DATA / name, rows=genes[:0:-2], cols=[2, 0])
    np.testing.assert_array_equal(part.X, X[[2, 0]][:, ::-1][:, : len(genes) - 1 : 2])


CELL = st.one_of(
    st.floats(width=32, allow_nan=False).map(repr),
    st.integers(-(10**9), 10**9).map(str),
    st.sampled_from(["", "NA", "nan", "-666", "-666.00", " 5 "]),
)
NAME = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, blacklist_characters="\x7f\x85\xa0"), min_size=1, max_size=8
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_part_of_any_file(tmp_path, data):
    n, m = data.draw(st.tuples(st.integers(1, 8), st.integers(1, 8)))
    genes = data.draw(st.lists(NAME, min_size=m, max_size=m, unique=True))
    samples = data.draw(st.lists(NAME, min_size=n, max_size=n, unique=True))
    cells = data.draw(st.lists(CELL, min_size=n * m, max_size=n * m))
    lines = ["#1.2", f"{m}\t{n}", "\t".join(["Name", "Description", *samples])]
    lines += ["\t".join([gene, "", *cells[i * n : (i + 1) * n]]) for i, gene in enumerate(genes)]
    path = written(tmp_path / "a.gct", "\n".join(lines) + "\n", data.draw(st.booleans()))
    values = np.array([float(c) if c.strip() not in ("", "NA") else np.nan for c in cells]).astype(np.float32)
    X = np.where(values == -666, np.nan, values).reshape(m, n).T
    rows = data.draw(st.lists(st.integers(0, m - 1), unique=True))
    columns = data.draw(st.lists(st.integers(0, n - 1), unique=True))
    with patch.object(_gct, "BLOCK", data.draw(st.sampled_from([1, 30, 2**20]))):
        np.testing.assert_array_equal(gx.io.read_gct(path).X, X)
        for picks in (
            {"rows": rows, "cols": columns},
            {"rows": [genes[i] for i in rows], "cols": [samples[i] for i in columns]},
        ):
            adata = gx.io.read_gct(path, **picks)
            np.testing.assert_array_equal(adata.X, X[np.ix_(columns, rows)])
            assert adata.var_names.tolist() == [genes[i] for i in rows]


@pytest.mark.parametrize(
    ("texts", "kind", "values"),
    [
        (["1", "2"], "i", [1, 2]),
        (["1", "-666"], "f", [1, np.nan]),
        (["1.50", "-3e-2"], "f", [1.5, -0.03]),
        (["1", "NA"], "f", [1, np.nan]),
        (["007", "008"], "O", ["007", "008"]),
        (["1", "x"], "O", ["1", "x"]),
        (["9007199254740993", "1"], "O", ["9007199254740993", "1"]),
        (["1_000", "2"], "O", ["1_000", "2"]),
        (["14|15", "14"], "O", ["14|15", "14"]),
        (["-666", ""], "O", [np.nan, np.nan]),
    ],
)
def test_metadata_become_numbers_only_where_nothing_is_lost(tmp_path, texts, kind, values):
    text = "#1.3\n1\t2\t0\t1\nid\ts1\ts2\nabout\t{}\t{}\ng\t1\t2\n".format(*texts)
    found = gx.io.read_gct(written(tmp_path / "a.gct", text)).obs["about"]
    assert np.asarray(found).dtype.kind == kind
    assert ["?" if v != v else v for v in found.tolist()] == ["?" if v != v else v for v in values]


def test_latin_1_and_names_that_h5ad_cannot_hold(tmp_path):
    text = "#1.3\n1\t2\t0\t2\nid\ts1\ts2\na/b\t1\t2\ndose\t1 µM\t2 µM\nµ\t1\t2\n".encode("latin-1")
    path = written(tmp_path / "a.gct", text)
    with pytest.warns(UserWarning, match="columns 'a/b' are now 'a_b'"):
        adata = gx.io.read_gct(path, rows=["µ"])
    assert adata.obs["dose"].tolist() == ["1 µM", "2 µM"]
    adata.write_h5ad(tmp_path / "a.h5ad")


def test_memory_is_bounded_by_what_is_asked_for(tmp_path):
    line = "\t".join(f"{value:.4f}" for value in np.random.default_rng(0).normal(size=2000))
    head = "\t".join(["Name", "Description", *(f"s{i}" for i in range(2000))])
    body = "\n".join(f"g{i}\t\t{line}" for i in range(1000))
    path = written(tmp_path / "a.gct", f"#1.2\n1000\t2000\n{head}\n{body}\n")
    tracemalloc.start()
    adata = gx.io.read_gct(path, rows=["g999", "g0"], cols=["s5"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert adata.X.tolist() == [[np.float32(line.split("\t")[5])] * 2]
    assert path.stat().st_size > 14e6
    assert peak < 7e6


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.replace("#1.3", "#1.4"), "line 1 is b'#1.4'; versions #1.2 and #1.3 are read"),
        (lambda t: t.replace("3\t2\t2\t2", "3\t2"), "line 2 is b'3 2', where 4 numbers should be"),
        (lambda t: t.replace("3\t2\t2\t2", "3\t2\t2\t-2"), "line 2 is"),
        (lambda t: t.replace("3\t2\t2\t2", "0\t2\t2\t2"), "line 2 announces 0 genes and 2 samples"),
        (
            lambda t: t.replace("3\t2\t2\t2", "999999999999\t2\t2\t2"),
            "line 2 announces 999,999,999,999 genes x 2 samples, more than its bytes",
        ),
        (
            lambda t: t.replace("3\t2\t2\t2", "4\t2\t2\t2"),
            "line 2 announces 4 genes, and the file ends after 3, at line 8",
        ),
        (lambda t: t.replace("3\t2\t2\t2", "2\t2\t2\t2"), "line 8 is one more than the 2 genes that line 2 announces"),
        (lambda t: t.replace("3\t2\t2\t2", "3\t3\t2\t2"), "line 3 has 5 fields where the lines above announce 6"),
        (lambda t: t.replace("\tMYC", ""), "line 7 has 4 fields where the lines above announce 5"),
        (lambda t: t.replace("MYC\t3", "MYC\tthree"), "line 7 holds 'three' where a number should be"),
        (lambda t: t.replace("MYC\t3", "MYC\t1_0"), "line 7 holds '1_0' where a number should be"),
        (lambda t: t.replace("MYC\t3", "MYC\t1,5"), "line 7 holds '1,5' where a number should be"),
        (lambda t: t.replace("dose", "cell"), "not told apart: 'cell' comes twice"),
        (lambda t: t[: t.index("g2") + 6], "line 7 has 3 fields where"),
        (lambda t: t[: t.index("g2")], "the file ends after 1, at line 6"),
        (lambda t: t[: t.index("cell")], "more than its bytes can hold|the file ends after line 3"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_are_told_with_the_line(tmp_path, change, match, compressed):
    path = written(tmp_path / "a.gct", change(NEW), compressed)
    with pytest.raises(ValueError, match=f"a.gct', {path.stat().st_size:,} bytes, cannot be read: .*(?:{match})"):
        gx.io.read_gct(path)


def test_a_cut_anywhere_is_seen_but_within_the_last_number(tmp_path):
    whole, last = NEW.encode(), len(NEW) - len("-666.0\n")
    for keep in range(last):
        with pytest.raises(ValueError, match=f"a.gct', {keep:,} bytes, "):
            gx.io.read_gct(written(tmp_path / "a.gct", whole[:keep]))
    packed = gzip.compress(whole)
    for keep in range(len(packed)):
        with pytest.raises(ValueError, match=f"a.gct', {keep:,} bytes, "):
            gx.io.read_gct(written(tmp_path / "a.gct", packed[:keep]))


def test_a_line_without_an_end_is_not_searched_through(tmp_path):
    path = written(tmp_path / "a.gct", "#1.2\n1\t1\n" + "x" * 5000)
    with patch.object(_gct, "LONGEST_LINE", 1000), pytest.raises(ValueError, match="line 3 has 1,000 bytes and no end"):
        gx.io.read_gct(path)


def test_what_does_not_fit_is_refused(tmp_path):
    from gexinfer.engine import memory
    from gexinfer.io import _cmap

    path = written(tmp_path / "a.gct", NEW)
    with patch.object(_cmap, "LARGE", 1), patch.object(memory, "available", return_value=10):
        with pytest.raises(ValueError, match="2 samples x 3 genes of .* Pick genes with rows="):
            gx.io.read_gct(path)
        assert gx.io.read_gct(path, rows=[0], cols=[0]).shape == (1, 1)


@pytest.mark.parametrize(
    ("cell", "remedy"), [("1,5", "decimal point"), ("1,000", "write .* 1000 for 1,000"), ("1;5", "download it again")]
)
def test_a_comma_in_a_number_is_no_damage(tmp_path, cell, remedy):
    path = written(tmp_path / "a.gct", NEW.replace("MYC\t3", f"MYC\t{cell}"))
    with pytest.raises(ValueError, match=f"line 7 holds '{cell}' where a number should be. .*{remedy}") as error:
        gx.io.read_gct(path)
    assert ("download" in str(error.value)) == (cell == "1;5")


@pytest.mark.parametrize("compressed", [False, True])
def test_picks_are_checked(tmp_path, compressed):
    path = written(tmp_path / "a.gct", NEW.replace("g3", "g2"), compressed)
    with pytest.raises(
        KeyError, match="rows names 1 ids that .* does not hold: 'x'. Its genes are called 'g1', 'g2', 'g2'"
    ):
        gx.io.read_gct(path, rows=["x"])
    with pytest.raises(ValueError, match="rows names 'g2', which .* holds more than once"):
        gx.io.read_gct(path, rows=["g2"])
    with pytest.raises(KeyError, match="Its samples are called 's1', 's2'"):
        gx.io.read_gct(path, cols=["s3"])
    assert gx.io.read_gct(path, rows=["g1"]).var_names.tolist() == ["g1"]
    assert gx.io.read_gct(path, rows=[2, 0]).X[0].tolist() == [5, 1]
