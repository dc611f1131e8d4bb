from __future__ import annotations

from collections.abc import Sequence

from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer.pl._style import FONT, colours, dress, gene_errors, new_axes


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
    The axes for one name, a dict of axes by name for several.

    Raises
    ------
    KeyError
        A model was not evaluated.
    ValueError
        There are more or fewer axes than models to compare with.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832.
    """
    others = [against] if isinstance(against, str) else list(against)
    errors = gene_errors(adata, [key, *others])
    axes = new_axes(len(others)) if ax is None else [ax] if isinstance(ax, Axes) else list(ax)
    if len(axes) != len(others):
        raise ValueError(f"ax holds {len(axes)} axes for {len(others)} models in against; give one for each.")
    drawn = dict(zip(others, axes, strict=True))
    for other, one in drawn.items():
        both = errors[[key, other]].dropna()
        x, y = both.iloc[:, 0], both.iloc[:, 1]
        above = int((y > x).sum())
        low, high = both.to_numpy().min(), both.to_numpy().max()
        margin = 0.04 * (high - low)
        one.scatter(x, y, s=5, alpha=0.5, linewidths=0, color=colours(1)[0], rasterized=True)
        one.axline((low, low), slope=1, color="0.3", linewidth=0.8)
        one.set_xlim(max(low - margin, 0), x.max() + margin)
        one.set_ylim(max(low - margin, 0), y.max() + margin)
        one.text(
            0.03,
            0.97,
            f"{above:,} of {len(both):,} genes ({above / len(both):.1%})\nabove the diagonal",
            transform=one.transAxes,
            va="top",
            fontsize=FONT,
        )
        dress(one, f"MAE of {key} (sd units)", f"MAE of {other} (sd units)")
    return axes[0] if isinstance(against, str) else drawn
