from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._slots import PARTIAL_DEPENDENCE
from gexinfer.engine.blocks import evenly
from gexinfer.pl._style import DASHES, UNITS, colours, dress, legend_below, new_axes

# Single samples that are drawn of each model: more would be a grey field.
CURVES = 20


def partial_dependence(adata: AnnData, *, ax: Axes | None = None) -> Axes:
    """Draw how a target that is inferred changes while one landmark moves.

    Parameters
    ----------
    adata
        Data after `gexinfer.tl.partial_dependence`; reads `uns["gexinfer_partial_dependence"]`.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: for each model the mean over samples as a thick line, and single samples, at most 20, as thin ones. All
    start at 0, because samples differ by more than one landmark makes of them. Short lines below are the samples' own
    values of the landmark.

    Raises
    ------
    KeyError
        There is nothing to draw.

    Examples
    --------
    >>> curve = gx.tl.partial_dependence(ref, "CLSPN", "CDC25A", key="ridge")
    >>> ax = gx.pl.partial_dependence(ref)
    >>> ax.get_xlabel()
    'CDC25A, the landmark (data units)'
    """
    if PARTIAL_DEPENDENCE not in adata.uns:
        raise KeyError(
            f"adata.uns has no {PARTIAL_DEPENDENCE!r}; run gexinfer.tl.partial_dependence(adata, target, landmark) "
            "first."
        )
    found = adata.uns[PARTIAL_DEPENDENCE]
    values, mean = found["values"], found["mean"]
    ax = new_axes()[0] if ax is None else ax
    for i, (name, colour) in enumerate(zip(mean, colours(mean.shape[1]), strict=True)):
        curves, average = (np.asarray(of) - np.asarray(of)[0] for of in (found["curves"][name], mean[name]))
        shown = evenly(curves.shape[1], CURVES)
        ax.plot(values, curves[:, shown], color=colour, linewidth=0.4, alpha=0.35)
        ax.plot(values, average, color=colour, linestyle=DASHES[i % len(DASHES)], linewidth=2, label=name)
    own = found["measured"]["landmark"].to_numpy()
    ax.plot(own, np.full(len(own), 0.01), "|", color="0.3", markersize=5, transform=ax.get_xaxis_transform())
    ax.set_xlim(values[0], values[-1])
    legend_below(ax, columns=3)
    dress(ax, f"{found['landmark']}, the landmark {UNITS}", f"change of {found['target']}, inferred {UNITS}")
    return ax
