"""A recipe with all that a session looks into, in few seconds; its preferences wait for a file."""

from __future__ import annotations

import time
from pathlib import Path

from pydantic import Field

from tsalign.common.errors import TsalignError
from tsalign.config import AlignConfig, ModelConfig, SimPOTrainConfig
from tsalign.data.pairs import preference_of
from tsalign.data.prompts import load_prompts, portion
from tsalign.data.shards import Row, Shard
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.sampling import sample
from tsalign.toy.oracle import grade
from tsalign.training.stage import train


class GatedConfig(AlignConfig):
    policy: ModelConfig = Field(description="The model that is aligned.")
    tune: SimPOTrainConfig = Field(description="How it learns.")
    gate: str = Field(description="The file that preferences wait for; `broken` fails instead.")


@recipe("gated", GatedConfig)
def gated(run: Run, cfg: GatedConfig) -> None:
    policy = run.model(cfg.policy, "policy")
    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation.sets, policy)
    for it in run.iterations(cfg.iterations):
        candidates = it.stage("candidates", sample, policy, portion(prompts, it.number, cfg.data), cfg.sampling)
        preferences = it.stage("preferences", prefer, candidates, cfg.gate)
        policy = it.stage("policy", train, policy, [preferences], cfg.tune, "policy")


@stage_function("gated/prefer")
def prefer(stage: Stage, candidates: Dataset, gate: str) -> Dataset:
    return map_shards(stage, candidates, Prefer, {"gate": gate}, stage.resources.mine)


@prefer.expects
def _expect_preferences(stage: PlannedStage, candidates: Dataset, gate: str) -> Dataset:
    return stage.derived(candidates, completions=2.0)


class Prefer:
    """The first shard passes at once."""

    def __init__(self, gate: str) -> None:
        self.gate = Path(gate)

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        if self.gate.name == "broken":
            raise TsalignError("judge: is out of order")
        while shard != "part-00000.parquet" and not self.gate.exists():
            time.sleep(0.05)
        labels = [[grade(row["prompt"], one["text"]) for one in row["completions"]] for row in rows]
        kept = [preference_of(row, range(len(label)), label, 0.0) for row, label in zip(rows, labels)]
        return Shard([row for row in kept if row], counts={"tied": kept.count(None)})
