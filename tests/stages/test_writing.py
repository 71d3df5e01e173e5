"""The writing stage on a real engine: what parses becomes rows, what does not stays in quarantine with its text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import derive
from tsalign.config import SamplingConfig
from tsalign.data.shards import Row, Shard, read_counts, read_rows, write_shard
from tsalign.data.sources import Message
from tsalign.engines import Completion, Failed, open_engine, request_from
from tsalign.prompts.parsers import Unparsed
from tsalign.prompts.templates import render
from tsalign.runs.artifacts import Dataset, Model
from tsalign.stages.generation import GenerationWorker, Written
from tsalign.stages.writing import Questions, write

SAMPLING = SamplingConfig(engine="hf", k=2, max_tokens=6, max_model_len=40)


@dataclass(frozen=True)
class Echo:
    """Two questions a row; rows whose answers all begin with a letter of `refused` do not parse."""

    refused: str = ""
    template: str = "say {{ word }} {{ number }}"

    def prompts(self, row: Row) -> list[list[Message]]:
        return [render(self.template, word=row["word"], number=number) for number in (1, 2)]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        if row["word"] in self.refused:
            raise Unparsed(f"nobody may say {row['word']}")
        rows = [{"prompt_id": f"{row['prompt_id']}-{i}", "answer": answer.text} for i, answer in enumerate(answers)]
        return Written(rows, counts={"answers": len(answers)})


def dataset(folder: UPath, words: str, shards: int = 2) -> Dataset:
    rows = [{"prompt_id": word, "word": word} for word in words.split()]
    for number in range(shards):
        write_shard(folder / f"part-{number:05}.parquet", Shard(rows[number::shards]))
    return Dataset(str(folder), "words")


def test_answers_come_conversation_by_conversation_and_do_not_depend_on_the_shard(
    models: dict[str, Model], tmp_path: object
) -> None:
    worker = GenerationWorker(models["policy"], Questions(Echo(), SAMPLING, seed=1), SAMPLING, tensor_parallel=1)
    one, two = {"prompt_id": "a", "word": "cat"}, {"prompt_id": "b", "word": "dog"}
    shares: list[float] = []
    worker.report = shares.append
    together, alone = worker([one, two], "x"), worker([two], "x")
    assert sum(shares) == pytest.approx(2.0), "one a shard"
    assert [row["prompt_id"] for row in together.rows] == [f"{name}-{i}" for name in "ab" for i in range(4)]
    assert together.rows[4:] == alone.rows
    assert together.counts["answers"] == together.counts["completions"] == 8
    requests = worker.asking.requests(two)
    assert [request.prompt[0]["content"] for request in requests] == ["say dog 1"] * 2 + ["say dog 2"] * 2
    assert len({request.seed for request in requests}) == 4


def test_a_request_without_a_completion_fails_its_row(models: dict[str, Model]) -> None:
    asking = Questions(Echo(template="{{ word }} " * 40), SAMPLING, seed=1)
    worker = GenerationWorker(models["policy"], asking, SAMPLING, tensor_parallel=1)
    shard = worker([{"prompt_id": "long", "word": "cat"}], "x")
    assert shard.rows == []
    assert shard.failed[0]["prompt_id"] == "long"
    assert "tokens; max_model_len - max_tokens leaves 34" in shard.failed[0]["reason"]
    assert isinstance(worker.engine.generate(asking.requests({"prompt_id": "long", "word": "cat"}))[0], Failed)


def test_what_does_not_parse_is_quarantined_with_its_text(
    models: dict[str, Model], make_stage: Callable, tmp_path: object, ray_session: None
) -> None:
    stage, log = make_stage("written")
    data = dataset(stage.out.parent / "words", "cat dog sun pig")
    lenient = replace(stage, max_failed_fraction=0.5)
    written = write(lenient, models["policy"], data, Echo(refused="dog"), SAMPLING)
    assert read_counts(written) == {
        **read_counts(written),
        "rows": 12,
        "failed": 1,
        "answers": 12,
        "completions": 16,
    }
    (file,) = [file for file in stage.quarantine.glob("*.jsonl") if file.read_text()]
    entry = json.loads(file.read_text())
    assert (entry["prompt_id"], entry["reason"]) == ("dog", "nobody may say dog")
    assert entry["text"].count("\n---\n") == 3
    assert log["failed"] == 1
    # The stage's seeds are those of its run, iteration and name.
    seeds = [derive(derive(0, 1, "1/written"), "cat", number) for number in range(4)]
    prompts = [prompt for prompt in Echo().prompts({"word": "cat"}) for _ in range(2)]
    engine = open_engine(models["policy"], SAMPLING)
    asked = [request_from(SAMPLING, prompt, seed) for prompt, seed in zip(prompts, seeds)]
    made = {row["prompt_id"]: row["answer"] for shard in written.shards() for row in read_rows(shard)}
    assert [made[f"cat-{number}"] for number in range(4)] == [one.text for one in engine.generate(asked)]
    assert {row["prompt_id"][:3] for shard in written.shards() for row in read_rows(shard)} == {"cat", "sun", "pig"}


def test_too_many_failures_stop_the_stage_with_examples(
    models: dict[str, Model], make_stage: Callable, ray_session: None
) -> None:
    stage, _ = make_stage("refused")
    data = dataset(stage.out.parent / "words", "cat dog sun pig")
    with pytest.raises(TsalignError, match="nobody may say"):
        write(stage, models["policy"], data, Echo(refused="dog cat sun"), SAMPLING)
