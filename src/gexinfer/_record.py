"""A fitted model as data: bytes of safetensors, an entry of `uns`, and back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, NoReturn

import numpy as np
import safetensors.numpy
from anndata import AnnData
from numpy.typing import NDArray

from gexinfer._fitted import FittedModel
from gexinfer._names import listed
from gexinfer.engine.blocks import Scale
from gexinfer.methods import Model, configure, get_method

SCHEMA = 3
# A long one-dimensional vector is very slow to read lazily from h5ad.
PAGE = 2**20
# What reading a damaged header can raise.
UNREADABLE = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError)
LANDMARKS = ("landmark_mean", "landmark_sd", "landmark_covariance", "landmark_profile")
TARGETS = ("target_mean", "target_sd")


def to_bytes(fitted: FittedModel) -> bytes:
    """Return the safetensors file of a model; the same model always gives the same bytes."""
    scale = fitted.landmark_scale
    of_landmarks = (scale.mean, scale.sd, fitted.landmark_covariance, fitted.landmark_profile)
    arrays = {f"model.{name}": np.ascontiguousarray(array) for name, array in fitted.model.arrays.items()}
    arrays |= {f"known.{name}": np.ascontiguousarray(array) for name, array in fitted.known.items()}
    arrays |= dict(zip(LANDMARKS, of_landmarks, strict=True))
    arrays |= dict(zip(TARGETS, (fitted.target_scale.mean, fitted.target_scale.sd), strict=True))
    arrays["training_rows"] = fitted.training_rows
    head = {
        "schema": SCHEMA,
        "method": fitted.method,
        "config": asdict(fitted.config),
        "notes": dict(fitted.model.notes),
        "landmarks": list(fitted.landmarks),
        "targets": list(fitted.targets),
        "input": dict(fitted.input),
        "provenance": dict(fitted.provenance),
        "samples": list(fitted.samples),
    }
    head["digest"] = digest(head, arrays)
    # One metadata key, because with several their order differs from process to process.
    return safetensors.numpy.save(arrays, {"gexinfer": json.dumps(head, sort_keys=True)})


def digest(head: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of all that a record says, to tell a damaged one from a whole one."""
    total = hashlib.sha256(json.dumps({k: v for k, v in head.items() if k != "digest"}, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(np.ascontiguousarray(arrays[name]).data)
    return total.hexdigest()


def from_bytes(data: bytes, where: str) -> FittedModel:
    """Return the model in a safetensors file; `where` names its place in messages."""
    try:
        head_length = int.from_bytes(data[:8], "little")
        head = json.loads(json.loads(data[8 : 8 + head_length])["__metadata__"]["gexinfer"])
        schema, writer = int(head["schema"]), head["provenance"]["gexinfer"]
    except UNREADABLE as error:
        damaged(where, f"its header cannot be read ({type(error).__name__})")
    if schema > SCHEMA:
        raise ValueError(
            f"{where} was written by gexinfer {writer} in record schema {schema}; gexinfer {version('gexinfer')} reads "
            f"schema {SCHEMA}. Run pip install --upgrade gexinfer."
        )
    if schema < SCHEMA:
        raise ValueError(
            f"{where} was written by a version of gexinfer before its release, in record schema {schema}; gexinfer "
            f"{version('gexinfer')} reads schema {SCHEMA}. Fit the model again."
        )
    try:
        arrays = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        damaged(where, str(error))
    if digest(head, arrays) != head.get("digest"):
        damaged(where, "its contents do not match its checksum")
    try:
        method = get_method(head["method"])
        config = configure(method, head["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where} was written by gexinfer {writer}, and gexinfer {version('gexinfer')} does not know all of it: "
            f"{error} Run pip install --upgrade gexinfer."
        ) from error
    return FittedModel(
        method=method.name,
        config=config,
        model=Model(named(arrays, "model."), head["notes"]),
        landmarks=tuple(head["landmarks"]),
        targets=tuple(head["targets"]),
        landmark_scale=Scale(arrays["landmark_mean"], arrays["landmark_sd"]),
        target_scale=Scale(arrays["target_mean"], arrays["target_sd"]),
        landmark_covariance=arrays["landmark_covariance"],
        landmark_profile=arrays["landmark_profile"],
        input=head["input"],
        provenance=head["provenance"],
        training_rows=arrays["training_rows"],
        samples=tuple(head.get("samples", ())),
        known=named(arrays, "known."),
    )


def named(arrays: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names start so, by the rest of their names."""
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}


def damaged(where: str, why: str) -> NoReturn:
    """Say that a record cannot be trusted, and what to do."""
    raise ValueError(
        f"{where} is damaged or truncated: {why}. Read it again from an undamaged copy, or fit the model again."
    )


def to_uns(fitted: FittedModel) -> dict[str, Any]:
    """Return the entry of `uns`: scalars for people, and the bytes in zero-padded rows of one MiB."""
    data = np.frombuffer(to_bytes(fitted), np.uint8)
    state = np.zeros((-(-len(data) // PAGE), PAGE), np.uint8)
    state.reshape(-1)[: len(data)] = data
    return {"params": fitted.params(), "state": state}


def from_uns(entry: Any, where: str) -> FittedModel:
    """Return the model in an entry of `uns`. Only its state is read; its params are for people."""
    state = entry["state"]
    flat = np.asarray(state.compute() if hasattr(state, "compute") else state).reshape(-1)
    return from_bytes(flat[: stored_length(flat)].tobytes(), where)


def stored_length(flat: NDArray[np.uint8]) -> int:
    """Return the length of the safetensors file at the start of `flat`, all of it where its header is unreadable."""
    head_length = int.from_bytes(flat[:8].tobytes(), "little")
    try:
        tensors = json.loads(flat[8 : 8 + head_length].tobytes())
        return 8 + head_length + max(tensors[name]["data_offsets"][1] for name in tensors if name != "__metadata__")
    except UNREADABLE:
        return len(flat)


def is_record(entry: Any) -> bool:
    """Whether an entry of `uns` is a model."""
    state = entry.get("state") if isinstance(entry, Mapping) else None
    return getattr(state, "dtype", None) == np.uint8 and getattr(state, "ndim", 0) == 2


def records(adata: AnnData, key: str | Iterable[str] | None = None) -> dict[str, FittedModel]:
    """Return the models in `adata.uns` by key: those asked for, or all."""
    there = [name for name, entry in adata.uns.items() if is_record(entry)]
    if not there:
        raise KeyError(
            "adata.uns holds no gexinfer model. Run gexinfer.tl.fit(adata, method=...) first, or use the model of "
            "another object: gexinfer.tl.predict(adata, model=ref). anndata.concat drops uns: pass it uns_merge='same'."
        )
    wanted = there if key is None else [key] if isinstance(key, str) else list(key)
    absent = [name for name in wanted if name not in there]
    if absent or not wanted:
        raise KeyError(
            f"adata.uns holds no gexinfer model {listed(absent) or repr(key)}; it holds {listed(there, 20)}."
        )
    return {name: from_uns(adata.uns[name], f"adata.uns[{name!r}]") for name in wanted}
