"""The worker of every stage in which a model writes: it asks an engine about rows, and the answers become rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tsalign.common.progress import out_of, unseen
from tsalign.config import EngineConfig, Placement, ResourceConfig
from tsalign.data.shards import Row, Shard, take_counts
from tsalign.data.workers import map_shards
from tsalign.engines import Completion, Failed, Request, open_engine
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.stage import Stage


@dataclass(frozen=True)
class Written:
    """What became of a row's answers: good rows, failed ones (each with `reason`), and sums to report."""

    rows: list[Row]
    failed: list[Row] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)


class Asking(Protocol):
    """What a stage asks about a row, and what it makes of the answers. Frozen data without Ray."""

    def requests(self, row: Row) -> list[Request]:
        """The completions to make, each with a seed of its own."""

    def read(self, row: Row, requests: list[Request], answers: Sequence[Completion | Failed]) -> Written:
        """What the answers to the row's requests make, one answer a request, in order."""


def generate(
    stage: Stage,
    writer: Model | Endpoint,
    data: Dataset,
    asking: Asking,
    engine: EngineConfig,
) -> Dataset:
    """Let `writer` answer what `asking` asks about every row of `data`, in the actors of `placement`.

    Raises:
        TsalignError: more than `stage.max_failed_fraction` of the rows failed; it shows three.
    """
    arguments: dict[str, Any] = {
        "writer": writer,
        "asking": asking,
        "engine": engine,
        "tensor_parallel": stage.resources.sample.tensor_parallel,
    }
    return map_shards(stage, data, GenerationWorker, arguments, placement(writer, stage.resources))


def placement(writer: Model | Endpoint, resources: ResourceConfig) -> Placement:
    """The actors in which a writer writes; those of an endpoint only wait for answers, and take no GPU for that."""
    return resources.mine if isinstance(writer, Endpoint) else resources.sample


class GenerationWorker:
    """Holds an engine; asks it everything about the rows of a shard at once."""

    def __init__(self, writer: Model | Endpoint, asking: Asking, engine: EngineConfig, tensor_parallel: int) -> None:
        self.engine, self.asking = open_engine(writer, engine, tensor_parallel), asking
        self.role, self.report = writer.role, unseen

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        asked = [self.asking.requests(row) for row in rows]
        flat = [request for requests in asked for request in requests]
        answers = self.engine.generate(flat, done=out_of(len(flat), self.report))
        result = Shard([], stop=next((one.reason for one in answers if isinstance(one, Failed) and one.down), ""))
        remaining = iter(answers)
        for row, requests in zip(rows, asked):
            written = self.asking.read(row, requests, [next(remaining) for _ in requests])
            result.rows += written.rows
            result.failed += written.failed
            for name, value in written.counts.items():
                result.counts[name] = result.counts.get(name, 0.0) + value
        result.counts.update(take_counts(self.engine, self.role, self.role))
        return result
