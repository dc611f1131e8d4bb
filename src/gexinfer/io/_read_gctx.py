from __future__ import annotations

import errno
import gzip
import os
import re
import shlex
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer.io._cmap import damaged, kind_of
from gexinfer.io._gct import load_gct
from gexinfer.io._gctx import load_gctx

Picks = Sequence[str] | Sequence[int] | NDArray[np.generic] | slice


def read_gctx(
    path: str | os.PathLike[str], *, rows: Picks | None = None, cols: Picks | None = None, lazy: bool = False
) -> AnnData:
    """Read a GCTX file, the format of LINCS and CMap, or the part of it that is asked for.

    `rows` and `cols` are meant as in the file, where genes are rows and samples are columns; in the result samples are
    rows. Both pick at once, and memory is bounded by what they pick and a small buffer.

    Parameters
    ----------
    path
        The file. What it is, HDF5, text (GCT) or either of them gzipped, is seen from its content, not its name. A
        gzipped GCTX is unpacked to a temporary file.
    rows
        Genes, by id (text) or by index (0 is the first; none is negative), in the order wanted; or a bool mask, or a
        slice. All where not given.
    cols
        Samples, in the same way.
    lazy
        Leave the values in the file: `X` is a dask array, whose blocks open the file by themselves, also in other
        processes. Not for text or gzipped files.

    Returns
    -------
    Samples x genes. `X` is float32, in the units of the file; -666 is missing: NaN. `obs` and `var` hold the metadata,
    numbers as numbers and text as categories; -666 is missing there, too, and so is text that is NaN, nan, NA, na, N/A
    or nothing at all. Where the genes' metadata say it (`pr_is_lm`, `pr_is_lmark` or `feature_space`; `pr_is_bing` or
    `feature_space`), `var["landmark"]` and `var["bing"]` flag the landmarks and the best inferred genes with them,
    unless the file has columns of these names.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        The file does not hold some of the ids; names them.
    TypeError
        `rows` or `cols` is no list of ids or of indices.
    ValueError
        The file is of another kind, truncated or damaged; an index is outside; something is asked for twice, or by an
        id that the file holds twice; the result does not fit in memory; or the file cannot be read lazily.

    Warns
    -----
    UserWarning
        The metadata do not say of each gene whether it is a landmark, contradict one another, or cannot be kept.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017` (L1000).

    Examples
    --------
    >>> gx.io.write_gctx(ref, "measured.gctx")
    >>> part = gx.io.read_gctx("measured.gctx", rows=["A2M", "LDLR"], cols=slice(0, 3))
    >>> part.to_df().round(1)
                              A2M  LDLR
    GTEX-SNMC-0826-SM-4DM66  11.0   5.1
    GTEX-SE5C-1026-SM-4BRUG   9.1   5.9
    GTEX-S4Q7-0926-SM-4AD5D  11.5   6.8
    >>> gx.io.read_gctx("measured.gctx", lazy=True).X.shape
    (696, 298)
    """
    path = Path(path)
    kind, compressed = kind_of(path)
    if lazy and (kind == "gct" or compressed):
        what = "text" if kind == "gct" else "gzipped"
        out = re.sub(r"(\.gctx?)?(\.gz)?$", "", str(path), count=1) + ".zarr"
        raise ValueError(
            f"{str(path)!r} is {what}, which can only be read from its start, so not with lazy=True. Convert it once: "
            f"gexinfer convert {shlex.quote(str(path))} {shlex.quote(out)}, or .gctx."
        )
    if kind == "gct":
        return load_gct(path, compressed, rows, cols)
    if not compressed:
        return load_gctx(path, rows, cols, lazy)
    with unpacked(path) as copy:
        return load_gctx(copy, rows, cols, lazy)


@contextmanager
def unpacked(path: Path, beside: Path | None = None) -> Iterator[Path]:
    """Give an unpacked copy of a gzipped file for a while: HDF5 is read at many places, gzip from its start alone."""
    with tempfile.TemporaryDirectory(prefix=".gexinfer-", dir=beside and beside.absolute().parent) as folder:
        copy = Path(folder) / path.name
        unpack(path, copy)
        try:
            yield copy
        except (KeyError, ValueError) as error:
            # Nobody finds the copy that the message names, once it is gone.
            error.args = tuple(str(arg).replace(repr(str(copy)), f"{str(path)!r} (unpacked)") for arg in error.args)
            raise


def unpack(path: Path, copy: Path) -> None:
    try:
        with gzip.open(path) as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target, 2**20)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise damaged(path, error) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise ValueError(
            f"There is no room in {str(copy.parent.parent)!r} to unpack {str(path)!r}. Unpack it elsewhere, with "
            "gunzip, and read that."
        ) from error
