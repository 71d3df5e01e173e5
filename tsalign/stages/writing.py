"""The writing stage: a model writes text about rows, the text is parsed strictly, and new rows come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tsalign.common.seeds import derive
from tsalign.config import Placement, ResourceConfig, SamplingConfig
from tsalign.data.shards import Row, Shard, map_shards, take_counts
from tsalign.data.sources import Message
from tsalign.engines import Completion, Failed, Request, open_engine
from tsalign.prompts.parsers import Unparsed
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.plan import Amount, PlannedStage, expected, plus, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

RAW_CHARACTERS = 2000


@dataclass(frozen=True)
class Written:
    """What became of a row's answers: good rows, failed ones (each with `reason`), and sums to report."""

    rows: list[Row]
    failed: list[Row] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


class Writing(Protocol):
    """What is asked about a row, and what is made of the answers. Frozen data without Ray; it is fingerprinted."""

    def prompts(self, row: Row) -> list[list[Message]]:
        """The conversations that the model answers, in order."""

    def read(self, row: Row, answers: list[str]) -> Written:
        """The rows that the answers make: `sampling.k` for each conversation, conversation by conversation.

        Raises:
            Unparsed: nothing can be made of them; the whole row fails.
        """


@stage_function("write")
def write(
    stage: Stage,
    writer: Model | Endpoint,
    data: Dataset,
    writing: Writing,
    sampling: SamplingConfig,
    max_failed_fraction: float = 0.01,
) -> Dataset:
    """Let `writer` answer `writing`'s prompts about every row of `data`, and keep what parses.

    Seeds are hash(run seed, iteration, stage, row's `prompt_id`, number of the answer). Rows that fail stay in the
    quarantine with their reason and the raw text.

    Raises:
        TsalignError: more than `max_failed_fraction` of the rows failed; it shows three.
    """
    arguments: dict[str, Any] = {
        "writer": writer,
        "writing": writing,
        "sampling": sampling,
        "seed": derive(stage.seed, stage.iteration, stage.name),
        "tensor_parallel": stage.resources.sample.tensor_parallel,
    }
    placement = _placement(writer, stage.resources)
    return map_shards(stage, data, WriteWorker, arguments, placement, max_failed_fraction)


@write.expects
def _expect_texts(
    stage: PlannedStage,
    writer: Model | Endpoint,
    data: Dataset,
    writing: Writing,
    sampling: SamplingConfig,
    max_failed_fraction: float = 0.01,
) -> Dataset:
    """As if `writing` asked about each row once; who knows better says so by `needs_texts`."""
    needs_texts(stage, writer, sampling, {"texts": times(expected(data).rows, sampling.k)})
    return stage.derived(data)


def needs_texts(
    stage: PlannedStage, writer: Model | Endpoint, sampling: SamplingConfig, texts: Mapping[str, Amount]
) -> None:
    """Note for a plan how many texts `writer` would write, by what they are."""
    tokens = times(plus(*texts.values()), sampling.max_tokens)
    stage.needs(writer.role, _placement(writer, stage.resources), {**texts, "new tokens": tokens})


def _placement(writer: Model | Endpoint, resources: ResourceConfig) -> Placement:
    """The actors of an endpoint only wait for answers."""
    return resources.mine if isinstance(writer, Endpoint) else resources.sample


class WriteWorker:
    """Holds an engine; asks all prompts of a shard at once."""

    def __init__(
        self,
        writer: Model | Endpoint,
        writing: Writing,
        sampling: SamplingConfig,
        seed: int,
        tensor_parallel: int,
    ) -> None:
        self.engine = open_engine(writer, sampling, tensor_parallel)
        self.writing, self.sampling, self.seed = writing, sampling, seed

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        requests = [self._requests(row) for row in rows]
        answers = iter(self.engine.generate([request for own in requests for request in own]))
        result = Shard([])
        for row, own in zip(rows, requests):
            given = [next(answers) for _ in own]
            written = self._read(row, given)
            result.rows += written.rows
            result.failed += written.failed
            for name, value in (tokens(given) | written.counts).items():
                result.counts[name] = result.counts.get(name, 0.0) + value
        result.counts.update(take_counts(self.engine, "endpoint"))
        return result

    def _requests(self, row: Row) -> list[Request]:
        asked = [prompt for prompt in self.writing.prompts(row) for _ in range(self.sampling.k)]
        return [
            Request(prompt, derive(self.seed, row["prompt_id"], number), self.sampling.temperature)
            for number, prompt in enumerate(asked)
        ]

    def _read(self, row: Row, answers: Sequence[Completion | Failed]) -> Written:
        reasons = [answer.reason for answer in answers if isinstance(answer, Failed)]
        texts = [answer.text for answer in answers if isinstance(answer, Completion)]
        try:
            if not reasons:
                return self.writing.read(row, texts)
        except Unparsed as error:
            reasons = [str(error)]
        text = "\n---\n".join(texts)[:RAW_CHARACTERS]
        return Written([], [{"prompt_id": row["prompt_id"], "reason": reasons[0], "text": text}])


def tokens(answers: Sequence[Completion | Failed]) -> dict[str, float]:
    """How many completions and tokens were written."""
    written = [answer for answer in answers if isinstance(answer, Completion)]
    return {"completions": len(written), "completion_tokens": sum(len(answer.token_ids) for answer in written)}
