"""Before a fit: which genes are landmarks, and which rows are for what."""

from gexinfer.pp._landmarks import landmarks
from gexinfer.pp._select_landmarks import select_landmarks
from gexinfer.pp._split import split

__all__ = ["landmarks", "select_landmarks", "split"]
