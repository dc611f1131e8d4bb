from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gexinfer._names import listed
from gexinfer._record import FittedModel, records
from gexinfer.pl._style import DASHES, FONT, as_names, colours, dress, new_axes


def training(
    adata: AnnData,
    keys: str | Sequence[str] | None = None,
    *,
    against: str | Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw error against epoch, with other models as lines: figure 5 of the D-GEX paper.

    Parameters
    ----------
    adata
        Fitted data; reads the models in `uns`.
    keys
        The networks; all in `uns` where not given. Of a model of several `target_blocks`, each is drawn.
    against
        Models without epochs, drawn at their validation error; all in `uns` where not given.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: validation MAE as solid curves, with a dot at the epoch that was kept, training MAE as dotted curves, the
    others as horizontal lines. A line that would flatten the curves is left off and named in the legend.

    Raises
    ------
    KeyError
        A model is not there.
    ValueError
        There is no network among them.
    """
    models = records(adata)
    wanted = list(models) if keys is None else as_names(keys)
    lines = list(models) if against is None else as_names(against)
    lacking = [name for name in (*wanted, *lines) if name not in models]
    if lacking:
        raise KeyError(f"adata.uns holds no gexinfer model {listed(lacking)}; it holds {listed(list(models), 20)}.")
    curves = {label: errors for name in wanted for label, errors in histories(name, models[name]).items()}
    if not curves:
        raise ValueError(f"None of {wanted} was trained by epochs; run gexinfer.tl.fit(adata, method='dgex') first.")
    lines = [n for n in lines if not histories(n, models[n]) and "validation_mae" in models[n].model.notes]
    ax = new_axes()[0] if ax is None else ax

    for (name, (train, validation)), colour in zip(curves.items(), colours(len(curves)), strict=True):
        epochs = np.arange(1, len(validation) + 1)
        best = int(validation.argmin())
        ax.plot(epochs, validation, color=colour, label=f"{name}, validation ({validation[best]:.3f})", linewidth=1.3)
        ax.plot(epochs, train, color=colour, linestyle=":", label=f"{name}, training", linewidth=1)
        ax.plot(epochs[best], validation[best], "o", color=colour, markersize=4)
    low = min(min(t.min(), v.min()) for t, v in curves.values())
    high = max(max(t.max(), v.max()) for t, v in curves.values())
    for i, name in enumerate(lines):
        error = float(models[name].model.notes["validation_mae"])
        label = f"{name} ({error:.3f})"
        if error > high + 0.3 * (high - low):
            ax.plot([], [], color="0.4", linestyle="none", label=f"{label}, above the axis")
        else:
            ax.axhline(error, color="0.4", linestyle=DASHES[1 + i % (len(DASHES) - 1)], linewidth=1, label=label)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=FONT - 1, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    dress(ax, "epoch", "MAE over genes (sd units)")
    return ax


def histories(name: str, fitted: FittedModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the training and the validation MAE after each epoch of each network of a model."""
    arrays = fitted.model.arrays
    n = sum(slot.endswith("history.validation_mae") for slot in arrays)
    return {
        name if n == 1 else f"{name} {b + 1}": (arrays[f"{b}.history.train_mae"], arrays[f"{b}.history.validation_mae"])
        for b in range(n)
    }
