from __future__ import annotations

from dataclasses import replace

import numpy as np
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._names import locate
from gexinfer._record import to_uns
from gexinfer._slots import RECALL, SPLIT, TRUSTED, check_in_memory, check_unique, matrix, split_rows
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Float, Indices, dense, evenly, in_row_order, row_slices
from gexinfer.engine.recall import recall
from gexinfer.engine.report import say
from gexinfer.tl._models import one_predicted
from gexinfer.tl._test_rows import check_truth, refuse_seen, refuse_stale
from gexinfer.tl._trusted import MOST, is_trusted

# Profiles over fewer samples are alike by chance.
FEWEST_ROWS = 10
# More test rows would take memory, and hardly change the ranks.
MOST_ROWS = 2000


def trust(adata: AnnData, *, key: str | None = None) -> None:
    """Find the genes that a model infers well enough to be recognised, on the test rows alone.

    A gene passes when its inferred profile over the test samples is more like its own measured profile, by Pearson's r,
    than like that of at least 95 % of the other inferred genes. That is the idea of the "best inferred genes" (BING) of
    CMap. It asks whether a value speaks of this gene, not whether it is exact: a gene that many others run parallel to
    can have a low error and fail.

    Run it after `gexinfer.tl.predict(adata)`. The result goes into the model, too: queries of it get
    `var["gexinfer_trusted"]`, and `predict(..., trusted_only=True)` leaves out what failed.

    Parameters
    ----------
    adata
        Whole transcriptomes with a model in `uns` and its predictions in `layers`.
    key
        Name of the model, needed where several have predictions: it is of one that genes are trusted.

    Returns
    -------
    None. Writes:

    `var["gexinfer_recall"]`
        The share of the other inferred genes whose measured profile is more like the inferred one than the gene's own
        is: 0 is best, about .5 is chance. NaN for genes that are not inferred, and where a profile is constant.
    `var["gexinfer_trusted"]`
        bool: that share is at most .05, or the gene is a landmark, which is measured.
    `uns[key]`
        The model with its recall.

    Raises
    ------
    KeyError
        There is no model, no split, or no prediction.
    ValueError
        Several models have predictions and `key` is not given; there are fewer than 10 test rows or 2 targets; the
        model has seen test rows; the predictions are not the present model's; or values are NaN or inf.

    References
    ----------
    Subramanian et al., Cell 2017, 171:1437 :cite:p:`subramanian2017` (the best inferred genes of L1000).

    Examples
    --------
    >>> gx.tl.trust(ref)
    >>> ref.var.query("~landmark")["gexinfer_trusted"].value_counts().to_dict()
    {False: 112, True: 92}
    >>> query = ref[:3, ref.var["landmark"]].copy()
    >>> gx.tl.predict(query, model=ref, trusted_only=True, output="anndata").n_vars
    186
    """
    check_in_memory(adata)
    check_unique(adata)
    name, fitted = one_predicted(adata, key)
    test = split_rows(adata, "test")
    if len(test) < FEWEST_ROWS:
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks {len(test)} rows as 'test'; profiles over fewer than {FEWEST_ROWS} samples "
            "are alike by chance. Run gexinfer.pp.split(adata) with a larger share of test rows, and fit again."
        )
    check_truth(adata, fitted, name)
    refuse_seen(adata, test, fitted, name)
    refuse_stale(adata, test, fitted, name)
    columns = locate(fitted.targets, adata.var_names)
    there = columns >= 0
    if there.sum() < 2:
        raise ValueError(f"adata holds {there.sum()} target of {name!r}; among fewer than 2 genes none is recognised.")
    rows = test[evenly(len(test), MOST_ROWS)]
    layer = str(fitted.input["layer"])
    found = np.full(len(columns), np.nan, np.float32)
    found[there] = recall(profiles(adata, layer, rows, columns[there]), profiles(adata, name, rows, columns[there]))
    write_trusted(adata, name, fitted, columns, found)
    good, few = int(is_trusted(found).sum()), "" if len(rows) == len(test) else f" of {len(test):,}, evenly spaced"
    say(
        f"trust: {good:,} of {there.sum():,} genes that {name} infers ({good / there.sum():.0%}) are recalled among "
        f"the first {MOST:.0%}, over {len(rows):,} test rows{few}"
    )


def profiles(adata: AnnData, layer: str, rows: Indices, columns: Indices) -> Float:
    """Return (rows, genes) of a layer, having refused what is not finite."""
    source = in_row_order(matrix(adata, layer))
    values = np.empty((len(rows), len(columns)), np.float32)
    for part in row_slices(len(rows)):
        values[part] = dense(source, rows[part], columns)
    refuse_not_finite((~np.isfinite(values)).sum(axis=0), adata.var_names[columns], len(rows), where_from(layer))
    return values


def write_trusted(adata: AnnData, name: str, fitted: FittedModel, columns: Indices, found: Float) -> None:
    """Write the recall of each gene beside the gene and into the model."""
    shown = np.full(adata.n_vars, np.nan, np.float32)
    shown[columns[columns >= 0]] = found[columns >= 0]
    trusted = is_trusted(shown)
    places = locate(fitted.landmarks, adata.var_names)
    # Of a landmark that is a target, too, the layer holds the inferred value.
    trusted[np.setdiff1d(places[places >= 0], columns)] = True
    adata.uns[name] = to_uns(replace(fitted, known={**fitted.known, "recall": found}))
    adata.var[RECALL], adata.var[TRUSTED] = shown, trusted
