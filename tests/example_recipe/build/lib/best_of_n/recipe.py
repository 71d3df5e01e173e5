"""Best-of-n: the policy learns the best of its own answers, by the scorer that the config names."""

from __future__ import annotations

from pydantic import Field

from tsalign.config import AlignConfig, ModelConfig, SFTTrainConfig
from tsalign.data.pairs import best_and_worst
from tsalign.data.prompts import load_prompts, portion
from tsalign.data.shards import Row, Shard
from tsalign.data.workers import map_shards
from tsalign.evaluation.exam import Exam
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, expected
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import scorer_from_name
from tsalign.scoring.stage import score
from tsalign.stages.sampling import sample
from tsalign.training.stage import train


class BestOfNConfig(AlignConfig):
    """The `best-of-n` recipe: a policy, and a scorer of its answers."""

    policy: ModelConfig = Field(description="The model that is aligned.")
    scorer: str = Field(description="Whose favourite is learnt: `module:function`, `reward_model:<model>`, ...")
    tune: SFTTrainConfig = Field(SFTTrainConfig(), description="How the policy learns.")


@recipe("best-of-n", BestOfNConfig)
def best_of_n(run: Run, cfg: BestOfNConfig) -> None:
    """Sample n, score them, learn the best; repeat."""
    base = policy = run.model(cfg.policy, "policy")
    favourite = {"favourite": scorer_from_name(cfg.scorer, run.model)}
    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation.sets, policy)
    exam = Exam(run, cfg, base)
    for it in run.iterations(cfg.iterations):
        candidates = it.stage("candidates", sample, policy, portion(prompts, it.number, cfg.data), cfg.sampling)
        scored = it.stage("scores", score, candidates, favourite)
        best = it.stage("best", keep_best, scored)
        policy = it.stage("policy", train, policy, [best], cfg.tune, "policy")
        run.overlap(exam.examine, it, policy)
    run.wait()


@stage_function("best-of-n/keep")
def keep_best(stage: Stage, scored: Dataset) -> Dataset:
    """Of each candidate set the completion with the highest score, as a row to learn from."""
    return map_shards(stage, scored, BestWorker, {}, stage.resources.mine)


@keep_best.expects
def _expect_best(stage: PlannedStage, scored: Dataset) -> Dataset:
    rows = expected(scored).rows
    stage.needs("", stage.resources.mine, {"rows": rows})
    return stage.dataset(rows)


class BestWorker:
    """Picks the best completion of each row of a shard."""

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        return Shard([sft_row(row) for row in rows])


def sft_row(row: Row) -> Row:
    """`prompt` and `completion`, the columns that SFT reads."""
    best, _ = best_and_worst(row["score.favourite"])
    kept = {name: row[name] for name in ("prompt_id", "set", "prompt")}
    return {**kept, "completion": row["completions"][best]["text"]}
