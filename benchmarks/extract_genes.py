"""Write the gene table that `gexinfer.pp.match_genes` looks ids up in, from the tables that it was joined from.

Usage: GEXINFER_DATA=<folder of the data sets> python benchmarks/extract_genes.py
"""

import gzip
import os
import re
from pathlib import Path

import anndata as ad
import pandas as pd

DATA = Path(os.environ.get("GEXINFER_DATA", "../shared/data"))
OUT = Path(__file__).parents[1] / "src" / "gexinfer" / "pp" / "genes.tsv.gz"
SEVERAL = "///"


def main() -> None:
    lincs = pd.read_csv(DATA / "l1000" / "geneinfo.tsv.gz", sep="\t", dtype=str, keep_default_na=False)
    landmarks = pd.read_csv(DATA / "l1000_landmarks_978.tsv", sep="\t", dtype=str, keep_default_na=False)
    panel = pd.read_csv(OUT.with_name("panels.tsv"), sep="\t", dtype=str, keep_default_na=False)
    compendium = ad.read_h5ad(DATA / "rnaseq_compendium_counts.h5ad", backed="r").var.astype(str)
    pbmc = ad.read_h5ad(DATA / "pbmc3k_raw.h5ad", backed="r").var.astype(str)

    # LINCS: one gene for each Entrez id, and the probes that measure it alone.
    one = lincs[(lincs["pr_gene_id"] != "") & ~lincs["pr_gene_id"].str.contains(SEVERAL)]
    genes = {entrez: {"symbols": [symbol], "ensembl": [], "probes": []} for entrez, symbol in by_entrez(one)}
    for entrez, probe in zip(one["pr_gene_id"], one["pr_id"], strict=True):
        genes[entrez]["probes"] += [probe] if probe else []
    # A probe of several genes stands with each, so that a look-up sees that it is ambiguous.
    for ids, probe in lincs.loc[lincs["pr_gene_id"].str.contains(SEVERAL), ["pr_gene_id", "pr_id"]].to_numpy():
        known = [entrez for entrez in ids.split(SEVERAL) if entrez in genes]
        for entrez in known if len(known) > 1 else []:
            genes[entrez]["probes"].append(probe)

    # Newer symbols go first. One that another gene has, or that stands beside the older one, is another gene's.
    taken = {gene["symbols"][0] for gene in genes.values()}
    for entrez, aliases in panel.loc[panel["aliases"] != "", ["entrez", "aliases"]].to_numpy():
        symbols, others = genes[entrez]["symbols"], [name for name in aliases.split("|") if name not in taken]
        # The last is today's, but the name of a read-through transcript is none of the gene alone.
        genes[entrez]["symbols"] = [*symbols, *others] if "-" in aliases else [*others[::-1], *symbols]
    newer = compendium[~compendium["entrez"].duplicated(keep=False) & compendium["entrez"].isin(genes)]
    present = set(compendium["symbol"])
    for entrez, symbol in newer[["entrez", "symbol"]].to_numpy():
        symbols = genes[entrez]["symbols"]
        if symbol not in taken and symbol not in symbols and not present.intersection(symbols):
            symbols.insert(0, symbol)
    genes = {entrez: gene for entrez, gene in genes.items() if any(gene["symbols"])}
    for gene in genes.values():
        gene["symbols"] = list(dict.fromkeys(name for s in gene["symbols"] if s for name in (usual(s), s)))

    # Ensembl: those of the landmarks, then those of the annotation by 10x; its genes that LINCS lacks are rows, too.
    for entrez, now, dgex in landmarks[["entrez", "ensembl_grch38", "ensembl_dgex"]].to_numpy():
        genes[entrez]["ensembl"] += [gene for gene in dict.fromkeys([now, dgex]) if gene]
    has = {ensembl for gene in genes.values() for ensembl in gene["ensembl"]}
    named = {symbol: entrez for rank in (1, 0) for symbol, entrez in symbols_of(genes, rank)}
    for symbol, ensembl in pbmc[["symbol", "ensembl"]].to_numpy():
        key = named.setdefault(symbol, named.get(usual(symbol), f"only Ensembl {usual(symbol)}"))
        gene = genes.setdefault(key, {"symbols": [usual(symbol)], "ensembl": [], "probes": []})
        gene["symbols"] = list(dict.fromkeys([*gene["symbols"], symbol]))
        gene["ensembl"] += [] if ensembl in has else [ensembl]

    table = pd.DataFrame(
        {
            "symbol": [gene["symbols"][0] for gene in genes.values()],
            "aliases": ["|".join(gene["symbols"][1:]) for gene in genes.values()],
            "ensembl": ["|".join(gene["ensembl"]) for gene in genes.values()],
            "entrez": [entrez if entrez.isdecimal() else "" for entrez in genes],
            "probes": ["|".join(gene["probes"]) for gene in genes.values()],
        }
    ).sort_values("symbol")
    if table["symbol"].duplicated().any():
        raise ValueError(f"symbols of two genes: {table.loc[table['symbol'].duplicated(), 'symbol'].tolist()}")
    # Without the time of day in its head the file is the same each time.
    OUT.write_bytes(gzip.compress(table.to_csv(sep="\t", index=False, lineterminator="\n").encode(), 9, mtime=0))
    print(f"{OUT.name}: {len(table):,} genes, {OUT.stat().st_size / 1e6:.2f} MB")
    for column in table.columns:
        ids = table[column][table[column] != ""].str.split("|").explode()
        shared = ids[ids.duplicated(keep=False)].nunique()
        print(f"{column}: {ids.nunique():,} ids of {ids.index.nunique():,} genes, {shared:,} of several")


def usual(symbol: str) -> str:
    """Return an open reading frame as it is written: LINCS and 10x have C5ORF24 for C5orf24."""
    return re.sub(r"^(C(?:\d+|X|Y))ORF(\d+)", r"\1orf\2", symbol)


def by_entrez(one: pd.DataFrame) -> list[tuple[str, str]]:
    return list(one.drop_duplicates("pr_gene_id")[["pr_gene_id", "pr_gene_symbol"]].itertuples(index=False, name=None))


def symbols_of(genes: dict[str, dict[str, list[str]]], rank: int) -> list[tuple[str, str]]:
    """Return (symbol, gene): each gene's own, or with rank 1 its others."""
    return [
        (symbol, entrez)
        for entrez, gene in genes.items()
        for symbol in (gene["symbols"][1:] if rank else gene["symbols"][:1])
    ]


if __name__ == "__main__":
    main()
