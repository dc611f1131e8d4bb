"""A report as one HTML page: numbers, tables and figures of the slots, put into the template beside this file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import FittedModel
from gexinfer._record import to_bytes
from gexinfer._slots import COVERAGE, EVALUATION, GROUPS, PERCENTILE, RECALL, SPLIT, TRUSTED, gene_slot
from gexinfer.io._report_findings import findings, limits
from gexinfer.methods import get_method

# Genes in each of the tables of the best and the worst.
SHOWN = 12
# What a model is compared with first.
LINES = ("ridge", "ols", "knn", "nearest")
FLOORS = {"mean": "the training mean", "nearest": "the nearest landmark gene"}
HEADS = {
    "mae": "MAE, sd",
    "mae_low": "95 % from",
    "mae_high": "to",
    "mae_data": "MAE, data units",
    "rmse": "RMSE, sd",
    "pearson": "r",
    "spearman": "Spearman",
    "r2": "R2",
    "ccc": "CCC",
}


class TableOf(NamedTuple):
    """A table as text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str


class Figure(NamedTuple):
    """A figure, as a PNG in base64."""

    png: str
    caption: str


class Section(NamedTuple):
    """A part of the page."""

    title: str
    text: str
    tables: Sequence[TableOf] = ()
    figures: Sequence[Figure] = ()


def page(judged: AnnData, fitted: FittedModel, name: str, groupby: str | None, told: Sequence[str]) -> str:
    """Return the page as HTML; `told` are warnings that go on it."""
    from jinja2 import Environment, StrictUndefined

    # Names of genes, groups and models are anybody's text.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["thousands"] = "{:,}".format
    template = environment.from_string(files("gexinfer.io").joinpath("report.html").read_text(encoding="utf-8"))
    return template.render(
        name=name,
        fitted=fitted,
        version=version("gexinfer"),
        date=f"{datetime.now(UTC):%d %B %Y}",
        summary=summary(judged, name),
        numbers=list(numbers(judged, name)),
        findings=[*findings(judged, fitted, name), *told],
        limits=list(limits(judged, name)),
        sections=list(sections(judged, fitted, name, groupby)),
        provenance=list(provenance(fitted)),
    )


def summary(judged: AnnData, name: str) -> str:
    """Say the error in one sentence, beside those of the floors."""
    table = judged.uns[EVALUATION]
    row, n = table.loc[name], judged.n_obs
    held = {"random": "drawn at random from the data it was fitted on", "by hand": "that it has not seen"}
    how = held.get(row["split_by"], f"held out {row['split_by']}, none divided")
    floors = [f"{table.loc[floor, 'mae']:.3f} for {words}" for floor, words in FLOORS.items() if floor != name]
    return (
        f"On {n:,} samples {how}, the mean error over {row['n_genes']:,} genes is {row['mae']:.3f} standard deviations "
        f"of a gene{span(row, ', between {} and {} with 95 % confidence')}. It is {' and '.join(floors)}."
    )


def span(row: pd.Series, text: str) -> str:
    """Return the interval of the error in words, nothing where there were too few samples or groups for one."""
    ends = row["mae_low"], row["mae_high"]
    return "" if pd.isna(ends[0]) else text.format(*(f"{value:.3f}" for value in ends))


def numbers(judged: AnnData, name: str) -> Iterator[tuple[str, str, str]]:
    """Yield the few numbers that come first: title, value, remark."""
    table = judged.uns[EVALUATION]
    row = table.loc[name]
    yield (
        "Mean error",
        f"{row['mae']:.3f} sd",
        f"{span(row, '{} to {}; ')}{row['mae_data']:.3f} in data units",
    )
    for baseline in ("ridge", "ols", "nearest"):
        if baseline in table.index and baseline != name:
            yield (
                f"Error below {baseline}",
                f"{1 - row['mae'] / table.loc[baseline, 'mae']:.1%}",
                f"{baseline} has {table.loc[baseline, 'mae']:.3f}; {better(judged, name, baseline):.0%} of genes lower",
            )
            break
    # Of the training mean, or of one sample, there is none.
    if pd.notna(row["pearson"]):
        yield "Correlation r", f"{row['pearson']:.3f}", "median over genes"
    if pd.notna(row["r2"]):
        yield "R2", f"{row['r2']:.3f}", "median over genes; 1 is perfect, 0 the mean"
    if COVERAGE in judged.uns:
        yield (
            "Inside the intervals",
            f"{judged.uns[COVERAGE]['coverage'][0]:.1%}",
            "of the measured values; 90 % were asked for",
        )
    if TRUSTED in judged.var:
        inferred = judged.varm[gene_slot("mae")][name].notna()
        yield "Trusted genes", f"{judged.var.loc[inferred, TRUSTED].mean():.0%}", "recall their own measured profile"
    if PERCENTILE in judged.obs and judged.obs[PERCENTILE].notna().any():
        yield (
            "Strange samples",
            f"{(judged.obs[PERCENTILE] > 99).mean():.0%}",
            "beyond 99 % of those held out by the fit",
        )


def better(judged: AnnData, name: str, other: str) -> float:
    """Return the share of genes with a lower error than another model's, of those that both infer."""
    errors = judged.varm[gene_slot("mae")][[name, other]].dropna()
    return float((errors[name] < errors[other]).mean())


def sections(judged: AnnData, fitted: FittedModel, name: str, groupby: str | None) -> Iterator[Section]:
    """Yield the parts of the page that there is something to show of."""
    import gexinfer.pl as pl

    table = judged.uns[EVALUATION]
    others = [other for other in (*LINES, *table.index) if other in table.index and other not in (name, "mean")]
    yield Section(
        "How large is the error?",
        "MAE and RMSE are averages over genes, in standard deviations of the training samples; the others are medians "
        "over genes, CCC is the concordance correlation. Of the models, mean is the training mean of each gene, and "
        "nearest goes by the landmark that it was most correlated with.",
        [
            frame_of(
                table[[column for column in HEADS if column in table and table[column].notna().any()]],
                "All models at hand, on the same samples.",
            )
        ],
        [
            drawn("Errors of all genes, one curve a model.", pl.error_density, judged),
            *(
                drawn(
                    f"Each dot is a gene; above the line {name} has the lower error than {other}.",
                    pl.error_scatter,
                    judged,
                    name,
                    against=other,
                )
                for other in list(dict.fromkeys(others))[:2]
            ),
        ],
    )
    if judged.varm[gene_slot("pearson")][name].notna().any():
        yield genes(judged, name)
    if GROUPS in judged.uns:
        groups = judged.uns[GROUPS]
        own = groups[groups["model"] == name].sort_values("mae", ascending=False).set_index("group")
        columns = ["n_samples", *(c for c in HEADS if c in own)]
        caption = f"{name} in each {groupby}, the worst first."
        yield Section(f"Where is the error? By {groupby}", "", [frame_of(own[columns], caption)])
    trusted = []
    if COVERAGE in judged.uns:
        caption = "Share of the measured values that lie in 90 % intervals, by tenths of genes."
        trusted.append(drawn(caption, pl.coverage, judged, name))
    if PERCENTILE in judged.obs and judged.obs[PERCENTILE].notna().any():
        caption = "How unlike the training samples these are. Of those that the fit held out 1 % is beyond 99."
        trusted.append(drawn(caption, pl.novelty, judged, groupby or SPLIT))
    if trusted:
        yield Section("Do the intervals hold, and are the samples strange?", "", figures=trusted)
    if get_method(fitted.method).by_epochs:
        caption = "Error after each epoch of the training; the dot is the epoch that was kept."
        yield Section("How was it trained?", "", figures=[drawn(caption, pl.training, judged, name)])


def genes(judged: AnnData, name: str) -> Section:
    """Return the best and the worst genes, with three of them drawn."""
    import gexinfer.pl as pl

    frame = pd.DataFrame({metric: judged.varm[gene_slot(metric)][name] for metric in ("pearson", "r2", "mae")})
    if RECALL in judged.var:
        frame["recall"] = judged.var[RECALL]
    # By r, because the lowest errors belong to genes that hardly vary.
    ordered = frame.dropna(subset=["pearson"]).sort_values("pearson", ascending=False)
    shown = {"best": 0, "middle": len(ordered) // 2, "worst": len(ordered) - 1}
    recall = (
        " recall is the share of the other genes whose measured profile is more like the inferred one than the gene's "
        "own; up to .05 counts as trusted."
    )
    return Section(
        "Which genes?",
        f"Correlation over these samples.{recall if RECALL in judged.var else ''}",
        [
            frame_of(ordered.head(SHOWN), "The genes that follow their measured values best."),
            frame_of(ordered.tail(SHOWN)[::-1], "Those that do worst."),
        ],
        [
            drawn(f"The {words} gene by r: inferred against measured.", pl.gene, judged, ordered.index[i], name)
            for words, i in shown.items()
        ],
    )


def provenance(fitted: FittedModel) -> Iterator[tuple[str, str]]:
    """Yield what the record says of itself."""
    yield "SHA-256 of the record", sha256(to_bytes(fitted)).hexdigest()
    for key, value in fitted.params().items():
        yield key, f"{value:,}" if type(value) is int else f"{value:.6g}" if isinstance(value, float) else str(value)
    yield "first landmarks", ", ".join(fitted.landmarks[:5])
    yield "first targets", ", ".join(fitted.targets[:5])


def frame_of(frame: pd.DataFrame, caption: str) -> TableOf:
    """Return a table of numbers as text."""
    rows = [
        [str(name), *(f"{v:,}" if isinstance(v, (int, np.integer)) else "–" if pd.isna(v) else f"{v:.3f}" for v in row)]
        for name, row in zip(frame.index, frame.astype(object).to_numpy(), strict=True)
    ]
    return TableOf(["", *(HEADS.get(column, column.replace("_", " ")) for column in frame)], rows, caption)


def drawn(caption: str, draw: Callable[..., object], *args: Any, **kwargs: Any) -> Figure:
    """Return what a function of `gexinfer.pl` draws."""
    from matplotlib.figure import Figure as Canvas

    # Not through pyplot, which would keep it and show it.
    canvas, file = Canvas(figsize=(3.6, 3.3), layout="constrained"), io.BytesIO()
    draw(*args, **kwargs, ax=canvas.subplots())
    canvas.savefig(file, format="png", dpi=160)
    return Figure(base64.b64encode(file.getvalue()).decode(), caption)
