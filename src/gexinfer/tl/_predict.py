from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from gexinfer._fitted import FittedModel
from gexinfer._names import lacking, listed, locate
from gexinfer._record import is_record
from gexinfer._slots import check_adata, check_in_memory, check_unique, layer_names, predicted_layers
from gexinfer.engine.cluster import is_lazy
from gexinfer.engine.report import say, steps, warn
from gexinfer.methods import METHODS, get_method
from gexinfer.tl._adapt import ADAPT
from gexinfer.tl._answers import measured_and_inferred, obs_in_memory, tell_of_novelty, whole_answer, write_answers
from gexinfer.tl._intervals import BOUNDS, intervals_of, warn_of_intervals
from gexinfer.tl._lazy import lazy_answer
from gexinfer.tl._modality import check_modality, one_modality
from gexinfer.tl._models import first_layer, resolve
from gexinfer.tl._query import layer_of, query_of
from gexinfer.tl._stream import check_path, stream
from gexinfer.tl._trusted import check_recall, is_trusted, names_not_trusted

IN_MEMORY = ("layer", "anndata", "mudata")


def predict(
    adata: AnnData | MuData,
    model: AnnData | MuData | FittedModel | None = None,
    *,
    modality: str | None = None,
    key: str | Iterable[str] | None = None,
    output: Literal["layer", "anndata", "mudata"] | str | Path = "layer",
    layer: str | None = None,
    adapt: Literal["none", "quantile", "moments"] = "none",
    max_missing: float = 0.5,
    genes: Sequence[str] | None = None,
    trusted_only: bool = False,
    std: bool = False,
    interval: float | None = None,
    interval_scaled: bool = True,
    dtype: Literal["float32", "float16"] = "float32",
    device: str = "auto",
    progress: bool = True,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Infer target genes from landmark genes.

    Genes are matched by name, in any order, Ensembl ids with or without their version. Predictions come in the units of
    the values that were fitted. Landmarks that a sample lacks, as a gene that is not there or as NaN, are filled in: by
    their mean given the landmarks that it has, under the Gaussian of the training rows; `sample_lasso` does without.

    Rows are read in blocks: beyond the result, samples x genes x 4 bytes for each model, memory holds a thousand rows
    or a chunk. Values that are a dask array give dask layers, of which nothing is computed before it is asked for, with
    the same numbers; on a `dask.distributed` client they are computed there.

    Parameters
    ----------
    adata
        Samples x genes, with landmarks of the model.
    model
        Where the model is: an AnnData or MuData that was fitted, or a model read by `gexinfer.io.read_model`. `adata`
        itself where it is not given.
    modality
        Of a MuData, the modality with the landmarks. The model may be in another one, whose samples are others.
    key
        Name of the model, or several; all that are there where it is not given.
    output
        `"layer"` writes into `adata`, which must hold all targets. `"anndata"` builds a new AnnData of landmarks and
        targets. `"mudata"` builds a MuData of `measured`, a copy of `adata`, and `inferred`, the targets; a target that
        `adata` measures is in both, and a landmark that it has no column for is among the inferred. Of a MuData it
        keeps all modalities. A path that ends in `.zarr` writes an AnnData of one model to disk, in memory that does
        not grow with samples; a run that was killed goes on where it was.
    layer
        Layer with the landmarks' values, `"X"` for X. Where it is not given, the layer the model was fitted on, or X
        where `adata` has no such layer.
    adapt
        How a query of another platform is brought to the training rows' scale: `"none"`; `"quantile"`, by which each
        sample's landmarks get the training rows' mean sorted profile by their ranks; or `"moments"`, by which each
        landmark gets the training rows' mean and standard deviation over the query, of 10 or more samples.
    max_missing
        The largest share of the landmarks that a sample may lack, but for `sample_lasso`. One that lacks all is always
        refused.
    genes
        Names of the genes that a new object is to hold, for instance those that are inferred well.
    trusted_only
        Leave out inferred genes that are not trusted, as `gexinfer.tl.trust` found on test rows of the reference: NaN
        in a layer, not there in a new object unless another model trusts them.
    std
        Write the standard deviation of each inferred value, too. `kernel` knows it, and networks with `n_members`, of
        which it is that over the members: how much of a value hangs on chance in training.
    interval
        Write the bounds that hold a measured value with this probability, such as .9, too. They follow from the errors
        on validation rows.
    interval_scaled
        Let intervals grow with the square root of a sample's novelty, as errors do, and of an ensemble with how far its
        members are apart on a value. Else those of one gene are as wide for every sample.
    dtype
        What a zarr store holds: `"float16"` keeps 11 significant bits in half the space.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.
    copy
        For `output="layer"`: return a changed copy instead of changing `adata`.

    Returns
    -------
    None or the copy for `output="layer"`, None for a path, else the new object. Of `adata` or the new AnnData these
    slots are written:

    `layers[key]`
        float32, one for each model: landmarks carry their measured value, with `adapt` on the training rows' scale,
        targets and missing landmarks the inferred one, other genes NaN.
    `layers[key + "_std"]`
        With `std=True`: the standard deviation of the inferred targets, in units of the data; other genes NaN. What is
        missing is taken as measured, so that it is too small for samples that lack landmarks. Without it that of an
        earlier prediction by this model is deleted.
    `layers[key + "_lower"]`, `layers[key + "_upper"]`
        With `interval`: the bounds of inferred targets, in units of the data; NaN for other genes and for those that
        were constant in the training rows. Without it the bounds of an earlier prediction by this model are deleted.
    `uns["gexinfer_intervals"]`
        With `interval`: a DataFrame, one row for each model with bounds, with their `level` and whether they are
        `scaled`.
    `var["gexinfer_role"]`
        landmark, inferred or not in model, as are genes that `trusted_only` leaves out; where models or samples differ,
        inferred if any infers the gene. Of dask arrays nobody knows yet what single samples lack: only landmarks
        without a column count as inferred.
    `var["gexinfer_recall"]`, `var["gexinfer_trusted"]`
        Where `gexinfer.tl.trust` was run for all these models: the recall of inferred genes, of several models the
        worst; and whether a gene was measured, as landmark, or is recalled well enough. Else those of an earlier
        prediction are deleted.
    `obs["gexinfer_missing"]`
        The share of landmarks that a sample lacked, of several models the largest; not there where layers are dask
        arrays.
    `obs["gexinfer_novelty"]`
        How unlike the training rows a sample is: the squared Mahalanobis distance of its standardised landmarks from
        their mean, with the covariance that also fills in, over the number of landmarks it has. At most about
        1 for training rows. Of several models the largest; not there where layers are dask arrays.
    `obs["gexinfer_novelty_percentile"]`
        The share of the model's validation rows, in percent, that are no more novel; NaN where it had none.
    `uns["gexinfer_predicted"]`
        Names of the layers that hold predictions: what another `predict` may overwrite.
    `X`
        Of a new object: a copy of the layer of the first model in `key`; without `key`, of the model with the lowest
        error on validation rows of its reference. On disk there is `X` alone.

    Raises
    ------
    FileExistsError
        There is something at the path already.
    FileNotFoundError
        There is no folder to write to, or the workers of a cluster do not see it.
    KeyError
        There is no model, none of that key, a layer or modality is missing, or no model gives one of `genes`.
    OSError
        The disk has no room for the result.
    ValueError
        A sample lacks more than `max_missing` of the landmarks, or all; values are inf; gene names are duplicated;
        targets are missing for `output="layer"`; a layer of that name holds something else; the model is damaged or of
        another version; `std=True` and the method does not know it; `interval` and there were no or too few validation
        rows; `trusted_only=True` before `gexinfer.tl.trust`; the unfinished store at the path is of another job;
        or an argument is none of the above.

    Warns
    -----
    UserWarning
        The values are on another scale than those fitted on, the query looks like another platform, or its landmarks'
        names seem mixed up; says what to try. Landmarks that are missing are there under another name, `std` or
        `interval` is asked for of samples that lack some, or `interval` with `adapt`.

    References
    ----------
    Chen et al., IEEE Transactions on Signal Processing 2010, 58, issue 10 :cite:p:`chen2010` (how the covariance that
    fills in is shrunk).

    Examples
    --------
    >>> query = ref[:3, ref.var["landmark"]].copy()  # three samples of which only landmarks are known
    >>> full = gx.tl.predict(query, model=ref, interval=0.9, output="anndata")
    >>> full.shape
    (3, 298)
    >>> full.layers["ridge_lower"].shape  # and "ridge", "ridge_upper"
    (3, 298)
    >>> full.var["gexinfer_role"].value_counts().to_dict()
    {'inferred': 204, 'landmark': 94, 'not in model': 0}
    """
    whole, adata = adata, one_modality(adata, modality)
    check_asked(adata, output, adapt=adapt, max_missing=max_missing, genes=genes, dtype=dtype)
    models = resolve(whole, adata, model, key)
    check_unique(adata)
    if std:
        check_std(models)
    if trusted_only:
        check_recall(models)
    intervals = intervals_of(models, interval, interval_scaled)
    path = None if output in IN_MEMORY else Path(output).absolute()
    if path is not None:
        check_path(path, list(models), more=std or interval is not None)
    if output == "layer":
        check_targets(adata, models)
        check_layers(adata, models, layer, std=std, interval=interval is not None)
        names = adata.var_names
    else:
        names = names_of(adata, models, output, genes, trusted_only=trusted_only)
    if isinstance(whole, MuData) and output == "mudata":
        check_modality(whole)
    queries = {
        name: query_of(adata, fitted, name, layer, adapt=adapt, max_missing=max_missing, device=device)
        for name, fitted in models.items()
    }
    for name, (query, source) in queries.items():
        kept = is_trusted(query.fitted.known["recall"]) if trusted_only else None
        queries[name] = replace(query, interval=intervals[name], kept=kept), source
    if path is not None:
        stream(adata, queries, names, path, dtype=dtype, progress=progress)
        return None

    answers = {}
    with steps("predict", adata.n_obs * len(models), show=progress) as advance:
        for name, (query, source) in queries.items():
            if is_lazy(source):
                answers[name] = lazy_answer(query, source, names, std=std)
            else:
                answers[name] = whole_answer(query, source, names, std=std, advance=advance)
        if not any(answer.lazy for answer in answers.values()):
            advance(0, f"{', '.join(models)} for {adata.n_obs:,} samples")
    holed = [name for name, answer in answers.items() if answer.lacked.any()]
    if std and holed:
        warn_of_std(holed)
    if interval is not None:
        warn_of_intervals(list(models), holed, adapt)
    tell_of_novelty(answers.values())
    if output == "layer":
        whole = whole.copy() if copy else whole
        write_answers(one_modality(whole, modality), answers)
        return whole if copy else None

    values = first_layer(models, key)
    if len(models) > 1:
        say(f"predict: X holds {values!r}" + ("" if key is not None else ", the best on validation rows"))
    obs, var = obs_in_memory(adata).copy(), pd.DataFrame(index=names)
    made = AnnData(X=answers[values].layers[values].copy(), obs=obs, var=var)
    write_answers(made, answers)
    return made if output == "anndata" else measured_and_inferred(whole, made)


def check_asked(
    adata: Any, output: Any, *, adapt: str, max_missing: float, genes: Sequence[str] | None, dtype: str
) -> None:
    """Refuse arguments that say nothing, before a model is read."""
    (check_in_memory if output == "layer" else check_adata)(adata)
    if not isinstance(output, str | Path) or (output not in IN_MEMORY and not is_store(output)):
        raise ValueError(f"output={output!r} is not known; choose one of {listed(IN_MEMORY)}, or a path '... .zarr'.")
    if adapt not in ADAPT:
        raise ValueError(f"adapt={adapt!r} is not known; choose one of {listed(ADAPT)}.")
    if isinstance(max_missing, str) or not 0 <= max_missing <= 1:
        raise ValueError(f"max_missing={max_missing!r} must be a share of the landmarks, 0 to 1.")
    if dtype not in ("float32", "float16") or (dtype != "float32" and output in IN_MEMORY):
        raise ValueError(f"dtype={dtype!r}: results are float32; a zarr store, output='... .zarr', may be 'float16'.")
    listing = genes is None or (not isinstance(genes, str) and all(isinstance(gene, str) for gene in genes))
    if not listing or (genes is not None and (output == "layer" or len(genes) == 0)):
        raise ValueError(
            "genes= is a list of the names that a new object is to hold, of a mask list(adata.var_names[mask]); "
            "output='layer' writes all genes of adata."
        )


def is_store(output: str | Path) -> bool:
    return Path(output).suffix == ".zarr" and "://" not in str(output)


def names_of(
    adata: AnnData, models: Mapping[str, FittedModel], output: Any, genes: Sequence[str] | None, *, trusted_only: bool
) -> pd.Index:
    """Return the genes of a new object: the models' landmarks and targets, or those of them that are asked for."""
    # MuData keeps what was measured in a modality of its own.
    parts = [
        (*(lacking(fitted.landmarks, adata.var_names) if output == "mudata" else fitted.landmarks), *fitted.targets)
        for fitted in models.values()
    ]
    names = pd.Index(list(dict.fromkeys(gene for part in parts for gene in part)))
    dropped = names_not_trusted(models) if trusted_only else pd.Index([])
    if genes is None:
        return not_empty(names.drop(dropped))
    asked = pd.Index(list(dict.fromkeys(genes)))
    absent = lacking(list(asked), names)
    if absent:
        raise KeyError(
            f"genes= names {len(absent):,} of {len(asked):,} genes that the models do not give: {listed(absent)}. They "
            f"give {len(names):,}, which start with {listed(names, 3)}."
        )
    return not_empty(names[np.sort(locate(list(asked), names))].drop(dropped, errors="ignore"))


def not_empty(names: pd.Index) -> pd.Index:
    """Refuse to leave out all genes of a new object."""
    if len(names) == 0:
        raise ValueError(
            "trusted_only=True leaves out all genes asked for: none is trusted. Leave it out, or name others."
        )
    return names


def check_targets(adata: AnnData, models: Mapping[str, FittedModel]) -> None:
    """Refuse to drop inferred genes for which `adata` has no column."""
    for name, fitted in models.items():
        absent = lacking(fitted.targets, adata.var_names)
        if absent:
            raise ValueError(
                f"adata lacks {len(absent):,} of the {len(fitted.targets):,} targets of {name!r}: {listed(absent)}. A "
                "layer cannot hold them: pass output='anndata' or output='mudata' to get a new object with all of them."
            )


def check_std(models: Mapping[str, FittedModel]) -> None:
    """Refuse to give a standard deviation that a method does not know."""
    without = [name for name, fitted in models.items() if not get_method(fitted.method).has_std(fitted.config)]
    if without:
        having = [method for method in map(get_method, METHODS) if method.std]
        always, networks = ([m.name for m in having if m.by_epochs == by_epochs] for by_epochs in (False, True))
        raise ValueError(
            f"std=True: {listed(without)} has no standard deviation; models of method={listed(always)} have one, and "
            f"of method={listed(networks)} those fitted with n_members=5. Name them with key=."
        )


def check_layers(
    adata: AnnData, models: Mapping[str, FittedModel], layer: str | None, *, std: bool, interval: bool
) -> None:
    """Refuse to overwrite measured values with inferred ones."""
    written = dict(models)
    more = {"std=True": ("std",) * std, "interval=": BOUNDS * interval}
    for argument, ends in more.items():
        beside = {f"{name}_{end}": fitted for name, fitted in models.items() for end in ends}
        taken = [name for name in beside if name in models or is_record(adata.uns.get(name))]
        if taken:
            raise ValueError(
                f"{argument} would write layers {listed(taken)}, which are those of models with these names. Fit the "
                "models again under other names: key_added=."
            )
        written |= beside
    for name, fitted in written.items():
        foreign = name in layer_names(adata) and name not in predicted_layers(adata)
        if foreign or name == layer_of(adata, fitted, layer):
            raise ValueError(
                f"adata.layers[{name!r}] is there already, and uns does not say that gexinfer wrote it (anndata.concat "
                f"drops uns). Delete it, del adata.layers[{name!r}], or give the model another name: with key_added= "
                "in gexinfer.tl.fit, with key= for a model from a file."
            )


def warn_of_std(names: Sequence[str]) -> None:
    """Warn that standard deviations are those of samples whose landmarks were all measured, and they were not."""
    warn(
        f"{', '.join(names)}: samples lack landmarks, which are filled in and then taken as measured, so that "
        "standard deviations are too small."
    )
