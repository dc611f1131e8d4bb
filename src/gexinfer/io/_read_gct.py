from __future__ import annotations

import os

from anndata import AnnData

from gexinfer.io._read_gctx import Picks, read_gctx


def read_gct(path: str | os.PathLike[str], *, rows: Picks | None = None, cols: Picks | None = None) -> AnnData:
    r"""Read a GCT file (1.2 or 1.3), the text format of LINCS and CMap, or the part of it that is asked for.

    The text is read in blocks of lines, of which only what is asked for is kept. Other content is read as by
    `gexinfer.io.read_gctx`, whatever the name of the file.

    Parameters
    ----------
    path
        The file, gzipped or not.
    rows
        Genes, which are the rows of the file, as for `gexinfer.io.read_gctx`.
    cols
        Samples, which are the columns of the file, in the same way.

    Returns
    -------
    Samples x genes, as from `gexinfer.io.read_gctx`, which also lists the errors and warnings. What is missing as text
    there is missing among the values here, too: NaN. Metadata that are numbers throughout become numbers, other
    metadata categories. The second column of a GCT 1.2 is `var["Description"]`.

    Raises
    ------
    ValueError
        A value is no number, e.g. has a decimal comma, or a line is damaged; told with the line.

    Examples
    --------
    >>> from pathlib import Path
    >>> table = ref[:2, :3].to_df().T.to_csv(sep="\t", index_label="id")
    >>> written = Path("part.gct").write_text("#1.3\n3\t2\t0\t0\n" + table)
    >>> gx.io.read_gct("part.gct", rows=["ABCC5", "A2M"]).var_names.tolist()
    ['ABCC5', 'A2M']
    """
    return read_gctx(path, rows=rows, cols=cols)
