"""What all figures share: one column wide, colours that everyone can tell apart, the per-gene tables they read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gexinfer._names import listed
from gexinfer._slots import gene_slot

# A column of a two-column paper, in inches, and the smallest text that stays legible in it.
COLUMN = 3.4
FONT = 8
# Values and errors that are not standardised are in those of the layer that was fitted.
UNITS = "(data units)"
# A line has to be told from the others without its colour, too.
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def new_axes(count: int = 1) -> list[Axes]:
    """Return axes side by side, each one column wide."""
    _, axes = plt.subplots(1, count, figsize=(COLUMN * count, COLUMN * 0.9), layout="constrained", squeeze=False)
    return list(axes[0])


def dress(ax: Axes, xlabel: str, ylabel: str, title: str = "") -> None:
    """Label axes, at a size that reads in print."""
    ax.set_xlabel(xlabel, fontsize=FONT)
    ax.set_ylabel(ylabel, fontsize=FONT)
    ax.set_title(title, fontsize=FONT)
    ax.tick_params(labelsize=FONT - 1)
    sns.despine(ax=ax)


def legend_below(ax: Axes, *, columns: int = 2, title: str | None = None, markerscale: float = 1) -> None:
    """Put the legend beneath the axes, where it hides nothing."""
    ax.legend(
        title=title,
        fontsize=FONT - 1,
        title_fontsize=FONT - 1,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncols=columns,
        columnspacing=1,
        markerscale=markerscale,
    )


def colours(count: int) -> list[tuple[float, float, float]]:
    """Return colours that colour-blind readers can tell apart; after nine they begin again."""
    # Without the palette's grey: that is what others and reference lines are drawn in.
    palette = [colour for colour in sns.color_palette("colorblind") if len(set(colour)) > 1]
    return [palette[i % len(palette)] for i in range(count)]


def plain_ticks(axis: Axis, ticks: Sequence[float]) -> None:
    """Give a logarithmic axis these ticks, written as numbers."""
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    axis.set_minor_locator(NullLocator())


def reference_lines(ax: Axes, errors: Mapping[str, float], low: float, high: float) -> list[float]:
    """Draw errors as horizontal lines beside curves that run from `low` to `high`, and return those that were drawn.

    One that would flatten the curves is left off and named in the legend.
    """
    drawn = []
    for i, (name, error) in enumerate(errors.items()):
        label = f"{name} ({error:.3f})"
        if error > high + max(0.3 * (high - low), 0.1 * high):
            ax.plot([], [], color="0.4", linestyle="none", label=f"{label}, above the axis")
        else:
            ax.axhline(error, color="0.4", linestyle=DASHES[1 + i % (len(DASHES) - 1)], linewidth=1, label=label)
            drawn.append(error)
    return drawn


def table_in(adata: AnnData, slot: str, call: str) -> pd.DataFrame:
    """Return a table of `uns`, or say which call writes it."""
    if slot not in adata.uns:
        raise KeyError(f"adata.uns has no {slot!r}; run {call} first.")
    return adata.uns[slot]


def as_names(keys: str | Iterable[str]) -> list[str]:
    """Return names, of which one may stand alone."""
    names = [keys] if isinstance(keys, str) else list(keys)
    if not names:
        raise ValueError("An empty list names no model; name one, or leave it out for all.")
    return names


def gene_errors(adata: AnnData, keys: str | Iterable[str] | None) -> pd.DataFrame:
    """Return the standardised MAE per gene of these models, all where none is named."""
    slot = gene_slot("mae")
    if slot not in adata.varm:
        raise KeyError(f"adata.varm has no {slot!r}; run gexinfer.tl.predict(adata), then gexinfer.tl.evaluate(adata).")
    errors = adata.varm[slot]
    wanted = list(errors.columns) if keys is None else as_names(keys)
    lacking = [key for key in wanted if key not in errors]
    if lacking:
        raise KeyError(
            f"adata.varm[{slot!r}] has no model {listed(lacking)}; it has {listed(errors.columns, 20)}. Fit and "
            "predict it, then run gexinfer.tl.evaluate(adata) again."
        )
    return errors[wanted]
