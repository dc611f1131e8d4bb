from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gexinfer._record import records
from gexinfer.pl._style import DASHES, colours, dress, legend_below, new_axes

# Errors and rates, which `training` draws or the schedule says, and what is no error.
OTHERS = ("train_mae", "validation_mae", "learning_rate", "share")


def terms(adata: AnnData, key: str | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw a network's loss and each of its terms against epoch.

    Parameters
    ----------
    adata
        Fitted data; reads the models in `uns`.
    key
        The network; the only one in `uns` where not given. Of a model of several `target_blocks` the first is drawn.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a curve for each term, without its weight, on a logarithmic scale where all are positive.

    Raises
    ------
    KeyError
        The model is not there.
    ValueError
        The model is no network, or there are several and none is named.

    Examples
    --------
    >>> gx.tl.fit(ref, method="ggan", hidden=32, discriminator_hidden=16, epochs=3)
    >>> ax = gx.pl.terms(ref, "ggan")
    >>> ax.get_xlabel()
    'epoch'
    """
    models = records(adata, key)
    found = {name: histories for name, model in models.items() if (histories := history(model.model.arrays))}
    if len(found) != 1:
        have = (
            f"there are several, {list(found)}; name one with key=" if found else "run gexinfer.tl.fit(adata, 'ggan')"
        )
        raise ValueError(f"terms draws one model that was trained by epochs: {have}.")
    (curves,) = found.values()
    ax = new_axes()[0] if ax is None else ax
    for i, ((name, values), colour) in enumerate(zip(curves.items(), colours(len(curves)), strict=True)):
        # Nine colours, then the same ones in other dashes.
        style = DASHES[i % len(DASHES)]
        ax.plot(np.arange(1, len(values) + 1), values, color=colour, linestyle=style, label=name, linewidth=1.2)
    if all((values > 0).all() for values in curves.values()):
        ax.set_yscale("log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(ax)
    dress(ax, "epoch", "value")
    return ax


def history(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the terms of the first network of a model, none where it has no epochs."""
    start = "0.history."
    named = {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
    return {name: values for name, values in sorted(named.items()) if name not in OTHERS}
