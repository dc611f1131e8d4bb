"""Text of any length lies in heaps of an HDF5 file, and HDF5 2.0 never returns from a heap with a hole of zeros."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

# How HDF5 refers to a text: its length, the heap that it is in, and which of the heap's it is.
REFERENCE = np.dtype([("length", "<u4"), ("heap", "<u8"), ("index", "<u4")])
# Of each text in a heap: its number (0 for free space) and its size.
OBJECT = struct.Struct("<H6xQ")


def check_heaps(dataset: h5py.Dataset, start: int, stop: int) -> None:
    """Refuse entries whose text is in a heap that HDF5 would walk through forever."""
    if dataset.file.id.get_create_plist().get_sizes() != (8, 8):
        return  # addresses of another size, which no writer of GCTX uses
    path = Path(dataset.file.filename)
    with path.open("rb") as file:
        found, size = references(dataset, file, start, stop), path.stat().st_size
        if (found["length"] > size).any():
            raise OSError("it holds texts longer than the file")
        for heap in np.unique(found["heap"]):
            # One outside the file is refused by HDF5 itself.
            if 0 < heap < size:
                walk(file, int(heap) + dataset.file.userblock_size)


def references(dataset: h5py.Dataset, file: BinaryIO, start: int, stop: int) -> np.ndarray:
    """Return the references of some entries; none where they are packed in a way that only HDF5 can undo."""
    size = REFERENCE.itemsize
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        file.seek((offset or 0) + start * size)
        return np.frombuffer(file.read((stop - start) * size) if offset else b"", REFERENCE)
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    (step,) = dataset.chunks
    parts = []
    for corner in range(start // step * step, stop, step):
        skipped, raw = dataset.id.read_direct_chunk((corner,))
        # A bit for each filter that HDF5 left out of this chunk, as it does with shuffling here.
        applied = [filters[i] for i in range(len(filters)) if not skipped >> i & 1]
        if applied == [h5py.h5z.FILTER_DEFLATE]:
            raw = zlib.decompressobj().decompress(raw, step * size)
        elif applied:
            return np.empty(0, REFERENCE)
        parts.append(np.frombuffer(raw, REFERENCE))
    return np.concatenate(parts)


def walk(file: BinaryIO, at: int) -> None:
    """Go through a heap as HDF5 does, and raise where it would not get on or would leave the heap."""
    file.seek(at)
    signature, size = struct.unpack("<4s4xQ", file.read(16).ljust(16, b"\0"))
    if signature != b"GCOL":
        return
    heap = file.read(size - 16)
    place = 0
    while place + OBJECT.size <= len(heap):
        number, size = OBJECT.unpack_from(heap, place)
        step = OBJECT.size + -(-size // 8) * 8 if number else size
        if step < OBJECT.size or place + step > len(heap):
            raise OSError(f"the heap of texts at byte {at:,} is damaged")
        place += step
