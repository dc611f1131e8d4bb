"""What GCT and GCTX files have in common: ids that are asked for, missing values, metadata, the flags of genes."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import LANDMARK
from gexinfer.engine.blocks import Indices
from gexinfer.engine.report import warn

# What these files write for a missing value, and what else stands for one where it is text.
MISSING = -666
NO_VALUE = ("", "NA", "na", "N/A", "NaN", "nan", str(MISSING), f"{MISSING}.0")
REDO = "It may be truncated or damaged: download it again and compare its size."
# A deflated byte holds at most this many.
MOST_PER_GZIP_BYTE = 1032
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A result above this is held against the memory there is; looking it up loads PyTorch, so smaller ones are not.
LARGE = 2**30

BING = "bing"
YES_NO = {"1": True, "1.0": True, "y": True, "yes": True, "true": True}
YES_NO |= {"0": False, "0.0": False, "n": False, "no": False, "false": False}
# Where a flag is taken from, the first there is: a column, and what its values (in lower case) say.
FLAGS: dict[str, dict[str, dict[str, bool]]] = {
    LANDMARK: {
        "pr_is_lm": YES_NO,
        "pr_is_lmark": YES_NO,
        "feature_space": {"landmark": True, "best inferred": False, "inferred": False},
    },
    BING: {
        "pr_is_bing": YES_NO,
        "feature_space": {"landmark": True, "best inferred": True, "inferred": False},
    },
}


def kind_of(path: Path) -> tuple[Literal["gct", "gctx"], bool]:
    """Return what a file is, and whether it is compressed: by its first bytes, whatever its name."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is a folder; a GCT or GCTX is one file.")
    with path.open("rb") as file:
        start = file.read(16)
    compressed = start.startswith(GZIP)
    if compressed:
        try:
            with gzip.open(path) as file:
                start = file.read(16)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, error) from error
    if start.removeprefix(BYTE_ORDER_MARK).startswith(b"#1."):
        return "gct", compressed
    # HDF5 may stand behind a block of the user's; h5py knows where to look.
    if start.startswith(b"\x89HDF\r\n\x1a\n") or (not compressed and h5py.is_hdf5(path)):
        return "gctx", compressed
    if path.suffix in (".csv", ".tsv", ".txt"):
        raise ValueError(
            f"{str(path)!r} is no GCT, and other tables are not read: pandas.read_csv(path, index_col=0) reads "
            "one, and anndata.AnnData(table) takes it, samples x genes; for a shell, write that with .write_h5ad(out)."
        )
    raise ValueError(
        f"{str(path)!r}, {path.stat().st_size:,} bytes, is neither GCTX (HDF5) nor GCT (text that starts with #1.2 or "
        f"#1.3): it starts with {start!r}. It may be truncated, or a page that a server sent in place of the file: "
        "download it again."
    )


def text_column(texts: Sequence[str]) -> pd.Categorical:
    """Return text as categories, which a file can hold with missing values, too."""
    return pd.Categorical(np.array([None if text in NO_VALUE else text for text in texts], dtype=object))


def damaged(path: Path | str, what: object, remedy: str = REDO) -> ValueError:
    """Return the error for a file that cannot be read."""
    return ValueError(f"{str(path)!r}, {Path(path).stat().st_size:,} bytes, cannot be read: {what}. {remedy}")


@dataclass
class Asked:
    """What is asked for along one axis, and where it stands in the file; ids are found as those of the file go by."""

    argument: str
    path: Path
    # How many there are in the file.
    n: int
    ids: pd.Index | None
    # Where each entry stands, -1 while that is not known.
    places: Indices
    seen: int = 0
    examples: list[str] = field(default_factory=list)

    @cached_property
    def by_id(self) -> dict[str | bytes, int]:
        """Which of those asked for an id is, as text and as the bytes of files: ids of many need not be decoded."""
        found: dict[str | bytes, int] = {}
        for place, name in enumerate([] if self.ids is None else self.ids):
            found[name] = place
            found[name.encode()] = place
            if not name.isascii() and decoded_one(raw := name.encode("latin-1", errors="replace")) == name:
                found[raw] = place
        return found

    @cached_property
    def order(self) -> Indices:
        """Which of those asked for each of the file's entries is, where that is known from the start."""
        order = np.full(self.n, -1)
        order[self.places] = np.arange(len(self.places))
        return order

    def look(self, names: Sequence[str] | Sequence[bytes]) -> Indices:
        """Return, for the file's next names, which of those asked for each is; -1 for none."""
        start, self.seen = self.seen, self.seen + len(names)
        if self.ids is None:
            return self.order[start : self.seen]
        found = np.fromiter(map(self.by_id.get, names, repeat(-1)), np.intp, len(names))
        hits = np.flatnonzero(found >= 0)
        which = found[hits]
        again = which[(self.places[which] >= 0) | pd.Series(which).duplicated().to_numpy()]
        if len(again):
            raise ValueError(
                f"{self.argument} names {listed(self.ids[again].unique())}, which {str(self.path)!r} holds more than "
                "once; pick by index instead."
            )
        self.places[which] = start + hits
        self.examples = self.examples or [
            str(name) if isinstance(name, str) else decoded_one(name) for name in names[:3]
        ]
        return found

    def found(self) -> Indices:
        """Return where each entry stands, once all names have gone by."""
        if self.ids is not None and (self.places < 0).any():
            absent = self.ids[self.places < 0]
            raise KeyError(
                f"{self.argument} names {len(absent):,} ids that {str(self.path)!r} does not hold: {listed(absent)}. "
                f"Its {'genes' if self.argument == 'rows' else 'samples'} are called {listed(self.examples)}."
            )
        return self.places


def ask(asked: Any, n: int, argument: str, path: Path) -> Asked:
    """Check what is asked for of the n entries of one axis: ids, indices, a mask or a slice; None is all."""
    if asked is None:
        return Asked(argument, path, n, None, np.arange(n))
    if isinstance(asked, slice):
        if not all(part is None or isinstance(part, Integral) for part in (asked.start, asked.stop, asked.step)):
            raise TypeError(f"{argument} is {asked!r}, and a slice takes indices alone; pass a list of ids instead.")
        return Asked(argument, path, n, None, np.arange(n)[asked])
    if isinstance(asked, str | bytes | Mapping | Set) or not isinstance(asked, Iterable):
        raise TypeError(f"{argument} is {asked!r}; pass a list of ids or of indices, in the order wanted.")
    values = list(asked)
    if values and all(isinstance(value, str) for value in values):
        ids = pd.Index(values, dtype=object)
        if not ids.is_unique:
            raise ValueError(f"{argument} names {listed(ids[ids.duplicated()].unique())} more than once.")
        return Asked(argument, path, n, ids, np.full(len(ids), -1))
    if values and all(isinstance(value, bool | np.bool_) for value in values):
        if len(values) != n:
            raise ValueError(f"{argument} is a mask of {len(values):,}, and {str(path)!r} holds {n:,} {argument}.")
        return Asked(argument, path, n, None, np.flatnonzero(values))
    strange = [value for value in values if not isinstance(value, Integral) or isinstance(value, bool)]
    if strange:
        raise TypeError(f"{argument} holds {listed(strange)}; all of it must be ids (text), or all indices (int).")
    outside = [value for value in values if not 0 <= value < n]
    if outside:
        raise ValueError(
            f"{argument} holds {listed(outside)}; the indices of {str(path)!r} run from 0 to {n - 1:,}. Ids "
            "are text, also those of Entrez: '5720'."
        )
    places = np.array(values, np.intp)
    if len(np.unique(places)) < len(places):
        raise ValueError(f"{argument} names {listed(places[pd.Series(places).duplicated()])} more than once.")
    return Asked(argument, path, n, None, places)


def check_fits(n_samples: int, n_genes: int, path: Path) -> None:
    """Refuse a result that would not fit in memory."""
    size = n_samples * n_genes * 4
    if size < LARGE:
        return
    import torch

    from gexinfer.engine.memory import available

    free = available(torch.device("cpu"))
    if size > free:
        raise ValueError(
            f"{n_samples:,} samples x {n_genes:,} genes of {str(path)!r} need {size:,} bytes of memory, and "
            f"{free:,} are free. Pick genes with rows= and samples with cols=, or read a GCTX with lazy=True."
        )


def decoded(values: Sequence[bytes]) -> list[str]:
    """Return text: UTF-8, or what older files hold instead, Latin-1, as in "10 µM"."""
    try:
        # All at once takes a tenth of the time.
        texts = b"\n".join(values).decode().split("\n")
        if len(texts) == len(values):
            return texts
    except UnicodeDecodeError:
        pass
    return [decoded_one(value) for value in values]


def decoded_one(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def metadata(columns: Mapping[str, Any], ids: Sequence[str]) -> pd.DataFrame:
    """Return a table for `obs` or `var`, under names that h5ad and zarr can hold."""
    names = {name: name.replace("/", "_").replace("\0", "") or "unnamed" for name in columns}
    names = {name: "index" if new == "_index" else new for name, new in names.items()}
    changed = {name: new for name, new in names.items() if name != new}
    if len(set(names.values())) < len(names):
        raise ValueError(
            f"Metadata columns {listed(list(changed))} cannot be named so in h5ad, and what they would become is taken."
        )
    if changed:
        warn(
            f"Metadata columns {listed(list(changed))} are now {listed(list(changed.values()))}: h5ad and zarr "
            "cannot hold the names in the file."
        )
    return pd.DataFrame({names[name]: values for name, values in columns.items()}, index=pd.Index(ids, dtype=object))


def annotated(X: Any, obs: pd.DataFrame, var: pd.DataFrame) -> AnnData:
    """Return samples x genes, with what the metadata say of the genes as bool columns."""
    flag_genes(var)
    return AnnData(X=X, obs=obs, var=var)


def flag_genes(var: pd.DataFrame) -> None:
    """Write `var["landmark"]` and `var["bing"]` where CMap's own columns say it; those that are there already stay."""
    own = BING in var
    for slot, sources in FLAGS.items():
        add_flag(var, slot, sources)
    if not own and BING in var and LANDMARK in var and var[LANDMARK].dtype == bool:
        # What is measured counts as well inferred.
        var[BING] |= var[LANDMARK]


def add_flag(var: pd.DataFrame, slot: str, sources: Mapping[str, Mapping[str, bool]]) -> None:
    """Write `var[slot]` from the first column that says it; one that is there already stays."""
    origin = slot
    for column, meaning in sources.items():
        if column not in var:
            continue
        said = [meaning.get(str(value).strip().lower()) for value in var[column]]
        unclear = np.array([value is None for value in said], bool)
        held = listed(var.loc[unclear, column].unique())
        if len(var) and unclear.all():
            warn(f"var[{column!r}] holds {held}, which flags no gene: var[{slot!r}] is not made from it.")
            continue
        if unclear.any():
            warn(
                f"var[{column!r}] does not say of {unclear.sum():,} genes whether they are {slot}, e.g. "
                f"{listed(var.index[unclear], 3)}: it holds {held}. They count as not."
            )
        flag = np.array([bool(value) for value in said], bool)
        if slot not in var:
            var[slot], origin = flag, column
        elif var[slot].dtype != bool:
            warn(
                f"var[{slot!r}], {var[slot].dtype}, is a column of the file, and var[{column!r}] was not written over "
                f"it. Rename it and read the flag from there, where it is needed."
            )
        elif (var[slot] != flag).any():
            warn(
                f"var[{origin!r}] and var[{column!r}] disagree for {(var[slot] != flag).sum():,} genes; var[{slot!r}] "
                f"follows the former."
            )
