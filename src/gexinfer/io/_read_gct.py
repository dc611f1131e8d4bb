from __future__ import annotations

import os

from anndata import AnnData

from gexinfer.io._read_gctx import Picks, read_gctx


def read_gct(path: str | os.PathLike[str], *, rows: Picks | None = None, cols: Picks | None = None) -> AnnData:
    """Read a GCT file (1.2 or 1.3), the text format of LINCS and CMap, or the part of it that is asked for.

    The text is read in blocks of lines, of which only what is asked for is kept. Other content is read as by
    `gexinfer.io.read_gctx`, whatever the name of the file.

    Parameters
    ----------
    path
        The file, gzipped or not.
    rows
        Genes, which are the rows of the file, by id (text) or by index (0 is the first; none is negative), in the order
        wanted; or a bool mask, or a slice. All where not given.
    cols
        Samples, which are the columns of the file, in the same way.

    Returns
    -------
    Samples x genes, as from `gexinfer.io.read_gctx`. -666, NaN, nan, NA, na, N/A and nothing at all are missing: NaN.
    Metadata that are numbers throughout become numbers, other metadata categories. The second column of a GCT 1.2 is
    `var["Description"]`.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    KeyError
        The file does not hold some of the ids; names them.
    TypeError
        `rows` or `cols` is no list of ids or of indices.
    ValueError
        The file is of another kind, truncated or damaged, told with the line; an index is outside; something is asked
        for twice, or by an id that the file holds twice; or the result does not fit in memory.

    Warns
    -----
    UserWarning
        The metadata do not say of each gene whether it is a landmark, contradict one another, or have names that h5ad
        cannot hold.
    """
    return read_gctx(path, rows=rows, cols=cols)
