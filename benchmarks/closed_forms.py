"""Time and memory of the closed-form methods against scikit-learn, in one run on one machine.

Usage: python benchmarks/closed_forms.py [--threads 2] [--repeats 3] [--only ols,ridge,...]

20,000 simulated samples (60 factors and noise) of 943 landmarks and 4,760 targets, float32, 16,000 of them for
training. Every measurement is a process of its own, ours and theirs in turn; the median counts. Ours is all of
`gexinfer.tl.fit` on an AnnData, checks included. Theirs gets contiguous arrays of the training rows, cut before the
clock starts. Memory is the peak of resident memory above what was resident before the call, the data included there.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter

N, LANDMARKS, TARGETS, TRAIN = 20_000, 943, 4_760, 16_000
KERNEL_TRAIN, KERNEL_VALIDATION = 4_000, 500
BANDWIDTH = 1.0
STREAMED = 80_000
LASSO_PENALTY, LASSO_TARGETS, BOOSTED_TARGETS = 0.03, 40, 5
RESULTS = Path(__file__).parent / "results" / "closed_forms.json"


def simulated(n=N):
    """Return (samples, genes) with the landmarks anywhere among the genes, and which those are."""
    import numpy as np

    rng = np.random.default_rng(0)
    genes = LANDMARKS + TARGETS
    loadings = 0.2 * rng.standard_normal((60, genes), dtype=np.float32)
    values = np.empty((n, genes), np.float32)
    for first in range(0, n, 1000):
        part = values[first : first + 1000]
        part[:] = 8 + 0.5 * rng.standard_normal(part.shape, dtype=np.float32)
        part += rng.standard_normal((len(part), 60), dtype=np.float32) @ loadings
    landmark = np.zeros(genes, bool)
    landmark[rng.choice(genes, LANDMARKS, replace=False)] = True
    return values, landmark


def sides(n, train, validation):
    import numpy as np

    side = np.array(["test"] * n, dtype=object)
    order = np.random.default_rng(1).permutation(n)
    side[order[:train]], side[order[train : train + validation]] = "train", "validation"
    return side


def reference(values, landmark, train=TRAIN, validation=0):
    import anndata as ad
    import pandas as pd

    obs = pd.DataFrame({"split": sides(len(values), train, validation)}, index=[str(i) for i in range(len(values))])
    var = pd.DataFrame({"landmark": landmark}, index=[f"g{i}" for i in range(len(landmark))])
    return ad.AnnData(values, obs=obs, var=var)


def arrays(values, landmark, train=TRAIN, validation=0):
    """Return contiguous standardised training and validation arrays, and free the rest."""
    import numpy as np

    side = sides(len(values), train, validation)
    mean, sd = values[side == "train"].mean(0), values[side == "train"].std(0) + 1e-3
    cut = []
    for rows in (side == "train", side == "validation"):
        block = (values[rows] - mean) / sd
        cut += [np.ascontiguousarray(block[:, landmark]), np.ascontiguousarray(block[:, ~landmark])]
    return cut


def measured(call):
    """Return seconds and the peak of resident memory above that before, in MB."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status("VmRSS")
    started = perf_counter()
    result = call()
    seconds = perf_counter() - started
    return {"seconds": seconds, "peak_mb": (status("VmHWM") - before) / 1e3}, result


def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def ours(method, train=TRAIN, validation=0, n=N, **options):
    import gexinfer as gx

    values, landmark = simulated(n)
    warm = reference(values[:2500, :1300].copy(), landmark[:1300], 2000, 200)
    gx.tl.fit(warm, method, progress=False, **options)  # imports and compiles
    adata = reference(values, landmark, train, validation)
    found, _ = measured(lambda: gx.tl.fit(adata, method, progress=False, **options))
    found |= {k: v for k, v in adata.uns[method]["params"].items() if k in ("penalty", "bandwidth", "validation_mae")}
    return found


def ours_from_arrays():
    """Least squares from the arrays that theirs gets, without an AnnData, its checks and its record."""
    import numpy as np

    from gexinfer.engine.moments import moments
    from gexinfer.methods._linear import unpenalised

    X, Y, _, _ = arrays(*simulated())

    def fit(n):
        blocks = (np.hstack([X[i : i + 1024], Y[i : i + 1024]]) for i in range(0, n, 1024))
        return unpenalised(moments(blocks, LANDMARKS, n).standardised())

    fit(5000)
    return measured(lambda: fit(len(X)))[0]


def theirs(model, train=TRAIN, targets=None):
    X, Y, _, _ = arrays(*simulated(), train)
    model.fit(X[:500], Y[:500, :5])
    if targets is None:
        return measured(lambda: model.fit(X, Y))[0]
    found, _ = measured(lambda: [model.fit(X, Y[:, j]) for j in range(targets)])
    return found | {"seconds": found["seconds"] * TARGETS / targets, "extrapolated_from": targets}


def their_kernel():
    import numpy as np
    from sklearn.kernel_ridge import KernelRidge

    from gexinfer.methods.kernel import PENALTIES

    X, Y, x, y = arrays(*simulated(KERNEL_TRAIN + KERNEL_VALIDATION), KERNEL_TRAIN, KERNEL_VALIDATION)
    unit = np.median(np.linalg.norm(X[:500, None, :50] - X[None, :500, :50], axis=2)) * np.sqrt(X.shape[1] / 50)

    def over_the_grid():
        errors = {}
        for penalty in PENALTIES:
            model = KernelRidge(kernel="rbf", gamma=1 / (2 * (BANDWIDTH * unit) ** 2), alpha=penalty).fit(X, Y)
            errors[penalty] = float(np.abs(model.predict(x) - y).mean())
        return errors

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weak penalties
        found, errors = measured(over_the_grid)
    penalty, error = min(errors.items(), key=lambda item: item[1])
    return found | {"bandwidth": BANDWIDTH, "penalty": penalty, "validation_mae": error}


def streamed(source):
    """Fit ridge on 80,000 samples in memory, or on disk with a quarter of their size to work in."""
    import anndata as ad
    import pandas as pd
    import zarr

    import gexinfer as gx

    folder = Path(os.environ["GEXINFER_STREAMED"])
    values, landmark = simulated(2500)
    gx.tl.fit(reference(values, landmark, 2000, 200), "ridge", progress=False)
    var = reference(values[:0], landmark).var
    del values
    if source == "memory":
        X = ad.read_h5ad(folder / "a.h5ad").X
    elif source == "h5ad":
        X = ad.read_h5ad(folder / "a.h5ad", backed="r").X
    else:
        X = zarr.open_array(folder / "a.zarr", mode="r")
    split = sides(STREAMED, STREAMED * 8 // 10, STREAMED // 10)
    obs = pd.DataFrame({"split": split}, index=[str(i) for i in range(STREAMED)])
    adata = ad.AnnData(X, obs=obs, var=var)
    size = STREAMED * (LANDMARKS + TARGETS) * 4
    if source != "memory":
        resource.setrlimit(resource.RLIMIT_DATA, (status("VmData") * 1024 + size // 4,) * 2)
    found, _ = measured(lambda: gx.tl.fit(adata, "ridge", progress=False))
    return found | {"data_mb": size / 1e6, "penalty": adata.uns["ridge"]["params"]["penalty"]}


def write_streamed(folder):
    import zarr

    values, landmark = simulated(STREAMED)
    reference(values, landmark).write_h5ad(folder / "a.h5ad")
    chunks = (512, values.shape[1])
    array = zarr.create_array(str(folder / "a.zarr"), shape=values.shape, chunks=chunks, dtype="float32")
    array[:] = values


def sides_of(case):
    """Return what is measured under each name; the first is ours."""
    from sklearn.linear_model import Lasso, LinearRegression, Ridge

    def boosted():
        from xgboost import XGBRegressor

        return theirs(XGBRegressor(), targets=BOOSTED_TARGETS)

    kernel = {"kernel": "rbf", "bandwidth": BANDWIDTH, "linear": 0.0}
    n = KERNEL_TRAIN + KERNEL_VALIDATION
    return {
        "ols": {
            "gexinfer ols": lambda: ours("ols"),
            "gexinfer ols, from arrays": ours_from_arrays,
            "scikit-learn LinearRegression": lambda: theirs(LinearRegression()),
        },
        "ridge": {
            "gexinfer ridge, 25 penalties": lambda: ours("ridge", validation=2000),
            "scikit-learn Ridge, 1 penalty": lambda: theirs(Ridge(alpha=100.0)),
        },
        "lasso": {
            "gexinfer lasso, 1 penalty": lambda: ours("lasso", penalty=LASSO_PENALTY),
            "scikit-learn Lasso per target": lambda: theirs(Lasso(alpha=LASSO_PENALTY), targets=LASSO_TARGETS),
        },
        "kernel": {
            "gexinfer kernel, 10 penalties tried on 2,000 of 4,000 rows": lambda: ours(
                "kernel", KERNEL_TRAIN, KERNEL_VALIDATION, n, **kernel
            ),
            "scikit-learn KernelRidge, 10 penalties on all 4,000": their_kernel,
        },
        "streaming": {
            "ridge, 80,000 samples in memory": lambda: streamed("memory"),
            "ridge, backed h5ad, a quarter of its size as memory": lambda: streamed("h5ad"),
            "ridge, zarr, a quarter of its size as memory": lambda: streamed("zarr"),
        },
        "boosting": {
            "gexinfer ridge, 25 penalties": lambda: ours("ridge", validation=2000),
            "XGBoost per target": boosted,
        },
    }[case]


CASES = ("ols", "ridge", "lasso", "kernel", "streaming", "boosting")


def run(case, name, environment):
    command = [sys.executable, __file__, "--one", case, name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{case}, {name}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default=",".join(CASES))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        case, name = options.one
        print(json.dumps(sides_of(case)[name]()))
        return
    threads = {f"{lib}_NUM_THREADS": str(options.threads) for lib in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | threads | {"GEXINFER_STREAMED": folder}
        for case in options.only.split(","):
            if case == "boosting" and not installed("xgboost"):
                print("boosting: skipped, xgboost is not installed")
                continue
            if case == "streaming":
                write_streamed(Path(folder))
                # As one sets it where memory is short: else each thread keeps what it has freed.
                environment = environment | {"MALLOC_ARENA_MAX": "2"}
            names = list(sides_of(case))
            runs = {name: [] for name in names}
            for _ in range(options.repeats):
                for name in names:
                    runs[name].append(run(case, name, environment))
            results["cases"][case] = {name: summary(found) for name, found in runs.items()}
    packages = ("gexinfer", "numpy", "scipy", "scikit-learn", "torch", "numba", "xgboost")
    results["machine"] = {
        "processor": processor(),
        "threads": options.threads,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages if installed(name)},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    show(results)


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def summary(found):
    medians = {name: median(run[name] for run in found) for name in ("seconds", "peak_mb")}
    return found[0] | medians | {"repeats": len(found)}


def show(results):
    from rich.console import Console
    from rich.table import Table

    grid = Table("case", "what", "seconds", "times ours", "peak MB above the data", "validation MAE")
    for case, sides in results["cases"].items():
        first = next(iter(sides.values()))
        for name, found in sides.items():
            mae = f"{found['validation_mae']:.4f}" if "validation_mae" in found else ""
            ratio = f"{found['seconds'] / first['seconds']:.2f}"
            grid.add_row(case, name, f"{found['seconds']:.2f}", ratio, f"{found['peak_mb']:.0f}", mae)
    Console(width=140).print(grid)


if __name__ == "__main__":
    main()
