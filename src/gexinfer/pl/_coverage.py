from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._names import listed
from gexinfer._slots import COVERAGE
from gexinfer.pl._style import DASHES, FONT, as_names, colours, dress, new_axes

LABELS = {"genes by error": "tenth of the genes, by test MAE", "samples by novelty": "tenth of the samples, by novelty"}
MARKERS = "os^Dv"


def coverage(
    adata: AnnData, key: str | Sequence[str] | None = None, *, kind: str = "genes by error", ax: Axes | None = None
) -> Axes:
    """Draw the share of measured values that intervals hold, part by part, one line a model.

    Parameters
    ----------
    adata
        Data with `uns["gexinfer_coverage"]`, which `gexinfer.tl.coverage` writes.
    key
        The models; all in the table where not given.
    kind
        Which parts: `"genes by error"`, `"samples by novelty"`, or the column of `obs` that `gexinfer.tl.coverage` was
        given as `groupby`, whose groups are ordered by their coverage.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a line for each model, and a dotted one at the level that was asked for.

    Raises
    ------
    KeyError
        The coverage was not measured, or not of these models or parts.

    Examples
    --------
    >>> table = gx.tl.coverage(ref)
    >>> ax = gx.pl.coverage(ref, kind="samples by novelty")
    >>> ax.get_ylabel()
    'share of values in their interval'
    """
    if COVERAGE not in adata.uns:
        raise KeyError(
            f"adata.uns has no {COVERAGE!r}; run gexinfer.tl.predict(adata, interval=.9), then "
            "gexinfer.tl.coverage(adata)."
        )
    table = adata.uns[COVERAGE]
    wanted = list(dict.fromkeys(table["model"])) if key is None else as_names(key)
    for what, asked in (("model", wanted), ("kind", [kind])):
        lacking = [name for name in asked if name not in set(table[what])]
        if lacking:
            raise KeyError(
                f"adata.uns[{COVERAGE!r}] has no {what} {listed(lacking)}; it has "
                f"{listed(list(dict.fromkeys(table[what])), 20)}. Run gexinfer.tl.coverage(adata) again, for groups "
                "with groupby=."
            )
    table = table[(table["kind"] == kind) & table["model"].isin(wanted)]
    values = table.pivot(index="part", columns="model", values="coverage")
    # Tenths in their order, groups by their coverage.
    order = list(dict.fromkeys(table["part"])) if kind in LABELS else values.mean(axis=1).sort_values().index
    values = values.loc[order, wanted]
    ax = new_axes()[0] if ax is None else ax
    for i, (name, colour) in enumerate(zip(values, colours(len(wanted)), strict=True)):
        line = DASHES[i % len(DASHES)] if kind in LABELS else "none"
        ax.plot(
            np.arange(len(values)),
            values[name],
            color=colour,
            linestyle=line,
            marker=MARKERS[i % len(MARKERS)],
            markersize=4,
            linewidth=1.2,
            label=name,
        )
    for level in sorted(set(table["level"])):
        ax.axhline(level, color="0.3", linestyle=":", linewidth=1, label=f"asked for ({level:g})")
    low = min(float(values.min().min()), float(table["level"].min()))
    ax.set_ylim(max(low - 0.05, 0), 1)
    # Of few samples a share says little.
    sizes = table.drop_duplicates("part").set_index("part")["n_samples"]
    names = values.index if kind in LABELS else [f"{part} ({sizes[part]})" for part in values.index]
    ax.set_xticks(np.arange(len(values)), names, rotation=0 if kind in LABELS else 90)
    ax.legend(fontsize=FONT - 1, frameon=False)
    dress(ax, LABELS.get(kind, kind), "share of values in their interval")
    if kind not in LABELS and len(values) > 16:
        ax.tick_params(axis="x", labelsize=FONT - 3)
    return ax
