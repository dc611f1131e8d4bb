from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import digests, listed
from gexinfer._slots import SPLIT, TUNE, check_in_memory
from gexinfer.engine.report import Advance, steps
from gexinfer.engine.run import Run
from gexinfer.methods import METHODS, Method, configure, get_method
from gexinfer.methods._contract import checked_options
from gexinfer.tl._fit import REMEDY, Reference, look, resolve_rows
from gexinfer.tl._trials import Troubles, check_seed, fit_once, of_their_kind, shown

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

# So many trials go to their end before any is given up, and each at least this share of its epochs: while the learning
# rate is high, the errors say little of those at the end.
UNPRUNED, WARM_UP = 5, 0.75


@dataclass(frozen=True)
class Range:
    """Numbers from the lowest to the highest, both included."""

    low: float
    high: float
    log: bool
    whole: bool


Space = dict[str, list[Any] | Range]
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
SAMPLERS = ("tpe", "random", "grid")


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


def checked_space(method: Method, space: Mapping[str, Sequence[Any]] | None, options: Mapping[str, Any]) -> Space:
    """Return what is to be searched, or say what is wrong with it."""
    if space is None:
        if not method.space:
            having = [name for name in METHODS if get_method(name).space]
            raise ValueError(
                f"method={method.name!r} has no options that it does not choose itself on the validation rows; "
                f"there is something to tune in {listed(having)}. To search all the same, name options with space=."
            )
        space = {name: span for name, span in method.space.items() if name not in options}
    if not isinstance(space, Mapping) or not space:
        raise ValueError(f"space={space!r} must name options and what to search, e.g. {{'dropout': (0, 0.5)}}.")
    both = [name for name in space if name in options]
    if both:
        raise ValueError(
            f"{both[0]}={options[both[0]]!r} is given for all trials, and space names it, too; leave one out."
        )
    return {name: span_of(method, name, values) for name, values in space.items()}


def span_of(method: Method, name: str, values: Sequence[Any]) -> list[Any] | Range:
    """Return the values of one option: a list, or a range of the option's kind."""
    how = (
        f"space[{name!r}] is {values!r}; give a list of values, (lowest, highest), or (lowest, highest, 'log') with "
        "lowest above 0."
    )
    if isinstance(values, list):
        if not values:
            raise ValueError(how)
        return [checked_options(method, {name: value})[name] for value in values]
    if not isinstance(values, tuple) or len(values) not in (2, 3) or (len(values) == 3 and values[2] != "log"):
        raise ValueError(how)
    low, high = (checked_options(method, {name: end})[name] for end in values[:2])
    kind = get_type_hints(method.config)[name]
    log = len(values) == 3
    if (
        isinstance(low, bool | str | None)
        or isinstance(high, bool | str | None)
        or not low < high
        or (log and low <= 0)
    ):
        raise ValueError(how)
    return Range(low, high, log, whole=float not in (get_args(kind) or (kind,)))


def grid_of(space: Space, sampler: str, n_trials: int) -> list[dict[str, Any]]:
    """Return the settings to try one after another, none where they are to be drawn."""
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler={sampler!r} is not known; choose one of {', '.join(SAMPLERS)}.")
    if isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1:
        raise ValueError(f"n_trials={n_trials!r} must be a whole number from 1 on.")
    ranges = [name for name, span in space.items() if isinstance(span, Range)]
    if sampler == "grid" and ranges:
        raise ValueError(
            f"sampler='grid' takes lists of values, and space[{ranges[0]!r}] is a range. Give a list, or sampler='tpe'."
        )
    lists = {name: span for name, span in space.items() if isinstance(span, list)}
    if ranges or (sampler != "grid" and prod(map(len, lists.values())) > n_trials):
        return []
    return [dict(zip(lists, values, strict=True)) for values in product(*lists.values())][:n_trials]


def inside(setting: Mapping[str, Any], space: Space) -> bool:
    """Whether a setting is one of those that are searched."""
    return all(
        value in span if isinstance(span, list) else value is not None and span.low <= value <= span.high
        for value, span in ((setting[name], span) for name, span in space.items())
    )


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


def opened(storage: str | Path | None, method: str, asked: Sequence[Any]) -> Study:
    """Return the study of just this search, a new one or one that was begun."""
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    name = f"gexinfer {method} {hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]}"
    if not isinstance(storage, str | Path | None):
        raise TypeError(f"storage={storage!r} must be the path of a file, or optuna's URL of a database.")
    if storage is None or (isinstance(storage, str) and "://" in storage):
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
    path = Path(storage).absolute()
    if path.is_dir():
        raise ValueError(f"storage={str(storage)!r} is a directory; name a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Lines of JSON; the lock is a file, because not every file system has links.
        file = JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path)))
        return optuna.create_study(study_name=name, storage=optuna.storages.JournalStorage(file), load_if_exists=True)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"storage={str(storage)!r} is no journal of optuna, or a damaged one ({error}). Name another file; a "
            "database goes by its URL, e.g. 'sqlite:///tune.db'."
        ) from error


def pruner_of(epochs: int) -> BasePruner:
    """Return what gives networks up."""
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=int(WARM_UP * epochs))


def sampler_of(name: str, seed: int, done: int) -> BaseSampler:
    """Return what draws the next setting, seeded by how many there were: to go on is to draw as if never broken off."""
    from optuna.samplers import RandomSampler, TPESampler

    own = int(np.random.SeedSequence([seed, done]).generate_state(1)[0])
    return TPESampler(seed=own) if name == "tpe" else RandomSampler(seed=own)


def finished(study: Study) -> list[FrozenTrial]:
    """Return the trials that came to an end; one that was under way when its process ended did not."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]


def best_of(trials: Sequence[FrozenTrial]) -> float:
    """Return the lowest error of a complete trial, inf where there is none."""
    return min((t.value for t in trials if t.state.name == "COMPLETE" and t.value is not None), default=np.inf)


def next_trial(study: Study, starts: Sequence[Mapping[str, Any]]) -> Trial:
    """Begin a trial: the first of some settings that none has tried, else what the sampler draws."""
    tried = [trial.params for trial in finished(study)]
    left = next((dict(setting) for setting in starts if setting not in tried), None)
    # One may have been left waiting when the process ended.
    if left is not None and not any(trial.state.name == "WAITING" for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial(left)
    return study.ask()


def suggested(trial: Trial, name: str, span: list[Any] | Range) -> Any:
    """Return what a trial tries of one option."""
    if isinstance(span, list):
        return trial.suggest_categorical(name, span)
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)


def after_epoch(trial: Trial, number: int, advance: Advance, told: Mapping[str, Any]) -> None:
    """Show an epoch of a network and give it up where it is worse than others."""
    from optuna import TrialPruned

    advance(0, f"trial {number}: epoch {told['epoch']}/{told['epochs']}, MAE val {told['validation_mae']:.4f}")
    if " block " in told["title"]:
        return  # of some targets alone, so that there is nothing to compare it with
    trial.report(told["validation_mae"], told["epoch"])
    if trial.should_prune():
        raise TrialPruned


@contextmanager
def quiet() -> Iterator[None]:
    """Keep optuna from telling of each trial, and then let it talk as before."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


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
