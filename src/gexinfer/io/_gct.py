"""GCT: text, a gene a line. Read in blocks of lines, of which only what is asked for is kept."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer.engine.blocks import Float
from gexinfer.io._cmap import (
    BYTE_ORDER_MARK,
    MISSING,
    MOST_PER_GZIP_BYTE,
    NO_VALUE,
    REDO,
    annotated,
    ask,
    check_fits,
    damaged,
    decoded,
    decoded_one,
    metadata,
    text_column,
)

NO_VALUE_BYTES = frozenset(text.encode() for text in NO_VALUE)
# Plate and donor names like 007 stay text, and so does what a float64 could not hold to the last digit.
NUMBER = re.compile(r"-?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|-?[iI]nf")
WHOLE = re.compile(r"-?\d+")
TOO_LARGE = 2**53
# A file without line ends must not be read whole in search of one; 10 million samples fit.
LONGEST_LINE = 2**28
# Lines are looked at together until they make up this many bytes.
BLOCK = 2**21
COMMA = "A GCT has a decimal point, and nothing between thousands: write 1.5 for 1,5 and 1000 for 1,000."


def load_gct(path: Path, compressed: bool, rows: Any, cols: Any) -> AnnData:
    """Read a GCT of version 1.2 or 1.3."""
    with gzip.open(path) if compressed else path.open("rb") as file:
        return Gct(path, file, compressed).load(rows, cols)


class Gct:
    """A GCT that is read line by line."""

    def __init__(self, path: Path, file: gzip.GzipFile | BufferedReader, compressed: bool) -> None:
        self.path, self.file = path, file
        self.number = 0
        self.most_bytes = path.stat().st_size * (MOST_PER_GZIP_BYTE if compressed else 1)

    def error(self, what: str, remedy: str = REDO) -> ValueError:
        return damaged(self.path, f"line {self.number:,} {what}", remedy)

    def line(self) -> bytes | None:
        """Return the next line that is not blank, without its end; None where there are no more."""
        while True:
            try:
                line = self.file.readline(LONGEST_LINE)
            except (OSError, EOFError, zlib.error) as error:
                raise damaged(self.path, f"after line {self.number:,}, {error}") from error
            self.number += bool(line)
            if len(line) == LONGEST_LINE:
                raise self.error(f"has {LONGEST_LINE:,} bytes and no end")
            if not line or line.strip():
                return line.rstrip(b"\r\n") if line else None

    def next_line(self, what: str) -> bytes:
        """Return the next line, which must be there."""
        line = self.line()
        if line is None:
            raise damaged(self.path, f"the file ends after line {self.number:,}, where {what} should follow")
        return line

    def fields(self, n: int, line: bytes) -> bytes:
        """Check that a line has n fields; empty ones beyond, as spreadsheets leave them, are cut off."""
        found = line.count(b"\t") + 1
        if found > n and line.endswith(b"\t" * (found - n)):
            return line[: n - found]
        if found != n:
            raise self.error(f"has {found:,} fields where the lines above announce {n:,}")
        return line

    def load(self, rows: Any, cols: Any) -> AnnData:
        version = self.next_line("#1.2 or #1.3").removeprefix(BYTE_ORDER_MARK).strip()
        if version not in (b"#1.2", b"#1.3"):
            raise self.error(f"is {version[:20]!r}; versions #1.2 and #1.3 are read")
        n_genes, n_samples, n_gene_columns, n_sample_columns = self.announced(version)
        first = 1 + n_gene_columns
        width = first + n_samples

        head = decoded(self.fields(width, self.next_line("the line of names")).split(b"\t"))
        asked_samples = ask(cols, n_samples, "cols", self.path)
        if asked_samples.ids is not None:
            asked_samples.look(head[first:])
        samples = asked_samples.found()
        gene_names = head[1:first] if version == b"#1.3" else ["Description"]
        sample_names: list[str] = []
        sample_values: list[np.ndarray | pd.Categorical] = []
        for _ in range(n_sample_columns):
            cells = self.fields(width, self.next_line("a line of metadata")).split(b"\t")
            sample_names.append(*decoded(cells[:1]))
            sample_values.append(column(decoded([cells[first + place] for place in samples])))
        self.check_names(gene_names, sample_names)

        asked_genes = ask(rows, n_genes, "rows", self.path)
        check_fits(len(samples), len(asked_genes.places), self.path)
        X = np.empty((len(samples), len(asked_genes.places)), np.float32)
        ids = [""] * X.shape[1]
        gene_values = [[""] * X.shape[1] for _ in range(n_gene_columns)]
        every = np.array_equal(samples, np.arange(n_samples))
        while block := self.block(n_genes - asked_genes.seen, width):
            names = [line[: line.find(b"\t")] for _, line in block]
            for (number, line), name, j in zip(block, names, asked_genes.look(names), strict=True):
                if j < 0:
                    continue
                self.number = number
                *about, values = line.split(b"\t", first)
                cells = values.split(b"\t")
                X[:, j] = self.numbers(cells if every else [cells[place] for place in samples])
                ids[j] = decoded_one(name)
                for texts, text in zip(gene_values, decoded(about[1:]), strict=True):
                    texts[j] = text
        if asked_genes.seen < n_genes:
            raise damaged(
                self.path,
                f"line 2 announces {n_genes:,} genes, and the file ends after {asked_genes.seen:,}, at line "
                f"{self.number:,}",
            )
        if self.line() is not None:
            raise self.error(f"is one more than the {n_genes:,} genes that line 2 announces")
        asked_genes.found()
        X[X == MISSING] = np.nan
        return annotated(
            X,
            metadata(dict(zip(sample_names, sample_values, strict=True)), [head[first + place] for place in samples]),
            metadata({name: column(texts) for name, texts in zip(gene_names, gene_values, strict=True)}, ids),
        )

    def announced(self, version: bytes) -> tuple[int, int, int, int]:
        """Return the numbers of genes and samples, and of their metadata columns."""
        numbers = self.next_line("the numbers of genes and samples").split()
        expected = 2 if version == b"#1.2" else 4
        if len(numbers) != expected or not all(n.isdigit() and len(n) < 16 for n in numbers):
            raise self.error(f"is {b' '.join(numbers)[:60]!r}, where {expected} numbers should be")
        n_genes, n_samples, *n_columns = map(int, numbers)
        n_gene_columns, n_sample_columns = n_columns or (1, 0)
        if not n_genes or not n_samples:
            raise self.error(f"announces {n_genes} genes and {n_samples} samples, so there is nothing to read")
        # Each field is followed by a tab or a line end, but the last.
        needed = (n_genes + n_sample_columns + 1) * (1 + n_gene_columns + n_samples)
        if needed > self.most_bytes + 1:
            raise self.error(f"announces {n_genes:,} genes x {n_samples:,} samples, more than its bytes can hold")
        return n_genes, n_samples, n_gene_columns, n_sample_columns

    def check_names(self, *columns: Sequence[str]) -> None:
        for names in columns:
            twice = pd.Index(names)[pd.Index(names).duplicated()]
            if len(twice):
                raise damaged(self.path, f"its metadata columns are not told apart: {listed(twice)} comes twice")

    def block(self, left: int, width: int) -> list[tuple[int, bytes]]:
        """Return the next lines of genes, at most as many as are left, with their numbers."""
        lines: list[tuple[int, bytes]] = []
        size = 0
        while len(lines) < left and size < BLOCK and (line := self.line()) is not None:
            lines.append((self.number, self.fields(width, line)))
            size += len(line)
        return lines

    def numbers(self, cells: list[bytes]) -> Float:
        """Return the values of a line as numbers."""
        try:
            # float() takes 1_000 for a number.
            if b"_" not in b"".join(cells):
                return single(cells)
        except ValueError:
            pass
        known = [b"nan" if cell.strip() in NO_VALUE_BYTES else cell for cell in cells]
        for cell in known:
            if not is_number(cell):
                remedy = COMMA if is_number(cell.replace(b",", b"")) else REDO
                raise self.error(f"holds {listed(decoded([cell[:40]]))} where a number should be", remedy)
        return single(known)


def is_number(cell: bytes) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return b"_" not in cell


def single(cells: list[bytes]) -> Float:
    # Beyond float32 is inf, which is no number to go on with either; whoever computes with it is told.
    with np.errstate(over="ignore"):
        return np.array([float(cell) for cell in cells]).astype(np.float32)


def column(texts: list[str]) -> np.ndarray | pd.Categorical:
    """Return a metadata column: numbers where all are, else text as categories; missing values as NaN."""
    there = [text for text in texts if text not in NO_VALUE]
    if there and all(NUMBER.fullmatch(text) for text in there):
        whole = [abs(float(text)) for text in there if WHOLE.fullmatch(text)]
        if max(whole, default=0) < TOO_LARGE:
            if len(whole) == len(texts):
                return np.array([int(text) for text in texts])
            values = np.array([np.nan if text in NO_VALUE else float(text) for text in texts])
            return np.where(values == MISSING, np.nan, values)
    return text_column(texts)
