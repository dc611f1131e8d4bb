from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._slots import check_in_memory, check_unique
from gexinfer.methods._contract import SIMILAR
from gexinfer.tl._models import resolve
from gexinfer.tl._query import query_of


def similar_samples(
    adata: AnnData,
    model: AnnData | FittedModel | None = None,
    *,
    key: str = "sample_lasso",
    n_samples: int = 5,
    layer: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Name the training samples that each sample's prediction is made of.

    A `sample_lasso` writes a sample as a sparse mixture of training samples. Those with the largest weights are the
    most similar ones by its landmarks.

    Parameters
    ----------
    adata
        Samples x genes, with some landmarks of the model.
    model
        Where the model is, as in `gexinfer.tl.predict`.
    key
        Name of the model.
    n_samples
        How many to name, at most 5.
    layer
        Layer with the landmarks' values, as in `gexinfer.tl.predict`.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes `obsm[key + "_similar"]`, a DataFrame with the columns `sample_1`, `weight_1`, `sample_2`
    and so on, the largest weight first. A name is empty where fewer samples have a positive weight.

    Raises
    ------
    KeyError
        There is no model of that key.
    ValueError
        The model is of another method, a sample has none of the landmarks, or values are inf.

    References
    ----------
    Mancuso et al., Nucleic Acids Research 2020, 48:e125 :cite:p:`mancuso2020` (SampleLASSO).

    Examples
    --------
    >>> gx.tl.fit(ref, method="sample_lasso")
    >>> query = ref[ref.obs["split"] == "test", ref.var["landmark"]].copy()
    >>> gx.tl.similar_samples(query, model=ref, n_samples=2)
    >>> query.obsm["sample_lasso_similar"].columns.tolist()
    ['sample_1', 'weight_1', 'sample_2', 'weight_2']
    >>> similar = query.obsm["sample_lasso_similar"]["sample_1"]
    >>> ref.obs["tissue"][similar].value_counts().index[0]  # 25 of the 76 are blood, too
    'blood'
    """
    check_in_memory(adata)
    check_unique(adata)
    if not 1 <= n_samples <= SIMILAR:
        raise ValueError(f"n_samples={n_samples!r} must be 1 to {SIMILAR}.")
    ((name, fitted),) = resolve(adata, adata, model, key).items()
    query, source = query_of(adata, fitted, name, layer)
    places, weights = fitted.similar(np.concatenate([*query.blocks(source)] or [np.empty((0, len(fitted.landmarks)))]))
    names = np.where(weights > 0, np.array(fitted.samples, dtype=object)[places], "")
    columns: dict[str, np.ndarray] = {}
    for i in range(min(n_samples, places.shape[1])):
        columns |= {f"sample_{i + 1}": names[:, i], f"weight_{i + 1}": np.maximum(weights[:, i], 0)}
    adata = adata.copy() if copy else adata
    adata.obsm[f"{name}_similar"] = pd.DataFrame(columns, adata.obs_names)
    return adata if copy else None
