"""How much each of several models counts for each target: weights that sum to one, by the error on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from gexinfer.engine.blocks import Float, Indices, row_slices
from gexinfer.engine.processors import processors

# Steps of the search, for all targets together and for each.
STEPS = 200
STEPS_EACH = 60
# How strongly a target's own weights are held to those of all, in units of its error.
HOLDS = (0.1, 0.3, 1.0)
# The strength is chosen by cross-validation over runs of rows, since neighbours are often of one study; by so many
# targets, which also find the weights of all.
FOLDS = 4
HELD_TARGETS = 500
# Targets whose values are put together at once.
AT_ONCE = 500
# In the common weights, so that a model that counts for nothing in most targets can still count for one.
LEAST = 0.01


def blend(predicted: Sequence[Float], measured: Float) -> tuple[Float, str]:
    """Return (models, targets) weights from what each model predicted for (rows, targets), and how they were found.

    They make the mean absolute error of the weighted sum small. For one target there are few rows, so that its weights
    are held to those of all targets together, as strongly as serves rows that were not looked at; where its own are of
    no use, all have the same. On the rows themselves the error is never above that of the best model.
    """
    k, (n, q) = len(predicted), measured.shape
    some = np.unique(np.linspace(0, q - 1, min(q, HELD_TARGETS)).round().astype(np.intp))
    hold = best_hold(*gathered(predicted, measured, some)) if n >= 2 * FOLDS else None
    every = common(*gathered(predicted, measured, some))
    weights, total, alone = np.empty((k, q), np.float32), 0.0, np.zeros(k)
    for part in row_slices(q, AT_ONCE):
        P, y = gathered(predicted, measured, np.arange(q)[part])
        found = np.tile(every, (len(y), 1)) if hold is None else own(P, y, every, hold)
        weights[:, part] = found.T
        total += absolute(P, y, found)
        alone += [np.abs(P[:, i] - y).sum(dtype=np.float64) for i in range(k)]
    if total >= alone.min():
        return np.repeat(np.eye(k, dtype=np.float32)[:, [int(alone.argmin())]], q, axis=1), "the best model alone"
    return weights, "the same weights for all targets" if hold is None else f"weights per target, held by {hold:g}"


def gathered(predicted: Sequence[Float], measured: Float, targets: Indices) -> tuple[Float, Float]:
    """Return (targets, models, rows) predictions and (targets, rows) measurements: those of a target lie together."""
    P = np.empty((len(targets), len(predicted), len(measured)), np.float32)
    for i, values in enumerate(predicted):
        P[:, i] = values[:, targets].T
    return P, np.ascontiguousarray(measured[:, targets].T)


def absolute(P: Float, y: Float, weights: Float) -> float:
    """Return the sum of absolute errors of the weighted sums; weights are (targets, models)."""
    return float(np.abs(np.einsum("gk,gkn->gn", weights, P) - y).sum(dtype=np.float64))


def common(P: Float, y: Float) -> Float:
    """Return (models,) weights with about the lowest error over all targets."""
    values, truth = np.ascontiguousarray(P.transpose(1, 0, 2)).reshape(P.shape[1], -1), y.reshape(-1)
    weights = best = np.full(len(values), 1 / len(values), np.float32)
    lowest = np.inf
    for step in range(STEPS):
        away = weights @ values - truth
        now = float(np.abs(away).mean(dtype=np.float64))
        if now < lowest:
            best, lowest = weights, now
        slope = values @ np.sign(away) / len(truth)
        slope -= weights @ slope
        # Exponentiated gradient: at first by a factor of e at most, then by less.
        weights = weights * np.exp(-slope / max(np.abs(slope).max(), 1e-12) / (1 + step / 5))
        weights /= weights.sum()
    return best


def own(P: Float, y: Float, every: Float, hold: float) -> Float:
    """Return (targets, models) weights with about the lowest error of each target, held to those of all."""
    weights = np.tile((every + LEAST / len(every)) / (1 + LEAST), (len(y), 1)).astype(np.float32)
    parts = np.array_split(np.arange(len(y)), processors())
    with ThreadPoolExecutor(processors()) as threads:
        list(threads.map(lambda part: descend(P, y, hold, weights, part), parts))
    return weights


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def descend(P, y, hold, weights, targets):  # type: ignore[no-untyped-def]
    """Lower, for some targets, the error plus `hold` times the divergence from the weights that they come with."""
    k, n = P.shape[1:]
    away, slope, w = np.empty(n), np.empty(k), np.empty(k)
    for g in targets:
        anchor, unit, lowest = weights[g].copy(), 0.0, np.inf
        w[:] = anchor
        for step in range(STEPS_EACH):
            away[:] = -y[g]
            for i in range(k):
                for r in range(n):
                    away[r] += w[i] * P[g, i, r]
            now = 0.0
            for r in range(n):
                now += abs(away[r])
                away[r] = 1.0 if away[r] > 0 else -1.0
            now /= n
            if step == 0:
                unit = hold * now
            mean = 0.0
            for i in range(k):
                slope[i] = 0.0
                for r in range(n):
                    slope[i] += P[g, i, r] * away[r]
                apart = unit * np.log(max(w[i] / anchor[i], 1e-12))
                slope[i] = slope[i] / n + apart
                now += w[i] * apart
                mean += w[i] * slope[i]
            if now < lowest:
                lowest = now
                weights[g] = w
            steepest = 1e-12
            for i in range(k):
                slope[i] -= mean
                steepest = max(steepest, abs(slope[i]))
            total = 0.0
            for i in range(k):
                w[i] *= np.exp(-slope[i] / steepest / (1 + step / 5))
                total += w[i]
            for i in range(k):
                w[i] /= total


def best_hold(P: Float, y: Float) -> float | None:
    """Return how strongly to hold a target's weights to those of all; None where its own are of no use."""
    n = y.shape[1]
    errors, edges = np.zeros(1 + len(HOLDS)), np.linspace(0, n, FOLDS + 1).round().astype(int)
    for first, last in zip(edges[:-1], edges[1:], strict=True):
        kept = np.r_[0:first, last:n]
        near, near_y = np.ascontiguousarray(P[:, :, kept]), np.ascontiguousarray(y[:, kept])
        every = common(near, near_y)
        tried = [np.tile(every, (len(y), 1)), *(own(near, near_y, every, hold) for hold in HOLDS)]
        errors += [absolute(P[:, :, first:last], y[:, first:last], weights) for weights in tried]
    return (None, *HOLDS)[int(errors.argmin())]
