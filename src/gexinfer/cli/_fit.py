from __future__ import annotations

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from gexinfer.cli._arguments import (
    DATA,
    NETWORKS,
    RESULT,
    Device,
    IdColumn,
    Input,
    Layer,
    Panel,
    Seed,
    SplitBy,
    check_methods,
    complete_method,
)
from gexinfer.cli._files import check_out, read, read_models, write
from gexinfer.cli._messages import told
from gexinfer.cli._steps import check_device, flag_and_split
from gexinfer.methods import METHODS


def fit(
    path: Input,
    *,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "-m",
            metavar="METHOD",
            autocompletion=complete_method,
            callback=lambda names: check_methods(names or []),
            help=f"{', '.join(METHODS)}; may be repeated. auto, where none is named: several of the others, weighed by "
            "their errors.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Option of the method, e.g. hidden=3000; may be repeated. For a single --method.",
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How long --method auto may take, e.g. 30s or 2h; 5min where not given."),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    panel: Panel = None,
    id_column: IdColumn = None,
    groupby: SplitBy = None,
    layer: Layer = None,
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Validation rows are all of this file, in place of those of the input: .h5ad, .zarr, GCT or GCTX.",
            rich_help_panel=DATA,
        ),
    ] = None,
    unlabeled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Samples of landmarks alone that take part in --method semigan: .h5ad, .zarr, GCT or GCTX.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A fitted .h5ad, .zarr or .safetensors whose network is the start.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the state of the training, from which the same command goes on.",
            rich_help_panel=NETWORKS,
        ),
    ] = None,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            metavar="N|TIME",
            help="Epochs, or a time, after which the state is written.",
            rich_help_panel=NETWORKS,
        ),
    ] = "10min",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The data with the models, .h5ad or .zarr, written whole or not at all; the input if not given.",
            rich_help_panel=RESULT,
        ),
    ] = None,
    key_added: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the model; that of the method where not given. For a single --method.",
            rich_help_panel=RESULT,
        ),
    ] = None,
) -> None:
    """Flag landmarks, split, and fit models on whole transcriptomes.

    Under torchrun its processes train a network together:
    torchrun --nproc-per-node 4 -m gexinfer fit -m dgex ...
    """
    import gexinfer as gx
    from gexinfer.engine.report import is_first

    with told("fit"):
        out, names = out or path, method or ["auto"]
        check_out(out, ".h5ad", ".zarr")
        for given, meant in ((option and f"--option {option[0]}", option), (f"--key-added {key_added}", key_added)):
            if meant and len(names) > 1:
                raise ValueError(f"{given} is for one method, but --method names {', '.join(names)}; fit them in turn.")
        options = options_of(names, option or [], budget)
        check_networks(names, init or checkpoint, unlabeled)
        check_device(device)
        start = None if init is None else read_models(init)
        others, held_out = (None if file is None else read(file) for file in (unlabeled, validation))
        adata = read(path)
        flag_and_split(adata, path, panel, id_column, groupby, layer, seed)
        for name in names:
            gx.tl.fit(
                adata,
                method=name,
                layer=layer,
                key_added=key_added,
                rng=seed,
                device=device,
                validation=held_out,
                unlabeled=others,
                init=start,
                checkpoint=checkpoint,
                checkpoint_every=int(checkpoint_every) if checkpoint_every.isdecimal() else checkpoint_every,
                **options[name],
            )
        if is_first():
            write(adata, out)


def options_of(names: list[str], option: list[str], budget: str | None) -> dict[str, dict[str, Any]]:
    """Return the options of each method, all of which it has."""
    from gexinfer.methods import configure, get_method

    if budget and "auto" not in names:
        raise ValueError(f"--budget is for --method auto, not for {', '.join(names)}; leave it out.")
    options: dict[str, dict[str, Any]] = {name: parse(option) for name in names}
    if budget:
        options["auto"]["budget"] = budget
    for name in names:
        configure(get_method(name), options[name])
    return options


def check_networks(names: list[str], training: Path | None, unlabeled: Path | None) -> None:
    """Refuse files that are for networks, or for one of them, where another method is named."""
    from gexinfer.methods import get_method

    for name in names:
        if training and not get_method(name).by_epochs:
            raise ValueError(f"--init and --checkpoint are for networks, and --method {name} is none; fit it apart.")
        if unlabeled and not get_method(name).takes_unlabeled:
            raise ValueError(f"--unlabeled is for --method semigan, not for {name}; fit it apart.")


def parse(options: list[str]) -> dict[str, Any]:
    """Turn `name=value` into keyword arguments; a value that is no Python literal is text."""
    parsed: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"--option {option} must be written name=value.")
        if name in parsed:
            raise ValueError(f"--option {name} is given twice; give it once.")
        try:
            parsed[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed[name] = value
    return parsed
