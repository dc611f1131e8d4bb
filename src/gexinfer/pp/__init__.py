"""Before a fit: one column for each gene, one scale for all samples; which genes are landmarks, which rows for what."""

from gexinfer.pp._drop_duplicates import drop_duplicates
from gexinfer.pp._landmarks import landmarks
from gexinfer.pp._match_genes import match_genes
from gexinfer.pp._quantile_normalize import quantile_normalize
from gexinfer.pp._select_landmarks import select_landmarks
from gexinfer.pp._split import split

__all__ = ["drop_duplicates", "landmarks", "match_genes", "quantile_normalize", "select_landmarks", "split"]
