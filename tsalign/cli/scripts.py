"""The scripts in `ray_jobs/`: a recipe of one stage, or any, from the command line of `ray job submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tsalign.cli.execution import execute, report
from tsalign.cli.options import Overrides, RetryFailed, Verbose
from tsalign.cli.terminal import Commands, out

if TYPE_CHECKING:
    from upath import UPath

ConfigFile = Annotated[Path, typer.Option("--config", help="YAML file; see `configs/` for examples")]


def script(recipe: str | None = None) -> None:
    """Run the config that the command line names.

    Args:
        recipe: instead of the config's own, as `module:attribute`; it reads those keys of the config that it takes,
            and its run has a name of its own, `<run>-<recipe>`.
    """
    app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @app.callback()
    def nothing() -> None:
        """A script has one command, which needs no name."""

    @app.command("run")
    def run(
        config: ConfigFile, overrides: Overrides = None, retry_failed: RetryFailed = False, verbose: Verbose = False
    ) -> None:
        from tsalign.config import override, parse_assignments, read_yaml

        given = parse_assignments(overrides or [])
        if recipe is None:
            report(execute(config, given, retry_failed))
            return
        _tell(execute(only(recipe, override(read_yaml(config), given), given), {}, retry_failed))

    import sys

    app(["run", *sys.argv[1:]])


def only(recipe: str, content: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Of a config, the keys that another recipe takes.

    Args:
        given: those of the command line, which stay, so that one it does not take is told.
    """
    from tsalign.recipes import find

    found = find(recipe)
    wanted = {*found.config_type.model_fields, *(key.partition(".")[0] for key in given)}
    kept = {key: value for key, value in content.items() if key in wanted}
    name = content.get("run") if "run" in given or not content.get("run") else f"{content['run']}-{found.name}"
    return {**kept, "recipe": recipe, "run": name}


def _tell(folder: UPath) -> None:
    """Where each stage put what it made."""
    from tsalign.runs.ledger import Ledger

    for stage, entry in Ledger(folder / "ledger.jsonl").done().items():
        out.print(f"{stage:<16}{folder / entry['output']['path']}", markup=False, highlight=False, soft_wrap=True)
