"""What `auto` foretells of its members' fits, seconds and memory, beside what they take.

Usage: OMP_NUM_THREADS=1 python benchmarks/auto_cost.py

Simulated rows that follow 20 factors; one thread, each fit in a process of its own. Seconds are those of the processor,
so that other work on the machine does not count; memory is the largest size of the process above that before the fit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "auto_cost.json"
# Training rows, validation rows, landmarks, targets.
SIZES = ((300, 60, 100, 500), (1000, 125, 978, 2000), (1000, 125, 300, 9000), (4000, 500, 150, 1400))
# A few epochs tell what more take.
EPOCHS = 5


def one(label: str, n: int, held: int, p: int, q: int) -> dict[str, float]:
    """Fit one member in this process and return what was foretold and what was measured."""
    from dataclasses import replace

    import numpy as np
    import torch

    from gexinfer.engine.blocks import Pairs, Rows, Scale
    from gexinfer.engine.moments import moments
    from gexinfer.engine.run import Run
    from gexinfer.methods import Task, configure, get_method
    from gexinfer.methods._cost import Size
    from gexinfer.methods.auto import CANDIDATES, COSTS

    rng = np.random.default_rng(0)
    factors = rng.standard_normal((n + held, 20), np.float32)
    X = factors @ rng.standard_normal((20, p + q), np.float32)
    X = np.tanh(X / 4) + 0.3 * rng.standard_normal((n + held, p + q), np.float32)
    scale = Scale(X[:n].mean(axis=0, dtype=np.float64), X[:n].std(axis=0, dtype=np.float64))
    train, validation = (
        Pairs(Rows(X, rows, np.arange(p), np.arange(p, p + q)), scale)
        for rows in (np.arange(n), np.arange(n, n + held))
    )
    sums = moments(train.rows.blocks(), p, n).standardised()
    name, options = CANDIDATES[label]
    method = get_method(name)
    config = configure(method, options | ({"epochs": EPOCHS} if method.by_epochs else {}))
    device = torch.device("cpu")
    cost = COSTS[name](Size(n, held, p, q), config, device)
    task = Task(train, validation, sums, rng, "cpu", Run(progress=False))
    # What is loaded and compiled once.
    small = replace(task, train=train.select(np.arange(50)), validation=validation.select(np.arange(20)))
    method.fit(small, config)
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    model = method.fit(task, config)
    if method.refit is not None:
        method.refit(task, config, model)
    seconds = time.process_time() - started
    memory = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return {"foretold_s": cost.seconds, "took_s": seconds, "foretold_mb": cost.memory / 1e6, "took_mb": memory / 1e6}


def markdown(results: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return the table of docs/methods.md, a test compares them."""
    lines = [
        "| member: training + validation rows, landmarks, targets | foretold, s | took, s | foretold, MB | took, MB |",
        "|---|---|---|---|---|",
    ]
    for name, found in results["results"].items():
        seconds = [f"{found[column]:.1f}" for column in ("foretold_s", "took_s")]
        memory = [f"{found[column]:.0f}" for column in ("foretold_mb", "took_mb")]
        lines.append(f"| {name} | {' | '.join(seconds + memory)} |")
    return lines


def main() -> None:
    from gexinfer.methods.auto import CANDIDATES

    results: dict[str, dict[str, float]] = {}
    for size in SIZES:
        for label in CANDIDATES:
            done = subprocess.run(
                [sys.executable, __file__, label, *map(str, size)], capture_output=True, text=True, check=True
            )
            found = {name: round(value, 2) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
            results[f"{label}: {size[0]} + {size[1]}, {size[2]}, {size[3]}"] = found
            print(label, size, found, flush=True)
    RESULTS.write_text(json.dumps({"epochs": EPOCHS, "threads": 1, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], *map(int, sys.argv[2:]))))
    else:
        main()
