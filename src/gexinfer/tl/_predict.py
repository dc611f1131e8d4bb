from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray

from gexinfer._names import lacking, listed, locate
from gexinfer._record import PREDICT_ROWS, FittedModel, is_record, records
from gexinfer._slots import (
    PREDICTED,
    ROLE,
    ROLES,
    check_adata,
    check_name,
    check_unique,
    layer_names,
    matrix,
    predicted_layers,
)
from gexinfer.engine.blocks import Float, Indices, dense, in_row_order, row_slices
from gexinfer.engine.report import Advance, say, steps, warn
from gexinfer.methods import METHODS, get_method
from gexinfer.tl._values import refuse_not_finite, scale_mismatch, where_from


def predict(
    adata: AnnData,
    model: AnnData | FittedModel | None = None,
    *,
    key: str | Iterable[str] | None = None,
    output: Literal["layer", "anndata", "mudata"] = "layer",
    layer: str | None = None,
    std: bool = False,
    device: str = "auto",
    progress: bool = True,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Infer target genes from landmark genes.

    Genes are matched by name, in any order, Ensembl ids with or without their version. Predictions come in the units of
    the values that were fitted. Rows are read in blocks: beyond the result, samples x genes x 4 bytes for each model,
    memory holds a few hundred rows.

    Parameters
    ----------
    adata
        Samples x genes, with all landmarks of the model.
    model
        Where the model is: an AnnData that was fitted, or a model read by `gexinfer.io.read_model`. `adata` itself
        where it is not given.
    key
        Name of the model, or several; all that are there where it is not given.
    output
        `"layer"` writes into `adata`, which must hold all targets. `"anndata"` builds a new AnnData of landmarks and
        targets. `"mudata"` builds a MuData of `measured`, a copy of `adata`, and `inferred`, the targets; a target that
        `adata` measures is in both.
    layer
        Layer with the landmarks' values, `"X"` for X. Where it is not given, the layer the model was fitted on, or X
        where `adata` has no such layer.
    std
        Write the standard deviation of each inferred value, too. `kernel` knows it.
    device
        Where networks, kernels and neighbours are computed: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.
    copy
        For `output="layer"`: return a changed copy instead of changing `adata`.

    Returns
    -------
    None or the copy for `output="layer"`, else the new object. Of `adata` or the new AnnData these slots are written:

    `layers[key]`
        float32, one for each model: landmarks carry their measured value, targets the inferred one, other genes NaN. A
        `sample_lasso` infers the landmarks that `adata` lacks, or that are NaN, too.
    `layers[key + "_std"]`
        With `std=True`: the standard deviation of the inferred values, in units of the data; other genes NaN.
    `var["gexinfer_role"]`
        landmark, inferred or not in model; where models differ, inferred if any infers the gene.
    `uns["gexinfer_predicted"]`
        Names of the layers that hold predictions: what another `predict` may overwrite.
    `X`
        Of a new object: a copy of the layer of the first model in `key`; without `key`, of the model with the lowest
        error on validation rows. In a MuData, `inferred` holds the targets alone.

    Raises
    ------
    KeyError
        There is no model, none of that key, or a layer is missing.
    ValueError
        Landmarks are missing or hold NaN or inf, gene names are duplicated, targets are missing for `output="layer"`,
        a layer of that name holds something else, the model is damaged or of a newer version, or `std=True` and the
        method does not know it.

    Warns
    -----
    UserWarning
        The values are on another scale than those fitted on; shows both.
    """
    if output not in ("layer", "anndata", "mudata"):
        raise ValueError(f"output={output!r} is not known; choose one of 'layer', 'anndata', 'mudata'.")
    check_adata(adata)
    models = resolve(adata, model, key)
    check_unique(adata)
    if std:
        check_std(models)
    if output == "layer":
        check_targets(adata, models)
        check_layers(adata, models, layer, std)
        names = adata.var_names
    else:
        # MuData keeps what was measured in a modality of its own.
        genes = [(*([] if output == "mudata" else fitted.landmarks), *fitted.targets) for fitted in models.values()]
        names = pd.Index(list(dict.fromkeys(gene for part in genes for gene in part)))

    layers, lacked = {}, {}
    with steps("predict", adata.n_obs * len(models), show=progress) as advance:
        for name, fitted in models.items():
            query = Query(adata, fitted, name, layer_of(adata, fitted, layer))
            layers[name], lacked[name] = query.infer(names, device, advance)
            if std:
                layers[f"{name}_std"] = query.std(names, device)
        advance(0, f"{', '.join(models)} for {adata.n_obs:,} samples")
    if output == "layer":
        adata = adata.copy() if copy else adata
        write_predictions(adata, models, layers, lacked)
        return adata if copy else None

    values = first_layer(models, key)
    if len(models) > 1:
        say(f"predict: X holds {values!r}" + ("" if key is not None else ", the best on validation rows"))
    made = AnnData(X=layers[values].copy(), obs=in_memory(adata).obs.copy(), var=pd.DataFrame(index=names))
    write_predictions(made, models, layers, lacked)
    return made if output == "anndata" else measured_and_inferred(adata, made)


def resolve(
    adata: AnnData, model: AnnData | FittedModel | None, key: str | Iterable[str] | None
) -> dict[str, FittedModel]:
    """Return the models to use, by the key their results get."""
    if isinstance(model, FittedModel):
        name = model.method if key is None else key
        check_name(name, model.method)  # type: ignore[arg-type]
        return {name: model}  # type: ignore[dict-item]
    if model is not None and not isinstance(model, AnnData):
        raise TypeError(
            f"model={model!r} is a {type(model).__name__}; pass an AnnData that was fitted, or for a file "
            "model=gexinfer.io.read_model(path)."
        )
    return records(adata if model is None else model, key)


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
    without = [name for name, fitted in models.items() if get_method(fitted.method).std is None]
    if without:
        having = [name for name in METHODS if get_method(name).std]
        raise ValueError(
            f"std=True: {listed(without)} has no standard deviation; models of method={listed(having)} have one. "
            "Name them with key=."
        )


def check_layers(adata: AnnData, models: Mapping[str, FittedModel], layer: str | None, std: bool) -> None:
    """Refuse to overwrite measured values with inferred ones."""
    written = dict(models)
    if std:
        written |= {f"{name}_std": fitted for name, fitted in models.items()}
        taken = [f"{name}_std" for name in models if f"{name}_std" in models or is_record(adata.uns.get(f"{name}_std"))]
        if taken:
            raise ValueError(
                f"std=True would write layers {listed(taken)}, which are those of models with these names. Fit the "
                "models again under other names: key_added=."
            )
    for name, fitted in written.items():
        foreign = name in layer_names(adata) and name not in predicted_layers(adata)
        if foreign or name == layer_of(adata, fitted, layer):
            raise ValueError(
                f"adata.layers[{name!r}] is there already, and uns does not say that gexinfer wrote it (anndata.concat "
                f"drops uns). Delete it, del adata.layers[{name!r}], or give the model another name: with key_added= "
                "in gexinfer.tl.fit, with key= for a model from a file."
            )


def layer_of(adata: AnnData, fitted: FittedModel, layer: str | None) -> str:
    """Return the layer to read: the one asked for, else that of the fit, else X."""
    if layer is not None:
        return layer
    fitted_on = str(fitted.input["layer"])
    return fitted_on if fitted_on in layer_names(adata) else "X"


class Query:
    """The landmarks of `adata` as a model wants them, block by block."""

    def __init__(self, adata: AnnData, fitted: FittedModel, name: str, layer: str):
        self.adata, self.fitted, self.name, self.where = adata, fitted, name, where_from(layer)
        self.columns = landmark_columns(adata, fitted, name)
        if layer != fitted.input["layer"]:
            say(f"predict: {name} was fitted on {where_from(fitted.input['layer'])} and reads {self.where}")
        self.source = in_row_order(matrix(adata, layer))
        self.parts = list(row_slices(adata.n_obs, PREDICT_ROWS))
        self.there = self.columns >= 0
        self.any_panel = get_method(fitted.method).any_panel
        if adata.n_obs:
            mean, rows = fitted.landmark_scale.mean[self.there], np.arange(adata.n_obs)
            mismatch = scale_mismatch(fitted.input, mean, self.source, rows, self.columns[self.there])
            if mismatch:
                warn(
                    f"{name}: {mismatch}Bring {self.where} to the units of the fit, or name another layer=.",
                )

    def blocks(self) -> Iterator[NDArray[np.floating]]:
        """Yield (rows, landmarks), NaN where `adata` has no such gene; refuse the last one where values are none."""
        bad = np.zeros(len(self.columns), np.intp)
        for part in self.parts:
            block = np.full((part.stop - part.start, len(self.columns)), np.nan, np.float32)
            block[:, self.there] = dense(self.source, part, self.columns[self.there])
            nothing = np.isnan(block).all(axis=1)
            if self.any_panel and nothing.any():
                names = self.adata.obs_names[part][nothing]
                raise ValueError(
                    f"{self.where} holds none of the landmarks of {self.name!r} in {nothing.sum():,} samples, e.g. "
                    f"{listed(names)}: all are NaN. Drop those samples."
                )
            wrong = (np.isinf(block) if self.any_panel else ~np.isfinite(block)) & self.there
            bad += wrong.sum(axis=0)
            yield np.where(wrong, 0, block)
        refuse_not_finite(bad[self.there], pd.Index(self.fitted.landmarks)[self.there], self.adata.n_obs, self.where)

    def infer(self, names: pd.Index, device: str, advance: Advance) -> tuple[Float, NDArray[np.bool_]]:
        """Return (samples, names) in data units: landmarks measured, targets inferred, other genes NaN.

        And which landmarks some sample lacked, so that they are inferred, too.
        """
        out = np.full((self.adata.n_obs, len(names)), np.nan, np.float32)
        landmarks, targets = locate(self.fitted.landmarks, names), locate(self.fitted.targets, names)
        shown, lacked = landmarks >= 0, np.zeros(len(landmarks), bool)
        measured: deque[NDArray[np.floating]] = deque()

        def blocks() -> Iterator[NDArray[np.floating]]:
            for block in self.blocks():
                measured.append(block)
                yield block

        inferred = self.fitted.predict_blocks(blocks(), device=device)
        for part, (landmark_block, target_block) in zip(self.parts, inferred, strict=True):
            block = measured.popleft()
            if self.any_panel:
                lacked |= np.isnan(block).any(axis=0)
                block = np.where(np.isnan(block), landmark_block, block)
            out[part, landmarks[shown]] = block[:, shown]
            out[part, targets] = target_block
            advance(len(block), self.name)
        if lacked.any():
            say(f"predict: {self.name} infers {lacked.sum():,} landmarks, too, that samples lack")
        return out, lacked

    def std(self, names: pd.Index, device: str) -> Float:
        """Return (samples, names) standard deviations of inferred targets, NaN for other genes."""
        out = np.full((self.adata.n_obs, len(names)), np.nan, np.float32)
        targets = locate(self.fitted.targets, names)
        for part, block in zip(self.parts, self.fitted.std_blocks(self.blocks(), device=device), strict=True):
            out[part, targets] = block
        return out


def landmark_columns(adata: AnnData, fitted: FittedModel, name: str) -> Indices:
    """Return where the model's landmarks stand in `adata`, refusing a query that lacks what the method needs."""
    absent = lacking(fitted.landmarks, adata.var_names)
    takes_any = get_method(fitted.method).any_panel
    if absent and not (takes_any and len(absent) < len(fitted.landmarks)):
        instead = "" if takes_any else " Or take a model of method='sample_lasso', for which a query may lack some."
        raise ValueError(
            f"adata.var_names lacks {len(absent):,} of the {len(fitted.landmarks):,} landmarks of {name!r}: "
            f"{listed(absent, 20)}. var_names starts with {listed(adata.var_names, 3)}. If they are there under "
            f"another kind of id, set adata.var_names to it; else fit a model on the landmarks you have.{instead}"
        )
    return locate(fitted.landmarks, adata.var_names)


def write_predictions(
    adata: AnnData,
    models: Mapping[str, FittedModel],
    layers: Mapping[str, Float],
    lacked: Mapping[str, NDArray[np.bool_]],
) -> None:
    """Write `layers`, `var["gexinfer_role"]`, and which layers are predictions."""
    for name, layer in layers.items():
        adata.layers[name] = layer
    adata.var[ROLE] = roles(adata, models, lacked)
    adata.uns[PREDICTED] = np.array(sorted(predicted_layers(adata) | set(layers)), dtype=object)


def roles(adata: AnnData, models: Mapping[str, FittedModel], lacked: Mapping[str, NDArray[np.bool_]]) -> pd.Categorical:
    """Return what each gene is, by these models and by those before.

    Inferred outranks landmark, and landmark outranks neither, so that no inferred value passes for a measured one.
    """
    rank = {role: i for i, role in enumerate(ROLES)}
    before = adata.var[ROLE].astype(object).map(rank) if ROLE in adata.var else pd.Series(0, adata.var_names)
    now = before.fillna(0).to_numpy(dtype=np.int8)
    for name, fitted in models.items():
        holes = [gene for gene, hole in zip(fitted.landmarks, lacked[name], strict=True) if hole]
        for genes, role in ((fitted.landmarks, "landmark"), (holes, "inferred"), (fitted.targets, "inferred")):
            places = locate(genes, adata.var_names)
            places = places[places >= 0]
            now[places] = np.maximum(now[places], rank[role])
    return pd.Categorical.from_codes(now, categories=list(ROLES))


def first_layer(models: Mapping[str, FittedModel], key: str | Iterable[str] | None) -> str:
    """Return whose values go to X: the first model named, else the best on validation rows.

    Not the first of `uns`, because a file gives it back in another order.
    """
    if key is not None:
        return next(iter(models))
    return min(sorted(models), key=lambda name: float(models[name].model.notes.get("validation_mae", np.inf)))


def measured_and_inferred(adata: AnnData, inferred: AnnData) -> MuData:
    """Build a MuData of what was measured and what was inferred."""
    measured = in_memory(adata)
    obs, inferred.obs = inferred.obs, inferred.obs[[]]
    modalities = {"measured": measured.copy(), "inferred": inferred}
    if hasattr(mudata, "set_options"):  # mudata before 0.4 copies all columns of obs unless told not to
        with mudata.set_options(pull_on_update=False):
            both = MuData(modalities)
    else:
        both = MuData(modalities)
    both.obs = obs
    return both


def in_memory(adata: AnnData) -> AnnData:
    """Return `adata`, loaded where it was backed or read lazily."""
    return adata.to_memory() if adata.isbacked or not isinstance(adata.obs, pd.DataFrame) else adata
