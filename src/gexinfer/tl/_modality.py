"""The modality of a MuData that is meant, which is then read and written as an AnnData is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from anndata import AnnData
from mudata import MuData

from gexinfer._names import listed
from gexinfer._record import is_record
from gexinfer._slots import PREDICTED


def one_modality(data: Any, modality: str | None) -> Any:
    """Return a modality of a MuData; what is none as it is."""
    if not isinstance(data, MuData):
        if modality is not None and isinstance(data, AnnData):
            raise TypeError(f"modality={modality!r} is for a MuData, and adata is an AnnData; leave it out.")
        return data
    if modality not in data.mod:
        asked = "adata is a MuData" if modality is None else f"modality={modality!r} is not one of the MuData's"
        raise KeyError(f"{asked}; name one of its modalities, {listed(list(data.mod), 20)}, as modality=.")
    return data.mod[modality]


def with_models(data: AnnData | MuData, among: AnnData | MuData, key: str | Iterable[str] | None) -> AnnData:
    """Return the object with the models asked for: this one, or of a MuData the only modality that has them."""
    if isinstance(data, AnnData) and (has_models(data, key) or not isinstance(among, MuData)):
        return data
    having = [name for name, part in among.mod.items() if has_models(part, key)]
    if len(having) != 1:
        what = "models" if key is None else f"key={key!r}"
        raise KeyError(
            f"{listed(having)} hold {what}; name the one that is meant, model=mdata[{having[0]!r}]."
            if having
            else f"None of the modalities {listed(list(among.mod), 20)} holds {what}. Run "
            "gexinfer.tl.fit(mdata, method, modality=...) on the one with whole transcriptomes first."
        )
    return among.mod[having[0]]


def has_models(adata: AnnData, key: str | Iterable[str] | None) -> bool:
    there = {name for name, entry in adata.uns.items() if is_record(entry)}
    return bool(there) if key is None else {key} <= there if isinstance(key, str) else set(key) <= there


def check_modality(mdata: MuData) -> None:
    """Refuse to overwrite a modality with what is inferred."""
    if "inferred" in mdata.mod and PREDICTED not in mdata["inferred"].uns:
        raise ValueError("The MuData has a modality 'inferred' that gexinfer did not write; rename it first.")
