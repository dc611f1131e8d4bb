from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from gexinfer._fitted import FittedModel
from gexinfer._slots import check_in_memory
from gexinfer.engine.run import Callback, Run
from gexinfer.methods import Method, configure, get_method
from gexinfer.tl._learn import check_key, learn, write_model
from gexinfer.tl._modality import one_modality
from gexinfer.tl._reference import check_validation, look, resolve_rows
from gexinfer.tl._start import model_to_start_from, same_shape
from gexinfer.tl._unlabeled import unlabeled_samples


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
