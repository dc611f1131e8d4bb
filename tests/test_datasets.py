"""Downloads, from a server on this machine: resumed, checked, refused with a message that helps."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gexinfer as gx
from gexinfer.datasets import _registry as registry
from gexinfer.datasets._download import alone, fetch, unpack
from gexinfer.datasets._registry import Remote

BODY = np.random.default_rng(0).bytes(300_000)


@dataclass
class Served:
    """A file on the server, and how the server misbehaves."""

    body: bytes
    etag: str | None = '"1"'
    status: int = 200
    ranges: bool = True
    if_range: bool = True
    # After how many bytes each of the next connections breaks.
    drops: list[int] = field(default_factory=list)
    pause: float = 0
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture(scope="module")
def server():
    files: dict[str, Served] = {}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            served = files.get(self.path.removeprefix("/"))
            if served is None or served.status != 200:
                self.send_error(404 if served is None else served.status)
                return
            wanted = self.headers.get("Range")
            served.asked.append(wanted)
            same = not served.if_range or self.headers.get("If-Range") == served.etag
            first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and served.ranges and same else 0
            if first >= len(served.body) > 0:
                self.send_error(416)
                return
            self.send_response(206 if first else 200)
            if first:
                self.send_header("Content-Range", f"bytes {first}-{len(served.body) - 1}/{len(served.body)}")
            if served.etag:
                self.send_header("ETag", served.etag)
            self.send_header("Content-Length", str(len(served.body) - first))
            self.end_headers()
            body = served.body[first:]
            if served.drops:
                body = body[: served.drops.pop(0)]
            with contextlib.suppress(OSError):  # a client that was killed
                for start in range(0, len(body), 50_000):
                    self.wfile.write(body[start : start + 50_000])
                    self.wfile.flush()
                    time.sleep(served.pause)
            self.close_connection = True

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    httpd.files, httpd.address = files, f"http://127.0.0.1:{httpd.server_port}"
    yield httpd
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("GEXINFER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def serve(server, cache):
    """Put a file on the server; return it and what gexinfer would know of it."""
    server.files.clear()

    def put(
        body: bytes = BODY, name: str = "file.bin", checksum: str | None = None, **options
    ) -> tuple[Served, Remote]:
        server.files[name] = Served(body, **options)
        remote = Remote("made up", "v1", f"{server.address}/{name}", "origin", size=len(body), checksum=checksum)
        return server.files[name], remote

    return put


def sha256(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def leftovers(cache: Path) -> set[str]:
    return {path.name for path in cache.iterdir() if not path.name.endswith(".lock")}


def nowhere() -> str:
    """Return an address that nobody listens at."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        return f"http://127.0.0.1:{closed.server_port}"


# --- the way of a download ---------------------------------------------------------------------------------------------


def test_a_file_is_downloaded_once_checked_and_noted(serve, cache, capsys):
    served, remote = serve(checksum=sha256(BODY))
    path = fetch(remote)
    assert path == cache / "file.bin"
    assert path.read_bytes() == BODY
    assert leftovers(cache) == {"file.bin", "file.bin.json"}
    assert json.loads((cache / "file.bin.json").read_text())["checksum"] == sha256(BODY)
    assert fetch(remote) == path
    assert served.asked == [None]
    told = capsys.readouterr().err
    assert "made up v1: 300.0 kB from 127.0.0.1 to" in told
    assert f"{sha256(BODY)}, as expected" in told
    assert "300/300" in told
    assert "pooch" not in told
    assert "Downloading data from" not in told


def test_progress_can_be_turned_off(serve, capsys):
    _, remote = serve()
    fetch(remote, progress=False)
    assert "300/300" not in capsys.readouterr().err


def test_a_connection_that_breaks_is_taken_up_where_it_broke(serve, capsys):
    served, remote = serve(drops=[70_000, 100_000], checksum=sha256(BODY))
    assert fetch(remote).read_bytes() == BODY
    assert served.asked == [None, "bytes=70000-", "bytes=170000-"]
    assert "going on after 70.0 kB" in capsys.readouterr().err


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    drops=st.lists(st.integers(1, 120_000), max_size=4),
    etag=st.sampled_from(['"1"', 'W/"1"', None]),
    ranges=st.booleans(),
)
def test_whatever_breaks_the_file_comes_whole_or_not_at_all(serve, cache, drops, etag, ranges):
    shutil.rmtree(cache, ignore_errors=True)
    _, remote = serve(drops=list(drops), etag=etag, ranges=ranges)
    for _ in range(len(drops) + 1):
        try:
            path = fetch(remote, progress=False)
            break
        except ConnectionError:
            assert not (cache / "file.bin").exists()
    assert path.read_bytes() == BODY


def test_a_later_call_goes_on_after_the_network_failed(serve, cache):
    served, remote = serve(drops=[70_000, 0])
    with pytest.raises(ConnectionError, match=r"70\.0 kB are kept; the next call goes on from there"):
        fetch(remote)
    assert not (cache / "file.bin").exists()
    assert fetch(remote).read_bytes() == BODY
    assert served.asked == [None, "bytes=70000-", "bytes=70000-"]


def test_a_killed_process_loses_nothing(serve, cache):
    served, remote = serve(pause=0.15)
    script = (
        "import sys; from gexinfer.datasets._download import fetch; from gexinfer.datasets._registry import Remote;"
        "fetch(Remote('made up', 'v1', sys.argv[1], ''))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, remote.url], stderr=subprocess.DEVNULL)
    part, deadline = cache / "file.bin.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    kept = part.stat().st_size
    assert 0 < kept < len(BODY)
    served.pause = 0
    assert fetch(remote).read_bytes() == BODY
    assert served.asked == [None, f"bytes={kept}-"]


def test_ctrl_c_says_what_is_kept(serve, cache, capsys, monkeypatch):
    served, remote = serve()

    @contextlib.contextmanager
    def bar(*_):
        def stop(size):
            raise KeyboardInterrupt

        yield stop

    with monkeypatch.context() as patched:
        patched.setattr("gexinfer.datasets._download.bar", bar)
        with pytest.raises(KeyboardInterrupt):
            fetch(remote)
    assert "Stopped. 65.5 kB of made up are kept; the next call goes on from there" in capsys.readouterr().err
    assert leftovers(cache) == {"file.bin.part", "file.bin.part.etag"}
    assert fetch(remote).read_bytes() == BODY
    assert served.asked == [None, "bytes=65536-"]
    assert leftovers(cache) == {"file.bin", "file.bin.json"}


@pytest.mark.parametrize("if_range", [True, False], ids=["sends the whole file", "ignores If-Range"])
def test_a_file_that_changed_meanwhile_is_begun_again(serve, if_range):
    served, remote = serve(drops=[70_000, 0], if_range=if_range)
    with pytest.raises(ConnectionError):
        fetch(remote)
    served.body, served.etag = BODY[::-1], '"2"'
    assert fetch(remote).read_bytes() == BODY[::-1]


def test_a_part_longer_than_the_file_is_begun_again(serve, cache):
    served, remote = serve(drops=[70_000, 0], if_range=False)
    with pytest.raises(ConnectionError):
        fetch(remote)
    served.body = BODY[:50_000]
    assert fetch(remote).read_bytes() == BODY[:50_000]


def test_two_at_once_download_once(serve):
    served, remote = serve(pause=0.05)
    threads = [threading.Thread(target=fetch, args=[remote]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.asked == [None]
    assert fetch(remote).read_bytes() == BODY


def test_the_one_that_waits_says_so(serve, cache, capsys):
    _, remote = serve()
    thread, told, deadline = threading.Thread(target=fetch, args=[remote]), "", time.monotonic() + 30
    with alone(cache / "file.bin"):
        thread.start()
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
            told = capsys.readouterr().err
    thread.join()
    assert "file.bin is being downloaded or unpacked by another process; waiting for it" in told
    assert (cache / "file.bin").read_bytes() == BODY


# --- what is refused ---------------------------------------------------------------------------------------------------


def test_without_a_network_the_message_says_what_to_do(serve, cache):
    _, remote = serve()
    remote = replace(remote, url=f"{nowhere()}/file.bin", size=1_500_000_000)
    with pytest.raises(ConnectionError) as raised:
        fetch(remote)
    message = str(raised.value)
    assert (
        f"made up v1 (1.5 GB) could not be downloaded from {remote.url}: the connection to 127.0.0.1 failed" in message
    )
    assert f"put it, as it is, to {str(cache / 'file.bin')!r}" in message
    (cache / "file.bin").write_bytes(BODY)
    assert fetch(remote).read_bytes() == BODY


@pytest.mark.parametrize(("status", "remedy"), [(404, "may have moved"), (503, "Try again later")])
def test_what_a_server_refuses_is_told(serve, cache, status, remedy):
    _, remote = serve(status=status)
    with pytest.raises(ConnectionError, match=rf"answers {status} .*{remedy}.*put it, as it is, to"):
        fetch(remote)
    assert leftovers(cache) == set()


def test_a_wrong_checksum_removes_the_file_and_names_both(serve, cache):
    served, remote = serve(BODY[::-1], checksum=sha256(BODY))
    with pytest.raises(ValueError, match="made up v1") as raised:
        fetch(remote)
    assert hashlib.sha256(BODY).hexdigest() in str(raised.value)
    assert hashlib.sha256(BODY[::-1]).hexdigest() in str(raised.value)
    assert leftovers(cache) == set()
    served.body = BODY
    assert fetch(remote).read_bytes() == BODY


def test_without_a_known_checksum_the_first_copy_is_the_measure(serve, cache, capsys):
    served, remote = serve()
    path = fetch(remote)
    told = capsys.readouterr().err
    assert f"{sha256(BODY)}, recorded in file.bin.json" in told
    assert "knows no checksum of this file, so this first copy was taken on trust" in told
    path.unlink()
    served.body = BODY[::-1]
    with pytest.raises(ValueError, match="delete .*file.bin.json"):
        fetch(remote)
    assert not path.exists()
    served.body = BODY
    fetch(remote)
    assert "the same as when it was first downloaded" in capsys.readouterr().err
    path.unlink()
    (cache / "file.bin.json").unlink()
    served.body = BODY[::-1]
    assert fetch(remote).read_bytes() == BODY[::-1]


@pytest.mark.parametrize("note", ["{", "[]", '"x"', '{"checksum": "sha256:0"}', b"\xff"])
def test_a_damaged_note_counts_as_none(serve, cache, note):
    served, remote = serve()
    path = fetch(remote)
    (cache / "file.bin.json").write_bytes(note if isinstance(note, bytes) else note.encode())
    assert fetch(remote) == path
    assert json.loads((cache / "file.bin.json").read_text())["checksum"] == sha256(BODY)
    assert served.asked == [None]


def test_a_file_that_was_changed_in_the_cache_is_refused(serve, cache):
    served, remote = serve()
    path = fetch(remote)
    os.utime(path, (1, 1))
    fetch(remote)  # touched, not changed
    path.write_bytes(BODY[::-1])
    with pytest.raises(ValueError, match="Delete it and call again") as raised:
        fetch(remote)
    assert sha256(BODY) in str(raised.value)
    assert sha256(BODY[::-1]) in str(raised.value)
    assert path.exists(), "someone put it there: it is not ours to delete"
    assert served.asked == [None]


def test_a_checksum_that_becomes_known_is_asked_for(serve):
    _, remote = serve()
    fetch(remote)
    fetch(replace(remote, checksum=sha256(BODY)))
    with pytest.raises(ValueError, match="expected is sha256:0"):
        fetch(replace(remote, checksum="sha256:" + "0" * 64))


@pytest.mark.parametrize("digest", [hashlib.sha512(BODY).hexdigest(), "0" * 128], ids=["right", "wrong"])
def test_the_owners_list_of_checksums_is_asked(serve, cache, capsys, digest):
    lines = f"{'1' * 128}  other.bin\n{digest} *file.bin\n"
    _, checksums = serve(gzip.compress(lines.encode()), "SUMS.txt.gz")
    _, remote = serve()
    remote = replace(remote, checksums=checksums)
    if digest.startswith("0"):
        with pytest.raises(ValueError, match="0" * 128):
            fetch(remote)
        assert not (cache / "file.bin").exists()
    else:
        fetch(remote)
        assert f"sha512:{digest}, as expected" in capsys.readouterr().err


def test_a_full_disk_is_told_before(serve, cache, monkeypatch):
    served, remote = serve(drops=[200_000, 0])
    with pytest.raises(ConnectionError):
        fetch(remote)
    usage = shutil.disk_usage(cache)._replace(free=99_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 100\.0 kB, but .* has 99\.0 kB left.*GEXINFER_CACHE"):
        fetch(remote)
    assert (cache / "file.bin.part").stat().st_size == 200_000
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    assert fetch(remote).read_bytes() == BODY


def test_unpacking(serve, cache, monkeypatch):
    served, remote = serve(gzip.compress(BODY), "file.bin.gz")
    assert unpack(remote).read_bytes() == BODY
    (cache / "file.bin.gz").unlink()
    assert unpack(remote) == cache / "file.bin"
    assert served.asked == [None]
    assert not (cache / "file.bin.part").exists()


PAGE = b"<html>Please log in to the network.</html>"
BROKEN = gzip.compress(BODY)[:-1000] + bytes(1000)


@pytest.mark.parametrize(
    ("name", "wrong", "right", "problem"),
    [
        ("file.bin.gz", PAGE, gzip.compress(BODY), "Not a gzipped file"),
        ("file.bin.gz", gzip.compress(BODY)[:-1000], gzip.compress(BODY), "ended before the end-of-stream"),
        ("file.bin.gz", BROKEN, gzip.compress(BODY), "Error -3|CRC"),
        ("file.h5", PAGE, b"\x89HDF\r\n\x1a\n" + BODY, "no HDF5 file"),
        ("file.txt", b"\n" + PAGE, b"SAMPID\tSMTS\n", "a web page"),
    ],
    ids=["page", "cut", "broken", "page for HDF5", "page for text"],
)
def test_a_wrong_first_copy_is_not_taken_for_the_measure(serve, cache, name, wrong, right, problem):
    """What the message says mends it: a second call, once the network gives the file."""
    served, remote = serve(wrong, name)
    with pytest.raises(ValueError, match=rf"is not made up v1: .*({problem}).*\. It came from .* Call again; .*log in"):
        fetch(remote)
    assert leftovers(cache) == set()
    served.body = right
    assert fetch(remote).read_bytes() == right

    path = cache / name
    path.unlink()
    (cache / f"{name}.json").unlink()
    path.write_bytes(wrong)  # put there by hand: not ours to delete
    with pytest.raises(ValueError, match=rf"({problem}).*\. Delete it and call again"):
        fetch(remote)
    assert leftovers(cache) == {name}
    path.unlink()
    assert fetch(remote).read_bytes() == right


def test_what_cannot_be_unpacked_says_how_to_mend_it(serve, cache):
    packed = gzip.compress(BODY)
    served, remote = serve(packed, "file.bin.gz")
    path = fetch(remote)
    time = path.stat().st_mtime_ns
    path.write_bytes(packed[:5000] + bytes(len(packed) - 5000))  # a bad disk: size and time are what they were
    os.utime(path, ns=(time, time))
    with pytest.raises(ValueError, match=r"is damaged: [^.]*\. Delete it and call again"):
        unpack(remote)
    assert leftovers(cache) == {"file.bin.gz", "file.bin.gz.json"}
    path.unlink()
    assert unpack(remote).read_bytes() == BODY


def test_nothing_is_unpacked_without_room(serve):
    _, remote = serve(gzip.compress(BODY), "file.bin.gz")
    with pytest.raises(OSError, match="unpacking made up needs 9999.0 GB"):
        unpack(replace(remote, unpacked=9_999_000_000_000))


def test_importing_the_loaders_loads_no_network():
    script = "import sys, gexinfer; gexinfer.datasets; print([m for m in ('pooch', 'requests', 'filelock', 'scanpy', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


# --- what is known of the files ----------------------------------------------------------------------------------------

REMOTES = {name: remote for name, remote in vars(registry).items() if isinstance(remote, Remote)}


def test_the_registry_is_well_formed_and_documented():
    assert len({remote.file for remote in REMOTES.values()}) == len(REMOTES)
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    for remote in REMOTES.values():
        assert remote.url.startswith("https://")
        assert remote.checksum is None or re.fullmatch(r"sha256:[0-9a-f]{64}", remote.checksum)
        assert f"`{remote.file}`" in page


# --- the loaders, on small files of the true formats -------------------------------------------------------------------


@pytest.fixture
def publish(serve, monkeypatch):
    """Serve a made file in the place of a registered one."""

    def put(name: str, body: bytes) -> None:
        remote = REMOTES[name]
        _, local = serve(body, remote.file)
        monkeypatch.setattr(registry, name, replace(local, origin=remote.origin))

    return put


def test_geuvadis(publish):
    publish(
        "GEUVADIS",
        gzip.compress(
            b"TargetID\tGene_Symbol\tChr\tCoord\tHG00096\tHG00097\n"
            b"ENSG00000152931.6\tENSG00000152931.6\t5\t59783540\t0.5\t-0.01\n"
            b"ENSG00000183696.9\tENSG00000183696.9\tX\t48117606\t15\t3\n"
        ),
    )
    adata = gx.datasets.geuvadis()
    assert adata.X.dtype == np.float32
    np.testing.assert_allclose(adata.X, [[np.log2(1.5), 4], [0, 2]], rtol=1e-6)
    assert list(adata.obs_names) == ["HG00096", "HG00097"]
    assert list(adata.var_names) == ["ENSG00000152931.6", "ENSG00000183696.9"]
    assert list(adata.var["Chr"]) == ["5", "X"]
    assert "E-GEUV-1" in adata.uns["origin"]


def test_pbmc(publish, tmp_path):
    counts = sp.random(5, 4, 0.5, random_state=0, data_rvs=lambda n: np.arange(1, n + 1)).tocsr()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        matrix = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            matrix[part] = getattr(counts, part).astype(np.int32)
        matrix["shape"] = np.array(counts.shape[::-1], np.int32)
        matrix["barcodes"] = np.array([f"AAAC{i}-1" for i in range(5)], "S")
        for name, values in {
            "id": ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003", "ENSG00000000004"],
            "name": ["TP53", "TBCE", "TBCE", "MYC"],
            "feature_type": ["Gene Expression"] * 4,
            "genome": ["GRCh38"] * 4,
        }.items():
            matrix[f"features/{name}"] = np.array(values, "S")
    publish("PBMC", (tmp_path / "a.h5").read_bytes())
    adata = gx.datasets.pbmc()
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())
    assert adata.var_names.is_unique
    assert adata.var.loc["ENSG00000000003", "symbol"] == "TBCE"
    assert "CC BY 4.0" in adata.uns["origin"]
    adata.write_h5ad(tmp_path / "b.h5ad")


GENES = (
    "pr_gene_id\tpr_gene_symbol\tpr_gene_title\tpr_is_lm\tpr_is_bing\n"
    "5720\tPSME1\tproteasome activator subunit 1\t1\t1\n"
    "7157\tTP53\ttumor protein p53\t1\t1\n"
    "4580\tNA\t-666\t0\t1\n"
)


def test_gene_info(publish):
    publish("GSE92742_GENES", gzip.compress(GENES.encode()))
    genes = gx.datasets.gene_info()
    assert list(genes.index) == ["5720", "7157", "4580"]
    assert genes.loc["4580", "pr_gene_symbol"] == "NA"
    assert pd.isna(genes.loc["4580", "pr_gene_title"])
    assert genes["pr_is_lm"].tolist() == [1, 1, 0]


def gctx(path: Path, X: np.ndarray, samples: list[str], genes: list[str]) -> bytes:
    with h5py.File(path, "w") as file:
        file["0/DATA/0/matrix"] = X.astype(np.float32)
        file["0/META/COL/id"] = np.array(samples, "S")
        file["0/META/ROW/id"] = np.array(genes, "S")
    return gzip.compress(path.read_bytes())


def test_gse92742(publish, tmp_path):
    X, samples = np.arange(6).reshape(2, 3), ["CPC004_A375_6H_X1_B3:A03", "CPC004_A375_6H_X1_B3:A04"]
    publish("GSE92742_GENES", gzip.compress(GENES.encode()))
    # The table of the series lists them in another order.
    rows = f"inst_id\tcell_id\tpert_dose\n{samples[1]}\tA375\t-666\n{samples[0]}\tMCF7\t10\n"
    publish("GSE92742_SAMPLES", gzip.compress(rows.encode()))
    publish("GSE92742_LEVEL3", gctx(tmp_path / "a.gctx", X, samples, ["7157", "4580", "5720"]))
    adata = gx.datasets.gse92742()
    np.testing.assert_array_equal(adata.X, X)
    assert list(adata.obs["cell_id"]) == ["MCF7", "A375"]
    np.testing.assert_array_equal(adata.obs["pert_dose"], [10, np.nan])
    assert list(adata.var["pr_gene_symbol"]) == ["TP53", "NA", "PSME1"]
    assert list(adata.var["landmark"]) == [True, False, True]
    assert list(adata.var["bing"]) == [True, True, True]
    assert "GSE92742" in adata.uns["origin"]
    adata.write_h5ad(tmp_path / "b.h5ad")


@pytest.mark.parametrize(("platform", "name"), [("rnaseq", "GSE92743_RNASEQ"), ("l1000", "GSE92743_L1000")])
def test_gse92743(publish, tmp_path, platform, name):
    publish(name, gctx(tmp_path / "a.gctx", np.arange(6).reshape(2, 3), ["a", "b"], ["7157", "4580", "5720"]))
    adata = gx.datasets.gse92743(platform)
    np.testing.assert_array_equal(adata.X, np.arange(6).reshape(2, 3))
    assert "GSE92743" in adata.uns["origin"]


def test_gse92743_has_two_platforms():
    with pytest.raises(ValueError, match="'rnaseq' and 'l1000'"):
        gx.datasets.gse92743("array")


@pytest.fixture
def small_gtex(publish):
    publish(
        "GTEX_SAMPLES",
        b"SAMPID\tSMATSSCR\tSMTS\tSMTSD\tSMAFRZE\n"
        b"GTEX-1117F-0003-SM-58Q7G\t\tBlood\tWhole Blood\tWGS\n"
        b"GTEX-1117F-0226-SM-5GZZ7\t0\tLiver\tLiver\tRNASEQ\n"
        b"GTEX-111CU-0126-SM-5GZWZ\t1\tBrain\tBrain - Cortex\tRNASEQ\n",
    )
    publish(
        "GTEX_TPM",
        gzip.compress(
            b"#1.2\n2\t2\nName\tDescription\tGTEX-111CU-0126-SM-5GZWZ\tGTEX-1117F-0226-SM-5GZZ7\n"
            b"ENSG00000141510.16\tTP53\t0\t3\nENSG00000136997.17\tMYC\t7\t0.5\n"
        ),
    )


def test_gtex(small_gtex):
    adata = gx.datasets.gtex()
    assert adata.X.dtype == np.float32
    np.testing.assert_allclose(adata.X, [[0, 3], [2, np.log2(1.5)]], rtol=1e-6)
    assert list(adata.obs["tissue"]) == ["Brain - Cortex", "Liver"]
    assert list(adata.obs["organ"]) == ["Brain", "Liver"]
    assert list(adata.obs["subject"]) == ["GTEX-111CU", "GTEX-1117F"]
    assert list(adata.var["symbol"]) == ["TP53", "MYC"]
    assert adata.var_names[0] == "ENSG00000141510.16"
    assert "GTEx v8" in adata.uns["origin"]


@pytest.mark.parametrize("tissue", ["Liver", ["Liver"]])
def test_gtex_of_one_tissue(small_gtex, tissue):
    adata = gx.datasets.gtex(tissue=tissue)
    np.testing.assert_allclose(adata.X, [[2, np.log2(1.5)]], rtol=1e-6)
    assert list(adata.obs_names) == ["GTEX-1117F-0226-SM-5GZZ7"]
    assert list(adata.obs["tissue"].cat.categories) == list(adata.obs["organ"].cat.categories) == ["Liver"]


@pytest.mark.parametrize(
    ("tissue", "problem"),
    [
        ("liver", "GTEx has no 'liver'; it has"),
        (["Liver", "Whole Blood"], "GTEx has no 'Whole Blood'; it has"),
        ([], r"tissue=\[\] names none. Leave it out for all; GTEx has"),
    ],
)
def test_gtex_names_the_tissues_that_there_are(small_gtex, tissue, problem):
    with pytest.raises(ValueError, match=f"{problem} 'Brain - Cortex', 'Liver'"):
        gx.datasets.gtex(tissue=tissue)
