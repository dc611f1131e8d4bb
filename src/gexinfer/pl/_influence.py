from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer.pl._style import COLUMN, FONT, new_axes
from gexinfer.tl._explained import chosen, explained

# The smallest names that stay legible; the room, in inches, that each takes.
SMALL = 6
LINE = 0.1


def influence(
    adata: AnnData,
    key: str | None = None,
    *,
    genes: str | Sequence[str] | None = None,
    n_genes: int = 25,
    n_landmarks: int = 25,
    ax: Axes | None = None,
) -> Axes:
    """Draw which landmarks move which genes, as a heat map with like beside like.

    Parameters
    ----------
    adata
        Explained data; reads `varm["gexinfer_influence_" + key]` and `uns["gexinfer_explained"]`.
    key
        Name of the model; the only one explained where it is not given.
    genes
        The targets: a bool column of `var`, or names. Where it is not given, those that single landmarks move most.
    n_genes
        How many targets where `genes` is not given.
    n_landmarks
        How many landmarks: those that move one of the targets most.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes, targets x landmarks. Colours are standard deviations of the target per standard deviation of the landmark
    over the training rows, so that genes compare: red where the target rises with the landmark, blue where it falls.
    Rows and columns are ordered by average linkage of their Euclidean distances.

    Raises
    ------
    KeyError
        The model was not explained.
    ValueError
        Several models were and none is named, or a gene was not explained.

    Examples
    --------
    >>> influence = gx.tl.explain(ref, "ridge")
    >>> ax = gx.pl.influence(ref, "ridge", n_genes=10, n_landmarks=20)
    >>> len(ax.get_yticklabels()), len(ax.get_xticklabels())
    (10, 20)
    """
    name, entry, slopes = explained(adata, key)
    for argument, number in (("n_genes", n_genes), ("n_landmarks", n_landmarks)):
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 2:
            raise ValueError(f"{argument}={number!r} must be a whole number of at least 2, to be put in order.")
    sd = entry["genes"]["sd"].reindex(slopes.index).to_numpy()[:, None]
    # What was constant in the training rows is moved by nothing.
    strength = slopes * entry["landmarks"]["sd"].to_numpy() / np.where(sd > 0, sd, 1)
    wanted = chosen(genes, adata, slopes.index, name)
    strength = strength.loc[wanted if genes is not None else most(strength, axis=1, n=n_genes)]
    strength = strength[most(strength, axis=0, n=n_landmarks)]
    strength = strength.iloc[ordered(strength), ordered(strength.T)]

    if ax is None:
        ax = new_axes()[0]
        ax.figure.set_size_inches(COLUMN, 0.9 + LINE * (len(strength) + 4))  # type: ignore[union-attr]
    limit = float(np.abs(strength).to_numpy().max()) or 1.0
    image = ax.imshow(strength, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(strength.shape[1]), strength.columns, rotation=90, fontsize=SMALL)
    ax.set_yticks(range(strength.shape[0]), strength.index, fontsize=SMALL)
    ax.tick_params(length=0, pad=1)
    ax.set_xlabel("landmark", fontsize=FONT)
    ax.set_title(f"{name}: inferred genes by landmarks", fontsize=FONT)
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.5, aspect=15, pad=0.02)
    bar.set_label("sd of the gene per sd of the landmark", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    sns.despine(ax=ax, left=True, bottom=True)
    return ax


def most(strength: pd.DataFrame, *, axis: int, n: int) -> pd.Index:
    """Return the targets (axis 1) or landmarks (axis 0) with the largest single influence."""
    return strength.abs().max(axis=axis).nlargest(n).index


def ordered(rows: pd.DataFrame) -> list[int]:
    """Return an order of rows in which those that are alike stand beside each other."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    return leaves_list(linkage(rows.to_numpy(), "average", optimal_ordering=True)).tolist() if len(rows) > 1 else [0]
