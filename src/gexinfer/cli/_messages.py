"""How a person hears of what went wrong: warnings and errors as lines on stderr, and exit codes."""

from __future__ import annotations

import linecache
import re
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

PACKAGE = Path(__file__).parents[1]
# What the package tells a person to call, and the command that does it.
CALLS = {
    r"gexinfer\.tl\.(fit|predict|evaluate|compare)": r"gexinfer \1",
    r"gexinfer\.tl\.trust": "gexinfer evaluate --trust",
}
# A fit flags landmarks and splits where that was not done.
STEPS = (r"gexinfer\.pp\.landmarks\(adata, panel='l1000'\) first", r"gexinfer\.pp\.split\(adata\) first")


@contextmanager
def told() -> Iterator[None]:
    """Run a command: print warnings and errors as lines, and end with the exit code that says how it went."""
    screen = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with warnings.catch_warnings(), ended() as stopped:
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show_warning
        try:
            yield
        except BrokenPipeError:
            # Whoever reads stdout has seen enough; typer ends without a word.
            raise
        except KeyboardInterrupt as error:
            screen.print(f"interrupted. {error}".rstrip(), style="yellow")
            raise typer.Exit(130) from error
        except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
            if not (isinstance(error, OSError) or is_meant(error)):
                raise
            # str() of a KeyError would be its repr.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            screen.print(f"error: {for_a_shell(str(text))}", style="red")
            raise typer.Exit(1) from error
    if stopped:
        # A network keeps its best epoch then, and that was written. A workflow must not take it for what it asked for.
        raise typer.Exit(130)


@contextmanager
def ended() -> Iterator[list[int]]:
    """Note Ctrl-C, and let SIGTERM, as schedulers send it, end the command in order, without files left half done."""
    stopped: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    def terminate(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    # A shell that runs a command in the background may have Ctrl-C ignored, which stays so.
    usual: dict[signal.Signals, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = {signal.SIGINT: interrupt, signal.SIGTERM: terminate}
    replaced = [number for number in usual if signal.getsignal(number) is usual[number]]
    for number in replaced:
        signal.signal(number, ours[number])
    try:
        yield stopped
    finally:
        for number in replaced:
            signal.signal(number, usual[number])


def is_meant(error: Exception) -> bool:
    """Whether gexinfer raised an error on purpose. Any other is a bug, of which the traceback is wanted."""
    frame, line = list(traceback.walk_tb(error.__traceback__))[-1]
    file = frame.f_code.co_filename
    return PACKAGE in Path(file).parents and linecache.getline(file, line).lstrip().startswith("raise ")


def for_a_shell(text: str) -> str:
    """Return a message of the package with the commands and options that do what it says in Python."""
    from gexinfer.cli import app

    for step in STEPS:
        text = re.sub(step, "gexinfer fit", text)
    for call, command in CALLS.items():
        for found in re.finditer(call + r"\(((?:[^()]|\([^()]*\))*)\)", text):
            # Of its arguments those that are named, which become options below.
            named = re.findall(r"\w+=[^,]+", found[found.lastindex or 0])
            text = text.replace(found[0], " ".join([found.expand(command), *named]))
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    options = [option for command in commands.values() for option in command.params if option.opts[0].startswith("-")]
    for name, option in {option.name: option for option in options}.items():
        spelled = max(option.opts, key=len)
        if option.is_flag:
            text = re.sub(rf"\b{name}=(True\b)?", spelled, text)
        else:
            # An option that ends a sentence, or stands before its value in words, has no value yet.
            text = re.sub(rf"\b{name}=(?=\.\.\.|\.*[^\s.,;:)])", f"{spelled} ", text)
            text = re.sub(rf"\b{name}=", spelled, text)
    return text


def show_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Print a warning of ours; those of other packages are about their code, and no user of a shell can heed them."""
    from gexinfer.engine.report import is_first

    if PACKAGE in Path(filename).parents and is_first():
        screen = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        screen.print(f"warning: {for_a_shell(str(message))}", style="yellow")
