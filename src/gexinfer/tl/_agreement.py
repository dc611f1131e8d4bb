"""How far analyses of inferred values agree with those of measured ones: arrays in, rows of a table out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._names import listed
from gexinfer.engine.blocks import Float, Indices, Wide

COMPONENTS = 50
# Folds of a division into training and test samples, and how many divisions are drawn: one of more than MANY samples.
FOLDS, REPEATS, MANY = 5, 5, 1000
# At most, and at most this share of the samples: of few samples many are neighbours by chance.
NEIGHBORS, NEIGHBOR_SHARE = 15, 0.1
# The same of genes that differ most.
TOP, TOP_SHARE = 100, 0.05
FALSE_DISCOVERY = 0.05
# The group of a row that is about all of them.
ALL = "all"

Fold = tuple[Indices, Indices]
# Of each gene its score, and whether it is called.
Call = tuple[Wide, NDArray[np.bool_]]


class Row(NamedTuple):
    """A row of the table; `values` are those that were analysed."""

    analysis: str
    measure: str
    values: str
    group: str
    value: float
    sd: float
    n: int


@dataclass(frozen=True)
class Groups:
    """The number of each sample's group, -1 for none, and the groups' names."""

    codes: Indices
    names: list[str]

    @classmethod
    def of(cls, obs: pd.DataFrame, column: str) -> Groups:
        """Return the groups of a column; samples without a value are in none."""
        if column not in obs:
            raise KeyError(f"adata.obs has no column {column!r}; it has {listed(obs.columns, 20)}.")
        codes, names = pd.factorize(obs[column].astype(object).map(str, na_action="ignore"), sort=True)
        return cls(codes.astype(np.intp), list(names))

    @property
    def sizes(self) -> Indices:
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))

    def only(self, kept: NDArray[np.bool_]) -> Groups:
        """Return some of the groups; the samples of the others are in none."""
        new = np.append(np.where(kept, np.cumsum(kept) - 1, -1), -1)  # the last is what a code of -1 finds
        return Groups(new[self.codes], [name for name, keep in zip(self.names, kept, strict=True) if keep])


@dataclass(frozen=True)
class Contrast:
    """Samples of a group, and those that it is compared with."""

    name: str
    treated: Indices
    reference: Indices


def versus_rest(groups: Groups) -> list[Contrast]:
    """Return each group against all others."""
    codes = groups.codes
    return [
        Contrast(name, np.flatnonzero(codes == code), np.flatnonzero((codes != code) & (codes >= 0)))
        for code, name in enumerate(groups.names)
    ]


def principal(values: Float) -> Any:
    """Return a PCA for so many values, by solvers whose components stay the same where a constant gene is added."""
    from sklearn.decomposition import PCA

    n_components = min(COMPONENTS, len(values) - 1, values.shape[1])
    return PCA(n_components, svd_solver="arpack" if n_components < min(values.shape) else "full", random_state=0)


def divisions(groups: Groups, blocks: Groups | None, rng: np.random.Generator) -> list[list[Fold]]:
    """Divide the samples of groups into folds several times, groups alike and no block on two sides.

    A division of which a group lies whole in one fold is not returned: nothing of it could be learned.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    members = np.flatnonzero(groups.codes >= 0)
    codes = groups.codes[members]
    units = None if blocks is None else blocks.codes[members]
    n_folds = min(FOLDS, int(pd.Series(members if units is None else units).groupby(codes).nunique().min()))
    kind = StratifiedKFold if blocks is None else StratifiedGroupKFold
    found = []
    for _ in range(REPEATS if len(members) <= MANY else 1):
        splitter = kind(n_folds, shuffle=True, random_state=int(rng.integers(2**31)))
        folds = [(members[train], members[test]) for train, test in splitter.split(codes, codes, units) if len(test)]
        if all(len(np.unique(groups.codes[train])) == len(groups.names) for train, _ in folds):
            found.append(folds)
    return found


def classification(label: str, values: Float, groups: Groups, divided: Sequence[Sequence[Fold]]) -> list[Row]:
    """Return how well groups are told apart by discriminant analysis, all steps of it inside the folds."""
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if not divided:
        return []
    codes, n_groups = groups.codes, len(groups.names)
    right = np.zeros((len(divided), len(codes)))
    for repeat, folds in enumerate(divided):
        for train, test in folds:
            # The shrinkage has a closed form, so that nothing is chosen by looking at accuracies.
            judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=np.full(n_groups, 1 / n_groups))
            model = make_pipeline(StandardScaler(), principal(values[train]), judge)
            right[repeat, test] = model.fit(values[train], codes[train]).predict(values[test]) == codes[test]
    recall = np.stack([right[:, codes == code].mean(axis=1) for code in range(n_groups)])
    balanced, n = recall.mean(axis=0), int(groups.sizes.sum())
    rows = [Row("classification", "balanced_accuracy", label, ALL, float(balanced.mean()), float(balanced.std()), n)]
    return rows + [
        Row("classification", "recall", label, name, float(of_group.mean()), float(of_group.std()), int(size))
        for name, of_group, size in zip(groups.names, recall, groups.sizes, strict=True)
    ]


def nearest(values: Float) -> Indices:
    """Return the nearest other samples of each in the space of principal components."""
    from sklearn.neighbors import NearestNeighbors

    n = min(NEIGHBORS, max(int(NEIGHBOR_SHARE * len(values)), 1))
    space = principal(values).fit_transform(values)
    return NearestNeighbors(n_neighbors=n).fit(space).kneighbors(return_distance=False)


def shared_neighbors(label: str, measured: Indices, other: Indices) -> list[Row]:
    """Return the share of each sample's neighbours that are its neighbours by measured values, too."""
    shares = np.array([np.isin(a, b).mean() for a, b in zip(measured, other, strict=True)])
    return [Row("neighbors", "shared", label, ALL, shares.mean(), shares.std(), len(shares))]


def tested(values: Float, contrast: Contrast) -> Call:
    """Return each gene's score by scanpy's t test, and whether it is called at a false discovery rate of 5 %."""
    import scanpy as sc

    n_treated, rows = len(contrast.treated), np.concatenate([contrast.treated, contrast.reference])
    # Relative to one sample, so that a gene that never changes is exactly 0 and not rounding with a score.
    X = values[rows] - values[rows[0]]
    if not X.any():
        return np.zeros(X.shape[1]), np.zeros(X.shape[1], bool)
    side = pd.Categorical(np.repeat(["treated", "reference"], [n_treated, len(rows) - n_treated]))
    names = [str(i) for i in range(len(rows))]
    both = AnnData(X, pd.DataFrame({"side": side}, names), pd.DataFrame(index=[str(i) for i in range(X.shape[1])]))
    with warnings.catch_warnings():
        # It also makes fold changes, of logarithms of what is negative here; they are not used.
        warnings.simplefilter("ignore", RuntimeWarning)
        sc.tl.rank_genes_groups(both, "side", groups=["treated"], reference="reference", method="t-test")
    found = sc.get.rank_genes_groups_df(both, "treated").set_index("names").loc[both.var_names]
    return found["scores"].to_numpy(np.float64), found["pvals_adj"].to_numpy() < FALSE_DISCOVERY


def called(label: str, calls: Sequence[Call], contrasts: Sequence[Contrast]) -> list[Row]:
    """Return the share of the targets that are called."""
    return over("expression", "called", label, [float(of_genes.mean()) for _, of_genes in calls], contrasts)


def expression(
    label: str, measured: Sequence[Call], inferred: Sequence[Call], contrasts: Sequence[Contrast]
) -> list[Row]:
    """Return how far the targets that differ are the same ones."""
    found: dict[str, list[float]] = {"top_overlap": [], "sensitivity": [], "false_discovery": []}
    for (score, of_measured), (guess, of_inferred) in zip(measured, inferred, strict=True):
        n_top = max(min(TOP, int(TOP_SHARE * len(score))), 1)
        top, guessed_top = (np.argsort(-np.abs(s), kind="stable")[:n_top] for s in (score, guess))
        same = (of_measured & of_inferred & (np.sign(score) == np.sign(guess))).sum()
        found["top_overlap"].append(np.isin(top, guessed_top).mean() if guess.any() else np.nan)
        found["sensitivity"].append(same / of_measured.sum() if of_measured.any() else np.nan)
        found["false_discovery"].append(1 - same / of_inferred.sum() if of_inferred.any() else np.nan)
    rows = [row for measure, values in found.items() for row in over("expression", measure, label, values, contrasts)]
    return called(label, inferred, contrasts) + rows


def deltas(label: str, measured: Float, inferred: Float, contrasts: Sequence[Contrast]) -> list[Row]:
    """Return how far changes agree, over targets for each contrast and over samples for each target."""
    from scipy.stats import rankdata

    found: dict[str, list[float]] = {"pearson": [], "spearman": [], "slope": [], "relative_error": []}
    samples: list[tuple[Wide, Wide]] = []
    for contrast in contrasts:
        both = [
            values[contrast.treated] - values[contrast.reference].mean(axis=0, dtype=np.float64)
            for values in (measured, inferred)
        ]
        samples.append((both[0], both[1]))
        # Not scanpy's fold changes: these take values for natural logarithms of counts + 1.
        true, guess = (of_samples.mean(axis=0) for of_samples in both)
        found["pearson"].append(pearson(true, guess))
        found["spearman"].append(pearson(rankdata(true), rankdata(guess)))
        found["slope"].append(float(true @ guess / (true @ true)) if true.any() else np.nan)
        found["relative_error"].append(np.abs(guess - true).sum() / np.abs(true).sum() if true.any() else np.nan)
    rows = [row for measure, values in found.items() for row in over("deltas", measure, label, values, contrasts)]
    trues, guesses = (np.concatenate(of_kind) for of_kind in zip(*samples, strict=True))
    of_genes = np.array([pearson(t, g) for t, g in zip(trues.T, guesses.T, strict=True)])
    there = of_genes[~np.isnan(of_genes)]
    middle, spread = (float(np.median(there)), float(there.std())) if len(there) else (np.nan, np.nan)
    return [*rows, Row("deltas", "gene_pearson", label, ALL, middle, spread, len(trues))]


def over(analysis: str, measure: str, label: str, values: Sequence[float], contrasts: Sequence[Contrast]) -> list[Row]:
    """Return the mean over contrasts, of those where the measure is defined, and each contrast's value."""
    array = np.array(values, dtype=np.float64)
    there = array[~np.isnan(array)]
    mean, spread = (there.mean(), there.std()) if len(there) else (np.nan, np.nan)
    rows = [Row(analysis, measure, label, ALL, float(mean), float(spread), len(there))]
    return rows + [
        Row(analysis, measure, label, contrast.name, float(value), np.nan, len(contrast.treated))
        for value, contrast in zip(array, contrasts, strict=True)
    ]


def pearson(a: Wide, b: Wide) -> float:
    """Return Pearson's r, NaN where one side does not vary."""
    a, b = a - a.mean(), b - b.mean()
    spread = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / spread) if spread > 1e-9 * len(a) else np.nan
