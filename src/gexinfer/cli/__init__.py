"""The main job from a shell: files in, files out. One command a file; each resolves, calls gexinfer and writes."""

from __future__ import annotations

from typing import Annotated

import typer

from gexinfer.cli._compare import compare
from gexinfer.cli._convert import convert
from gexinfer.cli._demo import demo
from gexinfer.cli._evaluate import evaluate
from gexinfer.cli._fit import fit
from gexinfer.cli._info import info
from gexinfer.cli._panels import panels
from gexinfer.cli._predict import predict
from gexinfer.cli._report import report

__all__ = ["app"]

# What is no message of ours is a bug, and a plain traceback can be pasted into a report of it.
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def tell_version(asked: bool) -> None:
    """Print the version, and that is all."""
    if asked:
        from gexinfer import __version__

        print(f"gexinfer {__version__}")
        raise typer.Exit()


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Infer a whole transcriptome from landmark genes, on AnnData.

    Results go to stdout, messages and progress to stderr. Exit codes: 0, done;
    1, an error; 2, a command line that cannot be read; 130, interrupted;
    143, ended by SIGTERM.
    """


for command in (demo, fit, predict, evaluate, compare, report, convert, panels, info):
    app.command()(command)
