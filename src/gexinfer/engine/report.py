"""What a person sees while something runs: one bar on a terminal or in a notebook, one line in a log file or a pipe."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

logger = logging.getLogger("gexinfer")


def is_first() -> bool:
    """Whether this is the process that talks and writes: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


class Advance(Protocol):
    """Tell that so many more steps are done, and what there is to say about them."""

    def __call__(self, by: int, text: str) -> None: ...


def say(line: str) -> None:
    """Tell the caller something: through logging where that is set up, else as a line on stderr or in the notebook."""
    if not is_first():
        return
    # A handler on the root alone says little: some packages put one there, with a level that drops what is no warning.
    if logger.level == logging.NOTSET and not (logger.hasHandlers() and logger.isEnabledFor(logging.INFO)):
        Console(stderr=True, soft_wrap=True).print(line, highlight=False, markup=False)
    else:
        logger.info(line)


def show(table: Table) -> None:
    """Show a table where `say` tells its lines."""
    lines = Console(width=100, file=StringIO())
    lines.print(table)
    for line in lines.file.getvalue().rstrip().split("\n"):  # type: ignore[attr-defined]
        say(line)


def warn(message: str) -> None:
    """Warn, at the line that called gexinfer; the commands of `cli` count as such lines."""
    if not is_first():
        return
    inner, frame, level = Path(__file__).parents[1], sys._getframe(1), 2
    while frame.f_back is not None and inner in (inside := Path(frame.f_code.co_filename).parents):
        if inner / "cli" in inside:
            break
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


@contextmanager
def steps(title: str, total: int, *, show: bool) -> Iterator[Advance]:
    """Give a function that moves a bar; where there is no screen, the last text becomes one line."""
    console, show = Console(stderr=True), show and is_first()
    # rich draws its bar in a notebook with ipywidgets, or not at all.
    live = show and (find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal)
    started, last = time.perf_counter(), ""
    bar = Progress(
        # Narrow enough for 80 characters: a wider line would lose its end, the time left.
        TextColumn("{task.description}"),
        BarColumn(bar_width=6),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not live,
    )
    with bar:
        task = bar.add_task(title, total=total, text="")

        def advance(by: int, text: str) -> None:
            nonlocal last
            last = text
            bar.update(task, advance=by, text=text)

        yield advance
    if show and not live and last:
        say(f"{title} {bar.tasks[0].completed:,.0f}/{total:,}: {last}, {time.perf_counter() - started:.1f} s")
