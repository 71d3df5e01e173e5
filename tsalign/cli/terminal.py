"""The `tsalign` command itself: what all its commands share, and how it ends."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from tsalign.cli.options import Verbose
from tsalign.common.errors import TsalignError

out = Console()
errors = Console(stderr=True)


class Commands(TyperGroup):
    """Turns an error that the user can fix into a red message and exit code 2; a crash keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TsalignError as error:
            errors.print(str(error), style="red", markup=False, emoji=False, highlight=False, soft_wrap=True)
            end(2)


def end(code: int) -> NoReturn:
    """End the command, with what a failed run left."""
    from tsalign.runs.ray_session import leave

    leave(code)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align language models with a teacher, on Ray.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tsalign {version('tsalign')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Options before any command."""
