"""Write the extract that `gexinfer.datasets.bulk()` loads, from the RNA-seq compendium it was cut from.

Usage: GEXINFER_DATA=<folder with rnaseq_compendium_counts.h5ad> python benchmarks/extract_bulk.py
"""

import os
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd

PIPELINES = ["RNAseqDB STAR+RSEM", "curatedTBData Rsubread hg19"]
TARGETS = 2000
ORIGIN = (
    "log2(counts per million + 1). RNAseqDB, open-tier GTEx and TCGA (Wang et al., Sci Data 2018, 5:180061); "
    "curatedTBData, seven GEO blood studies (MIT licence). All 978 L1000 landmark genes and 2,000 of the genes that "
    "L1000 infers, drawn at random among those with 10 or more reads in a tenth of the samples."
)
OUT = Path(__file__).parents[1] / "src" / "gexinfer" / "datasets" / "bulk.h5ad"


def main() -> None:
    source = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
    full = ad.read_h5ad(source / "rnaseq_compendium_counts.h5ad")
    full = full[full.obs["pipeline"].isin(PIPELINES)].copy()
    genes = pd.read_csv(source / "l1000" / "geneinfo.tsv.gz", sep="\t", low_memory=False)
    inferred_by_l1000 = genes.loc[genes["is_l1000"], "pr_gene_symbol"].dropna().unique()

    landmark = full.var["is_landmark"].to_numpy()
    detected = (full.X >= 10).mean(axis=0) >= 0.1
    has_ensembl = full.var["ensembl"].astype(str).str.startswith("ENSG").to_numpy()
    pool = np.flatnonzero(~landmark & detected & has_ensembl & full.var_names.isin(inferred_by_l1000))
    targets = np.random.default_rng(0).choice(pool, TARGETS, replace=False)
    genes_kept = np.sort(np.concatenate([np.flatnonzero(landmark), targets]))

    per_million = full.X / full.X.sum(axis=1, keepdims=True) * 1e6
    # float16 steps are 1/128 at a level of 8 to 16: far below what counting noise allows one to see.
    values = np.log2(per_million + 1)[:, genes_kept].astype(np.float16)
    obs = full.obs[["cohort", "tissue", "subject", "source", "pipeline"]].copy()
    for column in obs:
        obs[column] = obs[column].astype(str).astype("category")
    var = pd.DataFrame(
        {
            "symbol": full.var_names[genes_kept].astype(str),
            "ensembl": full.var["ensembl"].astype(str).to_numpy()[genes_kept],
            "entrez": full.var["entrez"].astype(str).to_numpy()[genes_kept],
        },
        index=full.var_names[genes_kept],
    )
    extract = ad.AnnData(X=values, obs=obs, var=var)
    with h5py.File(OUT, "w") as file:
        # Byte shuffling saves another sixth, and `write_h5ad` does not offer it.
        tight = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
        ad.io.write_elem(file, "/", extract, dataset_kwargs=tight)
        ad.io.write_elem(file, "uns", {"origin": ORIGIN})
    print(f"{OUT.name}: {extract.shape[0]} samples x {extract.shape[1]} genes, {OUT.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
