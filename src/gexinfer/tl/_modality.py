"""The modality of a MuData that is meant, which is then read and written as an AnnData is."""

from __future__ import annotations

from typing import Any

from anndata import AnnData
from mudata import MuData

from gexinfer._names import listed
from gexinfer._record import is_record


def one_modality(data: Any, modality: str | None) -> Any:
    """Return a modality of a MuData; what is none as it is."""
    if not isinstance(data, MuData):
        if modality is not None and isinstance(data, AnnData):
            raise TypeError(f"modality={modality!r} is for a MuData, and adata is an AnnData; leave it out.")
        return data
    if modality not in data.mod:
        raise KeyError(
            f"modality={modality!r} is not one of the MuData's: {listed(list(data.mod), 20)}. Name one of these."
        )
    return data.mod[modality]


def with_models(data: AnnData | MuData, among: AnnData | MuData) -> AnnData:
    """Return the object with models: this one, or of a MuData the only modality that has some."""
    if isinstance(data, AnnData) and (has_models(data) or not isinstance(among, MuData)):
        return data
    having = [name for name, part in among.mod.items() if has_models(part)]
    if len(having) != 1:
        raise KeyError(
            f"{listed(having) if having else 'No modality'} of {listed(list(among.mod), 20)} holds models. Name the "
            "one that is meant: gexinfer.tl.predict(mdata, model=mdata['full'], modality='panel'), having run "
            "gexinfer.tl.fit(mdata, method, modality='full')."
        )
    return among.mod[having[0]]


def has_models(adata: AnnData) -> bool:
    return any(is_record(entry) for entry in adata.uns.values())
