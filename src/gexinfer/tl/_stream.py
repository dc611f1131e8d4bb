"""Answers written to a zarr store, shard by shard: memory does not grow with samples, and a killed run goes on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._fitted import PREDICT_ROWS
from gexinfer._names import listed
from gexinfer._record import to_bytes
from gexinfer._slots import PREDICTED, ROLE
from gexinfer.engine.blocks import Float
from gexinfer.engine.cluster import client_for
from gexinfer.engine.report import Advance, say, steps
from gexinfer.tl._answers import Answer, obs_in_memory, roles, tell_of_novelty, write_trust
from gexinfer.tl._lazy import rows_per_block
from gexinfer.tl._query import Query

# Genes of a chunk: a reader who wants one gene need not read them all.
CHUNK_GENES = 1024


@dataclass(frozen=True)
class Store:
    """An unfinished store of (samples, genes): its shards are runs of rows, each with a mark once it is written.

    Its folder holds the store itself, and the marks beside it: a reader of zarr would stumble over them.
    """

    folder: Path
    n: int
    names: pd.Index
    dtype: str

    @property
    def rows(self) -> int:
        """Rows of a shard."""
        return rows_per_block(len(self.names))

    @property
    def data(self) -> Path:
        return self.folder / "store"

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def mark(self, shard: int) -> Path:
        return self.marks / f"{shard}.npz"

    def write(self, shard: int, values: NDArray[np.floating], missing: NDArray[np.bool_], novelty: Float) -> None:
        """Write a shard, then its mark: each sample's share of missing landmarks and novelty, and which some lacked."""
        start = shard * self.rows
        zarr.open_array(self.data / "X", mode="r+")[start : start + len(values)] = values
        partial = self.marks / f"{shard}.partial.npz"
        shares = missing.mean(axis=1, dtype=np.float32)
        np.savez(partial, missing=shares, lacked=missing.any(axis=0), novelty=novelty)
        partial.replace(self.mark(shard))


def stream(
    adata: AnnData,
    queries: Mapping[str, tuple[Query, Any]],
    names: pd.Index,
    path: Path,
    *,
    dtype: str,
    progress: bool,
) -> None:
    """Infer into a store beside its place, which moves there once it is whole."""
    ((query, source),) = queries.values()
    store = Store(path.with_name(f"{path.name}.partial"), adata.n_obs, names, dtype)
    from filelock import FileLock, Timeout

    lock = FileLock(f"{store.folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"Another process is writing {str(store.folder)!r}; wait for it, or choose another output=."
        ) from error
    try:
        write(adata, store, query, source, path, progress=progress)
    finally:
        # Before its release, so that nobody holds a lock on what is gone; not every system lets go of an open file.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def check_path(path: Path, models: Sequence[str], *, more: bool) -> None:
    """Refuse what no store could hold, or where none could be written, before anything is read."""
    if len(models) != 1 or more:
        raise ValueError(
            f"output={str(path)!r} holds the values of one model, and no standard deviations or intervals; there are "
            f"{listed(models)}. Name one with key=, and leave out std= and interval=."
        )
    if os.path.lexists(path):
        raise FileExistsError(f"There is {str(path)!r} already; delete it, or choose another output=.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} for output={path.name!r}; make it first.")


def write(adata: AnnData, store: Store, query: Query, source: Any, path: Path, *, progress: bool) -> None:
    begin(store, adata, query)
    todo = [shard for shard in range(-(-store.n // store.rows)) if not store.mark(shard).exists()]
    with steps("predict", store.n, show=progress) as advance:
        before = store.n - sum(len(range(store.n)[rows_of(store, shard)]) for shard in todo)
        if before:
            say(f"predict: goes on with {str(store.folder)!r}, which holds {before:,} of {store.n:,} samples")
        advance(before, query.name)
        client = client_for(source)
        if client is None:
            write_here(store, query, source, todo, advance)
        else:
            write_on_cluster(client, store, query, source, todo, advance)
        advance(0, f"{query.name} for {store.n:,} samples, {store.dtype}, to {str(path)!r}")
    finish(store, adata, query, path)


def rows_of(store: Store, shard: int) -> slice:
    return slice(shard * store.rows, min((shard + 1) * store.rows, store.n))


def begin(store: Store, adata: AnnData, query: Query) -> None:
    """Make the unfinished store, or know it for that of the same job."""
    job = json.dumps({"job": fingerprint(store, adata, query)})
    known = store.marks / "job.json"
    if store.folder.exists():
        if known.exists() and known.read_text() == job and store.data.exists():
            return
        if not store.marks.is_dir() or (store.data.exists() and any(store.marks.glob("*.npz"))):
            raise ValueError(
                f"{str(store.folder)!r} was left by another job: other samples, another model or other options. Delete "
                "it, or choose another output=."
            )
        # Begun, but no sample written, or finished and moved away: nothing is lost.
        shutil.rmtree(store.folder)
    needed, free = (
        store.n * len(store.names) * np.dtype(store.dtype).itemsize,
        shutil.disk_usage(store.folder.parent).free,
    )
    if needed > free:
        raise OSError(
            f"{str(store.folder.parent)!r} has {free / 1e9:,.1f} GB free, and the result takes {needed / 1e9:,.1f} GB. "
            "Make room, or write less: dtype='float16', genes=."
        )
    genes = len(store.names)
    store.marks.mkdir(parents=True)
    root = zarr.create_group(
        store.data,
        attributes={"encoding-type": "anndata", "encoding-version": "0.1.0"},
        zarr_format=3,
    )
    # What cannot be written is told before everything is inferred.
    write_slot(root, "obs", obs_in_memory(adata))
    width = max(-(-genes // -(-genes // CHUNK_GENES)), 1)
    zarr.create_array(
        store.data / "X",
        shape=(store.n, genes),
        chunks=(PREDICT_ROWS, width),
        shards=(store.rows, -(-genes // width) * width),
        dtype=store.dtype,
        # Inferred values are noise in their last bits: packing them takes longer than writing them, and saves little.
        compressors=None,
        fill_value=np.nan,
        attributes={"encoding-type": "array", "encoding-version": "0.2.0"},
    )
    partial = known.with_suffix(".partial")
    partial.write_text(job)
    partial.replace(known)


def write_slot(root: zarr.Group, slot: str, value: Any) -> None:
    # Without shards= anndata asks whoever writes to choose.
    ad.io.write_elem(root, slot, value, dataset_kwargs={"shards": None})


def fingerprint(store: Store, adata: AnnData, query: Query) -> str:
    """Return a digest of all that the values follow from, but for the query's values themselves."""
    total = hashlib.sha256(to_bytes(query.fitted))
    for part in (adata.obs_names, store.names, query.where, query.columns, store.dtype, store.rows):
        total.update(
            "\n".join(map(str, part)).encode() if isinstance(part, pd.Index | np.ndarray) else str(part).encode()
        )
    for name, value in sorted(getattr(query.adapt, "__dict__", {}).items()):
        total.update(f"{name} {np.asarray(value).tobytes().hex()}".encode())
    total.update(type(query.adapt).__name__.encode())
    return total.hexdigest()


def write_here(store: Store, query: Query, source: Any, todo: list[int], advance: Advance) -> None:
    """Write shards one after another, each while the next one is inferred."""
    with ThreadPoolExecutor(1) as thread:
        writing: Future[None] | None = None
        for shard, values, missing, novelty in filled(store, query, source, todo, advance):
            if writing is not None:
                writing.result()
            writing = thread.submit(store.write, shard, values, missing, novelty)
        if writing is not None:
            writing.result()


def filled(
    store: Store, query: Query, source: Any, todo: list[int], advance: Advance
) -> Iterator[tuple[int, NDArray[np.floating], NDArray[np.bool_], Float]]:
    """Yield shards with their values, reading on where one follows another."""
    for run in np.split(np.array(todo, int), np.flatnonzero(np.diff(todo) > 1) + 1):
        rows = slice(int(run[0]) * store.rows, rows_of(store, int(run[-1])).stop) if len(run) else slice(0, 0)
        blocks = query.infer(source, store.names, rows)
        values, missing, novelty, at = np.empty((0, 0), store.dtype), np.empty((0, 0), bool), np.empty(0, np.float32), 0
        for shard in run:
            place = rows_of(store, int(shard))
            size = place.stop - place.start
            answer = np.empty((size, len(store.names)), store.dtype)
            lacks, unlike = np.empty((size, len(query.columns)), bool), np.empty(size, np.float32)
            done = 0
            while done < size:
                if at == len(values):
                    block = next(blocks)
                    values, missing, at = narrowed(block.values, store.dtype), block.missing, 0
                    novelty = query.novelty(block)
                    advance(len(values), query.name)
                n = min(size - done, len(values) - at)
                answer[done : done + n], lacks[done : done + n] = values[at : at + n], missing[at : at + n]
                unlike[done : done + n] = novelty[at : at + n]
                done, at = done + n, at + n
            yield int(shard), answer, lacks, unlike


def narrowed(values: NDArray[np.floating], dtype: str) -> NDArray[np.floating]:
    """Return values in the kind asked for, if it can hold them."""
    if dtype == "float16" and np.nanmax(np.abs(values), initial=0) > np.finfo(np.float16).max:
        raise ValueError(
            f"dtype='float16' holds values up to {np.finfo(np.float16).max:,.0f}, and there are values of "
            f"{np.nanmax(np.abs(values)):,.0f}. Leave dtype= out, or fit on log values."
        )
    return values.astype(dtype, copy=False)


def write_on_cluster(client: Any, store: Store, query: Query, source: Any, todo: list[int], advance: Advance) -> None:
    """Let the workers write shards; they must see the store's folder."""
    from dask.delayed import delayed
    from distributed import as_completed

    held, work = delayed((store, query), pure=False), delayed(write_shard, pure=False)
    tasks = client.compute([work(held, shard, source[rows_of(store, shard)]) for shard in todo])
    try:
        for task in as_completed(tasks):
            advance(task.result(), query.name)
    finally:
        client.cancel(tasks)


def write_shard(held: tuple[Store, Query], shard: int, part: Any) -> int:
    """Infer and write one shard from its rows, and return how many they are."""
    store, query = held
    if not store.folder.is_dir():
        raise FileNotFoundError(
            f"The workers do not see {str(store.folder)!r}; choose an output= on a file system that all of them share."
        )
    blocks = [*replace(query, first=shard * store.rows).infer(part, store.names)]
    values = np.concatenate([narrowed(block.values, store.dtype) for block in blocks])
    missing, novelty = [block.missing for block in blocks], [query.novelty(block) for block in blocks]
    store.write(shard, values, np.concatenate(missing), np.concatenate(novelty))
    return len(values)


def finish(store: Store, adata: AnnData, query: Query, path: Path) -> None:
    """Write what is known of samples and genes, and move the store to its place."""
    marks = [np.load(store.mark(shard)) for shard in range(-(-store.n // store.rows))]
    lacked = np.logical_or.reduce([~query.there, *(mark["lacked"] for mark in marks)])
    shares = np.concatenate([np.empty(0, np.float32), *(mark["missing"] for mark in marks)])
    novelty = np.concatenate([np.empty(0, np.float32), *(mark["novelty"] for mark in marks)])
    answer = Answer(query, {}, lacked, shares, novelty)
    bare = AnnData(obs=obs_in_memory(adata).assign(**dict(answer.of_samples())), var=pd.DataFrame(index=store.names))
    bare.var[ROLE] = roles(bare, {query.name: answer}, before=False)
    write_trust(bare, {query.name: answer})
    root = zarr.open_group(store.data, mode="r+")
    for slot, value in (("obs", bare.obs), ("var", bare.var), ("uns", {PREDICTED: np.array(["X"], dtype=object)})):
        write_slot(root, slot, value)
    # What zarr was writing when a run before was killed.
    for left in (store.data / "X").rglob("*.partial"):
        left.unlink()
    if lacked.any():
        say(f"predict: {query.name} infers {lacked.sum():,} of {len(lacked):,} landmarks, too, that samples lack")
    tell_of_novelty([answer])
    store.data.replace(path)
    # Last: without its marks the work could not be taken up again.
    shutil.rmtree(store.folder)
