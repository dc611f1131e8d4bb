from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._slots import SWEEP, SWEEP_CURVES, check_in_memory
from gexinfer.engine.report import steps
from gexinfer.methods import Method, Model, configure, get_method
from gexinfer.tl._reference import check_validation, look, resolve_rows
from gexinfer.tl._trials import (
    SCORES,
    Plans,
    Troubles,
    check_finite,
    check_seed,
    fit_once,
    judged_on,
    named_methods,
    of_their_kind,
    planned,
    scores_of,
    shown,
    target_scale,
    watched_run,
)

# What is measured after each epoch.
EPOCHS = ("train_mae", "validation_mae", "test_mae")


def sweep(
    adata: AnnData,
    method: str,
    grid: Mapping[str, Sequence[Any]],
    *,
    against: Sequence[str] | Mapping[str, Mapping[str, Any]] = ("mean", "ridge"),
    layer: str | None = None,
    targets: str | Sequence[str] | None = None,
    allow_overlap: bool = False,
    rng: int = 0,
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Fit a method with each combination of some options, and measure all on validation and test rows.

    All learn from the same training rows, whose moments are summed up once. It shows what an option does: figures 1 and
    5 of the D-GEX paper. To *choose* one, look at `validation_mae`: the lowest of many test errors is too low,
    because it was the lowest also by chance.

    Parameters
    ----------
    adata
        Whole transcriptomes with landmarks and a split, as for `gexinfer.tl.fit`.
    method
        The method.
    grid
        Options and the values of each: `{"layers": [1, 2, 3], "hidden": [300, 1000]}` are six settings.
    against
        Other models to compare with, as in `gexinfer.tl.compare`; an empty list for none.
    layer
        Layer to learn from; `X` where it is not given.
    targets
        Which genes to infer, as in `gexinfer.tl.fit`.
    allow_overlap
        Infer landmarks too, where `targets` names some.
    rng
        Seed; each fit starts from it: `gexinfer.tl.fit` with the options of a row and this seed gives its model.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.
    **options
        Options that all settings share, as in `gexinfer.tl.fit`.

    Returns
    -------
    A table, one row a setting in the order of the grid, then the models to compare with. Writes it, and for networks
    the curves; no model and no layer:

    `uns["gexinfer_sweep"]`
        `method`; `reference`, whether it is a model to compare with; each option of the grid, missing for these;
        `n_parameters` (weights of the network that infers); `validation_mae`; and on the test rows `mae`, `mae_data`,
        `pearson` and `r2` as `gexinfer.tl.evaluate` has them; `best_epoch`; `seconds` of the fit, with the test error
        after each epoch, but without the pass over the training rows that all share.
    `uns["gexinfer_sweep_curves"]`
        `setting`, `epoch`, and after it `train_mae`, `validation_mae` and `test_mae`, over all targets. The test error
        chooses nothing: the epoch that is kept is that with the lowest validation error.

    Raises
    ------
    KeyError
        A slot is missing.
    TypeError
        The method has no such option, or `rng` is no whole number.
    ValueError
        As in `gexinfer.tl.fit`, or the grid holds no value, a setting twice, an option that is also among the shared
        ones, or a combination that cannot be; there are no test rows; or no fit succeeded.
    KeyboardInterrupt
        It was interrupted in the first fit.

    Warns
    -----
    UserWarning
        Some fits failed, and their rows hold NaN; some fits warned, as `gexinfer.tl.fit` does; or it was interrupted,
        and the table holds the fits before.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> table = gx.tl.sweep(ref, "dgex", {"hidden": [16, 64]}, epochs=3)
    >>> table.query("~reference")[["hidden", "n_parameters"]]
               hidden  n_parameters
    hidden=16      16         24196
    hidden=64      64         38644
    """
    chosen = get_method(method)
    check_seed(rng)
    settings = combined(grid, options)
    check_in_memory(adata)
    sides = resolve_rows(adata, layer, targets, allow_overlap)
    test = judged_on(adata, sides.train, "to judge")
    plans: Plans = {}
    for label, setting in settings.items():
        plans[label] = chosen, configure(chosen, {**options, **setting})
        check_validation(chosen, plans[label][1], sides)
    others = planned(named_methods(against, "against"), sides) if len(against) else {}
    every = {**plans, **others}
    reference = look(adata, layer, sides, products=any(m.products for m, _ in every.values()))
    check_finite(adata, test, layer)
    scale = target_scale(reference)

    rows: dict[str, dict[str, Any]] = {}
    curves: list[pd.DataFrame] = []
    troubles = Troubles()
    try:
        with steps("sweep", len(every), show=progress) as advance:
            for label, (one, config) in every.items():
                row = {"method": one.name, "reference": label in others, **settings.get(label, {})}
                row |= dict.fromkeys(["validation_mae", *SCORES, "seconds"], np.nan)
                run = watched_run(partial(advance, 0), label, test if label in plans else None)
                with troubles.kept(one.name, label):
                    fitted, seconds = fit_once(adata, reference, one, config, rng=rng, device=device, run=run)
                    row |= {**scores_of(fitted, test, scale, device), **noted(fitted.model, one), "seconds": seconds}
                    if one.by_epochs and label in plans:
                        curves.append(after_each_epoch(fitted.model, label))
                rows[label] = row
                advance(1, f"{label}: MAE val {row['validation_mae']:.4f}, test {row['mae']:.4f}")
    except KeyboardInterrupt:
        if not rows:
            raise
        troubles.interrupted(f"sweep: interrupted; the table holds the {len(rows):,} of {len(every):,} fits before.")
    troubles.refuse_none_left(sum(np.isfinite(rows[label]["mae"]) for label in rows if label in plans))
    table = as_table(rows, list(grid))
    adata.uns[SWEEP] = table
    adata.uns.pop(SWEEP_CURVES, None)
    if curves:
        adata.uns[SWEEP_CURVES] = pd.concat(curves, ignore_index=True)
    troubles.tell("and their rows hold NaN")
    return table.copy()


def combined(grid: Mapping[str, Sequence[Any]], shared: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of a grid by what they are called: "layers=1, hidden=300"."""
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"grid={grid!r} must name options and their values, e.g. {{'layers': [1, 2, 3]}}.")
    for name, values in grid.items():
        if isinstance(values, str) or np.ndim(values) != 1 or len(values) == 0:
            raise ValueError(f"grid[{name!r}] is {values!r}; give a list of values, e.g. {{{name!r}: [{values!r}]}}.")
        if name in shared:
            raise ValueError(
                f"{name}={shared[name]!r} is given for all settings, and grid names it, too; leave one out."
            )
    plain = [[v.item() if isinstance(v, np.generic) else v for v in values] for values in grid.values()]
    settings = [dict(zip(grid, values, strict=True)) for values in product(*plain)]
    named = {", ".join(f"{name}={shown(v)}" for name, v in setting.items()): setting for setting in settings}
    if len(named) < len(settings):
        raise ValueError(f"grid={dict(grid)!r} names a setting more than once; leave out the copies.")
    return named


def noted(model: Model, method: Method) -> dict[str, Any]:
    """Return what a model says of itself."""
    found = {name: model.notes[name] for name in ("validation_mae", "best_epoch") if name in model.notes}
    if method.by_epochs:
        # Those of the networks, which are numbered; not what was measured of them.
        weights = [a.size for name, a in model.arrays.items() if name[0].isdigit() and ".history." not in name]
        found["n_parameters"] = sum(weights)
    return found


def after_each_epoch(model: Model, setting: str) -> pd.DataFrame:
    """Return the errors after each epoch; of several networks the mean, each for its share of the targets."""
    share = np.bincount(model.arrays["block"])
    errors = {
        name: np.average([model.arrays[f"{b}.history.{name}"] for b in range(len(share))], axis=0, weights=share)
        for name in EPOCHS
    }
    table = pd.DataFrame(errors)
    table.insert(0, "epoch", np.arange(1, len(table) + 1))
    table.insert(0, "setting", setting)
    return table


def as_table(rows: Mapping[str, Mapping[str, Any]], options: Sequence[str]) -> pd.DataFrame:
    """Return rows as a table whose options keep their kind, also where they are missing, and can be written."""
    table = pd.DataFrame.from_dict(rows, orient="index")
    table = of_their_kind(table, [name for name in (*options, "best_epoch", "n_parameters") if name in table])
    measured = ["n_parameters", "validation_mae", *SCORES, "best_epoch", "seconds"]
    return table[["method", "reference", *options, *(name for name in measured if name in table)]]
