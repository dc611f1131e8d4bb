from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gexinfer._fitted import FittedModel
from gexinfer._names import listed
from gexinfer._record import records
from gexinfer.engine.blocks import Indices, Wide
from gexinfer.methods import METHODS, get_method
from gexinfer.pl._style import COLUMN, FONT, colours, new_axes

# A weight is major if it is so many standard deviations from the mean of its layer: into a hidden layer, and out of it.
INTO, OUT = 4, 5
# Genes that are named at each side, and the least distance of their names, as a share of the axes' height.
NAMED = 12
APART = 0.04
NAME: dict[str, Any] = {"fontsize": FONT - 2}


def weights(adata: AnnData, key: str | None = None, *, n_units: int = 8, ax: Axes | None = None) -> Axes:
    """Draw a network's major weights and its hub units: figure S3 of the D-GEX paper.

    A weight is major if it is more than 4 standard deviations from the mean of its layer, or 5 in the output layer. A
    hub is a unit that has most of them; theirs are drawn. Weights are those of standardised genes. The linear path from
    the landmarks to the targets, which a network may have beside its hidden layers, is not drawn.

    Parameters
    ----------
    adata
        Fitted data; reads the model in `uns`.
    key
        Name of the network; the only one in `uns` where it is not given. Of a model of several `target_blocks` or
        `n_members` the first is drawn.
    n_units
        How many hubs to draw of each hidden layer.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a column for the landmarks, one for each hidden layer and one for the targets. Lines are major weights of
    hubs, solid and orange if positive, dashed and blue if negative. Hubs have their number, from 0 as in the record,
    and in brackets how many major weights they have; those with most stand at the top. Genes stand near the hubs that
    they are tied to; the 12 of each side with most ties are named.

    Raises
    ------
    KeyError
        There is no model, or none of that name.
    ValueError
        The model is no network, or its hidden layers do not see single landmarks; there are several networks and none
        is named; or `n_units` is no number of units.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> gx.tl.fit(ref, method="dgex", hidden=256, epochs=30)
    >>> ax = gx.pl.weights(ref, "dgex", n_units=4)
    >>> ax.get_title()
    'dgex: ... major weights'
    """
    if isinstance(n_units, bool) or not isinstance(n_units, int | np.integer) or n_units < 1:
        raise ValueError(f"n_units={n_units!r} must be a whole number of at least 1.")
    name, fitted = drawable(adata, key)
    layers = major(fitted)
    every = ties(layers)
    hubs = [np.argsort(-count, kind="stable")[:n_units] for count in every[1:-1]]
    for i, those in enumerate(hubs):
        others = np.setdiff1d(np.arange(len(every[i + 1])), those)
        layers[i][others], layers[i + 1][:, others] = 0, 0
    counts = ties(layers)
    heights = places(layers, counts, every)
    if ax is None:
        ax = new_axes()[0]
        ax.figure.set_size_inches(COLUMN, COLUMN * 1.3)  # type: ignore[union-attr]
    rise, fall = (colours(4)[i] for i in (3, 0))
    for i, layer in enumerate(layers):
        to, source = np.nonzero(layer)
        lines = np.stack(
            [np.stack([np.full(len(to), x), heights[x][at]], 1) for x, at in ((i, source), (i + 1, to))], 1
        )
        faint = float(np.clip(60 / max(len(lines), 1), 0.15, 0.7))
        for sign, colour, dashes in ((1, rise, "-"), (-1, fall, "--")):
            some = lines[np.sign(layer[to, source]) == sign]
            ax.add_collection(LineCollection(some, colors=[colour], linestyles=dashes, linewidths=0.5, alpha=faint))
    targets = np.array(fitted.targets, dtype=object)[fitted.model.arrays["block"] == 0]
    names = {0: fitted.landmarks, len(layers): tuple(targets)}
    for x, (count, height) in enumerate(zip(counts, heights, strict=True)):
        there = np.flatnonzero(count)
        if 0 < x < len(layers):
            ax.scatter(np.full(len(there), x), height[there], s=10 + 90 * count[there] / count.max(), color="0.25")
            for unit in there:
                ax.text(x, height[unit] + 0.02, f"{unit} ({every[x][unit]})", ha="center", va="bottom", **NAME)
        else:
            ax.scatter(np.full(len(there), x), height[there], s=2, color="0.25")
            name_genes(ax, x, count, height, names[x])
    ax.set_xlim(-0.75, len(layers) + 0.75)
    ax.set_ylim(-0.03, 1.07)
    hidden = ["hidden"] if len(layers) == 2 else [f"hidden {i}" for i in range(1, len(layers))]
    titles = ["landmarks", *hidden, "targets"]
    labels = [f"{t}\n{(c > 0).sum():,} of {len(c):,}" for t, c in zip(titles, counts, strict=True)]
    ax.set_xticks(range(len(titles)), labels, fontsize=FONT - 1)
    ax.set_yticks([])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    drawn, total = sum(count.sum() for count in counts) // 2, sum(count.sum() for count in every) // 2
    ax.set_title(f"{name}: {drawn:,} of {total:,} major weights", fontsize=FONT)
    keys = [Line2D([], [], color=rise, linewidth=1), Line2D([], [], color=fall, linestyle="--", linewidth=1)]
    ax.legend(
        keys,
        ["positive", "negative"],
        fontsize=FONT - 1,
        frameon=False,
        ncols=2,
        loc="lower center",
        bbox_to_anchor=(0.5, -0.2),
    )
    return ax


def drawable(adata: AnnData, key: str | None) -> tuple[str, FittedModel]:
    """Return the network of that name, or the only one, having refused what cannot be drawn."""
    models = records(adata, key)
    networks = {name: fitted for name, fitted in models.items() if get_method(fitted.method).by_epochs}
    if len(networks) != 1:
        having = [method for method in METHODS if get_method(method).by_epochs]
        told = (
            f"adata.uns holds several networks, {listed(list(networks), 20)}; name one: key=."
            if networks
            else f"{listed(list(models), 20)} is no network; models of method={listed(having)} are."
        )
        raise ValueError(f"weights draws one network. {told}")
    ((name, fitted),) = networks.items()
    if "0.conv.0.weight" in fitted.model.arrays:
        raise ValueError(
            f"The hidden layers of {name!r}, trunk={fitted.config.trunk!r}, see mixtures of neighbouring landmarks, so "
            "that no weight belongs to one of them. Draw a network of trunk='mlp', 'dense' or 'residual'."
        )
    return name, fitted


def major(fitted: FittedModel) -> list[NDArray[np.floating]]:
    """Return the weights (to, from) between one column and the next, 0 where they are not major."""
    layers, before = [], len(fitted.landmarks)
    for i in range(fitted.config.layers + 1):
        # A layer of a dense trunk sees all columns before it; the last is the one drawn beside it.
        stored = fitted.model.arrays[f"0.{i}.weight"]
        weight = (stored[0] if fitted.config.n_members > 1 else stored)[:, -before:]
        far = np.abs(weight - weight.mean()) > (INTO if i < fitted.config.layers else OUT) * weight.std()
        layers.append(np.where(far, weight, 0))
        before = len(weight)
    return layers


def ties(layers: list[NDArray[np.floating]]) -> list[Indices]:
    """Return how many major weights each landmark, unit and target has, column by column."""
    tied = [layer != 0 for layer in layers]
    into = [np.zeros(tied[0].shape[1], np.intp), *(layer.sum(axis=1) for layer in tied)]
    out = [*(layer.sum(axis=0) for layer in tied), np.zeros(len(tied[-1]), np.intp)]
    return [a + b for a, b in zip(into, out, strict=True)]


def places(layers: list[NDArray[np.floating]], counts: list[Indices], every: list[Indices]) -> list[Wide]:
    """Return heights between 0 and 1: of units by their number of major weights, of genes near their units."""
    heights = [spread(-of_all.astype(float), count) for count, of_all in zip(counts, every, strict=True)]
    for gene, unit, tied in ((0, 1, layers[0].T != 0), (-1, -2, layers[-1] != 0)):
        near = (tied @ np.nan_to_num(heights[unit])) / np.maximum(tied.sum(axis=1), 1)
        heights[gene] = spread(-near, counts[gene])
    return heights


def spread(rank: Wide, count: Indices) -> Wide:
    """Return heights at equal distances, the lowest rank at the top; NaN for what has no major weight."""
    there = np.flatnonzero(count)
    heights = np.full(len(rank), np.nan)
    at = np.linspace(1, 0, len(there)) if len(there) > 1 else np.full(len(there), 0.5)
    heights[there[np.argsort(rank[there], kind="stable")]] = at
    return heights


def name_genes(ax: Axes, x: int, count: Indices, height: Wide, names: Sequence[str]) -> None:
    """Write the names of the genes with most ties beside their column, at least a line apart."""
    genes = np.argsort(-count, kind="stable")[:NAMED]
    genes = genes[count[genes] > 0]
    genes = genes[np.argsort(-height[genes], kind="stable")]
    y = height[genes].copy()
    for i in range(1, len(y)):
        y[i] = min(y[i], y[i - 1] - APART)
    for i in reversed(range(len(y))):
        y[i] = max(y[i], y[i + 1] + APART if i + 1 < len(y) else 0)
    away, side = (0.12, "left") if x else (-0.12, "right")
    for gene, at in zip(genes, y, strict=True):
        ax.plot([x, x + away], [height[gene], at], color="0.4", linewidth=0.4)
        ax.text(x + 1.1 * away, at, names[gene], ha=side, va="center", **NAME)
