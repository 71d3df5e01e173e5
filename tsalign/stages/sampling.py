"""The sampling stage: prompts -> candidate sets of K completions, each from its own derived seed."""

from __future__ import annotations

import json
from typing import Any

from tsalign.common.seeds import derive
from tsalign.config import SamplingConfig
from tsalign.data.shards import Row, Shard, map_shards, read_counts, take_counts
from tsalign.engines import Failed, Request, open_engine
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function


@stage_function("sample")
def sample(
    stage: Stage,
    policy: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...] | None = None,
) -> Dataset:
    """`sampling.k` completions per prompt and temperature by `policy`.

    Seeds are hash(run seed, iteration, prompt id, temperature, k): a run reproduces, and no two actors,
    iterations or candidates share one.

    Args:
        temperatures: instead of `sampling.temperature`.

    Raises:
        TsalignError: more prompts failed than allowed.
    """
    arguments: dict[str, Any] = {
        "model": policy,
        "sampling": sampling,
        "temperatures": temperatures or (sampling.temperature,),
        "seed": derive(stage.seed, stage.iteration),
        "tensor_parallel": stage.resources.sample.tensor_parallel,
    }
    candidates = map_shards(stage, prompts, SampleWorker, arguments, stage.resources.sample)
    counts = read_counts(candidates)
    made = counts["completions"]
    rates = {"duplicate_rate": "duplicates", "cut_rate": "cut", "mean_completion_tokens": "completion_tokens"}
    stage.log({rate: counts[count] / made for rate, count in rates.items()})
    return candidates


@sample.expects
def _expect_completions(
    stage: PlannedStage,
    policy: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...] | None = None,
) -> Dataset:
    asked, at = expected(prompts), len(temperatures or (sampling.temperature,))
    completions = times(asked.rows, sampling.k, at)
    work = {"completions": completions, "new tokens": times(completions, sampling.max_tokens)}
    stage.needs(policy.role, stage.resources.sample, work)
    return stage.derived(asked, completions=float(sampling.k * at), temperatures=at)


class SampleWorker:
    """Holds an engine and fills shard after shard."""

    def __init__(
        self,
        model: Model | Endpoint,
        sampling: SamplingConfig,
        temperatures: tuple[float, ...],
        seed: int,
        tensor_parallel: int,
    ) -> None:
        self.engine = open_engine(model, sampling, tensor_parallel)
        self.sampling, self.temperatures, self.seed = sampling, temperatures, seed
        self.writer = model.fingerprint

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        asked = [self._requests(row) for row in rows]
        answers = iter(self.engine.generate([request for requests in asked for request in requests]))
        made, failed = [], []
        for row, requests in zip(rows, asked):
            own = [(request, next(answers)) for request in requests]
            if problem := next((answer.reason for _, answer in own if isinstance(answer, Failed)), None):
                failed.append({"prompt_id": row["prompt_id"], "reason": problem})
            else:
                made.append(self._candidate_set(row, own))
        return Shard(made, failed, statistics(made) | take_counts(self.engine, "endpoint"))

    def _requests(self, row: Row) -> list[Request]:
        return [
            Request(
                row["prompt"],
                derive(self.seed, row["prompt_id"], str(temperature), k),
                temperature,
                row["prompt_ids"],
            )
            for temperature in self.temperatures
            for k in range(self.sampling.k)
        ]

    def _candidate_set(self, row: Row, answers: list[tuple[Request, Any]]) -> Row:
        completions = [
            {**completion._asdict(), "seed": request.seed, "temperature": request.temperature}
            for request, completion in answers
        ]
        parameters = self.sampling.model_dump(include={"engine", "top_p", "max_tokens", "stop"})
        return {**row, "completions": completions, "writer": self.writer, "sampling": json.dumps(parameters)}


def statistics(candidate_sets: list[Row]) -> dict[str, float]:
    """Sums over candidate sets: completions, tokens, those cut at the limit, and duplicates within a set."""
    completions = [completion for row in candidate_sets for completion in row["completions"]]
    distinct = sum(len({c["text"] for c in row["completions"]}) for row in candidate_sets)
    return {
        "completions": len(completions),
        "completion_tokens": sum(len(c["token_ids"]) for c in completions),
        "prompt_tokens": sum(len(row["prompt_ids"]) for row in candidate_sets),
        "cut": sum(c["finish"] == "length" for c in completions),
        "duplicates": len(completions) - distinct,
    }
