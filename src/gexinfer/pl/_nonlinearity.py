from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._names import listed
from gexinfer._slots import NONLINEARITY
from gexinfer.pl._style import colours, dress, legend_below, new_axes

# What is drawn, how it is called, and by which mark it is told without its colour.
SIDES = {"train": ("training, adjusted R2", "o"), "test": ("test, R2", "^")}


def nonlinearity(adata: AnnData, key: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw how well each target follows linearly from hidden units, against from landmarks: figure S2 of D-GEX.

    Parameters
    ----------
    adata
        Data after `gexinfer.tl.nonlinearity`; reads `uns["gexinfer_nonlinearity"]`.
    key
        Name of the network; the only one there where it is not given.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: one dot a target, training rows and test rows. The legend says how many lie above the diagonal, where
    hidden units explain more. A side without values is left out. Axes end where 99 % of the targets lie; those beyond
    are counted in the legend.

    Raises
    ------
    KeyError
        There is nothing of that name.
    ValueError
        There are several and none is named.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> gx.tl.fit(ref, method="dgex", hidden=64, epochs=5)
    >>> table = gx.tl.nonlinearity(ref, "dgex")
    >>> ax = gx.pl.nonlinearity(ref, "dgex")
    >>> ax.get_xlabel()
    'R2 of a linear fit on landmarks'
    """
    tables = adata.uns.get(NONLINEARITY, {})
    if not tables or (key is not None and key not in tables):
        has = f"holds {listed(list(tables), 20)}, not {key!r}" if tables else "is not there"
        raise KeyError(f"adata.uns[{NONLINEARITY!r}] {has}; run gexinfer.tl.nonlinearity(adata, key=...) first.")
    if key is None and len(tables) > 1:
        raise ValueError(f"adata.uns[{NONLINEARITY!r}] holds {listed(list(tables), 20)}; name one: key=.")
    table: pd.DataFrame = tables[key or next(iter(tables))]
    ax = new_axes()[0] if ax is None else ax
    sides = {side: table[[f"linear_{side}", f"hidden_{side}"]].dropna() for side in SIDES}
    values = np.concatenate([both.to_numpy().min(axis=1) for both in sides.values()] or [np.zeros(1)])
    low = float(np.floor(10 * np.quantile(values, 0.01)) / 10) if len(values) else 0.0
    for (side, both), colour in zip(sides.items(), colours(2), strict=True):
        if both.empty:
            continue
        x, y = both.iloc[:, 0], both.iloc[:, 1]
        label, mark = SIDES[side]
        label += f": {(y > x).mean():.0%} of {len(both):,} above"
        outside = int((both < low).any(axis=1).sum())
        label += f" ({outside:,} beyond)" if outside else ""
        ax.scatter(x, y, s=6, alpha=0.5, linewidths=0, color=colour, marker=mark, label=label, rasterized=True)
    ax.axline((low, low), slope=1, color="0.3", linewidth=0.8)
    ax.set_xlim(low, 1.01)
    ax.set_ylim(low, 1.01)
    if ax.collections:
        legend_below(ax, columns=1, markerscale=2)
    dress(ax, "R2 of a linear fit on landmarks", "R2 of a linear fit on hidden units")
    return ax
