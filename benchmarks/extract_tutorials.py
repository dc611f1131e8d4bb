"""Write the extracts that the tutorials read, from the example files they were cut from.

Usage: GEXINFER_DATA=<folder with l1000/> python benchmarks/extract_tutorials.py
"""

import gzip
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

import gexinfer as gx

SOURCE = Path(os.environ.get("GEXINFER_DATA", "../shared/data")) / "l1000"
OUT = Path(__file__).parents[1] / "tutorials" / "data"
SAMPLE_COLUMNS = {
    "cell_id": "cell_id",
    "pert_id": "pert_id",
    "pert_desc": "pert_desc",
    "pert_type": "pert_type",
    "exp_pert_dose": "pert_dose",
    "exp_pert_dose_unit": "pert_dose_unit",
    "exp_pert_time": "pert_time",
    "exp_pert_time_unit": "pert_time_unit",
    "rna_plate": "rna_plate",
    "rna_well": "rna_well",
}
GENE_COLUMNS = ["pr_gene_id", "pr_gene_symbol"]


def main() -> None:
    OUT.mkdir(exist_ok=True)
    l1000()
    affymetrix()
    best_inferred()


def l1000() -> None:
    """All vehicle controls, and every fourth of the compounds that have a name."""
    plate = gx.io.read_gctx(SOURCE / "gctv13_01.gctx")
    control = (plate.obs["pert_type"] == "CTL_VEHICLE").to_numpy()
    named = np.flatnonzero(~control & ~plate.obs["pert_desc"].astype(str).str.startswith("BRD-"))
    kept = np.sort(np.concatenate([np.flatnonzero(control), named[::4]]))
    some = plate[kept].copy()
    some.obs = some.obs[list(SAMPLE_COLUMNS)].rename(columns=SAMPLE_COLUMNS)
    some.var = some.var[GENE_COLUMNS]
    gx.io.write_gctx(some, OUT / "l1000_extract.gctx")


def affymetrix() -> None:
    """All samples, and the probes of the genes of `gexinfer.datasets.bulk()`, to a hundredth."""
    arrays = gx.io.read_gctx(SOURCE / "qnorm_n27x22268.gctx")
    genes = gx.pp.match_genes(gx.datasets.bulk(), copy=True).var_names
    matched = gx.pp.match_genes(arrays, copy=True)
    probes = set("|".join(matched[:, genes].var["gexinfer_matched_from"]).split("|"))
    some = arrays[:, [probe in probes for probe in arrays.var_names]].copy()
    some.X = np.round(some.X, 2)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "affymetrix_27.gctx"
        gx.io.write_gctx(some, plain)
        # No time of writing, so that the same values are the same file.
        packed = gzip.compress(plain.read_bytes(), mtime=0)
    (OUT / "affymetrix_27.gctx.gz").write_bytes(packed)


def best_inferred() -> None:
    """Whether CMap counts the targets of `gexinfer.datasets.bulk()` among its best inferred genes."""
    genes = pd.read_csv(SOURCE / "geneinfo.tsv.gz", sep="\t", dtype=str)
    best = set(genes.loc[genes["is_bing"] == "True", "pr_gene_symbol"])
    reference = gx.datasets.bulk()
    gx.pp.landmarks(reference)
    targets = reference.var_names[~reference.var["landmark"]]
    table = pd.DataFrame({"symbol": targets, "bing": [int(symbol in best) for symbol in targets]})
    table.to_csv(OUT / "l1000_bing.tsv", sep="\t", index=False)


if __name__ == "__main__":
    main()
