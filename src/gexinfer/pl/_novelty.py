from __future__ import annotations

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes

from gexinfer._slots import PERCENTILE, group_codes
from gexinfer.pl._style import FONT, colours, dress, new_axes

# More would not be legible in one column; the least novel go together.
MOST_GROUPS = 15


def novelty(adata: AnnData, groupby: str = "split", *, ax: Axes | None = None) -> Axes:
    """Draw how unlike the training rows the samples of each group are.

    Samples that resemble the validation rows lie at all percentiles alike; those of a kind that the model has never
    seen crowd at 100.

    Parameters
    ----------
    adata
        Data with `obs["gexinfer_novelty_percentile"]`, which `gexinfer.tl.predict` writes.
    groupby
        A column of `obs`; samples without a value are left out.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: a box for each group, the least novel at the bottom, with its quartiles, and whiskers to its 5th and 95th
    percentile; a dot for each sample. Of more than 15 groups the least novel share one box.

    Raises
    ------
    KeyError
        Nothing was predicted, or there is no such column.
    ValueError
        The model was fitted without validation rows, among which a sample would have a percentile, or no sample has a
        group.

    Examples
    --------
    >>> ax = gx.pl.novelty(ref, groupby="split")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['train (540)', 'validation (80)', 'test (76)']
    """
    if PERCENTILE not in adata.obs:
        raise KeyError(f"adata.obs has no {PERCENTILE!r}; run gexinfer.tl.predict(adata) first.")
    if groupby not in adata.obs:
        group_codes(adata.obs, groupby)  # says which columns there are
    if adata.obs[groupby].isna().all():
        raise ValueError(
            f"adata.obs[{groupby!r}] is missing for all {adata.n_obs:,} samples; fill it, or name another."
        )
    # By place: samples may share a name.
    there = (adata.obs[groupby].notna() & adata.obs[PERCENTILE].notna()).to_numpy()
    values, groups = (adata.obs[column].reset_index(drop=True)[there] for column in (PERCENTILE, groupby))
    groups = groups.astype(str)
    if values.empty:
        raise ValueError(
            f"adata.obs[{PERCENTILE!r}] is NaN for all samples with a {groupby!r}: the model was fitted without "
            "validation rows. Mark some, gexinfer.pp.split(adata), fit and predict again."
        )
    medians = values.groupby(groups).median().sort_values(kind="stable")
    if len(medians) > MOST_GROUPS:
        rest = medians.index[: len(medians) - MOST_GROUPS + 1]
        together = f"{len(rest)} others"
        groups = groups.where(~groups.isin(rest), together)
        medians = medians.drop(rest)
        order = [together, *medians.index]
    else:
        order = list(medians.index)
    ax = new_axes()[0] if ax is None else ax
    parts = [values[groups == name].to_numpy() for name in order]
    colour = colours(1)[0]
    ax.boxplot(
        parts,
        orientation="horizontal",
        whis=(5, 95),
        showfliers=False,
        widths=0.6,
        medianprops={"color": "0.1"},
        boxprops={"linewidth": 0.8},
    )
    shift = np.random.default_rng(0)
    for i, part in enumerate(parts):
        ax.scatter(part, i + 1 + shift.uniform(-0.2, 0.2, len(part)), s=4, alpha=0.4, linewidths=0, color=colour)
    ax.set_yticks(np.arange(len(order)) + 1, [f"{n} ({len(p):,})" for n, p in zip(order, parts, strict=True)])
    ax.set_xlim(-2, 102)
    dress(ax, "novelty percentile", "")
    if len(order) > 8:
        ax.tick_params(axis="y", labelsize=FONT - 2)
    return ax
