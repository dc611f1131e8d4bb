"""What a method is: a config, `fit`, `predict`, and a model that is nothing but data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from gexinfer.engine.blocks import Float, Indices, Pairs
from gexinfer.engine.moments import Moments
from gexinfer.engine.run import Run

Scalar = bool | int | float | str
# How many training samples are named as similar.
SIMILAR = 5


@dataclass(frozen=True)
class Model:
    """What a method has learned: named arrays, and plain scalars for people to read."""

    arrays: Mapping[str, np.ndarray]
    notes: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """Another model to start from, and where in it each landmark and target of the task stands: -1 for nowhere."""

    model: Model
    config: Any
    landmarks: Indices
    targets: Indices


@dataclass(frozen=True)
class Task:
    """What a method learns from: standardised rows, never an AnnData."""

    train: Pairs
    validation: Pairs
    # Of the standardised training rows; of each column alone where the method does not ask for `products`.
    moments: Moments
    rng: np.random.Generator
    device: str
    # What is asked of the training of a network.
    run: Run = Run()
    start: Start | None = None
    # Samples of which only the landmarks are known.
    unlabeled: Pairs | None = None


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    `fit(task, config)` learns from standardised rows. `predict(model, config, blocks, device)` yields one block of
    standardised targets for each block of standardised landmarks. An `ArithmeticError` or `ValueError` of theirs
    reaches the user as it stands.
    """

    name: str
    config: type
    fit: Callable[[Task, Any], Model]
    predict: Callable[[Model, Any, Iterable[Float], str], Iterator[Float]]
    # Whether validation rows pick something, so that there must be some.
    selects: Callable[[Any], bool] = lambda config: True
    # Whether it learns from X'X and X'Y, so that the pass over the training rows sums them up.
    products: bool = False
    # The model is made of training samples: sharing it shares people's expression profiles.
    holds_samples: bool = False
    # Standard deviation of what `predict` yields, in the same form; of networks, of ensembles alone.
    std: Callable[[Model, Any, Iterable[Float], str], Iterator[Float]] | None = None
    # The most similar training samples of each row: (rows, SIMILAR) their places and their weights, the largest first.
    similar: Callable[[Model, Any, Iterable[Float], str], Iterator[tuple[Indices, Float]]] | None = None
    # `jacobian(model, config, X, weights, device)`: how much each target changes with each landmark, in each row times
    # the (row, landmark) weight, summed over rows: (landmarks, targets) of standardised genes.
    jacobian: Callable[[Model, Any, Float, Float, str], Float] | None = None
    # The hidden units that the output sees: for each block of landmarks one array for each network of the model.
    hidden: Callable[[Model, Any, Iterable[Float], str], Iterator[list[Float]]] | None = None
    # Takes rows that lack landmarks, as NaN, and yields (rows, landmarks + targets), the lacking ones inferred, too.
    any_panel: bool = False
    # The same model with its settings kept, of training and validation rows together; and whether that is how a fit
    # ends, once its error on the validation rows is known.
    refit: Callable[[Task, Any, Model], Model] | None = None
    ends_with_refit: bool = False
    # Arrays of the model that say something of each target, for people to read beside the gene.
    per_gene: tuple[str, ...] = ()
    # A network, which learns by epochs; the options that a model to start from decides, and those that are others then.
    by_epochs: bool = False
    shape: tuple[str, ...] = ()
    from_start: Mapping[str, Scalar] = field(default_factory=dict)
    # Whether samples of which only the landmarks are known take part.
    takes_unlabeled: bool = False
    # What is worth tuning, as `tl.tune` takes it: a list of values, or the lowest and the highest, and "log".
    space: Mapping[str, Any] = field(default_factory=dict)

    def has_std(self, config: Any) -> bool:
        """Whether a model that was fitted with these options knows the standard deviation of what it infers."""
        return self.std is not None and (not self.by_epochs or config.n_members > 1)


def configure(method: Method, options: Mapping[str, Any]) -> Any:
    """Return the method's config for the user's options, or say which options there are."""
    return method.config(**checked_options(method, options))


def checked_options(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's options with plain values, or say which there are and of what kind; not if they go together."""
    hints = get_type_hints(method.config)
    kinds = {option.name: hints[option.name] for option in fields(method.config)}
    plain = {}
    for name, value in options.items():
        if name not in kinds:
            there = f"it takes {', '.join(kinds)}" if kinds else "it takes no options"
            raise TypeError(f"{name}={value!r} is not an option of method={method.name!r}; {there}.{others(name)}")
        # A numpy scalar is a number to its user, but no part of a record.
        plain[name] = value.item() if isinstance(value, np.generic) else value
        # None where it is the default says: choose.
        if plain[name] is not None or getattr(method.config, name, ...) is not None:
            check_option(name, plain[name], kinds[name], getattr(method.config, name, None))
    return plain


def others(option: str) -> str:
    """Say which methods have an option that this one has not."""
    from gexinfer.methods import METHODS, get_method

    having = [method for method in METHODS if option in (own.name for own in fields(get_method(method).config))]
    return f" Methods that take {option}: {', '.join(having)}; name one with method=." if having else ""


def check_option(name: str, value: Any, kind: Any, default: Any) -> None:
    """Refuse a value that is not of the option's kind: one of some words, a number, a yes or no."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(get_args(kind))}.")
        return
    kinds = {k for k in (get_args(kind) or (kind,)) if k is not type(None)}
    accepted = kinds | ({int} if float in kinds else set())
    if type(value) not in accepted:
        (wanted,) = kinds
        words = {int: "a whole number", float: "a number", bool: "True or False", str: f"text, e.g. {default!r}"}
        raise TypeError(f"{name}={value!r} must be {words[wanted]}.")


def check_penalty(penalty: float | None, instead: str = "") -> None:
    """Refuse a penalty that is none."""
    if penalty is not None and not 0 < penalty < np.inf:
        raise ValueError(f"penalty={penalty!r} must be positive and finite, or None to choose it. {instead}".rstrip())


def mean_absolute_error(predicted: Float, measured: Float) -> float:
    """Return the MAE over all entries, summed in float64."""
    return float(np.abs(predicted - measured).mean(dtype=np.float64))
