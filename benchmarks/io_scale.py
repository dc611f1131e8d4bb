"""Large files: time and memory, each measured in a process of its own.

Usage: python benchmarks/io_scale.py --part gctx [--folder FOLDER] [--cmappy PYTHON]
       python benchmarks/io_scale.py --part predict-ols|predict-dgex [--folder FOLDER] [--threads 2] [--samples 200000]

Part `gctx`: 978 genes x 100 samples, scattered, out of a GCTX of 50,000 samples x 12,328 genes (2.5 GB, generated in
FOLDER), against cmapPy, or, where no Python that has cmapPy is given, against what cmapPy does, written out. Memory is
the peak of the whole process (VmHWM), beside what its imports alone take. The file is read from memory ("warm") and,
its pages given up before, from the disk ("cold").

Parts `predict-ols` and `predict-dgex` (one hidden layer of 3,000): 978 landmarks of 200,000 generated profiles, zarr,
to 12,328 genes, zarr, against the bare matrix products of that model, by torch, plus writing as many bytes in the same
shards; and what that comes to for the 1,319,138 profiles of LINCS. Two results of 9.9 GB each lie in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results" / "io_scale.json"

N_SAMPLES, N_GENES = 50_000, 12_328
PICKED_SAMPLES, PICKED_GENES = 100, 978
# Those of CMap's own files: at most 1,000 genes, and as many samples as make up a MiB.
CHUNKS = (262, 1000)
REPEATS = 5

N_QUERIES, N_TARGETS, LINCS = 200_000, 11_350, 1_319_138
TRAINING_ROWS = 5_000

PEAK = """
import json, sys, time
def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
path, picks = sys.argv[1], json.load(open(sys.argv[2]))
"""
REPORT = """
seconds = time.perf_counter() - start
about = {"peak_mb": peak(), "imports_mb": imports, "shape": X.shape, "sum": float(X.sum(dtype="f8"))}
print(json.dumps({"seconds": seconds, **about}))
"""
GEXINFER = """
import gexinfer as gx
read = gx.io.read_gctx
imports, start = peak(), time.perf_counter()
X = read(path, rows=picks["genes"], cols=picks["samples"]).X
"""
CMAPPY = """
import warnings; warnings.simplefilter("ignore")
from cmapPy.pandasGEXpress.parse_gctx import parse
imports, start = peak(), time.perf_counter()
X = parse(path, rid=picks["genes"], cid=picks["samples"]).data_df.to_numpy().T
"""
WHOLE_ROWS = """
import h5py, numpy as np, pandas as pd
imports, start = peak(), time.perf_counter()
with h5py.File(path) as file:
    genes, samples = (pd.Index(file[f"0/META/{side}/id"][:].astype(str)) for side in ("ROW", "COL"))
    columns, rows = np.sort(genes.get_indexer(picks["genes"])), np.sort(samples.get_indexer(picks["samples"]))
    X = file["0/DATA/0/matrix"][rows, :][:, columns]
"""

SET_UP = """
import numpy as np, torch
threads = int(sys.argv[3]); torch.set_num_threads(threads)
from threadpoolctl import threadpool_limits; threadpool_limits(threads)
"""
PREDICT = """
import anndata as ad, gexinfer as gx
imports, start = peak(), time.perf_counter()
gx.tl.predict(ad.experimental.read_lazy(path), gx.io.read_model(picks["model"]), output=picks["out"], progress=False)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak_mb": peak(), "imports_mb": imports}))
"""
BARE = """
import zarr
weights = [torch.from_numpy(w) for w in np.load(picks["weights"]).values()]
X = torch.from_numpy(zarr.open_array(path + "/X", mode="r")[:])
like = zarr.open_array(picks["out"] + "/X", mode="r")
rows = like.shards[0]
out = zarr.create_array(picks["out"] + ".bare", shape=like.shape, chunks=like.chunks, shards=like.shards,
                        dtype=like.dtype, compressors=None)
values = like[:rows]
start = time.perf_counter()
for i in range(0, len(X), rows):
    y = X[i : i + rows]
    for layer, w in enumerate(weights):
        y = y @ w if layer == 0 else torch.tanh_(y) @ w
product = time.perf_counter() - start
start = time.perf_counter()
for i in range(0, len(X), rows):
    out[i : i + rows] = values[: len(X) - i]
print(json.dumps({"product_seconds": product, "write_seconds": time.perf_counter() - start}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, required=True)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where large files may lie")
    parser.add_argument("--cmappy", type=Path, help="a Python that has cmapPy, e.g. of a virtual environment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=N_QUERIES)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="gexinfer-io-scale-") as folder:
        result = PARTS[arguments.part](Path(folder), arguments)
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    machine |= {name: version(name) for name in ("gexinfer", "h5py", "numpy", "pandas", "anndata")}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(results | {arguments.part: result | {"machine": machine}}, indent=1) + "\n")


def gctx(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    path, picks = folder / "large.gctx", folder / "picks.json"
    generate(path, picks)
    other = (CMAPPY, arguments.cmappy) if arguments.cmappy else (WHOLE_ROWS, Path(sys.executable))
    tools = {"gexinfer": (GEXINFER, Path(sys.executable)), "cmapPy" if arguments.cmappy else "whole rows": other}
    runs: dict[str, dict[str, list[dict[str, object]]]] = {name: {"warm": [], "cold": []} for name in tools}
    for _ in range(REPEATS):
        for state in ("warm", "cold"):
            # One after the other, so that whatever else the machine does hits both.
            for name, (script, python) in tools.items():
                if state == "cold":
                    forget(path)
                runs[name][state].append(measure(python, script, path, picks))
    sums = {run["sum"] for states in runs.values() for each in states.values() for run in each}
    if max(sums) - min(sums) > 1e-6 * max(sums):
        raise ValueError(f"The tools read different values: {sums}.")

    grid = Table("", "warm, s", "cold, s", "peak, MB", "imports, MB")
    best = {}
    for name, states in runs.items():
        best[name] = {f"{state}_seconds": min(run["seconds"] for run in each) for state, each in states.items()}
        every = [run for each in states.values() for run in each]
        best[name] |= {key: max(run[key] for run in every) for key in ("peak_mb", "imports_mb")}
        grid.add_row(name, *(f"{value:.3f}" if value < 20 else f"{value:.0f}" for value in best[name].values()))
    ours, theirs = best.values()
    ratio = {state: ours[f"{state}_seconds"] / theirs[f"{state}_seconds"] for state in ("warm", "cold")}
    Console().print(grid, f"time of gexinfer / {list(tools)[1]}: {ratio['warm']:.3f} warm, {ratio['cold']:.3f} cold")
    versions = {"cmapPy": ask_version(arguments.cmappy)} if arguments.cmappy else {}
    return {"best": best, "time_ratio": ratio, "runs": runs, "chunks": CHUNKS, "versions": versions}


def predict(method: str, options: dict[str, object]) -> Callable[[Path, argparse.Namespace], dict[str, object]]:
    def part(folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
        query, plan = folder / "query.zarr", folder / "plan.json"
        plan.write_text(json.dumps(paths(folder)))
        train(method, options, folder, arguments.threads)
        rng = np.random.default_rng(1)
        landmarks = ad.AnnData(
            np.abs(rng.normal(6, 2, (arguments.samples, PICKED_GENES))).astype(np.float32),
            var=pd.DataFrame(index=names()[:PICKED_GENES]),
        )
        landmarks.write_zarr(query, chunks=(1000, PICKED_GENES))
        ours = run(query, PREDICT, plan, arguments.threads)
        bare = run(query, BARE, plan, arguments.threads)
        ratio = ours["seconds"] / (bare["product_seconds"] + bare["write_seconds"])
        lincs = ours["seconds"] * LINCS / arguments.samples
        grid = Table("", "seconds", "peak, MB")
        grid.add_row(f"predict with {method}", f"{ours['seconds']:.1f}", f"{ours['peak_mb']:.0f}")
        grid.add_row("bare product", f"{bare['product_seconds']:.1f}", "")
        grid.add_row("writing the same bytes", f"{bare['write_seconds']:.1f}", "")
        Console().print(grid, f"ratio {ratio:.2f}; {LINCS:,} profiles: {lincs / 60:.0f} minutes (extrapolated)")
        about = {"samples": arguments.samples, "threads": arguments.threads, "ratio": ratio}
        return about | {"ours": ours, "bare": bare, "lincs_minutes_extrapolated": lincs / 60}

    return part


def markdown(results: dict[str, dict]) -> str:
    """Return the table of docs/queries.md."""
    lines = [
        "| model | seconds | bare product | writing | ratio | peak memory | for 1,319,138 |",
        "|---|---|---|---|---|---|---|",
    ]
    for part, model in (("predict-ols", "ols"), ("predict-dgex", "dgex, 1 x 3,000")):
        found = results[part]
        ours, bare = found["ours"], found["bare"]
        times = (ours["seconds"], bare["product_seconds"], bare["write_seconds"])
        cells = [model, *(f"{s:.0f}" for s in times), f"{found['ratio']:.2f}", f"{ours['peak_mb'] / 1000:.2f} GB"]
        lines.append(f"| {' | '.join(cells)} | {found['lincs_minutes_extrapolated']:.0f} min |")
    return "\n".join(lines)


def paths(folder: Path) -> dict[str, str]:
    return {"model": f"{folder}/model.safetensors", "weights": f"{folder}/weights.npz", "out": f"{folder}/out.zarr"}


def names() -> list[str]:
    return [f"gene{i}" for i in range(PICKED_GENES + N_TARGETS)]


def train(method: str, options: dict[str, object], folder: Path, threads: int) -> None:
    """Fit a model on generated profiles, whose targets follow the landmarks, and leave its weights as bare arrays."""
    import torch

    import gexinfer as gx

    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (TRAINING_ROWS, PICKED_GENES)).astype(np.float32)
    y = x @ rng.normal(0, 0.03, (PICKED_GENES, N_TARGETS)).astype(np.float32)
    y += rng.normal(0, 0.3, y.shape).astype(np.float32)
    values = np.maximum(np.hstack([x, y]) * 2 + 6, 0)
    adata = ad.AnnData(values, var=pd.DataFrame({"landmark": np.arange(values.shape[1]) < PICKED_GENES}, index=names()))
    gx.pp.split(adata)
    gx.tl.fit(adata, method, **options)
    gx.io.write_model(gx.io.read_model(adata), paths(folder)["model"])
    arrays = gx.io.read_model(adata).model.arrays
    weights = [arrays["coefficients"]] if method == "ols" else [arrays[f"0.{layer}.weight"].T for layer in range(2)]
    np.savez(paths(folder)["weights"], *(np.ascontiguousarray(w, np.float32) for w in weights))


def run(query: Path, script: str, plan: Path, threads: int) -> dict[str, float]:
    """Run one of the two in a process of its own, no pages of what was written before waiting for the disk."""
    os.sync()
    command = [sys.executable, "-W", "ignore", "-c", PEAK + SET_UP + script, str(query), str(plan), str(threads)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def generate(path: Path, picks: Path) -> None:
    """Write the file block by block, and what will be picked from it."""
    rng = np.random.default_rng(0)
    genes = [str(1000 + 7 * i) for i in range(N_GENES)]
    samples = [
        f"LJP{i // 384:03}_A375_24H_X1_B19:{'ABCDEFGHIJKLMNOP'[i // 24 % 16]}{i % 24 + 1:02}" for i in range(N_SAMPLES)
    ]
    with h5py.File(path, "w") as file:
        file.attrs["version"] = np.bytes_("GCTX1.0")
        matrix = file.create_dataset("0/DATA/0/matrix", (N_SAMPLES, N_GENES), np.float32, chunks=CHUNKS)
        for start in range(0, N_SAMPLES, CHUNKS[0]):
            rows = min(CHUNKS[0], N_SAMPLES - start)
            matrix[start : start + rows] = rng.random((rows, N_GENES), np.float32) * 15
        file["0/META/ROW/id"] = np.array(genes, "S")
        file["0/META/ROW/pr_is_lm"] = (np.arange(N_GENES) % 12 == 0).astype(int)
        file["0/META/COL/id"] = np.array(samples, "S")
        file["0/META/COL/cell_id"] = np.full(N_SAMPLES, b"A375")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    wanted = {
        "genes": rng.choice(genes, PICKED_GENES, replace=False),
        "samples": rng.choice(samples, PICKED_SAMPLES, replace=False),
    }
    picks.write_text(json.dumps({name: ids.tolist() for name, ids in wanted.items()}))


def forget(path: Path) -> None:
    """Have the system give up what it holds of a file."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(python: Path, script: str, *arguments: Path) -> dict[str, object]:
    """Run a script in a process of its own and return what it reports."""
    command = [str(python), "-c", PEAK + script + REPORT, *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def ask_version(python: Path) -> dict[str, str]:
    """Return the versions that another Python has."""
    names = ("cmapPy", "h5py", "numpy", "pandas")
    script = (
        f"import json; from importlib.metadata import version; print(json.dumps({{n: version(n) for n in {names}}}))"
    )
    return json.loads(subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout)


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, object]]] = {
    "gctx": gctx,
    "predict-ols": predict("ols", {}),
    "predict-dgex": predict("dgex", {"recipe": "paper", "layers": 1, "hidden": 3000, "epochs": 1}),
}

if __name__ == "__main__":
    main()
