"""What is looked at on a cluster that was joined before the first stage: whether its nodes can do what is planned."""

from __future__ import annotations

import platform
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.registry import is_builtin
from tsalign.common.storage import is_remote, resolve
from tsalign.config import ResourceConfig, RunConfig
from tsalign.config.locations import locations
from tsalign.runs.node_types import NodeType, autoscaled, present, stuck
from tsalign.runs.nodes import Size, fits, size_of
from tsalign.runs.plan import ONE_TASK, Plan

ANSWER_SECONDS = 120.0  # a node may have to unpack what the job brought
PROBE = ".preflight"


def check_cluster(plan: Plan, config: RunConfig, folder: UPath) -> None:
    """Look at a node of each type that a stage will use, and whether each stage fits on any.

    Args:
        folder: of the run.

    Raises:
        TsalignError: all that is wrong, a line each.
    """
    import ray

    wanted = wants(plan, config.resources)
    here, more = present(ray.nodes()), autoscaled()
    problems = [] if more is None else list(stuck(wanted, [*here, *more]))
    used = [kind for kind in here if any(fits(kind.resources, kind.labels, size) for size in wanted.values())]
    problems += _look_at(used, folder, local_paths(config))
    if problems:
        raise TsalignError("\n  ".join(problems))


def wants(plan: Plan, resources: ResourceConfig) -> dict[str, Size]:
    """What asks for room -> what one actor of it takes."""
    wanted: dict[str, Size] = {}
    for key in ResourceConfig.model_fields:
        place = getattr(resources, key)
        stages = list(dict.fromkeys(need.stage for need in plan.needs if need.placement is place))
        if stages:
            wanted[f"resources.{key}, for {stages[0]}"] = size_of(place)
    if single := next((need.stage for need in plan.needs if need.placement is ONE_TASK), None):
        wanted[f"a task, for {single}"] = size_of(ONE_TASK)
    return wanted | {each.who: Size(each.cpus, each.gpus, each.node) for each in plan.services}


def local_paths(config: RunConfig) -> dict[str, str]:
    """Key -> the file or folder that its nodes have to see, of those that are no built-in or remote name."""
    named = [found for found in locations(config) if found.kind != "text" and not is_builtin(found.name)]
    paths = {str(found): resolve(found.name) for found in named if not is_remote(found.name)}
    # An id of the Hub looks like a relative path.
    return {key: path.path for key, path in paths.items() if path.exists()}


def differences(theirs: Mapping[str, str], ours: Mapping[str, str]) -> Iterator[str]:
    """A line for each version that a node has another of."""
    for name, mine in ours.items():
        if not theirs[name]:
            yield f"has no {name}; install {mine}, or send it with `tsalign submit --package`."
        elif theirs[name] != mine:
            yield f"has {name} {theirs[name]}, the driver {mine}; install the same one on all nodes."


def versions() -> dict[str, str]:
    """Versions that a driver and its workers have to share."""
    return {"Ray": version("ray"), "Python": platform.python_version(), "tsalign": version("tsalign")}


def _look_at(kinds: Sequence[NodeType], folder: UPath, paths: Mapping[str, str]) -> list[str]:
    """What a node of each type finds wrong, with its name."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ours, probe = versions(), folder / f"{PROBE}-{secrets.token_hex(4)}"
    probe.write_text("driver")
    looks = {}
    for number, kind in enumerate(kinds):
        there = NodeAffinitySchedulingStrategy(kind.ids[0], soft=False)
        look: Any = ray.remote(_looker()).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        looks[look.remote(str(probe), f"{probe}-{number}", dict(paths), list(ours))] = (kind, f"{probe}-{number}")
    done, late = ray.wait(list(looks), num_returns=len(looks), timeout=ANSWER_SECONDS) if looks else ([], [])
    problems = [f"{looks[one][0].name}: gave no answer within {ANSWER_SECONDS:g} s." for one in late]
    for one in done:
        kind, written = looks[one]
        problems += [f"{kind.name}: {problem}" for problem in _found(one, ours, UPath(written), str(folder))]
    for file in [probe, *(UPath(written) for _, written in looks.values())]:
        file.unlink(missing_ok=True)
    return problems


def _found(answer: Any, ours: Mapping[str, str], written: UPath, folder: str) -> Iterable[str]:
    """What one node's answer says is wrong."""
    import ray

    try:
        theirs = ray.get(answer)
    except ray.exceptions.RayError as error:
        return [f"cannot run a task: {str(error).strip().splitlines()[-1]}"]
    problems = [*differences(theirs["versions"], ours), *theirs["problems"]]
    if not problems and not written.exists():
        problems = [f"what it writes to {folder} is not seen by the driver: expected storage that all nodes share."]
    return problems


def _looker() -> Callable[[str, str, dict[str, str], list[str]], dict[str, Any]]:
    """A function that travels by value: a node may have another tsalign, or none."""

    def look(probe: str, written: str, paths: dict[str, str], names: list[str]) -> dict[str, Any]:
        import platform
        from importlib.metadata import PackageNotFoundError, version
        from pathlib import Path

        def installed(name: str) -> str:
            try:
                return platform.python_version() if name == "Python" else version(name.lower())
            except PackageNotFoundError:
                return ""

        problems = []
        try:
            from upath import UPath

            if UPath(probe).read_text() != "driver":
                problems.append(f"storage: {probe}: holds something else than the driver wrote.")
            UPath(written).write_text("node")
        except Exception as error:  # each kind of storage has errors of its own
            problems.append(f"storage: cannot read or write {probe}: {type(error).__name__}: {error}")
        problems += [
            f"{key}: {path}: is not there; put it into storage that all nodes reach, or name it by a URI."
            for key, path in paths.items()
            if not Path(path).exists()
        ]
        return {"versions": {name: installed(name) for name in names}, "problems": problems}

    return look
