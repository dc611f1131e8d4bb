from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from anndata import AnnData

from gexinfer._fitted import PREDICT_ROWS, FittedModel
from gexinfer._names import listed, locate
from gexinfer._record import records
from gexinfer._slots import PARTIAL_DEPENDENCE, check_in_memory, check_unique
from gexinfer.engine.blocks import Wide, row_slices
from gexinfer.engine.report import steps
from gexinfer.tl._explained import landmarks_of, rows_to_look_at

# The landmark moves between these quantiles of the samples: beyond them there is little to go by.
RANGE = (0.01, 0.99)


def partial_dependence(
    adata: AnnData,
    target: str,
    landmark: str,
    *,
    key: str | Iterable[str] | None = None,
    n_points: int = 25,
    n_samples: int = 100,
    layer: str | None = None,
    rng: int | np.random.Generator = 0,
    device: str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """Infer a target while one landmark moves over its range and all others stay as they are.

    The landmark moves from the 1 % to the 99 % quantile of its values in the samples: test rows, or all rows where none
    is marked. Genes go together: a sample with one landmark moved far from where the others would have it is unlike any
    that the model has seen.

    Parameters
    ----------
    adata
        Samples x genes with models in `uns`.
    target
        The gene to infer, a target of the models.
    landmark
        The gene to move, a landmark of the models.
    key
        Name of the model, or several; where it is not given, all that have this landmark and this target.
    n_points
        At how many values of the landmark.
    n_samples
        With at most so many samples, drawn at random.
    layer
        Layer with the landmarks' values, as in `gexinfer.tl.predict`.
    rng
        Seed or generator for the samples.
    device
        Where the models run, as in `gexinfer.tl.predict`.
    progress
        Show a bar, or a line where there is no screen.

    Returns
    -------
    The mean over samples: one row for each value of the landmark, one column for each model.

    Writes `uns["gexinfer_partial_dependence"]`: `target` and `landmark`; `values`, those of the landmark; `mean`, a
    DataFrame with a column for each model, row by row for the `values`; `curves`, for each model an array of values x
    samples; `measured`, a DataFrame of these samples with their own `landmark` value, filled in by the first model
    where a sample lacks it.

    Raises
    ------
    KeyError
        There is no model, none of that key, or no such layer.
    ValueError
        The target or the landmark is none of a model's, the models were fitted on different layers, the landmark does
        not vary, a sample has no landmark, or values are inf.

    References
    ----------
    Friedman, Annals of Statistics 2001, 29:1189 :cite:p:`friedman2001`.

    Examples
    --------
    >>> curve = gx.tl.partial_dependence(ref, "CLSPN", "CDC25A", n_points=3)
    >>> curve.round(1)
              ridge
    CDC25A
    0.000000    1.7
    2.738770    2.1
    5.477539    2.6
    """
    check_in_memory(adata)
    check_unique(adata)
    if isinstance(n_points, bool) or not isinstance(n_points, int | np.integer) or n_points < 2:
        raise ValueError(f"n_points={n_points!r} must be a whole number of at least 2.")
    models = having(records(adata, key), target, landmark, named=key is not None)
    layers = {name: str(fitted.input["layer"]) for name, fitted in models.items()}
    if len(set(layers.values())) > 1:
        raise ValueError(
            f"The models were fitted on different layers, {layers}, whose units need not be the same. Name those of "
            "one layer: key=."
        )
    rows, _ = rows_to_look_at(adata, n_samples, rng)
    inputs = {name: landmarks_of(adata, m, name, rows, layer=layer, device=device) for name, m in models.items()}
    own = next(iter(inputs.values()))[:, place(next(iter(models.values())).landmarks, landmark)]
    low, high = np.nanquantile(own, RANGE)
    if low == high:
        raise ValueError(
            f"{landmark!r} has the same value, {low:g}, in the {len(rows):,} samples looked at; it cannot move."
        )
    values = np.linspace(low, high, n_points)
    curves: dict[str, Wide] = {}
    with steps("partial dependence", len(models) * len(values), show=progress) as advance:
        for name, fitted in models.items():
            curves[name] = moved(fitted, inputs[name], target, landmark, values, device)
            advance(len(values), name)
    mean = pd.DataFrame({name: curve.mean(axis=1) for name, curve in curves.items()})
    adata.uns[PARTIAL_DEPENDENCE] = {
        "target": target,
        "landmark": landmark,
        "values": values,
        "mean": mean,
        "curves": curves,
        "measured": pd.DataFrame({"landmark": own}, index=adata.obs_names[rows].astype(str)),
    }
    return mean.set_axis(pd.Index(values, name=landmark))


def place(genes: tuple[str, ...], gene: str) -> int:
    """Return where a gene stands among others, -1 for nowhere."""
    return int(locate([gene], pd.Index(genes))[0])


def having(models: dict[str, FittedModel], target: str, landmark: str, *, named: bool) -> dict[str, FittedModel]:
    """Return the models with this target and landmark; all must have them that were named."""
    found = {
        name: fitted
        for name, fitted in models.items()
        if place(fitted.targets, target) >= 0 and place(fitted.landmarks, landmark) >= 0
    }
    for name, fitted in models.items() if named or not found else ():
        for gene, genes, what in ((target, fitted.targets, "target"), (landmark, fitted.landmarks, "landmark")):
            if place(genes, gene) < 0:
                raise ValueError(
                    f"{what}={gene!r} is no {what} of {name!r}; its {len(genes):,} {what}s start with "
                    f"{listed(genes, 3)}."
                )
    return found


def moved(fitted: FittedModel, X: Wide, target: str, landmark: str, values: Wide, device: str) -> Wide:
    """Return (values, samples) what is inferred of the target with the landmark at each of the values."""
    at, column = place(fitted.landmarks, landmark), place(fitted.targets, target)

    def blocks() -> Iterator[Wide]:
        # All samples at all values together might not fit into memory.
        for part in row_slices(len(values) * len(X), PREDICT_ROWS):
            which, row = np.divmod(np.arange(part.start, part.stop), len(X))
            block = X[row]
            block[:, at] = values[which]
            yield block

    inferred = [block[:, column] for _, block in fitted.predict_blocks(blocks(), device=device)]
    return np.concatenate(inferred).reshape(len(values), len(X)).astype(np.float64)
