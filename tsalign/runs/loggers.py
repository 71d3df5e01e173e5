"""Where metrics go beside `metrics.jsonl`: TensorBoard, W&B, MLflow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import write_json

PACKAGES = ("wandb", "mlflow")  # those that are extras of ours, by the same names

TRACKERS = "trackers.json"  # in the run's folder: tracker -> the id of the run there


class Sink(Protocol):
    """Takes the numbers of one report."""

    def write(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None: ...
    def close(self) -> None: ...


def check_installed(names: Sequence[str]) -> None:
    """Nothing, where the packages of all trackers are there.

    Raises:
        TsalignError: one is not.
    """
    for name in names:
        if name in PACKAGES and find_spec(name) is None:
            raise TsalignError(f"loggers: {name} is not installed; pip install 'tsalign[{name}]'")


def open_sinks(names: Sequence[str], folder: UPath, run: str) -> list[Sink]:
    """One sink a name.

    Raises:
        TsalignError: a tracker's package is not installed.
    """
    try:
        return [SINKS[name](folder, run) for name in names]
    except ModuleNotFoundError as error:
        raise TsalignError(f"loggers: {error.name} is not installed; pip install 'tsalign[{error.name}]'") from error


def numbers(stage: str, metrics: dict[str, Any]) -> dict[str, float]:
    """`stage/metric` -> value for the numeric metrics."""
    return {f"{stage}/{key}": value for key, value in metrics.items() if isinstance(value, int | float)}


class TensorBoard:
    """Event files under `tensorboard/`; steps come from the metric `step`, else from the iteration."""

    def __init__(self, folder: UPath, run: str) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def write(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None:
        tag = f"{iteration}/{stage}" if "step" in metrics else stage
        for name, value in numbers(tag, metrics).items():
            self.writer.add_scalar(name, value, metrics.get("step", iteration))

    def close(self) -> None:
        self.writer.close()


class WandB:
    """One W&B run with the run's name, continued on resume."""

    def __init__(self, folder: UPath, run: str) -> None:
        import wandb

        known = _remembered(folder, "wandb", uuid.uuid4().hex)
        self.run = wandb.init(project="tsalign", id=known, name=run, resume="allow", dir=str(folder))

    def write(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None:
        self.run.log({"iteration": iteration, **numbers(stage, metrics)})

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """One MLflow run with the run's name, continued on resume; steps as TensorBoard's."""

    def __init__(self, folder: UPath, run: str) -> None:
        import mlflow

        self.mlflow = mlflow
        known = mlflow.start_run(run_id=_recalled(folder, "mlflow"), run_name=run).info.run_id
        _remembered(folder, "mlflow", known)

    def write(self, iteration: int, stage: str, metrics: dict[str, Any]) -> None:
        tag = f"{iteration}/{stage}" if "step" in metrics else stage
        self.mlflow.log_metrics(numbers(tag, metrics), step=metrics.get("step", iteration))

    def close(self) -> None:
        self.mlflow.end_run()


def _recalled(folder: UPath, tracker: str) -> str | None:
    """The id under which a tracker knows the run; None before it was first logged there."""
    path = folder / TRACKERS
    return json.loads(path.read_text()).get(tracker) if path.exists() else None


def _remembered(folder: UPath, tracker: str, known: str) -> str:
    """The id that the run has, or from now on, `known`."""
    if (before := _recalled(folder, tracker)) is not None:
        return before
    path = folder / TRACKERS
    write_json(path, {**(json.loads(path.read_text()) if path.exists() else {}), tracker: known})
    return known


SINKS: dict[str, Any] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
