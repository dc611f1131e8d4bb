"""Real data to try things on."""

from gexinfer.datasets._bulk import bulk

__all__ = ["bulk"]
