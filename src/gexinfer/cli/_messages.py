"""How a person hears of what went wrong: warnings and errors as lines on stderr, and exit codes."""

from __future__ import annotations

import linecache
import re
import signal
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache, partial
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

PACKAGE = Path(__file__).parents[1]
# What the package tells a person to call, and the command that does it.
CALLS = {f"gexinfer.tl.{name}": name for name in ("fit", "predict", "evaluate", "compare")}
CALLS["gexinfer.tl.trust"] = "evaluate --trust"
# A fit flags landmarks and splits where that was not done.
STEPS = (r"gexinfer\.pp\.landmarks\(adata, panel='l1000'\) first", r"gexinfer\.pp\.split\(adata\) first")
# Of a message, text in quotes, a call, and the name of an argument with what follows it. Paths are in quotes.
PARTS = re.compile(
    r"""(?<!\w)(?:'[^']*'|"[^"]*")"""
    r"|([\w.]+)\(((?:[^()]|\([^()]*\))*)\)"
    r"|(?<!--option )(?<![\w./-])(\w+)=(?:True\b)?(?=(\S*))"
)


@contextmanager
def told(command: str) -> Iterator[None]:
    """Run a command: print warnings and errors as lines, and end with the exit code that says how it went."""
    screen = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    with warnings.catch_warnings(), ended() as stopped:
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = partial(show_warning, command)
        try:
            yield
        except KeyboardInterrupt as error:
            screen.print(f"interrupted. {error}".rstrip(), style="yellow")
            raise typer.Exit(130) from error
        except (KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
            if not (isinstance(error, OSError) or is_meant(error)):
                raise
            # str() of a KeyError would be its repr.
            text = error.args[0] if isinstance(error, KeyError) and error.args else error
            screen.print(f"error: {for_a_shell(str(text), command)}", style="red")
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


def for_a_shell(text: str, command: str) -> str:
    """Return a message of the package in the words of a shell: commands for calls, and options of `command`."""
    from gexinfer.cli import app

    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    options = {option.name: option for option in params if option.opts[0].startswith("-")}

    def reword(found: re.Match[str]) -> str:
        call, arguments, name, value = found.groups()
        if call in CALLS:
            # Of its arguments those that are named.
            named = " ".join(re.findall(r"\w+=[^,]+", arguments))
            return f"gexinfer {CALLS[call]} {for_a_shell(named, CALLS[call].split()[0])}".rstrip()
        if command == "predict" and name == "output" and not value.startswith(("'anndata'", "'mudata'", "'layer'")):
            # In Python a path is an output, too.
            return "--output disk --out " if value.startswith(("'", '"')) else "--out"
        if name in options and not value.startswith("False"):
            spelled = max(options[name].opts, key=len)
            # An option that ends a sentence, or stands before its value in words, has no value yet.
            follows = re.match(r"\.\.\.|\.*[^\s.,;:)]", value) and not options[name].is_flag
            return f"{spelled} " if follows else spelled
        if name and name not in options and command != "compare" and name in method_options():
            return f"--option {found[0]}"
        return found[0]

    for step in STEPS:
        text = re.sub(step, "gexinfer fit", text)
    return PARTS.sub(reword, text)


@cache
def method_options() -> set[str]:
    """Return the names of the options that methods have."""
    from gexinfer.methods import METHODS, get_method

    return {option.name for name in METHODS for option in fields(get_method(name).config)}


def show_warning(
    command: str,
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: Any = None,
) -> None:
    """Print a warning of ours; those of other packages are about their code, and no user of a shell can heed them."""
    from gexinfer.engine.report import is_first

    if PACKAGE in Path(filename).parents and is_first():
        screen = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
        screen.print(f"warning: {for_a_shell(str(message), command)}", style="yellow")
