from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._names import listed
from gexinfer._slots import (
    LANDMARK,
    SPLIT,
    check_in_memory,
    check_loaded,
    check_unique,
    group_codes,
    matrix,
    named_places,
    split_rows,
)
from gexinfer._values import profile, refuse_not_finite, where_from
from gexinfer.engine.blocks import Indices, in_row_order
from gexinfer.engine.report import say, steps, warn
from gexinfer.engine.selection import Pick, drawn, factor, forward, weighted_scale

FEWEST_ROWS = 10
# As the sd + 1e-3 of the standardisation has it: a gene that varies less does so by rounding.
FEWEST_SD = 1e-3


def select_landmarks(
    adata: AnnData,
    n: int = 1000,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    groupby: str | None = None,
    layer: str | None = None,
    key_added: str = LANDMARK,
    progress: bool = True,
    copy: bool = False,
) -> AnnData | None:
    """Choose the genes from which the others can best be inferred, and flag them as landmarks.

    Forward selection: each pick is the gene that, together with those picked before, leaves least of the other genes'
    variance unexplained by a linear fit. Every gene counts the same, as they are standardised. When what is left is
    noise, that is when the best gene explains hardly more than chance would, or after a quarter as many picks as there
    are samples (with `groupby`, as they count for), a further round of picks starts from the whole variance again.
    Nothing is drawn at random, and the first 100 of 1,000 picks are those of `n=100`.

    Learned from the training rows of `obs["split"]` where there is a split, so that the error that
    `gexinfer.tl.evaluate` reports holds for the choice, too; else from all rows. Of more than 3,000 rows of more than
    3,000 genes, 3,000 are taken, evenly spaced. Needs rows x genes x 4 bytes of memory; with fewer genes than rows,
    genes x genes x 20 bytes.

    Parameters
    ----------
    adata
        Whole transcriptomes on a log scale, samples x genes.
    n
        Number of landmarks, those of `include` among them.
    include
        Genes that are in the panel whatever they say: a bool column of `var`, or names. They come first, and the first
        round of picks adds what they leave unexplained.
    exclude
        Genes that must not be in the panel, e.g. those that the assay cannot measure: a bool column of `var`, or names.
        The panel is still to infer them; to leave genes out of account, drop them from `adata`.
    groupby
        Column of `obs` whose groups count the same, e.g. cell type or tissue, whatever their number of samples; but no
        sample counts for more than ten. Without it samples count the same, and rare groups little.
    layer
        Layer to learn from; `X` where it is not given.
    key_added
        Column of `var` to write; other functions read `"landmark"`. A bool column of this name is overwritten.
    progress
        Show a bar, or a line where there is no screen.
    copy
        Return a changed copy instead of changing `adata`.

    Returns
    -------
    None, or the copy. Writes:

    `var[key_added]`
        bool.
    `uns[key_added + "_picks"]`
        A DataFrame with a row for each landmark, in the order of picking: its `round`, and `left`, the share of all
        genes' variance on these rows that the picks of this round up to here leave unexplained. On new samples more is.

    Raises
    ------
    KeyError
        `layer`, `groupby`, or a gene of `include` or `exclude` is not there.
    TypeError
        `n` is no whole number, or a column that should be bool is not.
    ValueError
        `n` is not between 1 and the number of genes that can be taken, a gene is included and excluded, values are NaN
        or inf, a group is missing, gene names are not unique, or there are fewer than 10 rows.

    Warns
    -----
    UserWarning
        The values look like raw counts, or a gene of `include` does not vary.

    Examples
    --------
    >>> gx.pp.select_landmarks(ref, n=20, include=["STAT1"])
    >>> ref.uns["landmark_picks"].head(3).round(2)
           round  left
    STAT1      1  0.93
    GTF2I      1  0.68
    ACD        1  0.57
    """
    (check_loaded if copy else check_in_memory)(adata)
    check_unique(adata)
    check_column(adata, key_added)
    forced, barred = places(adata, include, "include"), places(adata, exclude, "exclude")
    check_number(adata, n, forced, barred)
    among = split_rows(adata, "train") if SPLIT in adata.obs else np.arange(adata.n_obs)
    which = f"training rows of obs[{SPLIT!r}]" if SPLIT in adata.obs else "rows, all"
    if len(among) < FEWEST_ROWS:
        raise ValueError(
            f"There are {len(among)} {which}; at least {FEWEST_ROWS} are needed. Bring more samples, or run "
            f"gexinfer.pp.split(adata) again, or drop adata.obs[{SPLIT!r}] to take all rows."
        )
    groups = np.zeros(len(among), np.intp) if groupby is None else group_codes(adata.obs.iloc[among], groupby)[0]
    taken, weights = drawn(groups, adata.n_vars)
    rows, source = among[taken], in_row_order(matrix(adata, layer))
    scale, not_finite = weighted_scale(source, rows, weights)
    refuse_not_finite(not_finite, adata.var_names, len(rows), where_from(layer))
    varies = scale.sd > FEWEST_SD
    idle = adata.var_names[forced[~varies[forced]]]
    allowed = varies.copy()
    allowed[barred] = False
    possible = len(np.union1d(np.flatnonzero(allowed), forced))
    if n > possible:
        raise ValueError(
            f"n={n:,} landmarks cannot be taken: {possible:,} of {adata.n_vars:,} genes vary in the {len(rows):,} rows "
            f"and are not excluded. Ask for at most {possible:,}, or exclude fewer."
        )
    if len(idle):
        warn(
            f"{len(idle):,} genes of include= do not vary in the {len(rows):,} rows: {listed(idle)}. They say nothing."
        )
    if profile(source, rows, np.flatnonzero(varies))["counts"]:
        warn(
            f"{where_from(layer)} looks like raw counts. The choice will be that of the few deepest samples: normalise "
            "and take logs first, e.g. sc.pp.normalize_total(adata, target_sum=1e6); sc.pp.log1p(adata, base=2).",
        )
    shares = np.bincount(groups[taken], weights)
    few = int((shares < 0.99 * shares.max()).sum())
    # Of unequal rows, those that weigh little say little.
    n_rows = 1 / (weights**2).sum()
    picks: list[Pick] = []
    with steps("select_landmarks", n, show=progress) as advance:
        for pick in islice(forward(factor(source, rows, weights, scale), list(forced), allowed, n_rows), n):
            picks.append(pick)
            advance(1, f"{pick.left:.1%} of the variance left")

    adata = adata.copy() if copy else adata
    genes = [pick.gene for pick in picks]
    adata.var[key_added] = np.isin(np.arange(adata.n_vars), genes)
    adata.uns[f"{key_added}_picks"] = pd.DataFrame(
        {"round": [pick.round for pick in picks], "left": [pick.left for pick in picks]}, adata.var_names[genes]
    )
    say(
        f"select_landmarks: {n:,} of {adata.n_vars:,} genes by {len(rows):,} {which}"
        + (f" (of {len(among):,})" if len(rows) < len(among) else "")
        + (f", each {groupby} counting the same" if groupby else "")
        + (f" but for {few:,} of few samples" if few else "")
        + (f"; {(~varies).sum():,} genes do not vary" if not varies.all() else "")
    )
    return adata if copy else None


def check_column(adata: AnnData, key_added: str) -> None:
    """Refuse to overwrite what is no flag of genes."""
    if not isinstance(key_added, str) or not key_added or "/" in key_added or key_added.startswith(("gexinfer_", "_")):
        raise ValueError(
            f"key_added={key_added!r} names a column in a file: text without '/', that does not start with '_' or "
            "'gexinfer_'."
        )
    picks = f"{key_added}_picks"
    if picks in adata.uns and not {"round", "left"} <= set(getattr(adata.uns[picks], "columns", ())):
        raise ValueError(f"adata.uns[{picks!r}] holds something else, which would be lost; choose another key_added=.")
    if key_added in adata.var and not pd.api.types.is_bool_dtype(adata.var[key_added]):
        raise ValueError(
            f"adata.var[{key_added!r}] has dtype {adata.var[key_added].dtype}, so it flags no genes and would be lost; "
            "choose another key_added=, or delete the column."
        )


def places(adata: AnnData, genes: str | Sequence[str] | None, argument: str) -> Indices:
    """Return where the genes of an argument stand in `var`."""
    return np.empty(0, np.intp) if genes is None else named_places(adata, genes, argument)


def check_number(adata: AnnData, n: int, forced: Indices, barred: Indices) -> None:
    """Refuse a panel that cannot be, as far as its size and the genes asked for tell."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer):
        raise TypeError(f"n={n!r} must be a whole number of landmarks.")
    both = adata.var_names[np.intersect1d(forced, barred)]
    if len(both):
        raise ValueError(f"{len(both):,} genes are in include= and in exclude=: {listed(both)}. Drop them from one.")
    if not max(len(forced), 1) <= n < adata.n_vars:
        raise ValueError(
            f"n={n:,} must be at least 1 and the {len(forced):,} genes of include=, and below the {adata.n_vars:,} "
            "genes there are, so that one is left to infer."
        )
