from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._fitted import FittedModel
from gexinfer._names import lacking, listed, locate, meant
from gexinfer._slots import group_codes, layer_names, matrix
from gexinfer.engine.blocks import Wide, dense, in_row_order
from gexinfer.pl._style import FONT, UNITS, colours, dress, new_axes
from gexinfer.tl._intervals import bound_names
from gexinfer.tl._models import one_predicted
from gexinfer.tl._test_rows import check_truth, refuse_seen, test_rows

# More colours could not be told apart.
MOST_GROUPS = 8
OTHER = (0.6, 0.6, 0.6)


def gene(
    adata: AnnData, gene: str, key: str | None = None, *, groupby: str | None = None, ax: Axes | None = None
) -> Axes:
    """Draw what a model infers of one gene against what was measured, on the test rows.

    Parameters
    ----------
    adata
        Whole transcriptomes with a model in `uns` and its predictions in `layers`.
    gene
        Name of an inferred gene.
    key
        Name of the model; the only one with predictions where it is not given.
    groupby
        A column of `obs` by which to colour the samples: the 8 largest groups of the test rows.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a dot for each test sample, with its interval where `gexinfer.tl.predict` wrote one; the diagonal; and
    Pearson's r, the MAE in data units, and the share of dots whose interval holds the measured value.

    Raises
    ------
    KeyError
        There is no model, no prediction, no split, no such gene or no such column.
    ValueError
        There are several models and none is named, the gene is not inferred, there are no test rows, or none with a
        measured value, or the model has seen some.

    Examples
    --------
    >>> ax = gx.pl.gene(ref, "LDLR", "ridge", groupby="tissue")
    >>> ax.get_ylabel()
    'LDLR, inferred by ridge (data units)'
    """
    name, fitted = one_predicted(adata, key)
    column = inferred_column(adata, gene, fitted, name)
    check_truth(adata, fitted, name)
    test = test_rows(adata)
    refuse_seen(adata, test, fitted, name)

    def of(layer: str) -> Wide:
        return dense(in_row_order(matrix(adata, layer)), test, np.array([column]))[:, 0].astype(np.float64)

    x, y = of(str(fitted.input["layer"])), of(name)
    there = np.isfinite(x) & np.isfinite(y)
    if not there.any():
        raise ValueError(
            f"{gene!r} is measured and inferred by {name!r} in none of the {len(test):,} test rows. If it was left out "
            "by trusted_only=True, predict again without that."
        )
    test, x, y = test[there], x[there], y[there]
    ax = new_axes()[0] if ax is None else ax
    note = f"r {correlation(x, y):.3f}\nMAE {np.abs(x - y).mean():.3g} in data units"
    if set(bound_names(name)) <= set(layer_names(adata)):
        low, high = (of(bound) for bound in bound_names(name))
        ax.vlines(x, low, high, color="0.8", linewidth=0.8, zorder=1)
        note += f"\n{np.mean((low <= x) & (x <= high)):.0%} in interval"
    for label, places, colour in parts(adata.obs.iloc[test], groupby):
        ax.scatter(x[places], y[places], s=9, linewidths=0, color=colour, label=label, zorder=2)
    ax.axline((x.min(), x.min()), slope=1, color="0.3", linewidth=0.8)
    ax.text(0.03, 0.97, note, transform=ax.transAxes, va="top", fontsize=FONT - 1)
    if groupby is not None:
        ax.legend(fontsize=FONT - 2, frameon=False, loc="upper left", bbox_to_anchor=(1, 1), handletextpad=0.1)
    dress(ax, f"{gene}, measured {UNITS}", f"{gene}, inferred by {name} {UNITS}")
    return ax


def inferred_column(adata: AnnData, gene: str, fitted: FittedModel, name: str) -> int:
    """Return where an inferred gene stands in `var`."""
    if lacking([gene], adata.var_names):
        start = listed(adata.var_names, 3)
        raise KeyError(f"adata.var_names has no {gene!r}; it starts with {start}.{meant(gene, adata.var_names)}")
    if lacking([gene], pd.Index(fitted.targets)):
        measured = not lacking([gene], pd.Index(fitted.landmarks))
        raise ValueError(
            f"{name!r} does not infer {gene!r}{', which is one of its landmarks' if measured else ''}; it infers "
            f"{listed(fitted.targets, 3)}."
        )
    return int(locate([gene], adata.var_names)[0])


def correlation(x: Wide, y: Wide) -> float:
    """Return Pearson's r, NaN where there is none."""
    varies = len(x) > 1 and x.std() > 0 and y.std() > 0
    return float(np.corrcoef(x, y)[0, 1]) if varies else np.nan


def parts(obs: pd.DataFrame, groupby: str | None) -> list[tuple[str, np.ndarray, tuple[float, float, float]]]:
    """Return label, rows and colour of each group, the largest first, small ones together."""
    if groupby is None:
        return [("", np.arange(len(obs)), colours(1)[0])]
    codes, names = group_codes(obs, groupby)
    sizes = np.bincount(codes, minlength=len(names))
    order = np.argsort(-sizes, kind="stable")
    shown = order if len(order) <= MOST_GROUPS else order[:MOST_GROUPS]
    found = [
        (str(names[i]), np.flatnonzero(codes == i), colour)
        for i, colour in zip(shown, colours(len(shown)), strict=True)
    ]
    if len(shown) < len(order):
        rest = np.flatnonzero(~np.isin(codes, shown))
        # Beneath the others.
        found.insert(0, (f"{len(order) - len(shown)} others", rest, OTHER))
    return found
