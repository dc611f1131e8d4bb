"""What the caller asks of a fit while it lasts, whatever is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from gexinfer.engine.blocks import Rows

Callback = Callable[[dict[str, Any]], object]


@dataclass(frozen=True)
class Run:
    """Bars, and for networks what happens between epochs."""

    progress: bool = True
    # Called after each epoch with what is known of it.
    callback: Callback | None = None
    # A directory, and after how many epochs or seconds the state is written there.
    checkpoint: Path | None = None
    every_epochs: float = 0
    every_seconds: float = 0
    # Rows whose error is measured after each epoch, too, as `test_mae`; they choose nothing.
    test: Rows | None = None
    # Set from another thread: stop as if interrupted.
    stop: Event = field(default_factory=Event)
