"""Models and L1000 data as files."""

from gexinfer._record import FittedModel
from gexinfer.io._gctx import read_gctx
from gexinfer.io._models import read_model, write_model

__all__ = ["FittedModel", "read_gctx", "read_model", "write_model"]
