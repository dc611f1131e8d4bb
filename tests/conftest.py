"""Shared data: a small real extract, prepared once and copied for each test."""

from __future__ import annotations

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before numpy and torch are loaded: several processes of several threads each would get in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib as mpl
import numpy as np
import pytest
from anndata import AnnData

import gexinfer as gx
from gexinfer.methods import METHODS

mpl.use("Agg")

N_LANDMARKS, N_TARGETS, N_SAMPLES = 60, 90, 240


@pytest.fixture(autouse=True, scope="session")
def ctrl_c():
    """Have SIGINT raise KeyboardInterrupt, also where the suite runs in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def bulk_once() -> AnnData:
    return gx.datasets.bulk()


@pytest.fixture(scope="session")
def small_once(bulk_once: AnnData) -> AnnData:
    full = bulk_once.copy()
    gx.pp.landmarks(full)
    rng = np.random.default_rng(0)
    landmarks = rng.choice(np.flatnonzero(full.var["landmark"]), N_LANDMARKS, replace=False)
    targets = rng.choice(np.flatnonzero(~full.var["landmark"]), N_TARGETS, replace=False)
    rows = np.sort(rng.choice(full.n_obs, N_SAMPLES, replace=False))
    small = full[rows, np.sort(np.concatenate([landmarks, targets]))].copy()
    small.uns.clear()
    gx.pp.split(small, fractions=(0.7, 0.15, 0.15))
    return small


@pytest.fixture
def small(small_once: AnnData) -> AnnData:
    """240 real samples x 60 landmarks and 90 targets, flagged and split."""
    return small_once.copy()


QUICK = {
    "auto": {"budget": "1s"},
    "dgex": {"epochs": 3, "hidden": 32},
    "residual": {"epochs": 3, "hidden": 32},
    "ggan": {"epochs": 3, "hidden": 32, "discriminator_hidden": 16},
    "semigan": {"epochs": 3, "hidden": 32, "discriminator_hidden": 16, "generator_hidden": 16},
}


def quick(method: str) -> dict[str, object]:
    """Return options that make a method fast enough for a test."""
    return dict(QUICK.get(method, {}))


@pytest.fixture(scope="session")
def fitted_once(small_once: AnnData) -> AnnData:
    fitted = small_once.copy()
    for method in METHODS:
        gx.tl.fit(fitted, method, progress=False, **quick(method))
    gx.tl.predict(fitted, progress=False)
    return fitted


@pytest.fixture
def fitted(fitted_once: AnnData) -> AnnData:
    """The small data with one model of each method, and their predictions."""
    return fitted_once.copy()


def arrays_of(adata: AnnData, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Return landmarks and targets of one side of the split, the obvious way."""
    rows = (adata.obs["split"] == side).to_numpy()
    landmark = adata.var["landmark"].to_numpy()
    X = np.asarray(adata.X, np.float64)[rows]
    return X[:, landmark], X[:, ~landmark]


def standardised(adata: AnnData, *sides: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return landmarks and targets of some sides, standardised with the training rows as the D-GEX paper does."""
    train = arrays_of(adata, "train")
    return [
        tuple((a - t.mean(0)) / (t.std(0) + 1e-3) for a, t in zip(arrays_of(adata, side), train, strict=True))
        for side in sides
    ]
