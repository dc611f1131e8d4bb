from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from gexinfer._names import listed
from gexinfer._record import FittedModel, is_record, row_digests, to_uns
from gexinfer._slots import (
    PER_GENE,
    SPLIT,
    check_in_memory,
    check_name,
    check_unique,
    gene_slot,
    landmark_places,
    layer_names,
    matrix,
    predicted_layers,
    split_by,
    split_rows,
    target_places,
)
from gexinfer._values import profile, refuse_not_finite, scale_mismatch, where_from
from gexinfer.engine.blocks import Pairs, Rows, Scale, in_row_order
from gexinfer.engine.cluster import client_for, total
from gexinfer.engine.gaussian import packed
from gexinfer.engine.moments import Moments, moments, part_moments
from gexinfer.engine.report import say, warn
from gexinfer.engine.run import Callback, Run
from gexinfer.methods import Method, Model, Task, configure, get_method
from gexinfer.tl._held_out import held_out
from gexinfer.tl._init import matched, model_to_start_from, same_shape
from gexinfer.tl._modality import one_modality
from gexinfer.tl._others import places_in, source_of
from gexinfer.tl._unlabeled import unlabeled_samples

FEWEST_ROWS = 10
# So many training rows are enough to find the landmark nearest to each target.
NEAREST_ROWS = 2000
REMEDY = "run gexinfer.pp.split(adata, fractions=(.8, .1, .1))."


def fit(
    adata: AnnData | MuData,
    method: str = "auto",
    *,
    modality: str | None = None,
    layer: str | None = None,
    targets: str | Sequence[str] | None = None,
    allow_overlap: bool = False,
    key_added: str | None = None,
    rng: int | np.random.Generator = 0,
    device: str = "auto",
    validation: AnnData | None = None,
    unlabeled: AnnData | str | None = None,
    init: AnnData | FittedModel | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | str = "10min",
    callback: Callback | None = None,
    progress: bool = True,
    copy: bool = False,
    **options: Any,
) -> AnnData | MuData | None:
    """Learn to infer target genes from landmark genes.

    Landmarks are the genes flagged in `var["landmark"]`, targets all others. The model learns from the rows that
    `obs["split"]` marks as train; rows marked validation pick the penalty, the number of neighbours or the epoch, and
    weigh the members of `auto`, which ends by fitting `ridge` and `kernel` among them to these rows as well. Errors on
    validation rows are from before. Genes are standardised with the training rows' mean and standard deviation (plus
    1e-3) inside the model: give it values on a log scale as they are.

    On a `dask.distributed` client, sums over the training rows of a dask array are taken on its workers.

    Parameters
    ----------
    adata
        Whole transcriptomes, samples x genes, dense or sparse, on a log scale.
    modality
        Of a MuData, the modality with whole transcriptomes; it is read and written as an AnnData is.
    method
        `"auto"`, several of the others as data and time allow, weighed per target by their errors on validation rows;
        or one of `"mean"`, `"ols"`, `"ridge"`, `"lasso"`, `"rrr"`, `"knn"`, `"knn_genes"`, `"sample_lasso"`,
        `"kernel"`, `"dgex"`, `"residual"`, `"ggan"` or `"semigan"`.
    layer
        Layer to learn from; `X` where it is not given.
    targets
        Which genes to infer: a bool column of `var` or a list of names. All that are no landmarks where not given.
    allow_overlap
        Infer landmarks too, where `targets` names some.
    key_added
        Name of the model, and of the layer its predictions go to; the method's name where it is not given.
    rng
        Seed or generator. The same seed on the same machine gives the same bits.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device; for
        the networks of `target_blocks` several, `"cuda:0,cuda:1"`.
    validation
        Another AnnData, all rows of which are the validation rows, in the units of `adata`; for instance of the
        platform that queries will come from. `layer` is read where it has one of that name, else `X`. The rows of
        `adata` that are marked validation take no part then.
    unlabeled
        For `semigan`, samples of which only the landmarks are known, in the units of `adata`: another AnnData, of which
        `layer` is read where it has one of that name, else `X`; the name of a bool column of `obs` that marks such rows
        of `adata`; or the name of a layer of `adata`, of which all rows but those of validation and test are read.
    init
        For networks, another model to start from: one read by `gexinfer.io.read_model`, or an AnnData with one model of
        this method, or with one named `key_added`. Genes are matched by name; the weights of new ones are initialised.
    checkpoint
        For networks, a directory for the state of the training. The same call goes on from there if the process was
        ended, to the same bits.
    checkpoint_every
        Number of epochs, or a time such as `"10min"`, after which the state is written, at the end of an epoch.
    callback
        For networks, a function that is called after each epoch with a dict: `title`, `epoch`, `epochs`, `loss` (the
        mean over the epoch's samples; of `dgex` summed over targets), each term of the loss, `train_mae` and
        `validation_mae` (standard deviations), `learning_rate`, `samples_per_second`, `memory_bytes` (the device's
        peak; on the CPU, the process's now).
    progress
        Show a bar, or a line where there is no screen.
    copy
        Return a changed copy instead of changing `adata`.
    **options
        The method's own. `auto`: `budget`, the time a fit may take, e.g. "30s", "5min" or "2h". `ridge`: `penalty`,
        `per_gene`. `lasso`, `sample_lasso`: `penalty`. `rrr`: `rank`, `penalty`. `knn`: `k`, `metric` ("euclidean" or
        "correlation"), `weights` ("uniform" or "distance"). `knn_genes`: `k`. `kernel`: `kernel` ("arccos", "rbf" or
        "laplace"), `depth`, `bandwidth`, `linear`, `penalty`, `huber`, `n_inducing`.
        All networks: `recipe` ("modern" or "paper"), `trunk` ("mlp", "dense", "residual", "conv1d" or "graph"),
        `structure` ("data" or "random"), `layers`, `hidden`, `dropout`, `activation`, `layer_norm`, `weight_norm`,
        `skip`, `input_noise`, `optimiser`, `schedule`, `weight_decay`, `ema`, `epochs`, `batch_size`, `learning_rate`,
        `target_blocks`, `block_by` ("random" or "clusters"), `n_members`. And `dgex` and `residual`: `loss`.
        `residual`: `penalty`. `ggan` and `semigan`: `lambda_cons`, `discriminator_hidden`,
        `discriminator_learning_rate`, `discriminator_momentum`, `discriminator_norm`, `lambda_adv`, `warm_up`,
        `keep_discriminator`. `ggan`: `adversarial` ("least_squares", "hinge" or "wasserstein"). `semigan`:
        `lambda_made`, `generator_hidden`.

    Returns
    -------
    None, or the copy. Writes:

    `uns[key_added]`
        `params`, scalars to read, and `state`, the model.
    `varm["gexinfer_penalty"]`
        For `ridge` with `per_gene=True`: a column with the penalty of each target.
    `varm["gexinfer_n_landmarks"]`
        For `lasso`: a column with the number of landmarks that each target uses.

    Raises
    ------
    KeyError
        A slot is missing, or `modality` is not there.
    TypeError
        `var["landmark"]` is not bool, or the method has no such option.
    FloatingPointError
        A network diverged, or the `penalty` of a `kernel` is too weak; `auto` leaves such a member out.
    KeyboardInterrupt
        A network's training was interrupted in its first epoch, or before all of `target_blocks` had one; later, the
        best epoch so far becomes the model. Of `auto` those members that are there do, and it raises where none is.
    ValueError
        No landmark or no target, a landmark among the targets, duplicate gene names, NaN or inf, an empty side of the
        split, fewer than 10 training rows, duplicate sample names, an unknown method, `unlabeled` samples that lack
        landmarks, or `validation` samples that lack landmarks or targets or bear the names of training or test rows.

    Warns
    -----
    UserWarning
        The values look like raw counts or like standardised ones, a gene is constant, `ols` has too few rows or
        collinear landmarks, the training of a network was interrupted or ran out of memory on the device, a GAN's
        discriminator is at chance, outrun or certain for long, its generator collapses or its other terms outweigh L1,
        or `unlabeled` or `validation` is on another scale; a member of `auto` failed, or it was interrupted;
        or `huber` is given to a `kernel` for whose exact solution there is no memory.

    References
    ----------
    Chen et al., Bioinformatics 2016, 32:1832 :cite:p:`chen2016` (D-GEX, and the methods it was compared with: `ols`,
    `ridge`, `lasso`, `knn_genes`). Mancuso et al., Nucleic Acids Research 2020, 48:e125 :cite:p:`mancuso2020`
    (`sample_lasso`). Mukherjee and Zhu, Statistical Analysis and Data Mining 2011, 4:612 :cite:p:`mukherjee2011`
    (`rrr`). Cho and Saul, NIPS 2009 :cite:p:`cho2009` (`kernel`). Wang et al., Bioinformatics 2018, 34:i603
    :cite:p:`wang2018gan` (`ggan`). Ghasedi Dizaji et al., KDD 2018 :cite:p:`ghasedi2018` (`semigan`).

    Examples
    --------
    >>> gx.tl.fit(ref, budget="1s")  # auto: what can be fitted in about a second
    >>> gx.tl.fit(ref, method="ridge", targets=["A2M", "LDLR"], key_added="two_genes")
    >>> gx.tl.fit(ref, method="dgex", hidden=64, epochs=2)
    >>> sorted(name for name, entry in ref.uns.items() if "state" in entry)
    ['auto', 'dgex', 'ridge', 'two_genes']
    >>> ref.uns["two_genes"]["params"]["n_targets"]
    2
    """
    whole, adata = adata, one_modality(adata, modality)
    chosen = get_method(method)
    key = chosen.name if key_added is None else key_added
    if not isinstance(device, str):
        raise TypeError(f"device={device!r} must be text, e.g. 'auto', 'cpu' or 'cuda:1'.")
    run = networks_run(chosen, checkpoint, checkpoint_every, callback, progress)
    source = None if init is None else model_to_start_from(init, chosen, key)
    config = configure(chosen, options if source is None else same_shape(source, chosen, options))
    check_in_memory(adata)
    check_key(adata, key, chosen, layer)
    sides = resolve_rows(adata, layer, targets, allow_overlap, validation)
    check_validation(chosen, config, sides)
    # Before the values are looked at: of samples on no side they need not be finite.
    others = None if unlabeled is None else unlabeled_samples(unlabeled, adata, layer, sides.train.landmarks, chosen)
    reference = look(adata, layer, sides, products=chosen.products)
    alone = None if others is None else others.pairs(reference)
    fitted = learn(
        adata, reference, chosen, config, key, rng=rng, device=device, run=run, source=source, unlabeled=alone
    )
    whole = whole.copy() if copy else whole
    write_model(one_modality(whole, modality), key, fitted)
    return whole if copy else None


@dataclass(frozen=True)
class Sides:
    """The rows to learn from and to choose by, which may be those of another object; what that is called."""

    train: Rows
    validation: Rows
    validation_names: pd.Index
    validation_in: str


@dataclass(frozen=True)
class Reference:
    """What a method learns from, and what is known of it: rows, their moments in data units, the kind of values.

    `nearest` are the landmark nearest to each target and their correlation, under the names that a record has for them.
    """

    layer: str | None
    sides: Sides
    moments: Moments
    values: Mapping[str, Any]
    nearest: Mapping[str, np.ndarray]


def learn(
    adata: AnnData,
    reference: Reference,
    method: Method,
    config: Any,
    key: str,
    *,
    rng: int | np.random.Generator,
    device: str,
    run: Run,
    source: FittedModel | None = None,
    unlabeled: Pairs | None = None,
    refit: bool = True,
) -> FittedModel:
    """Fit one method and tell how far off it is on the validation rows.

    Without `refit` none learns from these as well, so that the training rows are all that a model has learned from.
    """
    sides, scale, standardised = reference.sides, reference.moments.scale, reference.moments.standardised()
    train, validation = sides.train, sides.validation
    task = Task(
        Pairs(train, scale),
        Pairs(validation, scale),
        standardised,
        np.random.default_rng(rng),
        device,
        run,
        None if source is None else matched(source, adata, train, progress=run.progress),
        unlabeled,
    )
    model = method.fit(task, config)
    picked = "".join(
        f", {name} {value:{',' if isinstance(value, int) else '.4g'}}"
        for name, value in model.notes.items()
        # Those of the members of `auto` are in its own table.
        if not isinstance(value, str) and "." not in name
    )
    n = len(train.landmarks)
    fitted = FittedModel(
        method=method.name,
        config=config,
        model=model,
        landmarks=tuple(adata.var_names[train.landmarks]),
        targets=tuple(adata.var_names[train.targets]),
        landmark_scale=Scale(scale.mean[:n], scale.sd[:n]),
        target_scale=Scale(scale.mean[n:], scale.sd[n:]),
        landmark_covariance=packed(standardised.xx / standardised.n),
        landmark_profile=reference.moments.profile,
        input={"layer": reference.layer or "X", **reference.values},
        provenance={
            "gexinfer": version("gexinfer"),
            "n_train": len(train),
            "n_validation": len(validation),
            "split_by": split_by(adata),
            "validated_on": sides.validation_in,
            **({} if source is None else {"started_from_model": True}),
        },
        # What a model to start from has seen, this one has.
        training_rows=np.union1d(
            row_digests(adata.obs_names[train.rows].append(sides.validation_names)),
            np.empty(0, np.uint64) if source is None else source.training_rows,
        ),
        samples=tuple(adata.obs_names[train.rows].astype(str)) if method.similar else (),
        known=reference.nearest,
    )
    error = ""
    if len(validation):
        mae, known = held_out(fitted, task)
        model = Model(model.arrays, {**model.notes, "validation_mae": mae})
        if refit and method.ends_with_refit and method.refit is not None and sides.validation_in == "adata":
            model = method.refit(task, config, model)
        fitted = replace(fitted, model=model, known={**fitted.known, **known})
        error = f", validation MAE {mae:.4f} standard deviations"
    if run.progress and (error or picked):
        say(f"fit: uns[{key!r}]{error}{picked}")
    return fitted


def networks_run(
    method: Method,
    checkpoint: str | Path | None,
    every: int | str,
    callback: Callback | None,
    progress: bool,
) -> Run:
    """Return what is asked of the training, having refused what no training can do."""
    for name, value in (("checkpoint", checkpoint), ("callback", callback)):
        if value is not None and not method.by_epochs:
            raise ValueError(
                f"{name}={value!r} is for networks, which learn by epochs; method={method.name!r} does not. Name one, "
                "e.g. method='dgex'."
            )
    if callback is not None and not callable(callback):
        raise TypeError(f"callback={callback!r} must be a function of one dict.")
    if not isinstance(checkpoint, str | Path | None):
        raise TypeError(f"checkpoint={checkpoint!r} must be the path of a directory.")
    folder = None if checkpoint is None else Path(checkpoint)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"checkpoint={str(checkpoint)!r} is a file; name a directory.")
    epochs = seconds = 0.0
    try:
        if isinstance(every, str):
            seconds = pd.Timedelta(every).total_seconds()
        elif not isinstance(every, bool):
            epochs = int(every)
    except ValueError:
        pass  # told below
    if not max(epochs, seconds) > 0:
        raise ValueError(f"checkpoint_every={every!r} must be a number of epochs, or a time such as '10min'.")
    return Run(progress, callback, folder, epochs, seconds)


def write_model(adata: AnnData, key: str, fitted: FittedModel) -> None:
    """Write `uns[key]`, and into `varm` what the fit says of each gene."""
    adata.uns[key] = to_uns(fitted)
    for name in PER_GENE:
        slot = gene_slot(name)
        # A fit of another kind under this name must not leave the old one's column behind.
        before = adata.varm.get(slot)
        kept = before.drop(columns=key, errors="ignore") if isinstance(before, pd.DataFrame) else pd.DataFrame()
        if name in get_method(fitted.method).per_gene and name in fitted.model.arrays:
            column = pd.Series(fitted.model.arrays[name], list(fitted.targets), dtype=float)
            adata.varm[slot] = kept.reindex(adata.var_names).assign(**{key: column})
        elif slot in adata.varm and kept.shape[1] == 0:
            del adata.varm[slot]
        elif slot in adata.varm:
            adata.varm[slot] = kept


def check_validation(method: Method, config: Any, sides: Sides) -> None:
    """Refuse a method that has to choose its settings and has no rows to do so."""
    if len(sides.validation) == 0 and method.selects(config):
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks no row as 'validation', on which method={method.name!r} chooses its settings: "
            f"{REMEDY}"
        )


def check_key(adata: AnnData, key: str, method: Method, layer: str | None) -> None:
    """Refuse a name that would overwrite what is no model, or the values a model learns from."""
    check_name(key, method.name)
    if key in adata.uns and not is_record(adata.uns[key]):
        raise ValueError(f"adata.uns[{key!r}] holds something that is no gexinfer model; choose another key_added=.")
    if key in layer_names(adata) and (key == layer or key not in predicted_layers(adata)):
        raise ValueError(
            f"adata.layers[{key!r}] is there already, and gexinfer did not write it; predictions under this name would "
            "overwrite it. Choose another key_added=, or delete the layer."
        )


def resolve_rows(
    adata: AnnData,
    layer: str | None,
    targets: str | Sequence[str] | None,
    allow_overlap: bool,
    other: AnnData | None = None,
) -> Sides:
    """Return the training and the validation rows of landmarks and targets, or say what is wrong with them."""
    check_unique(adata)
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()].unique()
        raise ValueError(
            f"adata.obs_names holds {len(twice):,} names more than once: {listed(twice)}. Test rows are told from "
            "training rows by name: run adata.obs_names_make_unique() first."
        )
    landmarks = landmark_places(adata)
    wanted = target_places(adata, targets, landmarks, allow_overlap)
    train, validation = split_rows(adata, "train"), split_rows(adata, "validation")
    if len(train) < FEWEST_ROWS:
        raise ValueError(
            f"adata.obs[{SPLIT!r}] marks {len(train)} rows as 'train'; at least {FEWEST_ROWS} are needed: {REMEDY}"
        )
    rows = Rows(in_row_order(matrix(adata, layer)), train, landmarks, wanted)
    if other is None:
        return Sides(rows, replace(rows, rows=validation), adata.obs_names[validation], "adata")
    return Sides(rows, validation_rows(other, adata, layer, rows), other.obs_names, "another object")


def validation_rows(other: AnnData, adata: AnnData, layer: str | None, train: Rows) -> Rows:
    """Return all rows of another object, with the genes of the training rows."""
    if not isinstance(other, AnnData):
        raise TypeError(f"validation is a {type(other).__name__}; pass an AnnData with whole transcriptomes.")
    if other.n_obs == 0:
        raise ValueError("validation= holds no sample; leave it out.")
    for side in ("train", "test"):
        shared = adata.obs_names[split_rows(adata, side)].intersection(other.obs_names)
        if len(shared):
            raise ValueError(
                f"validation.obs_names shares {len(shared):,} names with the rows of adata that are marked {side!r}: "
                f"{listed(shared)}. What is learned from, or judged by, cannot choose. Drop those samples; if they are "
                "others of the same name, run other.obs_names = 'other-' + other.obs_names."
            )
    source, _ = source_of(other, "validation", layer)
    landmarks = places_in(other, "validation", adata.var_names[train.landmarks], "landmarks")
    targets = places_in(other, "validation", adata.var_names[train.targets], "targets")
    return Rows(source, np.arange(other.n_obs), landmarks, targets)


def look(adata: AnnData, layer: str | None, sides: Sides, *, products: bool) -> Reference:
    """Return the rows with their moments and kind of values, having refused or warned of what spoils a fit."""
    train, validation = sides.train, sides.validation
    names = adata.var_names[np.concatenate([train.landmarks, train.targets])]
    sums = sums_over(train, cross=products)
    not_finite, looked_at = sums.not_finite, len(train)
    if len(validation):
        every = np.concatenate([validation.landmarks, validation.targets])
        # No products: only whether values are finite.
        columns = replace(validation, landmarks=np.empty(0, np.intp), targets=every)
        found = sums_over(columns, cross=False).not_finite
        if validation.source is train.source:
            not_finite, looked_at = not_finite + found, looked_at + len(validation)
        else:
            refuse_not_finite(found, names, len(validation), "validation=")
    refuse_not_finite(not_finite, names, looked_at, where_from(layer))
    scale = sums.scale
    values = profile(train.source, train.rows, train.landmarks)
    if sides.validation_in != "adata":
        mean = scale.mean[: len(train.landmarks)]
        mismatch = scale_mismatch(values, mean, validation.source, validation.rows, validation.landmarks)
        if mismatch:
            warn(f"validation: {mismatch}Bring it to the units of adata, e.g. with gexinfer.pp.quantile_normalize.")
    if values["counts"]:
        warn(
            f"{where_from(layer)} looks like raw counts (95 % of the landmarks' values are up to "
            f"{values['quantiles'][-1]:g}). Errors will be those of the few highest genes: normalise and take logs "
            "first, e.g. sc.pp.normalize_total(adata, target_sum=1e6); sc.pp.log1p(adata).",
        )
    if ((np.abs(scale.mean) < 0.2) & (np.abs(scale.sd - 1) < 0.2)).mean() > 0.9:
        warn(
            f"{where_from(layer)} looks standardised gene by gene. Fit on log values as they are: a model standardises "
            "them itself, and a single new sample cannot be brought to this scale.",
        )
    constant = names[scale.sd == 0]
    if len(constant):
        warn(
            f"{len(constant):,} genes are constant in the {len(train):,} training rows: {listed(constant)}. As "
            "landmarks they say nothing; as targets they are predicted as their mean.",
        )
    return Reference(layer, sides, sums, values, nearest_landmarks(train, sums))


def nearest_landmarks(train: Rows, sums: Moments) -> dict[str, np.ndarray]:
    """Return the landmark with the largest absolute correlation with each target, and that correlation.

    Of evenly spaced rows, whatever the method sums up itself, so that all models of a reference agree.
    """
    picks = np.unique(np.linspace(0, len(train) - 1, min(len(train), NEAREST_ROWS)).astype(int))
    if len(picks) < len(train) or not sums.xy.size:
        sums = sums_over(replace(train, rows=train.rows[picks]), cross=True)
    p = len(sums.xx)
    length = np.sqrt(sums.squares)
    length[length == 0] = np.inf
    r = sums.xy / length[:p, None] / length[p:]
    nearest = np.abs(r).argmax(axis=0)
    return {
        "nearest": nearest.astype(np.int32),
        "nearest_weight": r[nearest, np.arange(len(nearest))].astype(np.float32),
    }


def sums_over(rows: Rows, *, cross: bool) -> Moments:
    """Return the moments of rows, on the cluster where the caller has one."""
    client = client_for(rows.source)
    if client is None:
        return moments(rows.blocks(), len(rows.landmarks), len(rows), cross=cross)
    return total(client, [rows.source], rows.rows, part_moments, rows.landmarks, rows.targets, len(rows), cross)
