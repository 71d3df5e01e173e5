"""The training stage: a model and rows in, a trained Hugging Face model folder out."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any, Literal

from tsalign.common.errors import surfaced
from tsalign.common.storage import remove
from tsalign.config import TrainConfig
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import PlannedStage, at_most, expected, plus, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.training import objectives
from tsalign.training.job import Job, train_worker
from tsalign.training.schedule import total_steps


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

    A cut training goes on from its last checkpoint, also in a new driver, as long as the number of workers and
    the ZeRO stage are the same.

    Args:
        role: whose `resources` are used.
        replay: earlier rows, of which `replay_share` times the number of new ones are mixed in.

    Raises:
        TsalignError: no row became an example.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue

    placement = getattr(stage.resources, f"train_{role}")
    stage.wait_for(placement.replicas, placement.cpus, placement.gpus)
    reports = Queue(actor_options={"num_cpus": 0})
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
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=placement.replicas,
            use_gpu=placement.gpus > 0,
            resources_per_worker={"CPU": placement.cpus} | ({"GPU": placement.gpus} if placement.gpus else {}),
        ),
        run_config=RunConfig(
            name=f"workers-{placement.replicas}-zero-{config.zero_stage}",
            storage_path=str(stage.work),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
    )
    follower = threading.Thread(target=_follow, args=(stage, reports), daemon=True)
    follower.start()
    try:
        with surfaced():
            trainer.fit()
    finally:
        reports.put(None)
        follower.join()
        reports.shutdown(force=True)
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
    new, earlier = (plus(*(expected(data).rows for data in given)) for given in (datasets, replay))
    examples = plus(new, at_most(earlier, times(new, replay_share)))
    steps = None if examples is None else total_steps(math.ceil(examples), config)
    epochs = f"{config.epochs:g} epoch{'s' * (config.epochs != 1)}"
    how = f"{config.objective}, {epochs}, ZeRO {config.zero_stage}, {config.precision}"
    work = {"training examples": examples, "optimiser steps": steps}
    stage.needs(role, getattr(stage.resources, f"train_{role}"), work, how)
    return stage.model(role)


def _follow(stage: Stage, reports: Any) -> None:
    """Log the workers' reports and move the progress bar until a None comes."""
    first = reports.get()
    if first is None:
        return
    stage.log(first)
    stage.bar.count(first["steps"], "steps", done=first["step"])
    while (report := reports.get()) is not None:
        stage.log(report)
        stage.bar.move(report["step"], rate=f"{report['tokens_per_second']:,.0f} tokens/s")
