from __future__ import annotations

import warnings
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
from gexinfer._slots import ROLE, ROLES, check_unique, matrix
from gexinfer.engine.blocks import Float, Indices, dense, in_row_order, row_slices
from gexinfer.engine.report import Advance, say, steps
from gexinfer.tl._values import profile, refuse_not_finite, scale_mismatch, where_from


def predict(
    adata: AnnData,
    model: AnnData | FittedModel | None = None,
    *,
    key: str | Iterable[str] | None = None,
    output: Literal["layer", "anndata", "mudata"] = "layer",
    layer: str | None = None,
    device: str = "auto",
    progress: bool = True,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Infer target genes from landmark genes.

    Genes are matched by name, in any order, Ensembl ids with or without their version. Predictions come in the units of
    the values that were fitted. Rows are read in blocks, so only the result has to fit into memory.

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
        targets. `"mudata"` builds a MuData of `measured`, a copy of `adata`, and `inferred`, the targets.
    layer
        Layer with the landmarks' values, `"X"` for X. Where it is not given, the layer the model was fitted on, or X
        where `adata` has no such layer.
    device
        Where a network runs: `"auto"` (CUDA, MPS, then CPU), or any torch device.
    progress
        Show a bar, or a line where there is no screen.
    copy
        With `output="layer"`, return a changed copy instead of changing `adata`.

    Returns
    -------
    None or the copy for `output="layer"`, else the new object. Of `adata` or the new AnnData these slots are written:

    `layers[key]`
        float32, one for each model: landmarks carry their measured value, targets the inferred one, other genes NaN.
    `var["gexinfer_role"]`
        landmark, inferred or not in model; where models differ, inferred if any infers the gene.
    `X`
        Of a new AnnData: the values of the first model. In a MuData `inferred` holds the targets alone.

    Raises
    ------
    KeyError
        There is no model, none of that key, or a layer is missing.
    ValueError
        Landmarks are missing or hold NaN or inf, gene names are duplicated, targets are missing for `output="layer"`,
        a layer of that name holds something else, or the model is damaged or of a newer version.

    Warns
    -----
    UserWarning
        The values are on another scale than those fitted on; shows both.
    """
    if output not in ("layer", "anndata", "mudata"):
        raise ValueError(f"output={output!r} is not known; choose one of 'layer', 'anndata', 'mudata'.")
    models = resolve(adata, model, key)
    check_unique(adata)
    if output == "layer":
        check_targets(adata, models)
        check_layers(adata, models, layer)
    inferred = {}
    with steps("predict", adata.n_obs * len(models), show=progress) as advance:
        for name, fitted in models.items():
            inferred[name] = infer(adata, fitted, name, layer, device, advance)
        advance(0, f"{', '.join(models)} for {adata.n_obs:,} samples")
    if output == "layer":
        adata = adata.copy() if copy else adata
        write_layers(adata, models, inferred, layer)
        return adata if copy else None
    if output == "anndata":
        return whole(adata, models, inferred, layer)
    return measured_and_inferred(adata, models, inferred)


def resolve(
    adata: AnnData, model: AnnData | FittedModel | None, key: str | Iterable[str] | None
) -> dict[str, FittedModel]:
    """Return the models to use, by the key their results get."""
    if isinstance(model, FittedModel):
        if key is not None and not isinstance(key, str):
            raise TypeError(f"key={key!r} must be one name for one model.")
        return {key or model.method: model}
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


def check_layers(adata: AnnData, models: Mapping[str, FittedModel], layer: str | None) -> None:
    """Refuse to overwrite measured values with inferred ones."""
    for name, fitted in models.items():
        never_predicted = ROLE not in adata.var and not is_record(adata.uns.get(name))
        if name in adata.layers and (never_predicted or name == layer_of(adata, fitted, layer)):
            raise ValueError(
                f"adata.layers[{name!r}] is there already and is no prediction. Give the model another name, with "
                "key_added= in gexinfer.tl.fit or key= for a model from a file, or delete the layer."
            )


def layer_of(adata: AnnData, fitted: FittedModel, layer: str | None) -> str:
    """Return the layer to read: the one asked for, else that of the fit, else X."""
    if layer is not None:
        return layer
    fitted_on = str(fitted.input["layer"])
    return fitted_on if fitted_on in adata.layers else "X"


def landmark_columns(adata: AnnData, fitted: FittedModel, name: str) -> Indices:
    """Return where the model's landmarks stand in `adata`, refusing a query that lacks some."""
    absent = lacking(fitted.landmarks, adata.var_names)
    if absent:
        raise ValueError(
            f"adata.var_names lacks {len(absent):,} of the {len(fitted.landmarks):,} landmarks of {name!r}: "
            f"{listed(absent, 20)}. var_names starts with {listed(adata.var_names, 3)}. If they are there under "
            "another kind of id, set adata.var_names to it; else fit a model on the landmarks you have."
        )
    return locate(fitted.landmarks, adata.var_names)


def infer(adata: AnnData, fitted: FittedModel, name: str, layer: str | None, device: str, advance: Advance) -> Float:
    """Return (samples, targets) in data units."""
    columns = landmark_columns(adata, fitted, name)
    layer = layer_of(adata, fitted, layer)
    if layer != fitted.input["layer"]:
        say(f"predict: {name} was fitted on {where_from(fitted.input['layer'])} and reads {where_from(layer)}")
    source = in_row_order(matrix(adata, layer))
    if adata.n_obs:
        mismatch = scale_mismatch(fitted.input, profile(source, np.arange(adata.n_obs), columns))
        if mismatch:
            warnings.warn(
                f"{name}: {mismatch}Bring {where_from(layer)} to the units of the fit, or name another layer=.",
                UserWarning,
                stacklevel=3,
            )
    parts = list(row_slices(adata.n_obs, PREDICT_ROWS))
    out = np.empty((adata.n_obs, len(fitted.targets)), np.float32)
    not_finite = np.zeros(len(columns), np.intp)

    def blocks() -> Iterator[NDArray[np.floating]]:
        nonlocal not_finite
        for part in parts:
            block = dense(source, part, columns)
            finite = np.isfinite(block)
            not_finite = not_finite + (~finite).sum(axis=0)
            yield np.where(finite, block, 0)

    for part, block in zip(parts, fitted.predict_blocks(blocks(), device=device), strict=True):
        out[part] = block
        advance(len(block), name)
    refuse_not_finite(not_finite, adata.var_names[columns], adata.n_obs, where_from(layer))
    return out


def roles(names: pd.Index, models: Iterable[FittedModel]) -> pd.Categorical:
    """Return what each gene is; inferred outranks landmark, so that no inferred value passes for a measured one."""
    codes = np.full(len(names), ROLES.index("not in model"))
    models = list(models)
    for genes, role in [(m.landmarks, "landmark") for m in models] + [(m.targets, "inferred") for m in models]:
        codes[locate(genes, names)] = ROLES.index(role)
    return pd.Categorical.from_codes(codes, categories=list(ROLES))


def write_layers(
    adata: AnnData, models: Mapping[str, FittedModel], inferred: Mapping[str, Float], layer: str | None
) -> None:
    """Write `layers[key]` and `var["gexinfer_role"]`."""
    for name, fitted in models.items():
        adata.layers[name] = completed(adata, adata.var_names, fitted, inferred[name], layer)
    adata.var[ROLE] = roles(adata.var_names, models.values())


def completed(adata: AnnData, names: pd.Index, fitted: FittedModel, inferred: Float, layer: str | None) -> Float:
    """Return (samples, names): landmarks measured, targets inferred, other genes NaN."""
    out = np.full((adata.n_obs, len(names)), np.nan, np.float32)
    source = in_row_order(matrix(adata, layer_of(adata, fitted, layer)))
    there, here = locate(fitted.landmarks, adata.var_names), locate(fitted.landmarks, names)
    for part in row_slices(adata.n_obs):
        out[part, here] = dense(source, part, there)
    out[:, locate(fitted.targets, names)] = inferred
    return out


def whole(
    adata: AnnData, models: Mapping[str, FittedModel], inferred: Mapping[str, Float], layer: str | None
) -> AnnData:
    """Build an AnnData of all genes the models know, under the models' names."""
    genes = dict.fromkeys(gene for fitted in models.values() for gene in (*fitted.landmarks, *fitted.targets))
    names = pd.Index(list(genes))
    layers = {name: completed(adata, names, fitted, inferred[name], layer) for name, fitted in models.items()}
    full = AnnData(
        X=next(iter(layers.values())).copy(), obs=adata.obs.copy(), var=pd.DataFrame(index=names), layers=layers
    )
    full.var[ROLE] = roles(names, models.values())
    return full


def measured_and_inferred(adata: AnnData, models: Mapping[str, FittedModel], inferred: Mapping[str, Float]) -> MuData:
    """Build a MuData of what was measured and what was inferred."""
    names = pd.Index(list(dict.fromkeys(gene for fitted in models.values() for gene in fitted.targets)))
    layers = {}
    for name, fitted in models.items():
        layers[name] = np.full((adata.n_obs, len(names)), np.nan, np.float32)
        layers[name][:, locate(fitted.targets, names)] = inferred[name]
    second = AnnData(
        X=next(iter(layers.values())).copy(), obs=adata.obs[[]].copy(), var=pd.DataFrame(index=names), layers=layers
    )
    with mudata.set_options(pull_on_update=False):
        both = MuData({"measured": adata.copy(), "inferred": second})
    both.obs = adata.obs.copy()
    return both
