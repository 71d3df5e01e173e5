"""`serve teacher`: a teacher for several runs."""

from __future__ import annotations

import typer

from tsalign.cli.options import Address, Config, Overrides, Verbose
from tsalign.cli.terminal import app

serve = typer.Typer(no_args_is_help=True, help="Serve a model over HTTP.")
app.add_typer(serve, name="serve")


@serve.command("teacher")
def serve_teacher(
    config: Config, overrides: Overrides = None, address: Address = None, verbose: Verbose = False
) -> None:
    """Serve the `teacher` of a config until Ctrl-C, for runs that set its address as teacher.url."""
    from tsalign.config import ServeConfig, override, parse_assignments, read_yaml, validate
    from tsalign.teacher.service import serve_forever

    content = override(read_yaml(config), parse_assignments(overrides or []))
    block = {key: content[key] for key in ServeConfig.model_fields if key in content}
    serve_forever(validate(ServeConfig, block, str(config)).teacher)
