from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel, row_digests
from gexinfer._names import lacking, listed, locate
from gexinfer._record import records
from gexinfer._slots import NONLINEARITY, SPLIT, check_in_memory, check_unique, matrix, split_rows
from gexinfer._values import refuse_not_finite, where_from
from gexinfer.engine.blocks import Float, Indices, Pairs, Rows, Scale, Wide, in_row_order
from gexinfer.engine.moments import moments
from gexinfer.engine.report import steps
from gexinfer.methods import METHODS, get_method
from gexinfer.tl._test_rows import check_truth, refuse_seen


def nonlinearity(
    adata: AnnData, key: str | None = None, *, device: str = "auto", progress: bool = True
) -> pd.DataFrame:
    """Measure how much more linear each target is in a network's hidden units than in the landmarks.

    The output of a network is linear in its hidden units. Where a linear fit on these explains more of a target than
    one on the landmarks, the network has bent the landmarks into something that the target follows: figure S2 of the
    D-GEX paper, which had training samples only. Hidden units are those that the output sees: of the last layer, of a
    dense trunk of all layers. The linear path from the landmarks to the targets, which a network may have beside them,
    is left out. With `target_blocks` each target is fitted on the units of its own network.

    Parameters
    ----------
    adata
        Whole transcriptomes with the model in `uns`, and the split that it was fitted on.
    key
        Name of the model; the only network in `uns` where it is not given.
    device
        Where the network runs, as in `gexinfer.tl.predict`.
    progress
        Show a bar, or a line where there is no screen.

    Returns
    -------
    One row for each target, and four columns; `uns["gexinfer_nonlinearity"][key]` gets them, too:

    `hidden_train`, `linear_train`
        Adjusted R2 of least squares over the training rows, as in the paper. The number of predictors is the number of
        independent directions in which they vary. NaN where these are as many as the samples but one: every target is
        then fitted exactly, whatever it is.
    `hidden_test`, `linear_test`
        R2 over the test rows of a linear fit on the training rows; 0 is the test mean. Not adjusted, since these rows
        had no say in the fit. It is ridge, each of the two with the penalty of generalised cross-validation over the
        training rows: with about as many predictors as samples, least squares would compare noise with noise. NaN
        without test rows.

    Raises
    ------
    KeyError
        There is no model, none of that key, no split, or not the layer that was fitted.
    ValueError
        The model is no network, or there are several networks and none is named; `adata` lacks landmarks or training
        rows of the model, or the model has seen test rows; values are NaN or inf.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016`.

    Examples
    --------
    >>> gx.tl.fit(ref, method="dgex", hidden=64, epochs=5)
    >>> gx.tl.nonlinearity(ref, "dgex").columns.tolist()
    ['hidden_train', 'linear_train', 'hidden_test', 'linear_test']
    """
    check_in_memory(adata)
    check_unique(adata)
    name, fitted = network(adata, key)
    train, test, targets = sides(adata, fitted, name)
    names = adata.var_names[train.rows.targets]
    table = pd.DataFrame(np.nan, names, ["hidden_train", "linear_train", "hidden_test", "linear_test"])
    assigned = fitted.model.arrays["block"][targets]
    fits: list[tuple[str, int | None, Indices]] = [("linear", None, np.arange(len(targets)))]
    fits += [("hidden", b, np.flatnonzero(assigned == b)) for b in np.unique(assigned)]
    with steps("nonlinearity", len(fits), show=progress) as advance:
        for kind, b, own in fits:
            seen = Seen(fitted, b, device)
            line = line_on(seen, train.only(own), adata.var_names[train.rows.landmarks].append(names[own]))
            table.loc[names[own], f"{kind}_train"] = line.adjusted
            if len(test):
                table.loc[names[own], f"{kind}_test"] = line.score(seen, test.only(own), names[own])
            advance(1, name)
    adata.uns[NONLINEARITY] = {**adata.uns.get(NONLINEARITY, {}), name: table}
    return table.copy()


def network(adata: AnnData, key: str | None) -> tuple[str, FittedModel]:
    """Return the network of that name, or the only one there is."""
    models = records(adata, key)
    networks = {name: fitted for name, fitted in models.items() if get_method(fitted.method).hidden}
    if not networks:
        having = [method for method in METHODS if get_method(method).hidden]
        raise ValueError(
            f"{listed(list(models), 20)} in adata.uns has no hidden units; models of method={listed(having)} have."
        )
    if len(networks) > 1:
        raise ValueError(f"adata.uns holds several networks, {listed(list(networks), 20)}; name one: key=.")
    ((name, fitted),) = networks.items()
    return name, fitted


def sides(adata: AnnData, fitted: FittedModel, name: str) -> tuple[Pairs, Pairs, Indices]:
    """Return training and test rows on the model's scale, and which of its targets they hold."""
    check_truth(adata, fitted, name)
    absent = lacking(fitted.landmarks, adata.var_names)
    if absent:
        raise ValueError(
            f"adata.var_names lacks {len(absent):,} of the {len(fitted.landmarks):,} landmarks of {name!r}: "
            f"{listed(absent)}. Take the object that the model was fitted on."
        )
    train, test = split_rows(adata, "train"), split_rows(adata, "test")
    if len(train) == 0 or not np.isin(row_digests(adata.obs_names[train]), fitted.training_rows).all():
        raise ValueError(
            f"The {len(train):,} rows that adata.obs[{SPLIT!r}] marks as 'train' are not those of {name!r}. "
            "Take the object and the split that it was fitted on, or fit it again."
        )
    refuse_seen(adata, test, fitted, name)
    places = locate(fitted.targets, adata.var_names)
    targets = np.flatnonzero(places >= 0)
    source = in_row_order(matrix(adata, str(fitted.input["layer"])))
    rows = Rows(source, train, locate(fitted.landmarks, adata.var_names), places[targets])
    x, y = fitted.landmark_scale, fitted.target_scale
    scale = Scale(np.concatenate([x.mean, y.mean[targets]]), np.concatenate([x.sd, y.sd[targets]]))
    return Pairs(rows, scale), Pairs(replace(rows, rows=test), scale), targets


@dataclass(frozen=True)
class Seen:
    """What a line is fitted on: the landmarks, or the hidden units of one of the model's networks."""

    fitted: FittedModel
    network: int | None
    device: str

    def blocks(self, pairs: Pairs) -> Iterator[tuple[Float, Float]]:
        """Yield (rows, predictors) and (rows, targets)."""
        if self.network is None:
            yield from pairs.blocks()
            return
        hidden, waiting = get_method(self.fitted.method).hidden, deque[Float]()

        def landmarks() -> Iterator[Float]:
            for x, y in pairs.blocks():
                waiting.append(y)
                yield x

        for units in hidden(self.fitted.model, self.fitted.config, landmarks(), self.device):  # type: ignore[misc]
            yield units[self.network], waiting.popleft()


@dataclass(frozen=True)
class Line:
    """A linear fit of all targets: its adjusted R2 over the rows it was fitted on, and what it takes to predict."""

    adjusted: Wide
    scale: Scale
    means: Wide
    coefficients: Float

    def score(self, seen: Seen, pairs: Pairs, names: pd.Index) -> Wide:
        """Return each target's R2 over other rows."""
        left, sums, squares = np.zeros((3, len(names)))
        not_finite = np.zeros(len(names), np.intp)
        for predictors, y in seen.blocks(pairs):
            y = y.astype(np.float64)
            not_finite += (~np.isfinite(y)).sum(axis=0)
            left += ((self.scale.standardise(predictors) @ self.coefficients + self.means - y) ** 2).sum(axis=0)
            sums += y.sum(axis=0)
            squares += (y * y).sum(axis=0)
        refuse_not_finite(not_finite, names, len(pairs), where_from(str(seen.fitted.input["layer"])))
        spread = squares - sums**2 / len(pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(spread > 1e-9 * len(pairs), 1 - left / spread, np.nan)


def line_on(seen: Seen, pairs: Pairs, names: pd.Index) -> Line:
    """Fit all targets on what is seen of some rows: by least squares to describe them, by ridge to predict others."""
    from gexinfer.methods._linear import Spectrum, best_by_cross_validation

    blocks = seen.blocks(pairs)
    first = next(blocks)
    k, n = first[0].shape[1], len(pairs)
    sums = moments((np.hstack(block) for block in chain([first], blocks)), k, n)
    refuse_not_finite(sums.not_finite[-len(names) :], names, n, where_from(str(seen.fitted.input["layer"])))
    scale, sums = sums.scale, sums.standardised()
    spectrum = Spectrum.of(sums)
    rank = int(spectrum.varies.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        left = 1 - (spectrum.inverse(0) @ spectrum.rotated**2) / sums.yy
    free = n - 1 - rank
    adjusted = 1 - left * (n - 1) / free if free > 0 else np.full(len(left), np.nan)
    penalty = best_by_cross_validation(sums, spectrum)
    unit = np.where(scale.sd > 0, scale.unit, 0)[k:]
    coefficients = (spectrum.coefficients(spectrum.inverse(penalty)) * unit).astype(np.float32)
    return Line(adjusted, Scale(scale.mean[:k], scale.sd[:k]), scale.mean[k:], coefficients)
