"""The options that a search tries: lists of values and ranges, a grid of them, and what one trial takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from gexinfer._names import listed
from gexinfer.methods import METHODS, Method, get_method
from gexinfer.methods._contract import checked_options

if TYPE_CHECKING:
    from optuna.trial import Trial

SAMPLERS = ("tpe", "random", "grid")


@dataclass(frozen=True)
class Range:
    """Numbers from the lowest to the highest, both included."""

    low: float
    high: float
    log: bool
    whole: bool


Space = dict[str, list[Any] | Range]


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


def suggested(trial: Trial, name: str, span: list[Any] | Range) -> Any:
    """Return what a trial tries of one option."""
    if isinstance(span, list):
        return trial.suggest_categorical(name, span)
    if span.whole:
        return trial.suggest_int(name, int(span.low), int(span.high), log=span.log)
    return trial.suggest_float(name, span.low, span.high, log=span.log)
