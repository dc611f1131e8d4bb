"""A model with all that inference needs: genes by name, their scale, what is missing filled in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gexinfer._names import digests, listed
from gexinfer.engine.blocks import Float, Scale, Wide, row_slices
from gexinfer.engine.gaussian import Gaussian, unpacked
from gexinfer.methods import METHODS, Model, get_method
from gexinfer.methods._contract import SIMILAR

# Rows are inferred in blocks of exactly this many, so that a sample's result does not depend, in the last bit, on which
# samples stand beside it: a matrix product rounds differently for different shapes.
PREDICT_ROWS = 256


@dataclass(frozen=True)
class FittedModel:
    """A trained model with all that inference needs: genes by name, their scale, the method's arrays.

    `landmark_covariance` is that of the standardised landmarks, the upper triangle row by row, and `landmark_profile`
    the mean of the training rows' landmarks, sorted: what fills a missing landmark and brings a query to their scale.
    `input` says what the values were that it was fitted on: the layer, whether they were counts, and their quantiles.
    `provenance` says how it was fitted. `training_rows` are 64-bit digests of the names of the rows that fitting saw.
    `samples` are the names of the training rows themselves, in models that tell which of them are similar. `known` are
    arrays that say how far the model can be trusted, by name; a model lacks those that nothing was measured for.
    """

    method: str
    config: Any
    model: Model
    landmarks: tuple[str, ...]
    targets: tuple[str, ...]
    landmark_scale: Scale
    target_scale: Scale
    landmark_covariance: Float
    landmark_profile: Wide
    input: Mapping[str, Any]
    provenance: Mapping[str, Any]
    training_rows: NDArray[np.uint64]
    samples: tuple[str, ...] = ()
    known: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"FittedModel({self.method}: {len(self.landmarks):,} landmarks -> {len(self.targets):,} targets)"

    @property
    def holds_samples(self) -> bool:
        """Whether the model contains samples that it was fitted to, which identify people."""
        return get_method(self.method).holds_samples

    @property
    def samples_held(self) -> str:
        """Which samples are in a model that holds some, for messages."""
        # A last fit is made to both, but not to the rows of another object.
        both = get_method(self.method).ends_with_refit and self.provenance["validated_on"] == "adata"
        validation = f" and {self.provenance['n_validation']:,} validation" if both else ""
        return f"{self.provenance['n_train']:,} training{validation} samples"

    @property
    def n_members(self) -> int:
        """How many networks infer the same targets; 1 where there is no ensemble."""
        return getattr(self.config, "n_members", 1)

    @cached_property
    def gaussian(self) -> Gaussian:
        """The landmarks of the training rows as one Gaussian."""
        return Gaussian(unpacked(self.landmark_covariance), int(self.provenance["n_train"]))

    def predict(self, X: NDArray[np.floating], *, device: str = "auto") -> Float:
        """Infer targets from landmarks.

        Parameters
        ----------
        X
            Landmark values, (samples, landmarks), in the order of `landmarks` and the units the model was fitted in.
            NaN where a sample lacks one.
        device
            Where a network runs: "auto", "cpu", "cuda", or any torch device.

        Returns
        -------
        Target values, (samples, targets), in the order of `targets`, in the same units.
        """
        out = np.empty((len(X), len(self.targets)), np.float32)
        parts = list(row_slices(len(X), PREDICT_ROWS))
        for part, (_, block) in zip(parts, self.predict_blocks(self.cut(X, parts), device=device), strict=True):
            out[part] = block
        return out

    def novelty(self, X: NDArray[np.floating], missing: NDArray[np.bool_] | None = None) -> Float:
        """Return how unlike the training rows samples are by their landmarks.

        Parameters
        ----------
        X
            As in `predict`.
        missing
            Where X was filled in, as `predict_blocks` does; where it is NaN if that is not given.

        Returns
        -------
        (samples,): the squared Mahalanobis distance from the training rows' mean, over the number of landmarks that the
        sample has. It is about 1 for training rows.
        """
        missing = np.isnan(X) if missing is None else missing
        squared = np.empty(len(X), np.float32)
        for part in row_slices(len(X), PREDICT_ROWS):
            (block,) = self.padded([X[part]], deque())
            block = self.gaussian.fill(block) if np.isnan(block).any() else block
            squared[part] = self.gaussian.squared_distances(block)[: part.stop - part.start]
        return squared / np.maximum((~missing).sum(axis=1), 1).astype(np.float32)

    def similar(self, X: NDArray[np.floating], *, device: str = "auto") -> tuple[NDArray[np.intp], Float]:
        """Find the training samples that make up each sample's prediction.

        Parameters
        ----------
        X
            As in `predict`.
        device
            As in `predict`.

        Returns
        -------
        Two arrays of (samples, 5): places in `samples`, and weights, the largest first.
        """
        similar = get_method(self.method).similar
        if similar is None:
            having = [name for name in METHODS if get_method(name).similar]
            raise ValueError(
                f"A model of method={self.method!r} does not say which training samples it used; {listed(having)} does."
            )
        parts, sizes = list(row_slices(len(X), PREDICT_ROWS)), deque[int]()
        found = list(similar(self.model, self.config, self.padded(self.cut(X, parts), sizes), device))
        found = found or [(np.empty((0, SIMILAR), np.intp), np.empty((0, SIMILAR), np.float32))]
        sizes = sizes or deque([0])
        shown = [(places[:n], weights[:n]) for (places, weights), n in zip(found, sizes, strict=True)]
        return np.concatenate([places for places, _ in shown]), np.concatenate([weights for _, weights in shown])

    def jacobian(
        self, X: NDArray[np.floating], *, weights: NDArray[np.floating] | None = None, device: str = "auto"
    ) -> Float:
        """Average over samples how much each target changes with each landmark.

        Parameters
        ----------
        X
            As in `predict`.
        weights
            How much a sample counts for a landmark, (samples, landmarks); 1 / samples where it is not given. Slopes are
            multiplied by their weights and added up.
        device
            As in `predict`.

        Returns
        -------
        (landmarks, targets): the change of a target's value per unit of a landmark's, in the units that the model was
        fitted in; 0 for genes that were constant in the training rows.
        """
        jacobian = get_method(self.method).jacobian
        if jacobian is None:
            having = [name for name in METHODS if get_method(name).jacobian]
            raise ValueError(
                f"A model of method={self.method!r} has no slopes: it puts training samples together. Models of "
                f"method={listed(having, 20)} have."
            )
        counts = np.full(np.shape(X), 1 / max(len(X), 1)) if weights is None else weights
        total, parts = np.zeros((len(self.landmarks), len(self.targets))), list(row_slices(len(X), PREDICT_ROWS))
        for part, block in zip(parts, self.cut(X, parts), strict=True):
            (full,) = self.whole([self.landmark_scale.standardise(block)], deque())
            total += jacobian(self.model, self.config, full, np.asarray(counts[part], np.float32), device)
        unit = np.where(self.target_scale.sd > 0, self.target_scale.unit, 0)
        return (total * self.landmark_scale.factor[:, None] * unit).astype(np.float32)

    def cut(self, X: NDArray[np.floating], parts: Iterable[slice]) -> Iterator[NDArray[np.floating]]:
        """Return the parts of an array of landmarks, having refused one of another shape or with inf."""
        if np.ndim(X) != 2 or X.shape[1] != len(self.landmarks):
            raise ValueError(
                f"X has shape {np.shape(X)}; this model needs an array of (samples, {len(self.landmarks):,} landmarks)."
            )
        if np.isinf(X).any():
            raise ValueError(f"X holds inf in {np.isinf(X).any(axis=1).sum():,} of {len(X):,} samples.")
        if len(self.landmarks) and np.isnan(X).all(axis=1).any():
            raise ValueError(f"X holds no landmark, NaN alone, in {np.isnan(X).all(axis=1).sum():,} samples.")
        return (X[part] for part in parts)

    def padded(self, blocks: Iterable[NDArray[np.floating]], sizes: deque[int]) -> Iterator[Float]:
        """Yield standardised landmarks in blocks of always the same size; `sizes` gets how many rows are true."""
        for block in blocks:
            sizes.append(len(block))
            full = np.zeros((PREDICT_ROWS, len(self.landmarks)), np.float32)
            full[: len(block)] = self.landmark_scale.standardise(block)
            yield full

    def predict_blocks(self, blocks: Iterable[NDArray[np.floating]], *, device: str) -> Iterator[tuple[Float, Float]]:
        """Infer block by block, a block of at most `PREDICT_ROWS` rows.

        Yields (rows, landmarks), empty where no row lacked one, else with what a row lacks inferred, and
        (rows, targets).
        """
        method, sizes, p = get_method(self.method), deque[int](), len(self.landmarks)
        given: deque[Float | None] = deque()
        for block in method.predict(self.model, self.config, self.whole(self.padded(blocks, sizes), given), device):
            n, filled = sizes.popleft(), given.popleft()
            if method.any_panel:
                filled, block = block[:, :p], block[:, p:]
            landmarks = np.empty((n, 0), np.float32) if filled is None else self.landmark_scale.restore(filled[:n])
            yield landmarks, self.target_scale.restore(block[:n])

    def whole(self, blocks: Iterable[Float], given: deque[Float | None]) -> Iterator[Float]:
        """Yield standardised landmarks with missing ones filled in; `given` gets such a block, None for a whole one.

        A method that takes any panel gets them as they are.
        """
        takes_any = get_method(self.method).any_panel
        for block in blocks:
            lacks = not takes_any and bool(np.isnan(block).any())
            block = self.gaussian.fill(block) if lacks else block
            given.append(block if lacks else None)
            yield block

    def std_blocks(self, blocks: Iterable[NDArray[np.floating]], *, device: str) -> Iterator[Float]:
        """Yield the standard deviation of what `predict_blocks` infers, in units of the data."""
        unit = np.where(self.target_scale.sd > 0, self.target_scale.unit, 0)
        for block in self.standardised_std_blocks(blocks, device=device):
            yield (block * unit).astype(np.float32)

    def standardised_std_blocks(self, blocks: Iterable[NDArray[np.floating]], *, device: str) -> Iterator[Float]:
        """Yield the standard deviation of what `predict_blocks` infers, in units of the training rows'."""
        method, sizes = get_method(self.method), deque[int]()
        if method.std is None or not method.has_std(self.config):
            remedy = " Fit it with n_members=5." if method.by_epochs else ""
            raise ValueError(f"This model of method={self.method!r} has no standard deviation.{remedy}")
        for block in method.std(self.model, self.config, self.whole(self.padded(blocks, sizes), deque()), device):
            yield block[: sizes.popleft()]

    def params(self) -> dict[str, Any]:
        """Return plain scalars for people to read."""
        settings = asdict(self.config) | dict(self.model.notes)
        return {
            "method": self.method,
            "n_landmarks": len(self.landmarks),
            "n_targets": len(self.targets),
            "layer": self.input["layer"],
            "holds_training_samples": self.holds_samples,
            **self.provenance,
            **{name: value for name, value in settings.items() if value is not None},
        }


def row_digests(names: pd.Index) -> NDArray[np.uint64]:
    """Return sorted digests of sample names, by which `evaluate` knows the rows a model has seen."""
    return np.sort(digests(names.astype(str)))
