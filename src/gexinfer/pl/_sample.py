from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._fitted import row_digests
from gexinfer._names import listed, locate
from gexinfer._slots import matrix
from gexinfer.engine.blocks import Indices, Wide, dense, in_row_order
from gexinfer.pl._gene import correlation
from gexinfer.pl._style import FONT, UNITS, colours, dress, new_axes
from gexinfer.tl._models import one_predicted
from gexinfer.tl._test_rows import check_truth

# Names fit below one another on either side.
MOST_NAMES = 20


def sample(adata: AnnData, sample: str, key: str | None = None, *, n_worst: int = 8, ax: Axes | None = None) -> Axes:
    """Draw what a model infers of one sample against what was measured, and name the worst genes.

    Parameters
    ----------
    adata
        Whole transcriptomes with a model in `uns` and its predictions in `layers`.
    sample
        Name of the sample.
    key
        Name of the model; the only one with predictions where it is not given.
    n_worst
        How many genes to name, up to 20: those with the largest errors in standard deviations of the training rows.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a dot for each inferred gene, the diagonal, Pearson's r over genes and the MAE in data units. The title
    says if the model has seen the sample.

    Raises
    ------
    KeyError
        There is no model, no prediction, no such sample, or nothing measured to compare with.
    ValueError
        There are several models and none is named, the sample's name is not unique, no inferred gene was measured, or
        `n_worst` is out of range.

    Examples
    --------
    >>> name = ref.obs_names[ref.obs["split"] == "test"][0]
    >>> ax = gx.pl.sample(ref, name, "ridge", n_worst=4)
    >>> ax.get_xlabel()
    'measured (data units)'
    """
    if isinstance(n_worst, bool) or not isinstance(n_worst, int | np.integer) or not 0 <= n_worst <= MOST_NAMES:
        raise ValueError(f"n_worst={n_worst!r} must be a number of genes, 0 to {MOST_NAMES}.")
    name, fitted = one_predicted(adata, key)
    check_truth(adata, fitted, name)
    row = np.flatnonzero(adata.obs_names == sample)
    if len(row) != 1:
        told = "has no" if len(row) == 0 else f"has {len(row)} times"
        raise (KeyError if len(row) == 0 else ValueError)(
            f"adata.obs_names {told} {sample!r}; it starts with {listed(adata.obs_names, 3)}."
        )
    columns = locate(fitted.targets, adata.var_names)
    scale = fitted.target_scale
    kept = (columns >= 0) & (scale.sd > 0)

    def of(layer: str) -> Wide:
        return dense(in_row_order(matrix(adata, layer)), row, columns[kept])[0].astype(np.float64)

    x, y = of(str(fitted.input["layer"])), of(name)
    both = np.isfinite(x) & np.isfinite(y)
    if not both.any():
        raise ValueError(f"No gene of {sample!r} is both measured and inferred by {name!r}.")
    names, error = adata.var_names[columns[kept][both]], np.abs(x - y)[both] / scale.unit[kept][both]
    x, y = x[both], y[both]
    worst = np.argsort(-error, kind="stable")[:n_worst]
    ax = new_axes()[0] if ax is None else ax
    colour, marked = colours(2)
    ax.scatter(x, y, s=4, alpha=0.4, linewidths=0, color=colour, rasterized=True)
    ax.scatter(x[worst], y[worst], s=12, linewidths=0, color=marked)
    ax.axline((x.min(), x.min()), slope=1, color="0.3", linewidth=0.8)
    label(ax, x, y, worst, names)
    note = f"r {correlation(x, y):.3f}, MAE {np.abs(x - y).mean():.3g} in data units, {len(x):,} genes"
    seen = np.isin(row_digests(adata.obs_names[row]), fitted.training_rows).any()
    dress(
        ax,
        f"measured {UNITS}",
        f"inferred by {name} {UNITS}",
        f"{sample}{', seen by the model' if seen else ''}\n{note}",
    )
    return ax


def label(ax: Axes, x: Wide, y: Wide, worst: Indices, names: pd.Index) -> None:
    """Name genes beside the axes, each as near the height of its dot as the others let it, with a line to the dot."""
    low, high = ax.get_ylim()
    genes = worst[np.argsort(y[worst], kind="stable")]
    heights = (y[genes] - low) / (high - low)
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + 1 / MOST_NAMES)
    heights -= max(heights.max(initial=0) - 1, 0)
    line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 2, "relpos": (0, 0.5)}
    for at, height in zip(genes, heights, strict=True):
        ax.annotate(
            str(names[at]),
            (x[at], y[at]),
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=FONT - 2,
            va="center",
            arrowprops=line,
        )
