"""The largest network of the D-GEX paper on one device: time, share of its peak, memory, and an ordinary script.

Usage: python benchmarks/training_gpu.py [--device cuda] [--epochs 200] [--timed 3] [--scale 1]

943 landmarks, 3 hidden layers of 9,000 tanh units, all 9,520 targets, dropout .1, 88,807 training and 11,101 validation
rows, simulated. At the paper's batch of 200 and at 4,096: a few epochs are timed, and at the larger batch all are run;
at the smaller, as many as take twice as long, at least 10. The ordinary script is a loop over index picks of
resident tensors, float32 with TF32, Adam. The peak is that of a square matrix product in bfloat16 (float32 where the
device does not have it), measured here. `--scale 30` divides all sizes, to try the script out.
"""

from __future__ import annotations

import argparse
import json
import platform
import warnings
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import anndata as ad
import numpy as np
import torch

import gexinfer as gx
from gexinfer.engine.device import fast_products, has_fast_bfloat16, pick_device
from gexinfer.methods.dgex import DGEX, Regression

LANDMARKS, TARGETS, HIDDEN, LAYERS, TRAIN, VALIDATION = 943, 9_520, 9_000, 3, 88_807, 11_101
RATES = {200: 3e-4, 4096: 1e-3}
RESULTS = Path(__file__).parent / "results" / "training_gpu.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--epochs", type=int, default=200, help="of the whole run")
    parser.add_argument("--timed", type=int, default=3, help="epochs timed at each batch, after one to warm up")
    parser.add_argument("--scale", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    device = pick_device(given.device)
    sizes = {
        "landmarks": LANDMARKS, "targets": TARGETS, "hidden": HIDDEN, "train": TRAIN, "validation": VALIDATION,
    }  # fmt: skip
    sizes = {name: max(size // given.scale, 8) for name, size in sizes.items()}
    peak = product_peak(device, 8192 if device.type == "cuda" else 1024)
    adata = simulated(**sizes)
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})",
        "torch": version("torch"), "scale": given.scale, **sizes, "layers": LAYERS,
        "bfloat16": has_fast_bfloat16(device),
        "peak of a matrix product, TFLOP/s": peak / 1e12,
        "largest relative difference of an inference from the processor's": same_as_on_the_processor(device),
    }  # fmt: skip
    # Forward, and backward twice over, but the gradient of the input is not needed.
    weights = [
        sizes["landmarks"] * sizes["hidden"],
        sizes["hidden"] ** 2 * (LAYERS - 1),
        sizes["hidden"] * sizes["targets"],
    ]
    flop = sizes["train"] * (6 * sum(weights) - 2 * weights[0])
    for batch in RATES:
        size = max(batch // given.scale, 8)
        told = fitted(adata, given.device, size, given.timed + 1, RATES[batch], sizes["hidden"])
        seconds = sizes["train"] / np.median([t["samples_per_second"] for t in told[1:]])
        theirs = plain(adata, device, size, RATES[batch], sizes["hidden"])
        results[f"batch {size}"] = {
            "seconds an epoch": seconds,
            "hours for 200 epochs": 200 * seconds / 3600,
            "share of the peak": flop / seconds / peak,
            "memory, GB": told[-1]["memory_bytes"] / 1e9,
            "ordinary script, seconds an epoch": theirs,
            "times as fast as the ordinary script": theirs / seconds,
        }
        print(batch, json.dumps(results[f"batch {size}"], indent=1), flush=True)
    large, small = (max(batch // given.scale, 8) for batch in (4096, 200))
    started = perf_counter()
    told = fitted(adata, given.device, large, given.epochs, RATES[4096], sizes["hidden"])
    whole = perf_counter() - started
    # The smaller batch gets as many epochs as pass in twice that time, and no fewer than it takes to compare.
    per_epoch = results[f"batch {small}"]["seconds an epoch"]  # type: ignore[index]
    epochs = int(np.clip(2 * whole / per_epoch, min(10, given.epochs), given.epochs))
    slow = fitted(adata, given.device, small, epochs, RATES[200], sizes["hidden"])
    results["the whole run"] = {
        "epochs": given.epochs, f"seconds at batch {large}, all of tl.fit": whole,
        f"validation MAE at batch {large}": min(t["validation_mae"] for t in told),
        f"validation MAE at batch {small}, {epochs} epochs": min(t["validation_mae"] for t in slow),
    }  # fmt: skip
    print(json.dumps(results["the whole run"], indent=1))
    given.out.parent.mkdir(exist_ok=True)
    given.out.write_text(json.dumps(results, indent=1) + "\n")


def simulated(landmarks: int, targets: int, hidden: int, train: int, validation: int) -> ad.AnnData:
    """Return rows whose targets follow the landmarks, in part not linearly."""
    rng = np.random.default_rng(0)
    n, genes = train + validation, landmarks + targets
    linear, turned, back = (
        rng.standard_normal(shape, dtype=np.float32) for shape in ((60, landmarks), (60, 200), (200, targets))
    )
    values = np.empty((n, genes), np.float32)
    for first in range(0, n, 5000):
        part = values[first : first + 5000]
        factors = rng.standard_normal((len(part), 60), dtype=np.float32)
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
        part[:, :landmarks] += factors @ linear / 2
        part[:, landmarks:] += np.tanh(factors @ turned / 4) @ back / 4
    adata = ad.AnnData(values + 8)
    adata.var["landmark"] = np.arange(genes) < landmarks
    adata.obs["split"] = np.where(np.arange(n) < train, "train", "validation")
    return adata


def options(batch: int, epochs: int, rate: float, hidden: int) -> dict[str, object]:
    return {
        "recipe": "paper", "layers": LAYERS, "hidden": hidden, "dropout": 0.1, "optimiser": "adamw",
        "schedule": "one_cycle", "batch_size": batch, "epochs": epochs, "learning_rate": rate,
    }  # fmt: skip


def fitted(adata: ad.AnnData, device: str, batch: int, epochs: int, rate: float, hidden: int) -> list[dict[str, float]]:
    told: list[dict[str, float]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gx.tl.fit(adata, "dgex", device=device, callback=told.append, **options(batch, epochs, rate, hidden))
    del adata.uns["dgex"]
    return told


def plain(adata: ad.AnnData, device: torch.device, batch: int, rate: float, hidden: int) -> float:
    """Return the seconds of an epoch of an ordinary script, from at most 100 steps."""
    landmark = adata.var["landmark"].to_numpy()
    rows = torch.from_numpy(adata.X[(adata.obs["split"] == "train").to_numpy()][: 20 * batch]).to(device)
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-3)
    x, y = rows[:, : landmark.sum()].contiguous(), rows[:, landmark.sum() :].contiguous()
    widths = [x.shape[1]] + [hidden] * LAYERS
    parts: list[torch.nn.Module] = []
    for a, b in zip(widths[:-1], widths[1:], strict=True):
        parts += [torch.nn.Linear(a, b), torch.nn.Tanh(), torch.nn.Dropout(0.1)]
    network = torch.nn.Sequential(*parts, torch.nn.Linear(hidden, y.shape[1])).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    steps = min(100, -(-TRAIN // batch))
    with fast_products(device):
        for step in range(steps + 2):
            if step == 2:
                synchronise(device)
                started = perf_counter()
            picks = torch.randint(len(x), (batch,), device=device)
            loss = torch.nn.functional.mse_loss(network(x[picks]), y[picks])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        synchronise(device)
    n_train = int((adata.obs["split"] == "train").sum())
    return (perf_counter() - started) / steps * n_train / batch


def product_peak(device: torch.device, n: int) -> float:
    """Return the FLOP/s of a square matrix product."""
    kind = torch.bfloat16 if has_fast_bfloat16(device) else torch.float32
    a, b = (torch.randn(n, n, device=device).to(kind) for _ in range(2))
    best = 0.0
    for _ in range(5):
        synchronise(device)
        started = perf_counter()
        for _ in range(10):
            a @ b
        synchronise(device)
        best = max(best, 10 * 2 * n**3 / (perf_counter() - started))
    return best


def same_as_on_the_processor(device: torch.device) -> float:
    """Return the largest difference of an inference on the device from one on the processor."""
    config = DGEX(layers=2, hidden=500)
    drawn = Regression.drawn(config, 200, 300, torch.Generator().manual_seed(0))
    here, there = (Regression.learning(config, drawn, {}, place) for place in (torch.device("cpu"), device))
    x = torch.randn(64, 200, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = here.infer(x)
        return float((there.infer(x.to(device)).cpu() - expected).abs().max() / expected.abs().max())


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
