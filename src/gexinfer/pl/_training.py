from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gexinfer._fitted import FittedModel
from gexinfer._names import listed
from gexinfer._record import records
from gexinfer._slots import SWEEP, SWEEP_CURVES
from gexinfer.methods import get_method
from gexinfer.pl._style import DASHES, as_names, colours, dress, legend_below, new_axes, reference_lines, table_in


@dataclass(frozen=True)
class Curve:
    """The error after each epoch that is drawn and named, which epoch was kept, and the training error where drawn."""

    label: str
    error: np.ndarray
    kept: int
    beneath: tuple[str, np.ndarray] | None = None


def training(
    adata: AnnData,
    key: str | Sequence[str] | None = None,
    *,
    against: str | Sequence[str] | None = None,
    sweep: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw error against epoch, with other models as lines: figure 5 of the D-GEX paper.

    Parameters
    ----------
    adata
        Fitted data; reads the models in `uns`, or with `sweep` the tables of `gexinfer.tl.sweep`.
    key
        The networks, or the settings of the sweep by their names in its table; all where not given. Of a model of
        several `target_blocks`, each is drawn; of one of `auto` that is named, its networks.
    against
        Models without epochs, drawn at their validation error, or with `sweep` at their test error; all that are there
        where not given.
    sweep
        Draw the test error of each setting of `uns["gexinfer_sweep"]`, as the paper does, in the place of models.
    ax
        Where to draw; new axes where it is not given.

    Returns
    -------
    The axes: validation MAE as solid curves, with a dot at the epoch that was kept, training MAE as dotted curves, the
    others as horizontal lines. Of a sweep, test MAE, with a dot at the epoch that was kept by validation MAE; the axis
    is that of the last two thirds of the epochs. A line that would flatten the curves is left off and named in the
    legend.

    Raises
    ------
    KeyError
        A model, a setting or the sweep is not there.
    ValueError
        There is no network among them.

    Examples
    --------
    >>> gx.tl.fit(ref, method="dgex", hidden=64, epochs=5)
    >>> ax = gx.pl.training(ref, "dgex", against="ridge")
    >>> ax.get_ylabel()
    'MAE over genes (sd units)'
    """
    curves, lines = of_sweep(adata, key, against) if sweep else of_models(adata, key, against)
    ax = new_axes()[0] if ax is None else ax
    for i, (curve, colour) in enumerate(zip(curves, colours(len(curves)), strict=True)):
        epochs = np.arange(1, len(curve.error) + 1)
        # Training curves are dotted, so that the others are solid; alone they can be told apart without colour.
        style = "-" if curve.beneath else DASHES[i % len(DASHES)]
        ax.plot(epochs, curve.error, color=colour, linestyle=style, label=curve.label, linewidth=1.3)
        if curve.beneath:
            label, error = curve.beneath
            ax.plot(epochs, error, color=colour, linestyle=":", label=label, linewidth=1)
        ax.plot(epochs[curve.kept], curve.error[curve.kept], "o", color=colour, markersize=4)
    every = [error for curve in curves for error in (curve.error, *(curve.beneath or ())[1:])]
    if sweep:
        # Settings differ by little at the end, and by much from the first epochs.
        every = [error[len(error) // 3 :] for error in every]
    low, high = min(e.min() for e in every), max(e.max() for e in every)
    shown = [low, high, *reference_lines(ax, lines, low, high)]
    if sweep:
        margin = 0.05 * max(max(shown) - min(shown), 0.1 * high)
        ax.set_ylim(min(shown) - margin, max(shown) + margin)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_below(ax)
    dress(ax, "epoch", f"{'test ' if sweep else ''}MAE over genes (sd units)")
    return ax


def of_models(
    adata: AnnData, key: str | Sequence[str] | None, against: str | Sequence[str] | None
) -> tuple[list[Curve], dict[str, float]]:
    """Return the curves of the networks in `uns`, and the validation errors of the models beside them."""
    models = records(adata)
    networks = [name for name, fitted in models.items() if get_method(fitted.method).by_epochs]
    wanted = networks if key is None else as_names(key)
    lines = list(models) if against is None else as_names(against)
    lacking = [name for name in (*wanted, *lines) if name not in models]
    if lacking:
        raise KeyError(f"adata.uns holds no gexinfer model {listed(lacking)}; it holds {listed(list(models), 20)}.")
    curves = []
    for model in wanted:
        for name, (train, validation) in histories(model, models[model]).items():
            best = int(validation.argmin())
            label = f"{name}, validation ({validation[best]:.3f})"
            curves.append(Curve(label, validation, best, (f"{name}, training", train)))
    if not curves:
        raise ValueError(
            f"None of {wanted or list(models)} was trained by epochs; run gexinfer.tl.fit(adata, method='dgex') first."
        )
    lines = [n for n in lines if n not in networks and "validation_mae" in models[n].model.notes]
    return curves, {name: float(models[name].model.notes["validation_mae"]) for name in lines}


def of_sweep(
    adata: AnnData, key: str | Sequence[str] | None, against: str | Sequence[str] | None
) -> tuple[list[Curve], dict[str, float]]:
    """Return the test curves of the settings of a sweep, and the test errors of the models that it was against."""
    call = "gexinfer.tl.sweep(adata, 'dgex', {'dropout': [0.0, 0.1, 0.25]})"
    table, epochs = table_in(adata, SWEEP, call), adata.uns.get(SWEEP_CURVES)
    if epochs is None:
        raise ValueError(f"adata.uns[{SWEEP!r}] is of a method that does not learn by epochs; run {call} first.")
    others = table.loc[table["reference"].astype(bool), "mae"].dropna().to_dict()
    there = list(dict.fromkeys(epochs["setting"]))
    wanted = there if key is None else as_names(key)
    lines = list(others) if against is None else as_names(against)
    lacking = [name for name in wanted if name not in there] + [name for name in lines if name not in others]
    if lacking:
        raise KeyError(
            f"adata.uns[{SWEEP!r}] has no {listed(lacking)}; it has the settings {listed(there, 20)} against "
            f"{listed(list(others), 20)}."
        )
    curves = []
    for name in wanted:
        own = epochs[epochs["setting"] == name]
        error, kept = own["test_mae"].to_numpy(float), int(own["validation_mae"].to_numpy(float).argmin())
        curves.append(Curve(f"{name} ({error[kept]:.3f})", error, kept))
    return curves, {name: float(others[name]) for name in lines}


def histories(name: str, fitted: FittedModel) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the training and the validation MAE after each epoch of each network of a model."""
    arrays, end = fitted.model.arrays, "history.validation_mae"
    starts = [slot.removesuffix(end) for slot in arrays if slot.endswith(end)]
    found = {}
    for start in sorted(starts, key=lambda start: [int(part) for part in start.split(".")[:-1]]):
        place = int(start.split(".")[0])
        if "members" in fitted.model.notes:
            label = f"{name}: {str(fitted.model.notes['members']).split('; ')[place]}"
        else:
            label = name if len(starts) == 1 else f"{name} {place + 1}"
        found[label] = arrays[f"{start}history.train_mae"], arrays[start + end]
    return found
