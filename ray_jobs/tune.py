"""DPO of a policy on anybody's preferences, as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/tune.py --config configs/ts_align_paper.yaml storage=s3://BUCKET/runs preferences=s3://BUCKET/p.jsonl

Preferences are rows of `prompt`, `chosen` and `rejected` (docs/data.md), or what a run made, as
`preferences=s3://BUCKET/runs/RUN/iterations/1/preferences/part-*.parquet`. Of the config it reads `policy`, `tune` and
`sampling`, whose limits the reference has, and the keys of every run. The model is in `<storage>/<run>/policy`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tsalign.cli.scripts import script
from tsalign.config import DPOTrainConfig, ModelConfig, RunConfig, SamplingConfig
from tsalign.config.locations import FILES
from tsalign.data.preferences import load_preferences
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.scoring.logprob import reference_scores
from tsalign.scoring.stage import score
from tsalign.training.stage import train


class TuneConfig(RunConfig):
    """The `tune` recipe: a policy, and what it learns."""

    policy: ModelConfig = Field(description="The model that learns; as it is now, it is the reference.")
    preferences: Annotated[str, FILES] = Field(description="File, folder or glob of preferences.")
    sampling: SamplingConfig = Field(SamplingConfig(), description="Limits of the reference's log-probs.")
    tune: DPOTrainConfig = Field(description="How it learns.")


@recipe("tune", TuneConfig)
def tuning(run: Run, cfg: TuneConfig) -> None:
    """TS-Align's update of the policy alone."""
    policy = run.model(cfg.policy, "policy")
    preferences = run.stage("preferences", load_preferences, cfg.preferences)
    pairs = run.stage("reference", score, preferences, reference_scores(policy, cfg.tune, cfg.sampling))
    run.stage("policy", train, policy, [pairs], cfg.tune, "policy")


if __name__ == "__main__":
    script("ray_jobs.tune:tuning")
