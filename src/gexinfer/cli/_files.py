"""Files in, files out: read by their kind, and written beside their place and moved there."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from anndata import AnnData

    from gexinfer._fitted import FittedModel

# What anndata raises for a file that is none of its own.
UNREADABLE = (OSError, KeyError, TypeError, ValueError, AttributeError)


def read(path: Path, *, in_place: bool = False) -> AnnData:
    """Read an AnnData from .h5ad or .zarr, or else a GCT or GCTX; the values stay in the file where that can be."""
    import anndata as ad

    from gexinfer.io._cmap import kind_of

    if path.suffix == ".h5mu":
        raise ValueError(
            f"{str(path)!r} holds several modalities; write the one that is meant to a file of its own, in Python: "
            "mudata.read_h5mu(path)['rna'].write_h5ad(out)."
        )
    if path.suffix not in (".h5ad", ".zarr"):
        import gexinfer as gx

        return gx.io.read_gctx(path, lazy=in_place and kind_of(path) == ("gctx", False))
    check_there(path)
    try:
        if path.suffix == ".zarr":
            return ad.read_zarr(path)
        return ad.read_h5ad(path, backed="r" if in_place else None)
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def check_there(path: Path) -> None:
    """Refuse a file that is not there."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")


def unreadable(path: Path, error: object) -> OSError:
    """Return the error for a file that is not what its name says."""
    return OSError(f"{str(path)!r} cannot be read: {error}. It may be truncated or another kind of file.")


def read_models(path: Path) -> AnnData | FittedModel:
    """Read what holds models: a .safetensors, .h5ad or .zarr."""
    import gexinfer as gx

    return gx.io.read_model(path) if path.suffix == ".safetensors" else read(path)


def check_out(path: Path | None, *suffixes: str) -> None:
    """Refuse a file that could not be written, before anything is computed for it."""
    if path is None:
        return
    if path.suffix not in suffixes:
        raise ValueError(f"{str(path)!r} must end in {' or '.join(suffixes)}.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r} to write {path.name} into.")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".gexinfer-"):
            pass
    except OSError as error:
        raise OSError(f"{path.name} cannot be written into {str(folder)!r}: {error.strerror}.") from error
    # What stands there is about to go.
    store = path.suffix == ".zarr" and any((path / name).exists() for name in ("zarr.json", ".zgroup"))
    if path.is_dir() and not store and any(path.iterdir()):
        raise FileExistsError(f"{str(path)!r} is a folder with something else in it; move it away, or name another.")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it moves there once it is whole, so that no reader sees half of it."""
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=".gexinfer-") as folder:
        partial = Path(folder) / path.name
        yield partial
        if path.is_dir():
            replace_folder(path, partial)
        else:
            partial.replace(path)


def replace_folder(path: Path, new: Path) -> None:
    """Move a folder to where another is, which steps aside, and comes back where that was not to be."""
    aside = Path(tempfile.mkdtemp(dir=path.absolute().parent, prefix=".gexinfer-old-"))
    old = aside / path.name
    try:
        path.rename(old)
        new.replace(path)
    finally:
        # Ctrl-C and SIGTERM may come at any moment. Nothing is deleted unless something whole is in its place.
        if not path.exists():
            old.rename(path)
        shutil.rmtree(aside)


def write(data: Any, path: Path) -> None:
    """Write an AnnData or a MuData."""
    import anndata as ad
    from mudata import MuData

    import gexinfer as gx

    with whole(path) as partial:
        if isinstance(data, MuData):
            data.write_h5mu(partial)
        elif path.suffix == ".zarr":
            with ad.settings.override(zarr_write_format=3):
                # dask's own blocks, so that none is written in parts.
                data.write_zarr(partial, chunks=getattr(data.X, "chunksize", None))
        elif path.suffix == ".gctx":
            gx.io.write_gctx(data, partial)
        else:
            data.write_h5ad(partial, compression="gzip")
