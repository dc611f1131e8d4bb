from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from gexinfer.cli._arguments import Input
from gexinfer.cli._files import check_out, read, write
from gexinfer.cli._messages import told


def convert(
    path: Input,
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="Output: .h5ad, .zarr or .gctx; written whole or not at all.")
    ],
) -> None:
    """Convert between GCT, GCTX, .h5ad and .zarr.

    A GCTX of any size, and any .h5ad to GCTX, in bounded memory. A gzipped GCTX
    is unpacked to a temporary file beside the output, which must have room.
    """
    import dask

    from gexinfer.io._cmap import kind_of
    from gexinfer.io._read_gctx import unpacked

    with told("convert"):
        check_out(out, ".h5ad", ".zarr", ".gctx")
        packed = path.suffix not in (".h5ad", ".zarr") and kind_of(path) == ("gctx", True)
        # The values come from one file, which is read by one block at a time; more of them would only take memory.
        with dask.config.set(num_workers=2), unpacked(path, out) if packed else nullcontext(path) as source:
            write(read(source, in_place=True), out)
