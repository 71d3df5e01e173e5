"""The one way to run a recipe, behind the CLI, notebooks and jobs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tsalign.common.errors import TsalignError
from tsalign.common.storage import resolve
from tsalign.config import RunConfig, override, read_yaml, run_name, validate
from tsalign.recipes import find
from tsalign.report.summary import RunSummary, summarise_run
from tsalign.runs import dry_run
from tsalign.runs.nodes import joined
from tsalign.runs.place import check_place
from tsalign.runs.plan import Plan
from tsalign.runs.preflight import check_cluster
from tsalign.runs.ray_session import ray_session
from tsalign.runs.run import Run


def load(config: str | Path | dict[str, Any], overrides: dict[str, Any]) -> RunConfig:
    """A recipe's typed config from a YAML file or a mapping, with dotted keys set.

    Raises:
        TsalignError: no such file, bad YAML, no such recipe, unknown keys or values out of range.
    """
    source = "config" if isinstance(config, dict) else str(config)
    content = override(config if isinstance(config, dict) else read_yaml(Path(config)), overrides)
    if not isinstance(name := content.get("recipe"), str):
        given = "required, but not given" if name is None else f"is {name!r}"
        raise TsalignError(f"{source}: recipe: {given}; expected the name of a recipe, such as ts-align.")
    return validate(find(name).config_type, content, source)


def run(config: str | Path | dict[str, Any] | RunConfig, *, retry_failed: bool = False, **overrides: Any) -> RunSummary:
    """Run a config to its end, resuming a run of the same name.

    Args:
        retry_failed: ask again also for failed rows that were answered badly, in stages that are not done.
        overrides: keys with `__` for dots: `tune__beta=0.2`.

    Before anything starts, the recipe is run dry and all that is cheap to check is checked; see `check`.

    Returns:
        What the run came to: results, reports and seconds by iteration, cost by model; `tsalign show RUN --json`
        prints it.
    """
    dotted = {key.replace("__", "."): value for key, value in overrides.items()}
    loaded = config if isinstance(config, RunConfig) else load(config, dotted)
    active = Run(loaded, name_of(loaded), retry_failed)
    if not active.finished():
        planned = check(active)
        with active.open(ray_session):
            if joined():
                check_cluster(planned, loaded, active.dir)
            find(loaded.recipe).function(active, loaded)
    return summarise_run(active.dir)


def check(run: Run) -> Plan:
    """All that is cheap to check before a run begins; nothing is started.

    Returns:
        What the run would do.

    Raises:
        TsalignError: what is wrong, a line each; or the run's place is taken by something else.
    """
    check_place(run.config.storage, run.name)
    # What a run has read may be gone when it is resumed.
    return dry_run.plan(run.config, find(run.config.recipe).function, ready=not run.ledger.done())


def name_of(config: RunConfig) -> str:
    """The name of its run: the one that it gives, or one made of the recipe and the time."""
    return config.run or f"{find(config.recipe).name}-{time.strftime('%Y%m%d-%H%M%S')}"


def resume(name: str, storage: str = "runs", retry_failed: bool = False) -> RunSummary:
    """Resume a run from its own `config.yaml`.

    Args:
        retry_failed: as for `run`.

    Raises:
        TsalignError: no such run, not the name of one, or its config is damaged.
    """
    try:
        run_name(name)
    except ValueError as error:
        raise TsalignError(f"run {name}: {error}.") from None
    path = resolve(storage) / name / "config.yaml"
    if not path.exists():
        raise TsalignError(f"run {name}: {path} does not exist; `tsalign runs --storage {storage}` lists all runs.")
    return run({**read_yaml(path), "run": name, "storage": storage}, retry_failed=retry_failed)
