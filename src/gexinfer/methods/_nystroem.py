"""Kernel ridge regression where some training rows stand for all (Williams and Seeger, NIPS 2000)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float
from gexinfer.engine.moments import moments
from gexinfer.methods._contract import Model, Task
from gexinfer.methods._kernels import Form, Inner
from gexinfer.methods._linear import Spectrum, about_zero

# Below this share of the largest, a direction of the inducing rows' kernel is rounding.
SMALLEST = 1e-6


def nystroem(task: Task, form: Form, penalties: Sequence[float], Z: Tensor, notes: dict[str, Any]) -> Model:
    """Ridge regression on the features that landmarks `Z` of some rows span, from moments streamed over all of them."""
    values, vectors = torch.linalg.eigh(Inner.of(Z, Z, len(Z)).kernel(form).cpu().double())
    kept = values > SMALLEST * values[-1]
    whiten = (vectors[:, kept] / values[kept].sqrt()).float().to(Z.device)

    def features(x: Float) -> Float:
        return (Inner.of(torch.from_numpy(x).to(Z.device), Z).kernel(form) @ whiten).cpu().numpy()

    k = whiten.shape[1]
    sums = moments((np.hstack([features(x), y]) for x, y in task.train.blocks()), k, len(task.train))
    spectrum = Spectrum.of(about_zero(sums))
    errors = np.zeros(len(penalties))
    for x, y in task.validation.blocks() if len(errors) > 1 else ():
        turned = features(x) @ spectrum.vectors
        for i, penalty in enumerate(penalties):
            predicted = (turned * spectrum.inverse(penalty)) @ spectrum.rotated
            errors[i] += np.abs(predicted - y).sum(dtype=np.float64)
    penalty = penalties[int(errors.argmin())]
    inverse = spectrum.inverse(penalty)
    wide = whiten.cpu().numpy().astype(np.float64) @ spectrum.vectors
    left = sums.yy + sums.n * sums.mean[k:] ** 2 - inverse @ spectrum.rotated**2
    arrays = {
        "landmarks": Z.cpu().numpy(),
        "coefficients": wide @ (inverse[:, None] * spectrum.rotated),
        "signal": np.sqrt(np.maximum(left, 0) / penalty / sums.n),
        # Of a row's kernel values, what they explain of its own variance.
        "explains": wide * np.sqrt(spectrum.values * inverse),
    }
    return Model(
        {name: a.astype(np.float32) for name, a in arrays.items()}, notes | {"penalty": penalty, "n_inducing": len(Z)}
    )
