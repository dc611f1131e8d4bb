"""Files from their owners into a cache: resumed where a connection broke, checked against a checksum.

pooch and requests are imported inside functions: who loads what is bundled pays for neither.
"""

from __future__ import annotations

import errno
import gzip
import json
import logging
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gexinfer.datasets._registry import Remote
from gexinfer.engine.report import say, steps

if TYPE_CHECKING:
    from requests import Response

# Seconds: to connect, and without a byte.
TIMEOUT = (10, 60)
CHUNK = 2**16
DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


def fetch(remote: Remote, *, progress: bool = True) -> Path:
    """Return the file in the cache, downloaded and checked where it is not there yet."""
    path = cache() / remote.file
    if not is_known(remote, path):
        with alone(path):
            if not is_known(remote, path):
                obtain(remote, path, progress)
    return path


def unpack(remote: Remote, *, progress: bool = True) -> Path:
    """Return a `.gz` file's content as a file in the cache; the packed one may be deleted afterwards."""
    path = cache() / remote.file.removesuffix(".gz")
    if path.exists():
        return path
    packed = fetch(remote, progress=progress)
    with alone(path):
        if path.exists():
            return path
        check_room(path, remote.unpacked or packed.stat().st_size, f"unpacking {remote.name}")
        part = path.with_name(path.name + ".part")
        try:
            with (
                gzip.open(packed) as source,
                part.open("wb") as target,
                bar(f"unpack {remote.name}", remote.unpacked, progress) as advance,
            ):
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    advance(len(chunk))
            part.replace(path)
        except DAMAGED as error:
            problem = str(error).rstrip(".")
            raise ValueError(f"{str(packed)!r} is damaged: {problem}. Delete it and call again.") from error
        finally:
            part.unlink(missing_ok=True)
    return path


def cache() -> Path:
    """Return the folder of the downloads."""
    import pooch

    return Path(os.environ.get("GEXINFER_CACHE") or pooch.os_cache("gexinfer")).expanduser()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time work on a file; the lock ends with its process, however that ends."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(path.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{path.name} is being downloaded or unpacked by another process; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def note_of(path: Path) -> Path:
    """Return where it is written down what a file was when it was checked."""
    return path.with_name(path.name + ".json")


def noted(remote: Remote, path: Path) -> dict[str, Any]:
    """Return what was written down of this file, nothing if it came from another address or the note is damaged."""
    try:
        note = json.loads(note_of(path).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    whole = isinstance(note, dict) and {"url", "checksum", "size", "mtime_ns"} <= set(note)
    return note if whole and note["url"] == remote.url else {}


def is_known(remote: Remote, path: Path) -> bool:
    """Whether the file is there and unchanged since it was checked."""
    # By size and time: a checksum of 50 GB takes minutes.
    if not path.exists():
        return False
    note, now = noted(remote, path), path.stat()
    same = (note.get("size"), note.get("mtime_ns")) == (now.st_size, now.st_mtime_ns)
    return same and remote.checksum in (None, note["checksum"])


def obtain(remote: Remote, path: Path, progress: bool) -> None:
    """Download the file, or check the one that was put there, and write down what it is."""
    import pooch

    known = remote.checksum or listed_by_owner(remote, progress)
    expected = known or noted(remote, path).get("checksum")
    algorithm = expected.partition(":")[0] if expected else "sha256"
    arrived = not path.exists()
    if arrived:
        download(remote, path, expected, known, progress)
    # What pooch has just checked is not read once more: that takes minutes for 50 GB.
    checksum = expected if arrived and expected else f"{algorithm}:{pooch.file_hash(str(path), alg=algorithm)}"
    if expected and checksum != expected:
        raise ValueError(
            f"{str(path)!r}, {amount(path.stat().st_size)}, is not {remote.name} {remote.version}: its checksum is "
            f"{checksum}, expected is {expected}. Delete it and call again to download it.{doubt(known, path)}"
        )
    if not expected and (problem := flaw(path)):
        remedy = "Delete it and call again"
        if arrived:
            path.unlink()
            remedy = f"It came from {remote.url} and was removed again. Call again"
        raise ValueError(
            f"{str(path)!r} is not {remote.name} {remote.version}: {problem}. {remedy}; where the network asks for a "
            "login, log in first."
        )
    now = path.stat()
    note = {"name": remote.name, "version": remote.version, "url": remote.url, "checksum": checksum}
    partial = note_of(path).with_suffix(".partial")
    partial.write_text(json.dumps({**note, "size": now.st_size, "mtime_ns": now.st_mtime_ns}, indent=1))
    partial.replace(note_of(path))
    if known:
        meaning = "as expected"
    elif expected:
        meaning = "the same as when it was first downloaded"
    else:
        meaning = (
            f"recorded in {note_of(path).name} and demanded of every later copy. gexinfer knows no checksum of this "
            "file, so this first copy was taken on trust"
        )
    say(f"{remote.name} {remote.version}: {amount(now.st_size)}, {checksum}, {meaning}.")


def listed_by_owner(remote: Remote, progress: bool) -> str | None:
    """Return the SHA-512 that the owner's list has for this file."""
    if remote.checksums is None:
        return None
    with gzip.open(fetch(remote.checksums, progress=progress), "rt") as lines:
        # As sha512sum writes it: digest, blanks, for binary files a star, name.
        digests = {
            name.lstrip("*"): digest
            for digest, name in (line.strip().split(maxsplit=1) for line in lines if line.strip())
        }
    return f"sha512:{digests[remote.file]}" if remote.file in digests else None


def flaw(path: Path) -> str | None:
    """Return what is wrong with a file of which no checksum is known, as far as the file itself tells.

    A page for the login to a network, or a part of the file, would else be the measure for all later copies.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            start = file.read(8)
            while path.suffix == ".gz" and file.read(CHUNK):
                pass
    except DAMAGED as error:
        return str(error).rstrip(".")
    if path.suffix == ".h5" and start != b"\x89HDF\r\n\x1a\n":
        return "it is no HDF5 file"
    return "it is a web page" if path.suffix == ".txt" and start.lstrip().startswith(b"<") else None


def doubt(known: str | None, path: Path) -> str:
    """Return what else a wrong checksum may mean."""
    if known:
        return " If that does not help, its owner may have replaced it: please report that to gexinfer."
    return (
        " The expected one is that of an earlier copy. If its owner has replaced the file and you trust the new one, "
        f"delete {str(note_of(path))!r}, too."
    )


def download(remote: Remote, path: Path, expected: str | None, known: str | None, progress: bool) -> None:
    """Let pooch download the file, check it and move it to its place."""
    import pooch

    def receive(url: str, output_file: str, _: Any) -> None:
        part = path.with_name(path.name + ".part")
        while True:
            before = size_of(part)
            try:
                go_on(remote, part, progress)
                break
            except failures() as error:
                # A connection that brought something is worth another one; one that brought nothing is not.
                if size_of(part) <= before:
                    raise ConnectionError(unreachable(remote, path, part, error)) from error
            except KeyboardInterrupt:
                say(f"Stopped. {amount(size_of(part))} of {remote.name} are kept; the next call goes on from there.")
                raise
        validator_of(part).unlink(missing_ok=True)
        part.replace(output_file)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # what it would tell is told here
    try:
        pooch.retrieve(remote.url, expected, fname=path.name, path=path.parent, downloader=receive)
    except ValueError as error:
        message = f"{remote.name} {remote.version} from {remote.url} was removed again: {error}"
        raise ValueError(f"{message} Call again.{doubt(known, path)}") from error
    finally:
        logger.setLevel(level)


def go_on(remote: Remote, part: Path, progress: bool) -> None:
    """Receive what is missing of a file: the rest, if the server still has the same file and can send a part of it."""
    import requests

    have, host = size_of(part), urlsplit(remote.url).hostname
    validator = validator_of(part).read_text() if have and validator_of(part).exists() else ""
    # Unpacked on the way, a file would have another checksum.
    headers = {"Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={have}-", "If-Range": validator}
    with requests.get(remote.url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        status, first, total = response.status_code, *span(response)
        if validator and (status == 416 or (status == 206 and (first != have or validator != validates(response)))):
            part.unlink()
            return go_on(remote, part, progress)
        if status not in (200, 206):
            raise ConnectionError(
                f"{host} answers {status} {response.reason} to {remote.url}. "
                + (
                    "Try again later."
                    if status >= 500 or status == 429
                    else "The file may have moved: see its owner's page."
                )
                + by_hand(remote, part.with_name(remote.file))
            )
        if total is not None:
            check_room(part, total - first, f"downloading {remote.name}")
        begun = f", going on after {amount(first)}" if first else ""
        say(f"{remote.name} {remote.version}: {amount(total)} from {host} to {part.parent}{begun}.")
        if not first:
            part.write_bytes(b"")  # before the tag: the old part under the new tag would be taken for the new file's
        validator_of(part).write_text(validates(response))
        with part.open("ab") as target, bar(remote.name, total, progress, first) as advance:
            for chunk in response.raw.stream(CHUNK, decode_content=False):
                target.write(chunk)
                advance(len(chunk))
    if total is not None and size_of(part) != total:
        raise requests.ConnectionError(f"the connection ended after {size_of(part):,} of {total:,} bytes")


def failures() -> tuple[type[Exception], ...]:
    """Return what requests raises before and while a body arrives."""
    import requests
    import urllib3

    return requests.RequestException, urllib3.exceptions.HTTPError


def validator_of(part: Path) -> Path:
    """Return where it is written down which state of the owner's file a part belongs to."""
    return part.with_name(part.name + ".etag")


def validates(response: Response) -> str:
    """Return what tells one state of the owner's file from another; weak tags do not tell bytes apart."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def span(response: Response) -> tuple[int, int | None]:
    """Return which byte of the file comes first, and the size of the whole file if the server says it."""
    part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    if response.status_code == 206:
        return (int(part[1]), int(part[2]) if part[2] != "*" else None) if part else (-1, None)
    announced = response.headers.get("Content-Length", "")
    return 0, int(announced) if announced.isdigit() else None


def size_of(path: Path) -> int:
    """Return a file's size, 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def check_room(path: Path, needed: int, doing: str) -> None:
    """Refuse what the disk has no room for."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"{doing} needs {amount(needed)}, but {str(path.parent)!r} has {amount(free)} left. Free some, or set the "
            "environment variable GEXINFER_CACHE to a folder on another disk",
        )


def unreachable(remote: Remote, path: Path, part: Path, error: Exception) -> str:
    """Return what to tell someone without a network, or whose network fails."""
    host = urlsplit(remote.url).hostname
    kept = f" {amount(size_of(part))} are kept; the next call goes on from there." if size_of(part) else ""
    return (
        f"{remote.name} {remote.version} ({amount(remote.size)}) could not be downloaded from {remote.url}: "
        f"the connection to {host} failed ({type(error).__name__}).{kept}{by_hand(remote, path)}"
    )


def by_hand(remote: Remote, path: Path) -> str:
    """Return how to do without a download."""
    return f" Or get the file elsewhere and put it, as it is, to {str(path)!r}; then no network is needed."


def amount(size: int | None) -> str:
    """Return a number of bytes for people."""
    if size is None:
        return "size not known beforehand"
    for unit, least in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} bytes"


@contextmanager
def bar(title: str, total: int | None, show: bool, first: int = 0) -> Iterator[Callable[[int], None]]:
    """Give a function that moves a bar on by a number of bytes."""
    unit, each = ("MB", 10**6) if (total or 0) >= 10**7 else ("kB", 10**3)
    done, started = first, time.perf_counter()
    with steps(title, (total or 0) // each, show=show and (total or 0) >= each) as advance:

        def move(size: int) -> None:
            nonlocal done
            by, done = (done + size) // each - done // each, done + size
            advance(by, f"{unit}, {(done - first) / 1e6 / (time.perf_counter() - started):.1f} MB/s")

        advance(first // each, unit)
        yield move
