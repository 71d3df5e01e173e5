"""Which actors a stage takes: those that only ask a service take no GPU."""

from __future__ import annotations

import pytest

from tsalign.config import Placement, ResourceConfig, SamplePlacement
from tsalign.prompts import templates
from tsalign.runs.artifacts import Endpoint, Model
from tsalign.scoring import Scorer, placement
from tsalign.scoring.function import PythonFunction
from tsalign.scoring.judge import LLMJudge
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.reward_model import RewardModel
from tsalign.stages import generation
from tsalign.teacher.client import TeacherClient

MODEL, ENDPOINT = Model("m", "m"), Endpoint("http://x/v1", "m", "e")
RESOURCES = ResourceConfig(
    sample=SamplePlacement(gpus=1, tensor_parallel=4), score=Placement(gpus=2), mine=Placement(replicas=3)
)


def judge(writer: Model | Endpoint) -> LLMJudge:
    return LLMJudge(writer, templates.texts(templates.FOLDER)["judge_pair"])


@pytest.mark.parametrize(
    ("scorers", "gpus"),
    [
        ([RewardModel(MODEL)], 2),
        ([LogProb(MODEL)], 2),
        ([PythonFunction("m:f")], 2),
        ([judge(MODEL)], 2),
        ([judge(ENDPOINT)], 0),
        ([TeacherClient("http://x")], 0),
        ([TeacherClient("http://x"), judge(ENDPOINT)], 0),
        ([TeacherClient("http://x"), RewardModel(MODEL)], 2),
    ],
)
def test_what_only_asks_takes_no_gpu(scorers: list[Scorer], gpus: float) -> None:
    assert placement(scorers, RESOURCES).actor_gpus == gpus


@pytest.mark.parametrize(("writer", "gpus"), [(MODEL, 4), (ENDPOINT, 0)])
def test_who_writes_elsewhere_takes_no_gpu(writer: Model | Endpoint, gpus: float) -> None:
    assert generation.placement(writer, RESOURCES).actor_gpus == gpus
