"""optuna's study of a search: found again or begun, what draws the next setting, what gives networks up."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gexinfer.engine.report import Advance

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

# So many trials go to their end before any is given up, and each at least this share of its epochs: while the learning
# rate is high, the errors say little of those at the end.
UNPRUNED, WARM_UP = 5, 0.75


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
