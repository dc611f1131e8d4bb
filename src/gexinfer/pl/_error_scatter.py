from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer.pl._style import FONT, as_names, colours, dress, gene_errors, new_axes


def error_scatter(
    adata: AnnData, key: str, *, against: str | Sequence[str], ax: Axes | Sequence[Axes] | None = None
) -> Axes | dict[str, Axes]:
    """Compare a model with others gene by gene: figures 3 and 4 of the D-GEX paper.

    One dot a gene, the model's error on x, the other's on y: dots above the diagonal are genes that the model infers
    better.

    Parameters
    ----------
    adata
        Evaluated data; reads `varm["gexinfer_mae"]`.
    key
        The model.
    against
        The model to compare with, or several.
    ax
        Where to draw, one for each of `against`; new axes where it is not given.

    Returns
    -------
    The axes for one name, a dict of axes by name for several. Genes with errors far beyond the others' are off the
    axes; the text counts them.

    Raises
    ------
    KeyError
        A model was not evaluated.
    ValueError
        There are more or fewer axes than models to compare with, or two models infer no gene in common.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> axes = gx.pl.error_scatter(ref, "ridge", against=["nearest", "mean"])
    >>> sorted(axes)
    ['mean', 'nearest']
    >>> axes["mean"].get_xlabel()
    'MAE of ridge (sd units)'
    """
    others = as_names(against)
    errors = gene_errors(adata, [key, *others])
    axes = new_axes(len(others)) if ax is None else [ax] if isinstance(ax, Axes) else list(ax)
    if len(axes) != len(others):
        raise ValueError(f"ax holds {len(axes)} axes for {len(others)} models in against; give one for each.")
    drawn = dict(zip(others, axes, strict=True))
    for other, one in drawn.items():
        both = errors[[key, other]].dropna()
        if both.empty:
            raise ValueError(f"{key!r} and {other!r} infer no gene in common; compare models of the same targets.")
        x, y = both.iloc[:, 0], both.iloc[:, 1]
        above = int((y > x).sum())
        low, ends = both.to_numpy().min(), [end(values) for values in (x, y)]
        margin = 0.04 * (max(ends) - low)
        outside = int(((x > ends[0]) | (y > ends[1])).sum())
        note = f"{above:,} of {len(both):,} genes ({above / len(both):.1%})\nabove the diagonal"
        note += f"\n({outside:,} beyond the axes)" if outside else ""
        one.scatter(x, y, s=5, alpha=0.5, linewidths=0, color=colours(1)[0], rasterized=True)
        one.axline((low, low), slope=1, color="0.3", linewidth=0.8)
        one.set_xlim(max(low - margin, 0), ends[0] + margin)
        one.set_ylim(max(low - margin, 0), ends[1] + margin)
        one.text(0.03, 0.97, note, transform=one.transAxes, va="top", fontsize=FONT)
        dress(one, f"MAE of {key} (sd units)", f"MAE of {other} (sd units)")
    return axes[0] if isinstance(against, str) else drawn


def end(values: pd.Series) -> float:
    """Return where an axis ends: at the largest error, unless a few genes would press all others into a corner."""
    common, largest = float(values.quantile(0.995)), float(values.max())
    return common if largest > 1.5 * common else largest
