"""The sampling stage: prompts -> candidate sets of K completions, each from its own derived seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tsalign.common.seeds import derive
from tsalign.config import SamplingConfig
from tsalign.data.shards import Row, read_counts
from tsalign.engines import Completion, Failed, Request, check_engine, first_failure, request_from
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.report import mostly, warn
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.generation import Written, generate, placement


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
    seed = derive(stage.seed, stage.iteration)
    asking = Candidates(sampling, temperatures or (sampling.temperature,), seed, policy.fingerprint)
    candidates = generate(stage, policy, prompts, asking, sampling)
    counts = read_counts(candidates)
    made = counts["completions"]
    rates = {"duplicate_rate": "duplicates", "cut_rate": "cut", "mean_completion_tokens": "completion_tokens"}
    stage.log({"prompts": counts["rows"], **{rate: counts[count] / made for rate, count in rates.items()}})
    if temperatures is None:  # of an exam's answers, the verdicts tell
        warn(stage.out, *doubts(counts, sampling))
    return candidates


def doubts(counts: Mapping[str, float], sampling: SamplingConfig) -> tuple[str, ...]:
    """What to warn of before candidates are learnt from: most were cut, or most sets hold the same text K times."""
    cut = f"of the completions are cut at max_tokens: raise sampling.max_tokens, which is {sampling.max_tokens}."
    same = f"of the prompts got one text {sampling.k} times, which teaches nothing: raise sampling.temperature."
    return (
        *mostly(counts["cut"], counts["completions"], cut),
        *mostly(counts.get("identical", 0), counts["rows"], same),
    )


@sample.expects
def _expect_completions(
    stage: PlannedStage,
    policy: Model | Endpoint,
    prompts: Dataset,
    sampling: SamplingConfig,
    temperatures: tuple[float, ...] | None = None,
) -> Dataset:
    check_engine(stage.plan, policy, sampling, stage.resources.sample.tensor_parallel)
    asked, at = expected(prompts), len(temperatures or (sampling.temperature,))
    completions = times(asked.rows, sampling.k, at)
    work = {"completions": completions, "new tokens": times(completions, sampling.max_tokens)}
    stage.needs(policy.role, placement(policy, stage.resources), work)
    return stage.derived(asked, completions=float(sampling.k * at), temperatures=at)


@dataclass(frozen=True)
class Candidates:
    """Asks for `sampling.k` completions of a row's prompt at each temperature; they make a candidate set.

    Attributes:
        writer: fingerprint of the model that writes.
    """

    sampling: SamplingConfig
    temperatures: tuple[float, ...]
    seed: int
    writer: str

    def requests(self, row: Row) -> list[Request]:
        """Temperature by temperature."""
        prompt, ids, name = row["prompt"], row["prompt_ids"], row["prompt_id"]
        return [
            request_from(self.sampling, prompt, derive(self.seed, name, str(temperature), k), temperature, ids)
            for temperature in self.temperatures
            for k in range(self.sampling.k)
        ]

    def read(self, row: Row, requests: list[Request], answers: Sequence[Completion | Failed]) -> Written:
        """The candidate set; none where a completion is missing."""
        return candidate_set(row, requests, answers, self.sampling, self.writer)


def candidate_set(
    row: Row,
    requests: list[Request],
    answers: Sequence[Completion | Failed],
    sampling: SamplingConfig,
    writer: str,
) -> Written:
    """The row with its `completions`, and who wrote them and how; a failed row where one of them is missing."""
    if failed := first_failure(answers):
        return Written([], [failed.row(row["prompt_id"])])
    completions = [
        {**completion._asdict(), "seed": request.seed, "temperature": request.temperature}
        for request, completion in zip(requests, answers)
    ]
    parameters = json.dumps(sampling.model_dump(include={"engine", "top_p", "max_tokens", "stop"}))
    made = {**row, "completions": completions, "writer": writer, "sampling": parameters}
    return Written([made], counts=statistics(made))


def statistics(candidate_set: Row) -> dict[str, float]:
    """Completions, their tokens, those cut at the limit, those that repeat another one; whether all are the same."""
    completions = candidate_set["completions"]
    different = len({completion["text"] for completion in completions})
    return {
        "completions": len(completions),
        "completion_tokens": sum(len(completion["token_ids"]) for completion in completions),
        "cut": sum(completion["finish"] == "length" for completion in completions),
        "duplicates": len(completions) - different,
        "identical": len(completions) > different == 1,
    }
