"""GCTX files, written here as LINCS writes them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

import gexinfer as gx


def write_gctx(path, X, samples, genes, text="bytes"):
    """Write a matrix of samples x genes; `text` is stored as bytes or as str."""
    kind = h5py.string_dtype() if text == "str" else "S20"
    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file["0/DATA/0/matrix"] = X
        file["0/META/COL/id"] = np.array(samples, dtype=object).astype(kind)
        file["0/META/ROW/id"] = np.array(genes, dtype=object).astype(kind)
        file["0/META/COL/cell_id"] = np.array(["A375", "-666", "MCF7"], dtype=object).astype(kind)
        file["0/META/COL/pert_mfc_id"] = np.array(["-666"] * 3, dtype=object).astype(kind)
        file["0/META/COL/qc_slope"] = np.array([62.0, -666.0, 58.5])
        file["0/META/ROW/pr_is_lm"] = np.arange(len(genes)) % 2
    return path


@pytest.mark.parametrize("text", ["bytes", "str"])
def test_values_names_and_metadata(tmp_path, text):
    X = np.arange(12, dtype=np.float64).reshape(3, 4)
    X[1, 2] = -666
    adata = gx.io.read_gctx(
        write_gctx(tmp_path / "a.bin", X, ["s1", "s2", "s3"], ["5720", "55847", "25803", "466"], text)
    )
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, np.where(X == -666, np.nan, X))
    assert adata.obs_names.tolist() == ["s1", "s2", "s3"]
    assert adata.var_names.tolist() == ["5720", "55847", "25803", "466"]
    assert adata.obs["cell_id"].astype(object).fillna("").tolist() == ["A375", "", "MCF7"]
    np.testing.assert_array_equal(adata.obs["qc_slope"], [62, np.nan, 58.5])
    adata.write_h5ad(tmp_path / "a.h5ad")


def test_numbers_as_gene_ids_become_text(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", np.ones((3, 2)), ["a", "b", "c"], ["1", "2"])
    with h5py.File(path, "a") as file:
        del file["0/META/ROW/id"]
        file["0/META/ROW/id"] = np.array([5720, 466])
    assert gx.io.read_gctx(path).var_names.tolist() == ["5720", "466"]


def test_a_query_from_gctx_is_inferred(fitted, tmp_path):
    model = gx.io.read_model(fitted, key="ridge")
    query = fitted[:3, list(model.landmarks)]
    path = write_gctx(tmp_path / "level3.gctx", np.asarray(query.X), query.obs_names.tolist(), query.var_names.tolist())
    full = gx.tl.predict(gx.io.read_gctx(path), model=fitted, key="ridge", output="anndata", progress=False)
    np.testing.assert_array_equal(full[:, fitted.var_names].X, fitted.layers["ridge"][:3])


def test_files_that_are_no_gctx(tmp_path):
    path = write_gctx(tmp_path / "a.gctx", np.ones((3, 4000)), ["a", "b", "c"], [str(i) for i in range(4000)])
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(ValueError, match="a.gctx', 60,000 bytes, cannot be read as GCTX.*truncated"):
        gx.io.read_gctx(path)
    with pytest.raises(ValueError, match="is damaged: it names 3 samples and 2 genes, but its matrix has shape"):
        gx.io.read_gctx(write_gctx(tmp_path / "b.gctx", np.ones((3, 4)), ["a", "b", "c"], ["1", "2"]))
    with h5py.File(tmp_path / "c.gctx", "w") as file:
        file["other"] = 1
    with pytest.raises(ValueError, match="c.gctx.* cannot be read as GCTX"):
        gx.io.read_gctx(tmp_path / "c.gctx")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        gx.io.read_gctx(tmp_path / "d.gctx")
