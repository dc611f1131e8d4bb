"""gexinfer: landmark genes in, the rest of the transcriptome out, on AnnData."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gexinfer import datasets, io, pl, pp, tl

__all__ = ["datasets", "io", "pl", "pp", "tl"]

__version__ = version("gexinfer")


def __getattr__(name: str) -> Any:
    # Namespaces are imported when first used: `import gexinfer` must not pay for torch, scikit-learn or matplotlib.
    if name in __all__:
        return import_module(f"gexinfer.{name}")
    raise AttributeError(f"module 'gexinfer' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
