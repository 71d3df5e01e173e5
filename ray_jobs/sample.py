"""Candidates: K completions of a model for each of your prompts, as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/sample.py --config configs/ts_align_paper.yaml storage=s3://BUCKET/runs data.prompts=s3://BUCKET/p.jsonl

Of the config it reads `policy`, `data` and `sampling`, and the keys of every run. To let what a run made write:
`policy.model=s3://BUCKET/runs/RUN/iterations/3/policy`. They are in `<storage>/<run>/candidates`, for
`mine.py`.
"""

from __future__ import annotations

from pydantic import Field

from tsalign.cli.scripts import script
from tsalign.config import DataConfig, ModelConfig, RunConfig, SamplingConfig
from tsalign.data.prompts import load_prompts
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.stages.sampling import sample


class SampleConfig(RunConfig):
    """The `sample` recipe: a model, and what it is asked."""

    policy: ModelConfig = Field(description="The model that writes.")
    data: DataConfig = Field(description="Prompts.")
    sampling: SamplingConfig = Field(SamplingConfig(), description="How it writes.")


@recipe("sample", SampleConfig)
def sampling(run: Run, cfg: SampleConfig) -> None:
    """The first stage of TS-Align alone."""
    policy = run.model(cfg.policy, "policy")
    prompts = run.stage("prompts", load_prompts, cfg.data, {}, policy)
    run.stage("candidates", sample, policy, prompts, cfg.sampling)


if __name__ == "__main__":
    script("ray_jobs.sample:sampling")
