"""The files that owners publish and gexinfer can load: where each lies, and what is known of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Remote:
    """A file as its owner publishes it."""

    name: str
    version: str
    url: str
    # What it is, and under which terms: goes into `uns["origin"]`.
    origin: str
    # Bytes, about: what people are told before a download starts; None where no source was found.
    size: int | None = None
    unpacked: int | None = None
    # "algorithm:digest", where a source of it was found.
    checksum: str | None = None
    # The owner's list of checksums, where there is one: it is downloaded, and the file is checked against it.
    checksums: Remote | None = None

    @property
    def file(self) -> str:
        """The file's name, with its owner and in the cache."""
        return self.url.rsplit("/", 1)[-1]


# Each address stands in code that downloads from it; the comments say where address, size and digest were found.
# A size that an owner lists as "48.8 GB" counts in 1024s for GEO: exact sizes of neighbouring files show that.
# Never fill in a digest from memory or from one's own download alone: what is not known is handled as not known.

GEO = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE92nnn"
# GEO states no licence; the data release policy of LINCS asks for nothing but citation.
LINCS = "LINCS phase I, GEO GSE92742 (Subramanian et al., Cell 2017, 171:1437); to be cited."

# Listed by GEO for GSE92742, with 1.4 KB; its lines are "digest name".
GSE92742_CHECKSUMS = Remote(
    "GSE92742 checksums", "2017", f"{GEO}/GSE92742/suppl/GSE92742_SHA512SUMS.txt.gz", LINCS, size=1_400
)

# Address: github.com/djhshih/analysis-cmap, phase1/get.sh. Size: 216,692 bytes, in a public catalogue of downloads;
# GEO lists 211.6 KB.
GSE92742_GENES = Remote(
    "GSE92742 gene info",
    "2017",
    f"{GEO}/GSE92742/suppl/GSE92742_Broad_LINCS_gene_info.txt.gz",
    LINCS,
    size=216_692,
    checksums=GSE92742_CHECKSUMS,
)

# Address and size (12,046,182 bytes; GEO lists 11.5 MB): as for the gene info.
GSE92742_SAMPLES = Remote(
    "GSE92742 sample info",
    "2017",
    f"{GEO}/GSE92742/suppl/GSE92742_Broad_LINCS_inst_info.txt.gz",
    LINCS,
    size=12_046_182,
    checksums=GSE92742_CHECKSUMS,
)

# Address: several public scripts. Size: GEO lists 48.8 GB. Unpacked: 1,319,138 x 12,328 float32.
GSE92742_LEVEL3 = Remote(
    "GSE92742 level 3",
    "2017",
    f"{GEO}/GSE92742/suppl/GSE92742_Broad_LINCS_Level3_INF_mlr12k_n1319138x12328.gctx.gz",
    LINCS,
    size=52_400_000_000,
    unpacked=65_100_000_000,
    checksums=GSE92742_CHECKSUMS,
)

PAIRED = "GTEx samples measured by L1000 and by RNA-seq, GEO GSE92743 (Subramanian et al., Cell 2017, 171:1437)."

# Names: github.com/HyunjinHwn/GeneExpressionGNN, README.md (RNA-seq), and public scripts that load the folder (L1000).
# Sizes and digests were not found. Unpacked: 3,176 x 12,320 float32.
GSE92743_L1000 = Remote(
    "GSE92743 L1000",
    "2017",
    f"{GEO}/GSE92743/suppl/GSE92743_Broad_GTEx_L1000_Level3_Q2NORM_n3176x12320.gctx.gz",
    PAIRED,
    unpacked=157_000_000,
)
GSE92743_RNASEQ = Remote(
    "GSE92743 RNA-seq",
    "2017",
    f"{GEO}/GSE92743/suppl/GSE92743_Broad_GTEx_RNAseq_Log2RPKM_q2norm_n3176x12320.gctx.gz",
    PAIRED,
    unpacked=157_000_000,
)

GTEX = "GTEx v8, open access (GTEx Consortium, Science 2020, 369:1318); gtexportal.org/home/license."

# Address and size (1.5 GB): github.com/djhshih/gtex, rna-seq/get.sh. A digest was not found.
GTEX_TPM = Remote(
    "GTEx TPM",
    "v8",
    "https://storage.googleapis.com/adult-gtex/bulk-gex/v8/rna-seq/"
    "GTEx_Analysis_2017-06-05_v8_RNASeQCv1.1.9_gene_tpm.gct.gz",
    GTEX,
    size=1_500_000_000,
)

# Address: public scripts. Size: 11 MB on the GTEx portal. A digest was not found.
GTEX_SAMPLES = Remote(
    "GTEx sample attributes",
    "v8",
    "https://storage.googleapis.com/adult-gtex/annotations/v8/metadata-files/"
    "GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt",
    GTEX,
    size=11_000_000,
)

# Address: a public project that lists its inputs, with the shape 23,722 x 462. Size: 86.6 MB, another one's README; the
# name of the file is that in the code of D-GEX. A digest was not found.
GEUVADIS = Remote(
    "Geuvadis RPKM",
    "2013",
    "https://ftp.ebi.ac.uk/biostudies/fire/E-GEUV-/001/E-GEUV-1/Files/E-GEUV-1/analysis_results/"
    "GD462.GeneQuantRPKM.50FN.samplename.resk10.txt.gz",
    "Geuvadis, ArrayExpress E-GEUV-1 (Lappalainen et al., Nature 2013, 501:506).",
    size=86_600_000,
)

# Address and SHA-256: the data notes and the build script of the public project scCGRL, which names this address as its
# source and checks the digest. The size was not found.
PBMC = Remote(
    "PBMC 10k",
    "Cell Ranger 3.0.0",
    "https://cf.10xgenomics.com/samples/cell-exp/3.0.0/pbmc_10k_v3/pbmc_10k_v3_filtered_feature_bc_matrix.h5",
    "10k PBMCs from a Healthy Donor (v3 chemistry), 10x Genomics; CC BY 4.0.",
    checksum="sha256:ebc5dedc938830e20f8e1aafb893b0a9e0bf88584f3ef2d00b232dd277a188af",
)
