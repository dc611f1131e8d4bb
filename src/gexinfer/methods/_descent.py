"""Many lassos that share one Gram matrix: coordinate descent finds the support, a linear system solves it exactly."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from threadpoolctl import threadpool_limits

from gexinfer.engine.blocks import Wide
from gexinfer.engine.processors import processors

# How far, in standardised units, a slope may be off in the end: from the penalty at a weight, above it at none.
EXACT, ROUGH = 1e-9, 1e-3
# Sweeps between two attempts to solve the support that they found.
SWEEPS = 5
MOST_ROUNDS = 1_000
# Penalties to choose from, downward, each from the one before, in units of the correlation of standardised values: at 1
# all weights are 0.
PENALTIES = np.logspace(-0.5, -3, 11)
# Times that weights outside the support are asked whether they should be in it.
MOST_VISITS = 100


def descend(gram: Wide, targets: Wide, penalty: float, weights: Wide, tolerance: float = EXACT) -> int:
    """Minimise w'Gw / 2 - t'w + penalty |w|_1 for each row t of `targets`, from and into that row of `weights`.

    `gram` is (k, k), `targets` and `weights` (m, k), all C-contiguous. A `tolerance` of `ROUGH` gives errors of
    prediction to three digits, which is enough to choose a penalty. Returns how many rows did not get there.
    """
    # Neighbouring rows in different parts, and more parts than threads, so that all threads end together.
    cuts = min(8 * processors(), len(targets))
    parts = [np.arange(first, len(targets), cuts) for first in range(cuts)]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(processors()) as threads:
        return sum(threads.map(lambda part: descend_rows(gram, targets, penalty, weights, part, tolerance), parts))


def best_on_path(gram: Wide, targets: Wide, error: Callable[[Wide], float]) -> float:
    """Go down the path of penalties until the error of its weights rises, and return the best penalty."""
    weights = np.zeros_like(targets)
    best_error, best = np.inf, 0.0
    for penalty in PENALTIES:
        descend(gram, targets, penalty, weights, ROUGH)
        now = error(weights)
        if now > best_error:
            break
        best_error, best = now, float(penalty)
    return best


@njit(cache=True, nogil=True)
def descend_rows(gram, targets, penalty, weights, rows, tolerance):  # type: ignore[no-untyped-def]
    k = len(gram)
    # Those of the support, packed.
    among, slope, w = np.empty((k, k)), np.empty(k), np.empty(k)
    inside, active = np.empty(k, np.bool_), np.empty(k, np.intp)
    unsolved = 0
    for row in rows:
        weight = weights[row]
        unsolved += 1
        for _ in range(MOST_VISITS):
            slope[:] = targets[row]
            for j in range(k):
                if weight[j] != 0:
                    slope -= weight[j] * gram[j]
            within, beyond = 0.0, 0.0
            for j in range(k):
                inside[j] = weight[j] != 0
                if inside[j]:
                    within = max(within, abs(slope[j] - penalty * np.sign(weight[j])))
                elif gram[j, j] > 0:
                    beyond = max(beyond, abs(slope[j]) - penalty)
            if within < tolerance and beyond < tolerance:
                unsolved -= 1
                break
            # The most urgent first: many of the others no longer want to when these are in.
            for j in range(k):
                if not inside[j] and gram[j, j] > 0 and abs(slope[j]) - penalty > max(beyond / 2, tolerance):
                    inside[j] = True
            n = 0
            for j in range(k):
                if inside[j]:
                    active[n] = j
                    n += 1
            for a in range(n):
                w[a] = weight[active[a]]
                slope[a] = slope[active[a]]
                for b in range(n):
                    among[a, b] = gram[active[a], active[b]]
            for _ in range(MOST_ROUNDS):
                if sweep(among, slope, w, n, penalty) < tolerance / 10:
                    break
                if solve(among, slope, w, n, penalty):
                    break
            for a in range(n):
                weight[active[a]] = w[a]
    return unsolved


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def sweep(among, slope, w, n, penalty):  # type: ignore[no-untyped-def]
    """Move each weight to its best, the others held, a few times over; return the last sweep's largest step."""
    largest = 0.0
    for _ in range(SWEEPS):
        largest = 0.0
        for a in range(n):
            curvature = among[a, a]
            pull = slope[a] + curvature * w[a]
            new = np.sign(pull) * max(abs(pull) - penalty, 0.0) / curvature
            step = new - w[a]
            if step != 0:
                w[a] = new
                for b in range(n):
                    slope[b] -= step * among[a, b]
                largest = max(largest, abs(step) * np.sqrt(curvature))
    return largest


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def solve(among, slope, w, n, penalty):  # type: ignore[no-untyped-def]
    """Move to the minimum with the present signs, or as far towards it as they last; return whether all is solved."""
    support = np.flatnonzero(w[:n])
    m = len(support)
    packed = np.empty((m, m))
    for i in range(m):
        for j in range(m):
            packed[i, j] = among[support[i], support[j]]
    try:
        factor = np.linalg.cholesky(packed)
    except Exception:  # noqa: BLE001, numba knows no other; collinear landmarks are left to the sweeps
        return False
    solved = np.empty(m)
    # What is left to gain at the support is the step's right-hand side.
    for i in range(m):
        total = slope[support[i]] - penalty * np.sign(w[support[i]])
        for c in range(i):
            total -= factor[i, c] * solved[c]
        solved[i] = total / factor[i, i]
    for i in range(m - 1, -1, -1):
        solved[i] /= factor[i, i]
        for c in range(i):
            solved[c] -= factor[i, c] * solved[i]
    length, first = 1.0, -1
    for i in range(m):
        old = w[support[i]]
        if old * (old + solved[i]) < 0 and -old / solved[i] < length:
            length, first = -old / solved[i], i
    for i in range(m):
        step = length * solved[i]
        w[support[i]] = 0.0 if i == first else w[support[i]] + step
        for b in range(n):
            slope[b] -= step * among[support[i], b]
    if first >= 0:
        return False
    return not ((w[:n] == 0) & (np.abs(slope[:n]) > penalty + EXACT / 2)).any()
