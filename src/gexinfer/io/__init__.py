"""Models as files."""

from gexinfer._record import FittedModel
from gexinfer.io._models import read_model, write_model

__all__ = ["FittedModel", "read_model", "write_model"]
