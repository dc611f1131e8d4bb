from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._names import listed
from gexinfer._slots import LEARNING_CURVE
from gexinfer.pl._style import DASHES, FONT, as_names, colours, dress, new_axes, plain_ticks, table_in

# What ticks may begin with: few where these give enough.
STEPS = ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(np.arange(1, 10, 0.2)))


def learning_curve(adata: AnnData, key: str | Sequence[str] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the test error of each method against the number of training samples.

    Both axes are logarithmic: a straight line falls by the same share with each doubling of the samples.

    Parameters
    ----------
    adata
        Data after `gexinfer.tl.learning_curve`; reads `uns["gexinfer_learning_curve"]`.
    key
        The models; all in the table where not given.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a line through the means over repeats, with a band of their standard deviation, for each model; the mean
    predictor as a dashed grey line. What is worse than that one by a tenth is beyond the axis.

    Raises
    ------
    KeyError
        There is no learning curve, or a model is not in it.

    Examples
    --------
    >>> table = gx.tl.learning_curve(ref, ["ridge", "knn"], sizes=[100, 200, 400], repeats=2)
    >>> ax = gx.pl.learning_curve(ref)
    >>> ax.get_xlabel()
    'training samples'
    """
    table = table_in(adata, LEARNING_CURVE, "gexinfer.tl.learning_curve(adata, ['ridge', 'kernel'])")
    there = list(dict.fromkeys(table["model"]))
    wanted = there if key is None else as_names(key)
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise KeyError(
            f"adata.uns[{LEARNING_CURVE!r}] has no model {listed(lacking)}; it has {listed(there, 20)}. Name it in "
            "gexinfer.tl.learning_curve(adata, methods)."
        )
    ax = new_axes()[0] if ax is None else ax
    shown = table[table["model"].isin(wanted) & table["mae"].notna()]
    # With groups the repeats of a size have different numbers of rows.
    by_size = shown.groupby(["model", "size"], observed=True)
    curves = by_size["mae"].agg(["mean", "std"]).join(by_size["n_train"].mean())
    drawn = [name for name in wanted if name in curves.index]
    plain = [name for name in drawn if name != "mean"]
    for i, (name, colour) in enumerate(zip(plain, colours(len(plain)), strict=True)):
        curve = curves.loc[name]
        x, y, sd = curve["n_train"], curve["mean"], curve["std"]
        ax.plot(
            x, y, color=colour, linestyle=DASHES[i % len(DASHES)], marker="o", markersize=3, linewidth=1.3, label=name
        )
        if sd.notna().any():
            ax.fill_between(x, y - sd, y + sd, color=colour, alpha=0.2, linewidth=0)
    if "mean" in drawn:
        curve = curves.loc["mean"]
        ax.plot(curve["n_train"], curve["mean"], color="0.4", linestyle="--", linewidth=1, label="mean predictor")
    low, high = curves["mean"].min(), curves["mean"].max()
    if "mean" in drawn:
        high = min(high, 1.1 * curves.loc["mean", "mean"].max())
    ax.set(xscale="log", yscale="log")
    low, high = low / 1.05, high * 1.05
    ax.set_ylim(low, high)
    plain_ticks(ax.xaxis, ticks(curves["n_train"].min(), curves["n_train"].max()))
    plain_ticks(ax.yaxis, ticks(low, high))
    ax.legend(fontsize=FONT - 1, frameon=False)
    dress(ax, "training samples", "test MAE over genes (sd units)")
    return ax


def ticks(low: float, high: float) -> list[float]:
    """Return numbers between these that are easy to read, more of them where they are close together."""
    decades = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for steps in STEPS:
        found = [step * decade for decade in decades for step in steps if low <= step * decade <= high]
        if len(found) > 2:
            break
    return found
