"""What models answer to a query, and the slots it goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._names import locate
from gexinfer._slots import MISSING, PREDICTED, ROLE, ROLES, predicted_layers
from gexinfer.engine.blocks import Float
from gexinfer.tl._query import Query


@dataclass(frozen=True)
class Answer:
    """What a model infers for a query: layers by name, and what was missing.

    `lacked` says which landmarks some sample lacked, `missing` which share of them each sample lacked. Layers may be
    dask arrays, of which nothing is computed yet; then nobody knows the shares.
    """

    query: Query
    layers: Mapping[str, Any]
    lacked: NDArray[np.bool_]
    missing: Float | None

    @property
    def lazy(self) -> bool:
        return self.missing is None


def write_answers(adata: AnnData, answers: Mapping[str, Answer]) -> None:
    """Write `layers`, `var["gexinfer_role"]`, `obs["gexinfer_missing"]`, and which layers are predictions."""
    layers = {name: layer for answer in answers.values() for name, layer in answer.layers.items()}
    for name, layer in layers.items():
        adata.layers[name] = layer
    others = predicted_layers(adata) - set(layers)
    adata.var[ROLE] = roles(adata, answers, before=bool(others))
    adata.uns[PREDICTED] = np.array(sorted(predicted_layers(adata) | set(layers)), dtype=object)
    shares = [answer.missing for answer in answers.values() if answer.missing is not None]
    if len(shares) == len(answers):
        # Layers of other models stay, and what their samples lacked with them.
        before = [adata.obs[MISSING].to_numpy()] if others and MISSING in adata.obs else []
        adata.obs[MISSING] = np.max([*shares, *before], axis=0)
    elif MISSING in adata.obs:
        # Of another prediction: what is not computed yet is not known.
        del adata.obs[MISSING]


def roles(adata: AnnData, answers: Mapping[str, Answer], *, before: bool) -> pd.Categorical:
    """Return what each gene is, by these models and by those before, if their layers are still there.

    Inferred outranks landmark, and landmark outranks neither, so that no inferred value passes for a measured one.
    """
    rank = {role: i for i, role in enumerate(ROLES)}
    known = adata.var[ROLE].astype(object).map(rank) if before and ROLE in adata.var else pd.Series(0, adata.var_names)
    now = known.fillna(0).to_numpy(dtype=np.int8)
    for answer in answers.values():
        fitted = answer.query.fitted
        holes = [gene for gene, hole in zip(fitted.landmarks, answer.lacked, strict=True) if hole]
        for genes, role in ((fitted.landmarks, "landmark"), (holes, "inferred"), (fitted.targets, "inferred")):
            places = locate(genes, adata.var_names)
            places = places[places >= 0]
            now[places] = np.maximum(now[places], rank[role])
    return pd.Categorical.from_codes(now, categories=list(ROLES))
