from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._names import listed
from gexinfer._slots import gene_slot
from gexinfer.pl._style import DASHES, colours, dress, gene_errors, legend_below, new_axes


def error_density(adata: AnnData, key: str | Sequence[str] | None = None, *, ax: Axes | None = None) -> Axes:
    """Draw the density of per-gene errors, one curve a model: figure 2 of the D-GEX paper.

    Parameters
    ----------
    adata
        Evaluated data; reads `varm["gexinfer_mae"]`.
    key
        The models; all that were evaluated where not given.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes. The legend gives each model's mean MAE, the best first. The axis ends where 99 % of the genes of every
    model but the worst lie.

    Raises
    ------
    KeyError
        A model was not evaluated.
    ValueError
        No gene has an error.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> ax = gx.pl.error_density(ref, ["ridge", "mean"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['ridge (0.594)', 'mean (0.817)']
    """
    errors = gene_errors(adata, key)
    if errors.isna().all(axis=None):
        raise ValueError(
            f"adata.varm[{gene_slot('mae')!r}] is NaN throughout for {listed(errors.columns)}: all genes were constant "
            "in the training rows, or none of the targets is in adata."
        )
    errors = errors[errors.mean().sort_values().index]
    ax = new_axes()[0] if ax is None else ax
    for i, (name, colour) in enumerate(zip(errors, colours(errors.shape[1]), strict=True)):
        values = errors[name].dropna()
        if values.nunique() < 2:
            continue
        label = f"{name} ({values.mean():.3f})"
        sns.kdeplot(
            x=values, ax=ax, color=colour, linestyle=DASHES[i % len(DASHES)], label=label, linewidth=1.3, clip=(0, None)
        )
    ends = np.sort(errors.quantile(0.99).dropna().to_numpy())
    ax.set_xlim(0, 1.05 * ends[max(len(ends) - 2, 0)])
    if ax.lines:
        # A curve may be anywhere within the axes.
        legend_below(ax, title="mean MAE")
    dress(ax, "MAE of a gene (sd units)", "density of genes")
    return ax
