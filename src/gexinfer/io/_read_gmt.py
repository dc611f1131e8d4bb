from __future__ import annotations

import os
from pathlib import Path


def read_gmt(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    r"""Read a GMT file of gene sets, the format of MSigDB.

    Parameters
    ----------
    path
        The file: one set a line, its name, a description and its genes, with tabs between them.

    Returns
    -------
    The genes of each set by its name, each once, in the order of the file. Descriptions are left out.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A line has no tab-separated genes, or two sets have one name; told with the line.

    Examples
    --------
    >>> from pathlib import Path
    >>> genes = ref.var_names[ref.var["landmark"]]
    >>> written = Path("sets.gmt").write_text("\t".join(["LANDMARKS", "those of ref", *genes]))
    >>> sets = gx.io.read_gmt("sets.gmt")
    >>> sets["LANDMARKS"][:3]
    ['ABCC5', 'ABHD6', 'ACD']
    """
    sets: dict[str, list[str]] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        name, *rest = (field.strip() for field in line.split("\t"))
        genes = list(dict.fromkeys(gene for gene in rest[1:] if gene))
        if not name or not genes:
            raise ValueError(
                f"{str(path)!r} is no GMT file: line {number} ({line[:40]!r}) does not hold a name, a description and "
                "genes, with tabs between them."
            )
        if name in sets:
            raise ValueError(f"{str(path)!r} has two sets that are called {name!r}, the second in line {number}.")
        sets[name] = genes
    return sets
