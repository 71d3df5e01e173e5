"""The training stage: a model and rows in, a trained Hugging Face model folder out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from tsalign.common.errors import TsalignError, surfaced
from tsalign.common.storage import remove
from tsalign.config import Placement, TrainConfig
from tsalign.data.checks import check_model
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.names import sign_log, title
from tsalign.runs.nodes import size_of
from tsalign.runs.plan import PlannedStage, at_most, expected, plus, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.training import objectives
from tsalign.training.job import Job
from tsalign.training.reports import followed
from tsalign.training.schedule import total_steps

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer


@stage_function("train")
def train(
    stage: Stage,
    model: Model,
    datasets: Sequence[Dataset],
    config: TrainConfig,
    role: Literal["policy", "student", "teacher"],
    replay: Sequence[Dataset] = (),
    replay_share: float = 0.0,
) -> Model:
    """Train `model` on `datasets` by `config.objective` under Ray Train and DeepSpeed, into `stage.out`.

    An interrupted training resumes from its last checkpoint, also in a new driver, as long as the ZeRO stage is the
    same, and beyond stage 0 the number of workers. At stage 0 that number may be a range: Ray Train starts with what
    fits, and anew from the last checkpoint when workers are lost or nodes come.

    Args:
        role: whose `resources` are used.
        replay: earlier rows, of which `replay_share` times the number of new ones are mixed in.

    Raises:
        TsalignError: no row became an example.
    """
    placement = getattr(stage.resources, f"train_{role}")
    stage.wait_for(placement.least, placement)
    with followed(stage) as reports, surfaced():
        job = Job(
            model=model,
            datasets=list(datasets),
            replay=list(replay),
            replay_share=replay_share,
            objective=objectives.build(config.objective, config),
            config=config,
            seed=stage.seed,
            work=str(stage.work),
            out=str(stage.out),
            reports=reports,
            title=title(stage),
        )
        _trainer(job, placement).fit()
    remove(stage.work)
    return Model(str(stage.out), stage.fingerprint, chat_template=model.chat_template, dtype=model.dtype, role=role)


@train.expects
def _expect_model(
    stage: PlannedStage,
    model: Model,
    datasets: Sequence[Dataset],
    config: TrainConfig,
    role: Literal["policy", "student", "teacher"],
    replay: Sequence[Dataset] = (),
    replay_share: float = 0.0,
) -> Model:
    check_model(stage.plan, model, "any")
    with stage.plan.checking(f"objective of the {role}"):
        objectives.build(config.objective, config)
    new, earlier = (plus(*(expected(data).rows for data in given)) for given in (datasets, replay))
    examples = plus(new, at_most(earlier, times(new, replay_share)))
    steps = None if examples is None else total_steps(math.ceil(examples), config)
    epochs = f"{config.epochs:g} epoch{'s' * (config.epochs != 1)}"
    placement = getattr(stage.resources, f"train_{role}")
    with stage.plan.checking(f"resources.train_{role}"):
        _check_elastic(placement, config, role)
    how = f"{config.objective}, {epochs}, ZeRO {config.zero_stage}, {config.precision}"
    work = {"training examples": examples, "optimiser steps": steps}
    stage.needs(role, placement, work, how)
    return stage.model(role)


def _check_elastic(placement: Placement, config: TrainConfig, role: str) -> None:
    """Nothing, where as many workers as there are can go on from a checkpoint of other workers.

    Raises:
        TsalignError: they cannot: the parts of a checkpoint are made for their number.
    """
    if placement.least < placement.most and not _whole(config):
        raise TsalignError(
            f"resources.train_{role}.replicas: a range needs zero_stage 0 and precision fp32, where a checkpoint fits "
            f"any number of workers; the {role}'s training has zero_stage {config.zero_stage}, {config.precision}. Set "
            "these, or give one number."
        )


def _whole(config: TrainConfig) -> bool:
    """Whether each worker holds all there is. With bf16, DeepSpeed splits the master weights at ZeRO 0 too."""
    return config.zero_stage == 0 and config.precision == "fp32"


def _trainer(job: Job, placement: Placement) -> TorchTrainer:
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from tsalign.training.failure import FailFast

    size = size_of(placement)
    # The annotation is Ray Tune's, which knows no range.
    workers: Any = (placement.least, placement.most) if placement.least < placement.most else placement.most
    return TorchTrainer(
        _worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=placement.gpus > 0,
            resources_per_worker=size.resources(),
            label_selector=size.labels() or None,  # type: ignore[call-arg]  # the annotation is Ray Tune's
        ),
        run_config=RunConfig(
            # Under one name, a training finds its checkpoint.
            name="whole" if _whole(job.config) else f"workers-{placement.most}-zero-{job.config.zero_stage}",
            storage_path=job.work,
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=job.config.max_failures),
            callbacks=[FailFast(job.failure)],  # type: ignore[list-item]  # the annotation is Ray Tune's
        ),
    )


def _worker(settings: dict[str, Job]) -> None:
    """What Ray Train calls in each worker. DeepSpeed is imported there only: it takes seconds."""
    from ray.train import get_checkpoint

    from tsalign.training.failure import recorded
    from tsalign.training.loop import run

    job = settings["job"]
    sign_log(job.title)
    with recorded(job.failure):
        run(job, get_checkpoint())
