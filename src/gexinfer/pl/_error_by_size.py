from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._slots import SWEEP
from gexinfer.pl._style import DASHES, colours, dress, legend_below, new_axes, plain_ticks, reference_lines, table_in


def error_by_size(adata: AnnData, *, ax: Axes | None = None) -> Axes:
    """Draw a network's test error against its width, one line a depth: figure 1 of the D-GEX paper.

    Where more than width and depth was swept, each point is the setting of its size with the lowest validation error.

    Parameters
    ----------
    adata
        Data after `gexinfer.tl.sweep` over `hidden`, and `layers` if there is to be more than one line; reads
        `uns["gexinfer_sweep"]`.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes; the models that were swept against are horizontal lines. One that would flatten the curves is left off
    and named in the legend.

    Raises
    ------
    KeyError
        There is no sweep.
    ValueError
        The sweep is not over `hidden`.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> table = gx.tl.sweep(ref, "dgex", {"layers": [1, 2], "hidden": [16, 64]}, epochs=3)
    >>> ax = gx.pl.error_by_size(ref)
    >>> ax.get_xlabel()
    'units in each hidden layer'
    """
    call = "gexinfer.tl.sweep(adata, 'dgex', {'layers': [1, 2, 3], 'hidden': [300, 1000]})"
    table = table_in(adata, SWEEP, call)
    if "hidden" not in table:
        raise ValueError(f"adata.uns[{SWEEP!r}] is not over hidden=, the width of a network; run {call} first.")
    settings = table[~table["reference"].astype(bool) & table["mae"].notna()]
    depth = settings["layers"] if "layers" in settings else settings["method"]
    best = settings.assign(depth=depth).sort_values("validation_mae").drop_duplicates(["depth", "hidden"])
    others = table.loc[table["reference"].astype(bool) & table["mae"].notna(), "mae"]
    ax = new_axes()[0] if ax is None else ax
    lines = best.sort_values("hidden").groupby("depth")
    for i, ((name, line), colour) in enumerate(zip(lines, colours(lines.ngroups), strict=True)):
        label = f"{name:.0f} hidden layer{'s' if name != 1 else ''}" if "layers" in settings else str(name)
        x, y = line["hidden"].to_numpy(float), line["mae"].to_numpy(float)
        ax.plot(
            x, y, color=colour, linestyle=DASHES[i % len(DASHES)], marker="o", markersize=4, linewidth=1.3, label=label
        )
    reference_lines(ax, others.to_dict(), best["mae"].min(), best["mae"].max())
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, np.unique(best["hidden"].to_numpy(float)).tolist())
    legend_below(ax)
    dress(ax, "units in each hidden layer", "test MAE over genes (sd units)")
    return ax
