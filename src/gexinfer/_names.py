"""Genes are matched by name, Ensembl ids with or without their version, and nothing else is guessed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd
from numpy.typing import NDArray

VERSION = r"^(ENS[A-Z]*[GTP]\d{6,})\.\d+(_PAR_Y)?$"


def without_version(names: pd.Index) -> pd.Index:
    """Return Ensembl ids without their version ("ENSG00000141510.18" as "ENSG00000141510"), other names as they are."""
    return names.astype(str).str.replace(VERSION, lambda m: m.group(1) + (m.group(2) or ""), regex=True)


def locate(wanted: Sequence[str], names: pd.Index) -> NDArray[np.intp]:
    """Return where each wanted gene stands in `names`, -1 for those that do not; an exact match goes first."""
    found = names.get_indexer(pd.Index(wanted))
    if (found < 0).any():
        stems = without_version(names)
        first = ~stems.duplicated()
        places = np.flatnonzero(first)
        by_stem = stems[first].get_indexer(without_version(pd.Index(wanted)))
        found = np.where(found < 0, np.where(by_stem < 0, -1, places[by_stem]), found)
    return found.astype(np.intp)


def lacking(wanted: Sequence[str], names: pd.Index) -> list[str]:
    """Return the wanted genes that `names` does not hold."""
    return [gene for gene, place in zip(wanted, locate(wanted, names), strict=True) if place < 0]


def meant(name: str, names: pd.Index) -> str:
    """Return a question for a message, after a name that most resembles one that is not there; nothing without one."""
    folded = {str(there).casefold(): there for there in names}
    close = get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.75)
    return f" Did you mean {str(folded[close[0]])!r}?" if close else ""


def digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Return a 64-bit digest of each text."""
    return np.frombuffer(b"".join(hashlib.blake2b(t.encode(), digest_size=8).digest() for t in texts), "<u8")


def listed(names: Sequence[object], most: int = 5) -> str:
    """Return the first few names for a message, and how many more there are."""
    shown = ", ".join(repr(str(name)) for name in names[:most])
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")
