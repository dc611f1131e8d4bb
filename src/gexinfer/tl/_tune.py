from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import digests
from gexinfer._slots import SPLIT, TUNE, check_in_memory
from gexinfer.engine.report import steps
from gexinfer.engine.run import Run
from gexinfer.methods import configure, get_method
from gexinfer.methods._contract import checked_options
from gexinfer.tl._reference import REMEDY, Reference, look, resolve_rows
from gexinfer.tl._space import checked_space, grid_of, inside, suggested
from gexinfer.tl._study import after_epoch, best_of, finished, next_trial, opened, pruner_of, quiet, sampler_of
from gexinfer.tl._trials import Troubles, check_seed, fit_once, of_their_kind, shown

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


def tune(
    adata: AnnData,
    method: str,
    *,
    space: Mapping[str, Sequence[Any]] | None = None,
    n_trials: int = 30,
    sampler: Literal["tpe", "random", "grid"] = "tpe",
    storage: str | Path | None = None,
    timeout: float | None = None,
    layer: str | None = None,
    targets: str | Sequence[str] | None = None,
    allow_overlap: bool = False,
    rng: int = 0,
    device: str = "auto",
    progress: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Search the options of a method with which its error on the validation rows is lowest.

    By optuna. A network that in the last quarter of its epochs is worse than the median of those before is given up.
    Test rows are not looked at. The lowest of many validation errors is too low, because it was the lowest also by
    chance: fit with what was found, and judge by `gexinfer.tl.evaluate`.

    Parameters
    ----------
    adata
        Whole transcriptomes with landmarks and a split, as for `gexinfer.tl.fit`.
    method
        The method. `kernel`, `knn` and the networks have a space of their own; the others choose their options
        themselves, on the same validation rows, and need no tuning.
    space
        What to search, by option: a list holds the values to choose from, `(low, high)` is a range, and
        `(low, high, "log")` one in which each factor is as likely as another. Where not given, the method's own.
    n_trials
        Settings to try in all. Where the space holds no more, each is tried once.
    sampler
        `"tpe"` learns from the trials before where to look, `"random"` draws, `"grid"` takes each combination of lists
        in turn. The first two begin with the method's defaults where these lie in the space.
    storage
        A file in which the trials are kept, or optuna's URL of a database (`"sqlite:///tune.db"`). The same call goes
        on from there until there are `n_trials` in all; a trial that was under way is done again. Other data, another
        space, other options or another seed begin anew, in the same file.
    timeout
        Seconds after which no further trial is begun.
    layer
        Layer to learn from; `X` where it is not given.
    targets
        Which genes to infer, as in `gexinfer.tl.fit`.
    allow_overlap
        Infer landmarks too, where `targets` names some.
    rng
        Seed of the search, and of each fit, so that `gexinfer.tl.fit` with this seed gives the best trial's model.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.
    **options
        Options that all trials share, as in `gexinfer.tl.fit`.

    Returns
    -------
    The best options, those that all trials share among them, for
    `gexinfer.tl.fit(adata, method, **gexinfer.tl.tune(adata, method))`. Writes `uns["gexinfer_tune"]`, one row a trial:

    `number`, `state`
        From 0 in order; "complete", "pruned" (given up) or "failed".
    `validation_mae`
        Over all targets, in standard deviations; of a trial given up the last that was measured.
    `epochs_run`, `seconds`
        Of networks, how many epochs there were; the time that it took.
    the options
        A column for each in the space.

    Raises
    ------
    KeyError
        A slot is missing.
    TypeError
        The method has no such option, a value is of the wrong kind, or `rng` is no whole number.
    ValueError
        As in `gexinfer.tl.fit`, or there is nothing to search, or no validation row to search by, `sampler="grid"` has
        ranges, `storage` cannot be read, no trial succeeded, or it was started by torchrun in several processes.
    KeyboardInterrupt
        It was interrupted before a trial was complete; later, the best so far is returned.

    Warns
    -----
    UserWarning
        Some trials failed or warned, as `gexinfer.tl.fit` does, or it was interrupted.

    References
    ----------
    Akiba et al., KDD 2019 :cite:p:`akiba2019` (optuna).

    Examples
    --------
    >>> best = gx.tl.tune(ref, "knn", n_trials=4)
    >>> best
    {'metric': 'correlation', 'weights': 'distance'}
    >>> gx.tl.fit(ref, method="knn", **best)
    """
    from optuna import TrialPruned
    from optuna.trial import TrialState

    chosen = get_method(method)
    check_seed(rng)
    default, shared = configure(chosen, options), checked_options(chosen, options)
    searched = checked_space(chosen, space, options)
    settings = grid_of(searched, sampler, n_trials)
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout={timeout!r} must be a number of seconds above 0, or None.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("tune runs in one process; start it without torchrun.")
    check_in_memory(adata)
    sides = resolve_rows(adata, layer, targets, allow_overlap)
    if len(sides.validation) == 0:
        raise ValueError(f"adata.obs[{SPLIT!r}] marks no row as 'validation', by which tune chooses: {REMEDY}")
    reference = look(adata, layer, sides, products=chosen.products)
    spans = {name: repr(span) for name, span in searched.items()}
    asked = [sampler, int(rng), shared, spans, data_digest(adata, reference)]
    own = {name: getattr(default, name) for name in searched}
    starts = settings or ([own] if inside(own, searched) else [])
    wanted, troubles = len(settings) or n_trials, Troubles()

    with quiet(), steps("tune", wanted, show=progress) as advance:
        study = opened(storage, chosen.name, asked)
        study.pruner = pruner_of(default.epochs if chosen.by_epochs else 0)
        done = finished(study)
        if done:
            advance(len(done), f"{len(done):,} trials were in {str(storage)!r}")
        try:
            ends = np.inf if timeout is None else time.monotonic() + timeout
            while len(done) < wanted and (not done or time.monotonic() < ends):
                study.sampler = sampler_of(sampler, rng, len(done))
                trial = next_trial(study, starts)
                setting = {name: suggested(trial, name, span) for name, span in searched.items()}
                label = ", ".join(f"{name}={shown(value)}" for name, value in setting.items())
                run = Run(progress=False, callback=partial(after_epoch, trial, len(done), advance))
                error, state = None, TrialState.FAIL
                with troubles.kept(chosen.name, label):
                    try:
                        config = configure(chosen, {**shared, **setting})
                        fitted, _ = fit_once(adata, reference, chosen, config, rng=rng, device=device, run=run)
                        error, state = float(fitted.model.notes["validation_mae"]), TrialState.COMPLETE
                    except TrialPruned:
                        state = TrialState.PRUNED
                study.tell(trial, error, state)
                done = finished(study)
                advance(1, f"trial {len(done) - 1}: {STATES[state.name]}, the best MAE val {best_of(done):.4f}")
        except KeyboardInterrupt:
            if not np.isfinite(best_of(done)):
                raise
            troubles.interrupted(f"tune: interrupted; these options are the best of {len(done):,} trials.")
        if not np.isfinite(best_of(done)):
            troubles.refuse_none_left(0)
            raise ValueError(f"None of the {len(done):,} trials in {str(storage)!r} succeeded; choose another space=.")
        best = study.best_params
    adata.uns[TUNE] = as_table(done, list(searched))
    troubles.tell("and count as tried")
    return {**shared, **best}


def data_digest(adata: AnnData, reference: Reference) -> str:
    """Return what other data differ in: the trials of one are none of the other's."""
    sides, total = reference.sides, hashlib.sha256()
    names = (
        adata.obs_names[sides.train.rows],
        sides.validation_names,
        adata.var_names[sides.train.landmarks],
        adata.var_names[sides.train.targets],
    )
    for array in (*map(digests, names), reference.moments.mean, reference.moments.squares):
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def as_table(trials: Sequence[FrozenTrial], options: Sequence[str]) -> pd.DataFrame:
    """Return one row a trial, in the form that a file holds."""
    rows = [
        {
            "number": number,
            "state": STATES[trial.state.name],
            "validation_mae": np.nan if trial.value is None else trial.value,
            "epochs_run": len(trial.intermediate_values) or None,
            "seconds": trial.duration.total_seconds() if trial.duration else np.nan,
            **{name: trial.params.get(name) for name in options},
        }
        for number, trial in enumerate(trials)
    ]
    table = pd.DataFrame(rows)
    if table["epochs_run"].isna().all():
        table = table.drop(columns="epochs_run")
    return of_their_kind(table, [name for name in ("epochs_run", *options) if name in table])
