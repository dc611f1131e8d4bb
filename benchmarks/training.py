"""Training speed of a network on the processor, against an ordinary PyTorch script and scikit-learn, in one run.

Usage: python benchmarks/training.py [--threads 2] [--repeats 3] [--rows 20000] [--batches 64,200] [--only ours,plain]

943 landmarks, 2 hidden layers of 3,000 tanh units, 4,760 targets, squared error, no noise, no dropout, one epoch. Ours
is `gexinfer.tl.fit` from an AnnData; the script is below: a DataLoader over a TensorDataset, float32, Adam. Both have
the same initial distribution and learning rate schedule. Every measurement is a process of its own, all in turn; the
median counts. Samples per second are those of the epoch, without what comes before and the error after it.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter

LANDMARKS, TARGETS, HIDDEN, LAYERS, RATE = 943, 4_760, 3_000, 2, 1e-4
RESULTS = Path(__file__).parent / "results" / "training.json"


def simulated(n):
    """Return standardised landmarks and targets, in part a non-linear function of them, without a structure of rows."""
    import numpy as np

    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n, 60), dtype=np.float32)
    X = factors @ rng.standard_normal((60, LANDMARKS), dtype=np.float32)
    X += 3 * rng.standard_normal(X.shape, dtype=np.float32)
    Y = np.tanh(factors @ rng.standard_normal((60, 200), dtype=np.float32) / 4)
    Y = Y @ rng.standard_normal((200, TARGETS), dtype=np.float32)
    Y += 3 * rng.standard_normal(Y.shape, dtype=np.float32)
    return [(a - a.mean(0)) / (a.std(0) + 1e-3) for a in (X, Y)]


def options(batch):
    """Return the options of the network that all train."""
    return {
        "hidden": HIDDEN, "layers": LAYERS, "activation": "tanh", "loss": "mse", "dropout": 0.0, "input_noise": 0.0,
        "layer_norm": False, "skip": False, "optimiser": "adamw", "schedule": "one_cycle", "weight_decay": 0.0,
        "ema": 0.0, "epochs": 1, "batch_size": batch, "learning_rate": RATE,
    }  # fmt: skip


def ours(n, batch):
    import anndata as ad
    import numpy as np

    import gexinfer as gx

    X, Y = simulated(n + 1000)
    adata = ad.AnnData(np.hstack([X, Y]))
    adata.var["landmark"] = np.arange(adata.n_vars) < LANDMARKS
    adata.obs["split"] = np.where(np.arange(len(X)) < n, "train", "validation")
    told = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the values look standardised
        gx.tl.fit(adata, "dgex", device="cpu", progress=False, callback=told.append, **options(batch))
    return {"samples_per_second": told[0]["samples_per_second"], "validation_mae": told[0]["validation_mae"]}


def plain(n, batch):
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    X, Y = (torch.from_numpy(a) for a in simulated(n + 1000))
    torch.manual_seed(0)
    widths = [LANDMARKS] + [HIDDEN] * LAYERS + [TARGETS]
    parts = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        parts += [torch.nn.Linear(a, b), torch.nn.Tanh()]
        torch.nn.init.xavier_uniform_(parts[-2].weight)
        torch.nn.init.zeros_(parts[-2].bias)
    network = torch.nn.Sequential(*parts[:-1])
    torch.nn.init.uniform_(network[-1].weight, -1e-4, 1e-4)
    loader = DataLoader(TensorDataset(X[:n], Y[:n]), batch_size=batch, shuffle=True)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    rule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=len(loader) + 1, cycle_momentum=False)
    criterion = torch.nn.MSELoss()
    started = perf_counter()
    for x, y in loader:
        optimiser.zero_grad()
        loss = criterion(network(x), y)
        loss.backward()
        optimiser.step()
        rule.step()
    seconds = perf_counter() - started
    with torch.no_grad():
        error = float((network(X[n:]) - Y[n:]).abs().mean())
    return {"samples_per_second": n / seconds, "validation_mae": error}


def sklearn(n, batch):
    from sklearn.neural_network import MLPRegressor

    n = min(n, 5_000)  # its speed does not depend on the number
    X, Y = simulated(n)
    network = MLPRegressor(
        hidden_layer_sizes=(HIDDEN,) * LAYERS,
        activation="tanh",
        batch_size=batch,
        learning_rate_init=RATE,
        max_iter=1,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one epoch is not enough
        started = perf_counter()
        network.fit(X, Y)
    return {"samples_per_second": n / (perf_counter() - started)}


def overhead(n, batch):
    """Return the seconds of a step in the loop over those of its forward, backward and update, for two networks."""
    import numpy as np
    import torch

    from gexinfer.engine.blocks import Pairs, Rows, Scale
    from gexinfer.engine.feed import Resident
    from gexinfer.engine.loop import Training
    from gexinfer.engine.network import Plan
    from gexinfer.engine.processes import Processes
    from gexinfer.engine.run import Run
    from gexinfer.methods.dgex import DGEX, Regression

    cpu, found = torch.device("cpu"), {}
    for name, config, rows, genes in (
        ("large", DGEX(**options(200)), 4_000, LANDMARKS + TARGETS),
        ("modern recipe", DGEX(), 1_114, 2_978),
    ):
        values = np.random.default_rng(0).standard_normal((rows, genes), dtype=np.float32)
        p = LANDMARKS
        pairs = Pairs(
            Rows(values, np.arange(rows), np.arange(p), np.arange(p, genes)),
            Scale(np.zeros(genes), np.ones(genes) - 1e-3),
        )
        drawn = Regression.drawn(config, p, genes - p, torch.Generator().manual_seed(0))
        network = Regression.learning(config, drawn, {}, cpu)
        plan = Plan(network.players(), 10**6, config.batch_size, config.ema, cpu, 0, 0, name, {})
        validation = pairs.select(np.arange(50))
        training = Training(network, plan, pairs, validation, None, Run(progress=False), Processes())
        assert isinstance(training.feed, Resident)
        ratios, steps = [], -(-rows // config.batch_size)
        for epoch in range(1, 8):
            looped = rows / training.epoch(epoch)["samples_per_second"]
            again = Regression.learning(config, drawn, {}, cpu)
            ratios.append(looped / bare(again, training.feed.rows[: config.batch_size], p, steps))
        found[f"step in the loop over a bare one, {name}"] = median(ratios[1:])
    return found


def bare(network, rows, p, steps):
    """Return the seconds of forward, backward and update of one batch, again and again."""
    import torch

    from gexinfer.engine.network import Step

    (player,), x = network.players(), rows[:, :p].contiguous()
    batch = Step(x, rows[:, p:].contiguous(), None, torch.Generator().manual_seed(0), 0.0)
    for step in range(steps + 1):
        if step == 1:  # the first makes the optimiser's state
            started = perf_counter()
        player.optimiser.zero_grad()
        network.loss(player.name, batch).total.backward()
        player.optimiser.step()
    return perf_counter() - started


KINDS = {"ours": ours, "plain": plain, "sklearn": sklearn, "overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--batches", default="64,200")
    parser.add_argument("--only", default=",".join(KINDS))
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.kind:
        import torch

        torch.set_num_threads(given.threads)
        print(json.dumps(KINDS[given.kind](given.rows, given.batch)))
        return
    kinds = given.only.split(",")
    runs: dict[str, list[dict[str, float]]] = {}
    for repeat in range(given.repeats):
        for batch in given.batches.split(","):
            for kind in kinds:
                if kind == "overhead" and batch != given.batches.split(",")[0]:
                    continue
                command = [sys.executable, __file__, "--kind", kind, "--batch", batch]
                command += ["--rows", str(given.rows), "--threads", str(given.threads)]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(done.stderr)
                name = kind if kind == "overhead" else f"{kind}, batch {batch}"
                runs.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{repeat + 1} {name}: {runs[name][-1]}", flush=True)
    results = {name: {k: median(run[k] for run in of) for k in of[0]} for name, of in runs.items()}
    for batch in given.batches.split(","):
        mine, theirs = results.get(f"ours, batch {batch}"), results.get(f"plain, batch {batch}")
        if mine and theirs:
            mine["over plain"] = mine["samples_per_second"] / theirs["samples_per_second"]
            mine["error over plain's"] = mine["validation_mae"] / theirs["validation_mae"]
        if mine and f"sklearn, batch {batch}" in results:
            mine["over sklearn"] = mine["samples_per_second"] / results[f"sklearn, batch {batch}"]["samples_per_second"]
    print(json.dumps(results, indent=1))
    import torch

    from gexinfer.engine.device import has_fast_bfloat16

    machine = {
        "threads": given.threads, "repeats": given.repeats, "rows": given.rows, "processor": platform.machine(),
        "vector unit": torch.backends.cpu.get_cpu_capability(), "bfloat16 used": has_fast_bfloat16(torch.device("cpu")),
        **{name: version(name) for name in ("torch", "scikit-learn", "numpy")},
    }  # fmt: skip
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
