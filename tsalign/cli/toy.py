"""`toy build`: the models of the built-in world, made from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tsalign.cli.options import Verbose
from tsalign.cli.terminal import app

toy = typer.Typer(no_args_is_help=True, help="The built-in world that quickstart and tests use.")
app.add_typer(toy, name="toy")


@toy.command("build")
def toy_build(
    target: Annotated[Path, typer.Option("--out", help="folder for the models")] = Path("toy-assets"),
    short: Annotated[bool, typer.Option(help="train for a few steps only, as a test")] = False,
    seed: Annotated[int, typer.Option(help="random seed of the trainings")] = 0,
    verbose: Verbose = False,
) -> None:
    """Train the toy world's models from scratch."""
    from tsalign import api
    from tsalign.toy.build import build_config, ship

    api.run(build_config(target, short=short, seed=seed))
    ship(target)
