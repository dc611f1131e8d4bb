"""The tables of an evaluation over all genes: one row a model, one row a pair of models, and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from gexinfer._fitted import FittedModel
from gexinfer.engine.blocks import Indices, Wide
from gexinfer.engine.resampling import FEWEST_BATCHES, draws, interval, paired_test, resampled

LINEAR = ("ols", "ridge")
FALSE_DISCOVERIES = 0.05
# Means over genes; of the others, which say how well samples are followed, the median.
ERRORS = ("mae", "mae_data", "rmse")


def over_genes(per_gene: Mapping[str, Wide | pd.Series]) -> dict[str, float]:
    """Return the mean over genes of each error, and the median of each other metric."""
    found = {metric: pd.Series(values).dropna() for metric, values in per_gene.items()}
    return {metric: float(v.mean() if metric in ERRORS else v.median()) for metric, v in found.items()}


def overall(per_gene: Mapping[str, pd.DataFrame], models: Mapping[str, FittedModel]) -> pd.DataFrame:
    """Return the table over genes, with each model against the linear baselines on the genes both infer."""
    mae = per_gene["mae"]
    rows = {name: over_genes({metric: frame[name] for metric, frame in per_gene.items()}) for name in mae}
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.insert(1, "mae_sd", mae.std(ddof=0))
    for baseline in LINEAR:
        name = next((name for name, fitted in models.items() if fitted.method == baseline), None)
        if name is None:
            continue
        both = mae.notna() & mae[[name]].notna().to_numpy()
        reference = pd.DataFrame(dict.fromkeys(mae, mae[name]))
        table[f"gain_over_{baseline}"] = 1 - mae[both].mean() / reference[both].mean()
        table[f"better_than_{baseline}"] = ((mae < reference) & both).sum() / both.sum()
    table["n_genes"] = mae.notna().sum()
    return table.sort_values("mae")


def resamples(sizes: Indices, rng: np.random.Generator) -> Wide | None:
    """Return how often batches of these sizes are drawn in each resample, None where they are too few."""
    return draws(sizes, rng) if len(sizes) >= FEWEST_BATCHES else None


def add_intervals(table: pd.DataFrame, errors: Mapping[str, Wide], sizes: Indices, drawn: Wide | None) -> None:
    """Put the ends of each MAE's interval beside it; `errors` are those of `Scores`, `sizes` how large batches are."""
    low, high = np.full((2, len(table)), np.nan)
    if drawn is not None:
        totals = np.stack([np.nansum(errors[name], axis=1) for name in table.index], axis=1)
        # Where all genes were constant in training there is no error to be sure of.
        means = totals / table["n_genes"].replace(0, np.nan).to_numpy()
        low, high = interval(resampled(means, sizes, drawn), sizes)
    table.insert(2, "mae_low", low)
    table.insert(3, "mae_high", high)


def pairs(order: pd.Index, errors: Mapping[str, Wide], sizes: Indices, drawn: Wide | None) -> pd.DataFrame:
    """Return the table of pairs, of models in this order."""
    # Most models infer the same genes, and then nothing has to be left out for each pair.
    scored = ~np.all([np.isnan(errors[name][0]) for name in order], axis=0)
    errors = {name: errors[name][:, scored] for name in order}
    return pd.DataFrame([compared(a, b, errors[a], errors[b], sizes, drawn) for a, b in combinations(order, 2)])


def compared(
    first: str, second: str, a: Wide, b: Wide, sizes: Indices, drawn: Wide | None
) -> dict[str, str | int | float]:
    """Return what is known of two models on the genes that both infer; without resamples, the errors alone."""
    from scipy.stats import false_discovery_control

    both = ~np.isnan(a[0] + b[0])
    a, b = (a, b) if both.all() else (a[:, both], b[:, both])
    apart, totals = a - b, np.stack([a.sum(axis=1), b.sum(axis=1)], axis=1) / (both.sum() or np.nan)
    mean = totals.sum(axis=0) / sizes.sum()
    row: dict[str, str | int | float] = {
        "first": first,
        "second": second,
        "n_genes": int(both.sum()),
        "better": float((apart.sum(axis=0) < 0).mean()) if both.any() else np.nan,
        "significantly_better": np.nan,
        "significantly_worse": np.nan,
        "difference": float(mean[0] - mean[1]),
        "difference_low": np.nan,
        "difference_high": np.nan,
        "gain": float(1 - mean[0] / mean[1]),
        "gain_low": np.nan,
        "gain_high": np.nan,
    }
    if drawn is None or not both.any():
        return row
    found = false_discovery_control(paired_test(apart, sizes)) <= FALSE_DISCOVERIES
    lower = apart.sum(axis=0) < 0
    row |= {
        "significantly_better": float((found & lower).mean()),
        "significantly_worse": float((found & ~lower).mean()),
    }
    means = resampled(totals, sizes, drawn)
    for name, values in (("difference", means[:, 0] - means[:, 1]), ("gain", 1 - means[:, 0] / means[:, 1])):
        low, high = interval(values, sizes)
        row |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return row
