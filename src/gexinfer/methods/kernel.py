"""Kernel ridge regression for all targets at once, which is the mean of a Gaussian process; its sd on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from gexinfer.engine.blocks import Float, Pairs
from gexinfer.engine.device import pick_device
from gexinfer.engine.memory import amount, available
from gexinfer.engine.report import say, steps, warn
from gexinfer.methods._contract import Method, Model, Task, check_penalty
from gexinfer.methods._kernels import Form, Inner
from gexinfer.methods._nystroem import nystroem

# From strong to weak, in units of a target's variance.
PENALTIES = np.logspace(0.5, -4, 10)
DEPTHS = (1, 2, 3, 4)
BANDWIDTHS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
# Beside the deep arc-cosine kernels a linear part never helped.
LINEAR = {"arccos": (0.0,), "rbf": (0.0, 0.1, 0.3), "laplace": (0.0, 0.1, 0.3)}
# The grid is searched with at most so many training rows: what it finds serves for all; its cost grows with the cube.
SEARCH_ROWS = 2000
# Training values may be so many mean absolute residuals away from what all other rows say of them, 0 for any distance.
# Where logs of counts make a single zero of a gene that is otherwise high, this is worth more than the kernel's shape.
REACHES = (0.0, 5.0, 2.5, 1.25, 0.6)
# Rounds of drawing in: the error moves by less than .5 % from the fourth on.
ROUNDS = 8
# The reach is chosen by at most so many targets.
SEARCH_TARGETS = 1000
# Targets whose outliers are drawn in together: each on its own, which of them does not matter.
AT_ONCE = 1000
# Inducing rows where memory does not allow the exact solution and nothing else was said.
INDUCING = 2000


@dataclass(frozen=True)
class Kernel:
    """Options of kernel ridge regression."""

    # arccos is a neural network of infinitely many ReLU units a layer.
    kernel: Literal["arccos", "rbf", "laplace"] = "arccos"
    # Hidden layers of that network; None tries 1 to 4 and keeps the best on validation.
    depth: int | None = None
    # Of rbf and laplace, in units of the median distance of training samples; None tries .35 to 4.
    bandwidth: float | None = None
    # Weight of a linear kernel that is added; None tries 0, .1 and .3 beside rbf and laplace.
    linear: float | None = None
    # What is added to the diagonal; None tries ten from 3.2 down to 1e-4.
    penalty: float | None = None
    # Draw in training values that are so many mean absolute residuals away from what the other rows say of them, which
    # is Huber's loss: 0 draws in none; None tries 0, 5, 2.5, 1.25 and .6. Of the exact solution only.
    huber: float | None = None
    # Training rows that stand for all, drawn at random (Nystroem); None is exact where memory allows.
    n_inducing: int | None = None

    def __post_init__(self) -> None:
        check_penalty(self.penalty)
        unused = "bandwidth" if self.kernel == "arccos" else "depth"
        if getattr(self, unused) is not None:
            raise ValueError(
                f"{unused}={getattr(self, unused)!r} is no option of kernel={self.kernel!r}; leave it out."
            )
        for name, least in (("depth", 1), ("n_inducing", 2)):
            if getattr(self, name) is not None and getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r} must be at least {least}, or None to choose it.")
        if self.bandwidth is not None and not 0 < self.bandwidth < np.inf:
            raise ValueError(f"bandwidth={self.bandwidth!r} must be positive and finite, or None to choose it.")
        for name in ("linear", "huber"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must not be negative, or None to choose it.")
        if self.huber and self.n_inducing is not None:
            raise ValueError(
                f"huber={self.huber!r} is for the exact solution; leave out n_inducing={self.n_inducing!r}."
            )

    def forms(self, unit: float) -> list[Form]:
        """The kernels to try: one for each combination of what is left open."""
        linear = LINEAR[self.kernel] if self.linear is None else (self.linear,)
        if self.kernel == "arccos":
            depths = DEPTHS if self.depth is None else (self.depth,)
            return [Form(self.kernel, d, 0.0, w) for d, w in product(depths, linear)]
        bandwidths = BANDWIDTHS if self.bandwidth is None else (self.bandwidth,)
        return [Form(self.kernel, 0, h * unit, w) for h, w in product(bandwidths, linear)]

    @property
    def penalties(self) -> list[float]:
        """The penalties to try, the strongest first."""
        return PENALTIES.tolist() if self.penalty is None else [self.penalty]

    @property
    def reaches(self) -> tuple[float, ...]:
        """The reaches to try, the widest first."""
        return REACHES if self.huber is None else (self.huber,)

    def chooses(self) -> bool:
        reaches = 1 if self.n_inducing is not None else len(self.reaches)
        return len(self.penalties) * len(self.forms(1.0)) * reaches > 1


def fit(task: Task, config: Kernel) -> Model:
    device, n = pick_device(task.device), len(task.train)
    if config.n_inducing is not None and config.n_inducing > n:
        raise ValueError(f"n_inducing={config.n_inducing} is more than the {n} training rows; leave it out to use all.")
    inducing = exact_or_not(config, n, task.train.n_landmarks, task.train.n_targets, device, task.run.progress)
    if inducing is not None and config.huber:
        warn(
            f"kernel: huber={config.huber:g} is for the exact solution, for which there is no memory; it does nothing."
        )
    X, Y = rows(task.train, SEARCH_ROWS, task.rng, device)
    unit = Inner.of(X, X, len(X)).median_distance()
    form, penalty, reach = config.forms(unit)[0], config.penalties[0], config.reaches[0]
    if config.chooses():
        form, penalty, reach = search(task, config, X, Y, unit, device, exact=inducing is None)
    shape = {"depth": form.depth} if form.depth else {"bandwidth": form.bandwidth / unit, "median_distance": unit}
    notes = {"linear": form.linear, **shape, "penalty": penalty}
    if inducing is not None:
        return nystroem(task, form, config.penalties, rows(task.train, inducing, task.rng, device)[0], notes)
    if n > SEARCH_ROWS:
        X, Y = rows(task.train, n, task.rng, device)
    return solution(form, X, Y, notes | {"huber": reach})


def solution(form: Form, X: Tensor, Y: Tensor, notes: dict[str, Any]) -> Model:
    """Return the model of exact kernel ridge regression with these rows."""
    lower = factor(Inner.of(X, X, len(X)).kernel(form), notes["penalty"])
    Y = drawn_in(Y, lower, notes["huber"])
    coefficients = torch.cholesky_solve(Y, lower)
    signal = ((Y * coefficients).sum(0) / len(X)).clamp_(min=0).sqrt_()
    arrays = {"landmarks": X, "coefficients": coefficients, "signal": signal}
    return Model({name: a.cpu().numpy() for name, a in arrays.items()}, notes)


def refit(task: Task, config: Kernel, model: Model) -> Model:
    """Return the exact solution with the validation rows among its own; as it is where inducing rows stand for all.

    So it is where there is no memory for these rows.
    """
    device, sides = pick_device(task.device), (task.train, task.validation)
    needed = memory(sum(map(len, sides)), task.train.n_landmarks, task.train.n_targets)
    if "n_inducing" in model.notes or needed > available(device):
        return model
    # Nothing holds the parts once they are put together.
    X, Y = (torch.cat(parts) for parts in zip(*(rows(p, len(p), task.rng, device) for p in sides), strict=True))
    return solution(form_of(model, config), X, Y, dict(model.notes))


def drawn_in(Y: Tensor, lower: Tensor, reach: float) -> Tensor:
    """Return the targets with outliers drawn in, from the Cholesky factor of K + penalty.

    With K nearly interpolating, what a row's own fit leaves says nothing. What the fit without the row leaves follows
    from the same factor: its coefficient over the diagonal of the inverse.
    """
    if reach == 0:
        return Y
    own = torch.cholesky_inverse(lower).diagonal()[:, None].clone()
    every = torch.empty_like(Y)
    for given, drawn in zip(Y.split(AT_ONCE, 1), every.split(AT_ONCE, 1), strict=True):
        drawn.copy_(given)
        for _ in range(ROUNDS):
            others = drawn - torch.cholesky_solve(drawn, lower) / own
            away = given - others
            most = reach * away.abs().mean(0)
            torch.add(others, away.clamp_(-most, most), out=drawn)
    return every


def memory(n: int, n_landmarks: int, n_targets: int) -> int:
    """Return about how many bytes the exact solution with so many rows takes.

    Inner products, the kernel with what making it takes, its factor; landmarks and targets, those drawn in,
    coefficients, and those of the model that a refit starts from.
    """
    return 4 * (8 * n**2 + n * (2 * n_landmarks + 5 * n_targets))


def exact_or_not(
    config: Kernel, n: int, n_landmarks: int, n_targets: int, device: torch.device, tell: bool
) -> int | None:
    """Return the number of inducing rows, None for the exact solution; say what memory it takes before it is taken."""
    needed, there = memory(n, n_landmarks, n_targets), available(device)
    cost = f"{amount(needed)} for {n:,} training rows, {amount(there)} are free"
    if config.n_inducing is not None:
        return config.n_inducing
    if needed < there:
        if tell:
            say(f"kernel: exact, about {cost}")
        return None
    inducing = min(INDUCING, n)
    say(f"kernel: exact would take {cost}; {inducing:,} rows stand for all (n_inducing={inducing})")
    return inducing


def rows(pairs: Pairs, most: int, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the landmarks and targets of at most so many rows, drawn at random, on the device."""
    if len(pairs) > most:
        pairs = pairs.select(np.sort(rng.choice(len(pairs), most, replace=False)))
    X, Y = (torch.from_numpy(a).to(device) for a in pairs.arrays())
    return X, Y


def factor(K: Tensor, penalty: float) -> Tensor:
    """Return the Cholesky factor of K + penalty; overwrites neither."""
    shifted = K.clone()
    shifted.diagonal().add_(penalty)
    lower, failed = torch.linalg.cholesky_ex(shifted)
    if failed:
        raise too_weak(penalty)
    return lower


def too_weak(penalty: float) -> FloatingPointError:
    return FloatingPointError(f"kernel: penalty={penalty:g} is too weak for float32; fit again with a larger penalty=.")


def search(
    task: Task, config: Kernel, X: Tensor, Y: Tensor, unit: float, device: torch.device, *, exact: bool
) -> tuple[Form, float, float]:
    """Return the kernel, the penalty and the reach of outliers with the lowest validation error.

    One matrix of inner products serves all kernels. For each penalty one Cholesky factor and as many solutions as there
    are validation rows, not targets, give the error. The reach is chosen for the best kernel.
    """
    x, y = rows(task.validation, SEARCH_ROWS, task.rng, device)
    inner = Inner.of(torch.cat([X, x]), X, len(X))
    forms, reaches = config.forms(unit), config.reaches if exact else (0.0,)
    first, found = reaches[0], []
    with steps("kernel", len(forms) + len(reaches) - 1, show=task.run.progress) as advance:
        for form in forms:
            found.append((*best_penalty(inner.kernel(form), Y, y, config.penalties, first), form, first))
            advance(1, f"MAE val {min(found)[0]:.4f}")
        lowest, penalty, form, _ = min(found)
        if lowest == np.inf:
            raise too_weak(config.penalties[0])
        K = inner.kernel(form)
        # Evenly spaced: the reach is one for all of them.
        some = torch.linspace(0, Y.shape[1] - 1, min(Y.shape[1], SEARCH_TARGETS), device=device).round().long()
        weaker = [p for p in config.penalties if p <= penalty]
        found = [(*best_penalty(K, Y[:, some], y[:, some], [penalty], first), form, first)]
        for reach in reaches[1:]:
            # With its outliers drawn in, data bear a weaker penalty.
            found.append((*best_penalty(K, Y[:, some], y[:, some], weaker, reach), form, reach))
            advance(1, f"MAE val {min(found)[0]:.4f}")
            # Past the best, shorter ones only get worse.
            if min(found) != found[-1] and len(found) > 2:
                break
    _, penalty, form, reach = min(found)
    return form, penalty, reach


def best_penalty(K: Tensor, Y: Tensor, y: Tensor, penalties: Sequence[float], reach: float) -> tuple[float, float]:
    """Return the lowest validation error and its penalty; `K` holds the training rows, then the validation rows."""
    n, found, rises = len(Y), [(np.inf, penalties[0])], 0
    for penalty in penalties:
        try:
            lower = factor(K[:n], penalty)
        except FloatingPointError:
            break  # and so are the weaker ones
        weights = torch.cholesky_solve(K[n:].T, lower)
        found.append((float((weights.T @ drawn_in(Y, lower, reach) - y).abs().mean()), penalty))
        rises = rises + 1 if found[-1][0] > min(found[:-1])[0] else 0
        if rises == (1 if reach else 2):
            break
    return min(found)


def form_of(model: Model, config: Kernel) -> Form:
    """Return the kernel that was chosen."""
    notes = {name: float(value) for name, value in model.notes.items()}
    if config.kernel == "arccos":
        return Form(config.kernel, int(notes["depth"]), 0.0, notes["linear"])
    return Form(config.kernel, 0, notes["bandwidth"] * notes["median_distance"], notes["linear"])


@torch.no_grad()
def predict(model: Model, config: Kernel, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    there, form = pick_device(device), form_of(model, config)
    known, coefficients = (torch.from_numpy(model.arrays[name]).to(there) for name in ("landmarks", "coefficients"))
    for x in blocks:
        K = Inner.of(torch.from_numpy(x).to(there), known).kernel(form)
        yield (K @ coefficients).cpu().numpy()


@torch.no_grad()
def jacobian(model: Model, config: Kernel, X: Float, weights: Float, device: str) -> Float:
    there, form = pick_device(device), form_of(model, config)
    known, coefficients = (torch.from_numpy(model.arrays[name]).to(there) for name in ("landmarks", "coefficients"))
    x, w = (torch.from_numpy(a).to(there) for a in (X, weights))
    by_product, by_left = Inner.of(x, known).slopes(form)
    # A product is x known' / p, a square x x' / p.
    of_known = (w.T @ by_product * known.T + 2 * (w * x).T @ by_left) / x.shape[1]
    return (of_known @ coefficients).cpu().numpy()


@torch.no_grad()
def std(model: Model, config: Kernel, blocks: Iterable[Float], device: str) -> Iterator[Float]:
    """Yield the posterior sd of a new measurement: what the training rows leave open, and noise."""
    there, form, penalty = pick_device(device), form_of(model, config), float(model.notes["penalty"])
    known, signal = (torch.from_numpy(model.arrays[name]).to(there) for name in ("landmarks", "signal"))
    if "explains" in model.arrays:
        explains = torch.from_numpy(model.arrays["explains"]).to(there)
    else:
        lower = factor(Inner.of(known, known, len(known)).kernel(form), penalty)
    for x in blocks:
        inner = Inner.of(torch.from_numpy(x).to(there), known)
        K = inner.kernel(form)
        part = K @ explains if "explains" in model.arrays else torch.linalg.solve_triangular(lower, K.T, upper=False).T
        variance = (inner.diagonal(form) - (part**2).sum(1)).clamp_(min=0) + penalty
        yield (variance.sqrt_()[:, None] * signal).cpu().numpy()


METHOD = Method(
    "kernel",
    Kernel,
    fit,
    predict,
    selects=Kernel.chooses,
    holds_samples=True,
    std=std,
    jacobian=jacobian,
    refit=refit,
    # All else is chosen by the fit.
    space={"kernel": ["arccos", "rbf", "laplace"]},
)
