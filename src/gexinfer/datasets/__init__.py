"""Real data to try things on: one set in the package, others from where their owners publish them."""

from gexinfer.datasets._bulk import bulk
from gexinfer.datasets._gene_info import gene_info
from gexinfer.datasets._geuvadis import geuvadis
from gexinfer.datasets._gse92742 import gse92742
from gexinfer.datasets._gse92743 import gse92743
from gexinfer.datasets._gtex import gtex
from gexinfer.datasets._pbmc import pbmc

__all__ = ["bulk", "gene_info", "geuvadis", "gse92742", "gse92743", "gtex", "pbmc"]
