"""The writing stage: a model writes text about rows, the text is parsed strictly, and new rows come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from tsalign.common.seeds import derive
from tsalign.config import SamplingConfig
from tsalign.data.shards import Row, read_counts
from tsalign.data.sources import Message
from tsalign.engines import Completion, Failed, Request, check_engine, first_failure, request_from
from tsalign.prompts.parsers import Unparsed
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.plan import Amount, PlannedStage, expected, plus, times
from tsalign.runs.report import mostly, warn
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.generation import Written, generate, placement

RAW_CHARACTERS = 2000


class Writing(Protocol):
    """What is asked about a row, and what is made of the answers. Frozen data without Ray; it is fingerprinted."""

    def prompts(self, row: Row) -> list[list[Message]]:
        """The conversations that the model answers, in order."""

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
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
) -> Dataset:
    """Let `writer` answer `writing`'s prompts about every row of `data`, and keep what parses.

    Seeds are hash(run seed, iteration, stage, row's `prompt_id`, number of the answer). Rows that fail stay in the
    quarantine with their reason and the raw text.

    Raises:
        TsalignError: more than `stage.max_failed_fraction` of the rows failed; it shows three.
    """
    asking = Questions(writing, sampling, derive(stage.seed, stage.iteration, stage.name))
    written = generate(stage, writer, data, asking, sampling)
    counts = read_counts(written)
    limit = f"of the texts are cut at max_tokens: raise it; it is {sampling.max_tokens}."
    warn(stage.out, *mostly(counts.get("cut", 0), counts.get("completions", 0), limit))
    return written


@write.expects
def _expect_texts(
    stage: PlannedStage,
    writer: Model | Endpoint,
    data: Dataset,
    writing: Writing,
    sampling: SamplingConfig,
) -> Dataset:
    """As if `writing` asked about each row once; who knows better says so by `needs_texts`."""
    needs_texts(stage, writer, sampling, {"texts": times(expected(data).rows, sampling.k)})
    return stage.derived(data)


def needs_texts(
    stage: PlannedStage, writer: Model | Endpoint, sampling: SamplingConfig, texts: Mapping[str, Amount]
) -> None:
    """Note for a plan how many texts `writer` would write, by what they are, and what keeps it from writing."""
    check_engine(stage.plan, writer, sampling, stage.resources.sample.tensor_parallel)
    tokens = times(plus(*texts.values()), sampling.max_tokens)
    stage.needs(writer.role, placement(writer, stage.resources), {**texts, "new tokens": tokens})


@dataclass(frozen=True)
class Questions:
    """Asks the prompts of a `Writing`, each `sampling.k` times, and reads the answers as text."""

    writing: Writing
    sampling: SamplingConfig
    seed: int

    def requests(self, row: Row) -> list[Request]:
        """Conversation by conversation."""
        asked = [prompt for prompt in self.writing.prompts(row) for _ in range(self.sampling.k)]
        return [
            request_from(self.sampling, prompt, derive(self.seed, row["prompt_id"], number))
            for number, prompt in enumerate(asked)
        ]

    def read(self, row: Row, requests: list[Request], answers: Sequence[Completion | Failed]) -> Written:
        """What the texts make; a failed row with the texts where one is missing or nothing parses."""
        completions = [answer for answer in answers if isinstance(answer, Completion)]
        written = self._parsed(row, completions, answers)
        tokens = sum(len(completion.token_ids) for completion in completions)
        cut = sum(completion.finish == "length" for completion in completions)
        counts = {"completions": len(completions), "completion_tokens": tokens, "cut": cut, **written.counts}
        return replace(written, counts=counts)

    def _parsed(self, row: Row, completions: list[Completion], answers: Sequence[Completion | Failed]) -> Written:
        failed = first_failure(answers)
        try:
            if failed is None:
                return self.writing.read(row, completions)
        except Unparsed as error:
            failed = Failed(str(error))
        text = "\n---\n".join(completion.text for completion in completions)[:RAW_CHARACTERS]
        return Written([], [failed.row(row["prompt_id"], text=text)])
