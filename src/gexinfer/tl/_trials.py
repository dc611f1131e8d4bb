"""What is shared by all that fits several models from the same rows: which ones, one fit, its scores, its troubles."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import PREDICT_ROWS, FittedModel
from gexinfer._names import listed
from gexinfer._slots import SPLIT, check_name, split_rows
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Float, Rows, Scale, dense, row_slices
from gexinfer.engine.moments import moments
from gexinfer.engine.report import warn
from gexinfer.engine.run import Run
from gexinfer.methods import Method, configure, get_method
from gexinfer.tl._learn import learn
from gexinfer.tl._reference import Reference, Sides, check_validation
from gexinfer.tl._scores import Classes, of_genes
from gexinfer.tl._tables import over_genes

Plans = dict[str, tuple[Method, Any]]
# What is known of each fit on the test rows.
SCORES = ("mae", "mae_data", "pearson", "r2")


def named_methods(
    methods: Sequence[str] | Mapping[str, Mapping[str, Any]], argument: str = "methods"
) -> dict[str, dict[str, Any]]:
    """Return the options of each model, by its name."""
    if isinstance(methods, str) or not methods or not all(isinstance(name, str) for name in methods):
        raise ValueError(
            f"{argument}={methods!r} must be a list of methods, e.g. ['mean', 'ridge', 'kernel'], or a mapping to "
            "their options, e.g. {'ridge': {}, 'short': {'method': 'dgex', 'epochs': 10}}."
        )
    if isinstance(methods, Mapping):
        return {name: dict(options) for name, options in methods.items()}
    return {name: {} for name in methods}


def planned(options: Mapping[str, Mapping[str, Any]], sides: Sides) -> Plans:
    """Return the method and the config of each model, having refused what cannot be fitted."""
    plans = {}
    for name, given in options.items():
        own = {option: value for option, value in given.items() if option != "method"}
        method = get_method(given.get("method", name))
        check_name(name, method.name)
        plans[name] = method, configure(method, own)
        check_validation(method, plans[name][1], sides)
    return plans


def with_mean(options: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Add the mean predictor where it is not there, so that every number can be judged."""
    there = any(given.get("method", name) == "mean" for name, given in options.items())
    return dict(options) if there else {"mean": {}, **options}


def check_seed(rng: Any) -> None:
    """Refuse what is no seed: each of several fits starts from it."""
    if isinstance(rng, bool) or not isinstance(rng, int | np.integer) or rng < 0:
        raise TypeError(f"rng={rng!r} must be a whole number from 0 on: several fits start from it.")


def judged_on(adata: AnnData, train: Rows, purpose: str) -> Rows:
    """Return the test rows of the genes of the training rows."""
    rows = split_rows(adata, "test")
    if len(rows) == 0:
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks no row as 'test', on which {purpose}: run gexinfer.pp.split(adata)."
        )
    return replace(train, rows=rows)


def check_finite(adata: AnnData, rows: Rows, layer: str | None) -> None:
    """Refuse NaN and inf where predictions are made or judged, before anything is fitted."""
    names = adata.var_names[np.concatenate([rows.landmarks, rows.targets])]
    refuse_not_finite(moments(rows.blocks()).not_finite, names, len(rows), where_from(layer))


def target_scale(reference: Reference) -> Scale:
    """Return mean and standard deviation of the targets over the training rows."""
    scale, p = reference.moments.scale, len(reference.sides.train.landmarks)
    return Scale(scale.mean[p:], scale.sd[p:])


def fit_once(
    adata: AnnData,
    reference: Reference,
    method: Method,
    config: Any,
    *,
    rng: int,
    device: str,
    run: Run,
    refit: bool = True,
) -> tuple[FittedModel, float]:
    """Fit one method without a word; return the model and the seconds it took.

    A fit that Ctrl-C has cut short is no model here: it would stand in a table like those that were not.
    """
    started = perf_counter()
    fitted = learn(adata, reference, method, config, method.name, rng=rng, device=device, run=run, refit=refit)
    if any(note.startswith(("epochs_done", "interrupted")) for note in fitted.model.notes):
        raise KeyboardInterrupt
    return fitted, perf_counter() - started


def watched_run(tell: Callable[[str], None], label: str, test: Rows | None = None) -> Run:
    """Return a run without a bar of its own, whose epochs are told beside the label."""

    def callback(told: dict[str, Any]) -> None:
        tell(f"{label}: epoch {told['epoch']}/{told['epochs']}, MAE val {told['validation_mae']:.4f}")

    return Run(progress=False, callback=callback, test=test)


def scores_of(fitted: FittedModel, test: Rows, scale: Scale, device: str) -> dict[str, float]:
    """Return the scores of a model on test rows, in one pass over blocks, as `gexinfer.tl.evaluate` defines them.

    `scale` is that of the targets, in which a standardised error is counted; it need not be the model's.
    """
    # numba takes longer to import than the rest of the package.
    from gexinfer.engine.errors import Sums, add_up

    p, q, measured = len(test.landmarks), len(test.targets), deque[Float]()
    columns = np.concatenate([test.landmarks, test.targets])

    def landmarks() -> Iterator[np.ndarray]:
        for part in row_slices(len(test), PREDICT_ROWS):
            block = dense(test.source, test.rows[part], columns)
            measured.append(block[:, p:].astype(np.float32, order="C"))
            yield block[:, :p]

    # One batch and one class; of the mean's prediction and of the model's.
    alike = Classes(np.zeros(len(test), np.intp), 1, np.zeros((len(test), 1), np.intp), [])
    sums = Sums(np.zeros((2, 1, q)), np.zeros((2, 1, 4, q)), np.empty((2, 0, 6)))
    mean = scale.mean.astype(np.float32)
    known = mean.astype(float), scale.factor, 0, q
    for _, block in fitted.predict_blocks(landmarks(), device=device):
        y = measured.popleft()
        of_rows = alike.batch[: len(y)], alike.codes[: len(y)]
        for given, errors, classes in zip((np.tile(mean, (len(y), 1)), block), sums.errors, sums.classes, strict=True):
            add_up(y, given.astype(np.float32, order="C", copy=False), *known, *of_rows, errors, classes)
    found = of_genes(sums, 1, alike, scale, np.full((1, q), np.nan))
    return over_genes({metric: found[metric][-1] for metric in SCORES})


@dataclass(frozen=True)
class Troubles:
    """What goes wrong in some of many fits: kept while they last, and told at the end, once for each model."""

    # By model: in which fits, and what was said.
    warned: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    failed: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    last: list[str] = field(default_factory=list)

    @contextmanager
    def kept(self, model: str, label: str) -> Iterator[None]:
        """Keep the warnings of a fit, and what it cannot go on from: an `ArithmeticError` or a `ValueError`."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            try:
                yield
            except (ArithmeticError, ValueError) as error:
                self.failed.setdefault(model, []).append((label, str(error)))
            except KeyboardInterrupt:
                caught.clear()  # that a network was cut short is told of the whole, and there is no model to go on with
                raise
            finally:
                own = [message for message in caught if message.category is UserWarning]
                self.warned.setdefault(model, []).extend((label, str(message.message)) for message in own)
        for message in caught:
            if message.category is not UserWarning:
                warnings.warn_explicit(message.message, message.category, message.filename, message.lineno)

    def interrupted(self, message: str) -> None:
        """Keep what there is to say of the end."""
        self.last.append(message)

    def refuse_none_left(self, done: int) -> None:
        """Refuse to return a table without a number."""
        if done == 0 and self.failed:
            model, ((label, message), *_) = next(iter(self.failed.items()))
            raise ValueError(f"No fit succeeded. {model}, {label}: {message}")

    def tell(self, left: str) -> None:
        """Warn of each model's first trouble, and name the fits that had one; `left` says what came of failing."""
        for model, found in self.failed.items():
            warn(f"{model}: {len(found)} fits failed, {left}: {fits(found)}. The first: {found[0][1]}")
        for model, found in self.warned.items():
            if found:
                warn(f"{model}: a warning in these fits: {fits(found)}. The first: {found[0][1]}")
        for message in self.last:
            warn(message)


def fits(found: Sequence[tuple[str, str]]) -> str:
    return listed(list(dict.fromkeys(label for label, _ in found)))


def shown(value: Any) -> str:
    """Return a value as a person writes it, without the last digits that rounding left."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def of_their_kind(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return a table whose named columns are numbers or words also where values are missing: such can be written."""

    def kept(column: pd.Series) -> Any:
        converted = column.convert_dtypes()
        if pd.api.types.is_float_dtype(converted):
            return column.astype(float)  # that of pandas for missing values has no place in a file
        if pd.api.types.is_numeric_dtype(converted):
            return converted
        return pd.Categorical([None if pd.isna(value) else shown(value) for value in column])

    return table.assign(**{name: kept(table[name]) for name in names})
