"""What a reader of a report has to be told, in words, judged from the slots of the samples it was measured on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._slots import COVERAGE, EVALUATION, GROUPS, MEAN, NEAREST, PAIRS, PERCENTILE, TRUSTED, gene_slot

# Fewer samples than this, and an interval of the mean error is a guess.
FEW_SAMPLES = 30
# A group's error so many times the overall one is worth a line.
WORSE = 1.25
# How far the share of values inside an interval may be from its level, in points.
POINTS = 0.02


def findings(judged: AnnData, fitted: FittedModel, name: str) -> Iterator[str]:
    """Yield what speaks against the model's numbers, the gravest first."""
    table, provenance = judged.uns[EVALUATION], fitted.provenance
    row = table.loc[name]
    for baseline, words in (("mean", "the training mean of each gene"), ("nearest", "the nearest landmark gene")):
        if baseline != name and row["mae"] >= 0.98 * table.loc[baseline, "mae"]:
            yield f"It is not better than {words} ({row['mae']:.3f} against {table.loc[baseline, 'mae']:.3f} sd)."
    yield from better_ones(judged, name)
    yield from level_ones(judged, name)
    if provenance["split_by"] == "random":
        yield (
            "Its samples were split at random, so that samples of one study or donor may be on both sides. Expect "
            "larger errors on a study that it has not seen; split by study (groupby=) to know how large."
        )
    if np.isnan(row["mae_low"]) and row["split_by"].startswith("by ") and row["split_by"] != "by hand":
        yield (
            f"The samples are of too few groups (split {row['split_by']}) to say how much of the error is owed to the "
            "choice of these: gexinfer.tl.evaluate(adata, cv=5) tries others."
        )
    if judged.n_obs < FEW_SAMPLES:
        yield f"It was judged on {judged.n_obs} samples only: take every number here for a rough one."
    p, n = len(fitted.landmarks), int(provenance["n_train"])
    if fitted.method == "ols" and n < 2 * p:
        yield f"Least squares fitted {p + 1:,} coefficients for each gene from {n:,} samples. Use ridge instead."
    r2 = judged.varm[gene_slot("r2")][name].dropna()
    if len(r2) and r2.median() <= 0:
        yield "For half of the genes it is no better than their mean over these samples (R2 not above 0)."
    elif len(r2) and r2.median() < 0.5:
        yield f"For half of the genes it explains less than {r2.median():.1%} of the variance (R2)."
    elif len(r2) and (r2 < 0).mean() > 0.05:
        yield (
            f"For {(r2 < 0).mean():.0%} of the genes it is worse than their mean over these samples (R2 below 0), "
            "mostly genes that hardly vary here."
        )
    if COVERAGE in judged.uns:
        level, held = judged.uns[COVERAGE].loc[0, ["level", "coverage"]]
        if abs(held - level) > POINTS:
            yield (
                f"Its {level:.0%} intervals hold {held:.1%} of the measured values. They are too "
                f"{'narrow' if held < level else 'wide'} here: these samples are unlike those that told how wide."
            )
    else:
        yield "It has no intervals: too few validation rows were there when it was fitted."
    if PERCENTILE in judged.obs:
        strange = float((judged.obs[PERCENTILE] > 99).mean())
        if strange > 0.05:
            yield f"{strange:.0%} of the samples are stranger than 99 % of the samples that the fit held out."
    if GROUPS in judged.uns:
        groups = judged.uns[GROUPS]
        own = groups[(groups["model"] == name) & (groups["mae"] > WORSE * row["mae"])].sort_values("mae")[::-1]
        if len(own):
            worst = [f"{g} ({mae:.3f}, {n} samples)" for g, mae, n in own[["group", "mae", "n_samples"]].to_numpy()]
            more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
            yield f"The error is more than {WORSE - 1:.0%} above the overall one in {', '.join(worst[:5])}{more}."
    if fitted.input["counts"]:
        yield "It was fitted on values that look like raw counts: its errors are those of the few highest genes."
    if fitted.holds_samples:
        yield (
            f"The model holds its {fitted.samples_held}, and expression profiles identify people. Do not pass the "
            "model on without their consent; this page does not hold them."
        )


def better_ones(judged: AnnData, name: str) -> Iterator[str]:
    """Yield the models that are better on these samples by more than chance."""
    # Pairs stand with the lower error first, and a difference that is surely below 0 is no chance.
    pairs = judged.uns[PAIRS]
    # The floors have lines of their own.
    sure = pairs[(pairs["second"] == name) & (pairs["difference_high"] < 0) & ~pairs["first"].isin([MEAN, NEAREST])]
    for _, pair in sure.iterrows():
        yield (
            f"{pair['first']} is better on these samples: its error is {pair['gain']:.1%} lower, and "
            f"{pair['significantly_better']:.0%} of the genes are significantly better (and "
            f"{pair['significantly_worse']:.0%} worse)."
        )


def level_ones(judged: AnnData, name: str) -> Iterator[str]:
    """Yield the models that it is ahead of by its mean error alone."""
    pairs = judged.uns[PAIRS]
    ahead = pairs[(pairs["first"] == name) & ((pairs["better"] < 0.5) | ~(pairs["difference_high"].fillna(-1) < 0))]
    for _, pair in ahead.iterrows():
        by_genes = f"it is better for only {pair['better']:.0%} of the genes" if pair["better"] < 0.5 else ""
        by_chance = "" if pair["difference_high"] < 0 or np.isnan(pair["difference_high"]) else "that may be chance"
        but = " and ".join(part for part in (by_chance, by_genes) if part)
        yield f"Its mean error is {pair['gain']:.1%} below that of {pair['second']}, but {but}."


def limits(judged: AnnData, name: str) -> Iterator[str]:
    """Yield what inferred values are not good for."""
    yield (
        "To find structure that the landmarks do not show. Inferred values are a function of the landmarks: "
        "clustering, classification or a network of genes on them holds no more than on the landmarks themselves."
    )
    yield (
        "As measurements in a test. They vary less than measured values and share their errors, so that p-values of "
        "differential expression come out too small. Confirm genes that matter by measuring them."
    )
    if TRUSTED in judged.var:
        inferred = judged.varm[gene_slot("mae")][name].notna()
        lost = inferred & ~judged.var[TRUSTED]
        if lost.any():
            yield (
                f"To speak of single genes whose inferred profile does not recall their own measured one, here "
                f"{lost.sum():,} of {inferred.sum():,}. gexinfer.tl.trust finds them on the test rows of a reference; "
                "then gexinfer.tl.predict(..., trusted_only=True) leaves them out."
            )
    yield (
        "On another platform, tissue or species than it has seen, without a look at obs['gexinfer_novelty_percentile'] "
        "and, across platforms, adapt= in gexinfer.tl.predict."
    )
    yield "To decide about a patient. The errors here are averages; a single value can be far off."
