"""Where a network's batches come from: rows that lie on its device, or blocks read while it learns from the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from gexinfer.engine.blocks import BLOCK_ROWS, Indices, Pairs, ahead, cheap_to_pick, chunk_rows, row_slices, taken

# Rows of a file are shuffled so many bytes at a time: they come from many places of the file, and the few buffers that
# are in use at once fit nearly anywhere.
BUFFER_BYTES = 2**27
# On disk without chunks, runs of this many rows are read in one go.
WINDOW = 64

Batch = tuple[Tensor, Tensor]


class Feed(Protocol):
    """Standardised rows on a device, as (rows, landmarks) and (rows, targets)."""

    def __len__(self) -> int: ...

    def batches(self, picks: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield the batches of rows that are named, in this order."""
        ...

    def blocks(self, picks: Indices | None = None) -> Iterator[Batch]:
        """Yield some rows, which must ascend, or all, in blocks."""
        ...


class Reader:
    """Reads rows and brings them, standardised, to a device."""

    def __init__(self, pairs: Pairs, device: torch.device):
        self.pairs, self.device = pairs, device
        self.columns = np.concatenate([pairs.rows.landmarks, pairs.rows.targets])
        zeros = np.zeros((1, len(self.columns)), np.float32)
        self.zero = torch.from_numpy(pairs.scale.standardise(zeros)).to(device)

    def __call__(self, picks: Indices) -> Tensor:
        """Return (picks, landmarks + targets); `picks` must ascend."""
        scale = self.pairs.scale
        block = taken(self.pairs.rows.source, self.pairs.rows.rows[picks], self.columns)
        if not sp.issparse(block):
            return self.sent(scale.standardise(block))
        # Only what is stored travels; the zeros, and they are many, are made where they are needed.
        block = block.tocsr()
        block.sum_duplicates()
        values = ((block.data - scale.mean[block.indices]) * scale.factor[block.indices]).astype(np.float32)
        places = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr)) * block.shape[1] + block.indices
        whole = self.zero.repeat(len(picks), 1)
        whole.view(-1)[self.sent(places)] = self.sent(values)
        return whole

    def sent(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        # Out of pinned memory the copy does not halt the host.
        pinned = tensor.pin_memory() if self.device.type == "cuda" else tensor
        return pinned.to(self.device, non_blocking=True)

    def halves(self, block: Tensor) -> Batch:
        return block[:, : self.pairs.n_landmarks], block[:, self.pairs.n_landmarks :]


class Resident:
    """Rows that lie on the device from the start."""

    def __init__(self, pairs: Pairs, device: torch.device, buffer: int):
        self.reader, self.buffer = Reader(pairs, device), buffer
        self.rows = torch.empty(len(pairs), len(self.reader.columns), device=device)
        for part in row_slices(len(pairs)):
            self.rows[part] = self.reader(np.arange(part.start, part.stop))

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, picks: Sequence[Tensor]) -> Iterator[Batch]:
        there = torch.cat(list(picks)).to(self.rows.device)
        for part in there.split([len(part) for part in picks]):
            yield self.reader.halves(self.rows.index_select(0, part))

    def blocks(self, picks: Indices | None = None) -> Iterator[Batch]:
        there = None if picks is None else torch.from_numpy(picks).to(self.rows.device)
        for part in block_slices(len(self) if picks is None else len(picks), self.buffer):
            yield self.reader.halves(self.rows[part] if there is None else self.rows[there[part]])


class Streamed:
    """Rows that are read when their turn comes, a buffer of so many at a time."""

    def __init__(self, pairs: Pairs, device: torch.device, buffer: int):
        self.reader, self.buffer = Reader(pairs, device), buffer

    def __len__(self) -> int:
        return len(self.reader.pairs)

    def batches(self, picks: Sequence[Tensor]) -> Iterator[Batch]:
        for rows, block, group in ahead(self.read(picks)):
            for part in group:
                places = np.searchsorted(rows, part.numpy())
                yield self.reader.halves(block.index_select(0, self.reader.sent(places)))

    def read(self, picks: Sequence[Tensor]) -> Iterator[tuple[Indices, Tensor, Sequence[Tensor]]]:
        """Yield as many batches at a time as a buffer holds: their rows, these rows' values, the batches."""
        per_read = max(self.buffer // max(len(picks[0]), 1), 1)
        for start in range(0, len(picks), per_read):
            group = picks[start : start + per_read]
            rows = np.sort(torch.cat(list(group)).numpy())
            yield rows, self.reader(rows), group

    def blocks(self, picks: Indices | None = None) -> Iterator[Batch]:
        rows = np.arange(len(self)) if picks is None else picks
        parts = block_slices(len(rows), self.buffer)
        return (self.reader.halves(block) for block in ahead(self.reader(rows[part]) for part in parts))


def block_slices(n: int, buffer: int) -> Iterator[slice]:
    """Cut `range(n)` for inference; what a network makes of a block takes several times its memory."""
    return row_slices(n, min(max(buffer // 4, 1), BLOCK_ROWS))


def row_bytes(pairs: Pairs) -> int:
    """Return the bytes of one row of landmarks and targets."""
    return 4 * (pairs.n_landmarks + pairs.n_targets)


def buffer_rows(pairs: Pairs, free: int) -> int:
    """Return how many rows are read and shuffled at a time, `free` bytes being free."""
    # A power of two, so that it is the same from one day to the next.
    room = 2 ** (max(free // 16, 1).bit_length() - 1)
    return max(min(BUFFER_BYTES, room) // row_bytes(pairs), 1)


def shuffled(pairs: Pairs, batch_size: int, buffer: int, generator: torch.Generator) -> list[Tensor]:
    """Return all rows in random order, cut into batches.

    Where single rows are dear to read, runs of neighbouring rows are put in random order, and shuffled a buffer of them
    at a time. The order is the same whether rows are resident or streamed.
    """
    n, source = len(pairs), pairs.rows.source
    buffer = max(buffer // batch_size, 1) * batch_size
    if cheap_to_pick(source) or n <= buffer:
        return list(torch.randperm(n, generator=generator).split(batch_size))
    # A chunk is decoded whole; but a buffer of one or two chunks would mix too little.
    window = max(min(chunk_rows(source) or WINDOW, buffer // 4), 1)
    runs = np.split(np.arange(n), np.flatnonzero(np.diff(pairs.rows.rows // window)) + 1)
    mixed = torch.from_numpy(np.concatenate([runs[i] for i in torch.randperm(len(runs), generator=generator).tolist()]))
    parts = [part[torch.randperm(len(part), generator=generator)] for part in mixed.split(buffer)]
    return list(torch.cat(parts).split(batch_size))
