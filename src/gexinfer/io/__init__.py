"""Models, reports and L1000 data as files."""

from gexinfer._fitted import FittedModel
from gexinfer.io._models import read_model, write_model
from gexinfer.io._read_gct import read_gct
from gexinfer.io._read_gctx import read_gctx
from gexinfer.io._read_gmt import read_gmt
from gexinfer.io._write_gctx import write_gctx
from gexinfer.io._write_report import write_report

__all__ = [
    "FittedModel",
    "read_gct",
    "read_gctx",
    "read_gmt",
    "read_model",
    "write_model",
    "write_gctx",
    "write_report",
]
