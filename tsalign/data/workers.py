"""Workers on the shards of a dataset: Ray Data spreads the shards over actors, and each shard commits by rename."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tsalign.common.errors import TsalignError
from tsalign.config import Placement
from tsalign.data.passes import Pass, run_passes
from tsalign.data.shards import Row, Shard, read_counts
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage


class Worker(Protocol):
    """Lives in an actor, loads what it needs once, and maps the rows of a shard.

    The actor sets its attribute `report`, an `Advance`: a worker that needs long for a shard calls it with the share
    of the shard that it has done since it last did. The shares of a shard add up to at most 1.
    """

    def __call__(self, rows: list[Row], shard: str) -> Shard: ...


def map_shards(
    stage: Stage,
    source: Dataset,
    worker: Callable[..., Worker],
    arguments: dict[str, Any],
    placement: Placement,
) -> Dataset:
    """Run `worker(**arguments)` actors over the shards of `source` into `stage.out`, skipping committed shards.

    Of committed ones, the rows that got no answer are done again, with `stage.retry_failed` all failed ones; and what
    the source did not have when they were made. A stage of a pipeline waits for the others, and is done with them.

    Raises:
        TsalignError: a worker raised it, or more than `stage.max_failed_fraction` of the rows failed; the message
            shows three of them.
    """
    one = Pass(stage, source, worker, arguments, placement)
    if stage.seat:
        stage.seat.bring(one, run_passes)
    else:
        run_passes([one])
    counts = read_counts(one.output)
    stage.log(counts)
    _check_failures(stage, counts)
    return one.output


def _check_failures(stage: Stage, counts: dict[str, float]) -> None:
    failed, limit = counts.get("failed", 0), stage.max_failed_fraction
    total = failed + counts.get("rows", 0)
    if total == 0 or failed > limit * total:
        examples: list[str] = []
        for file in sorted(stage.quarantine.glob("*.jsonl"), key=str) if stage.quarantine.exists() else []:
            examples += [line[:300] for line in file.read_text().splitlines()[: 3 - len(examples)]]
        raise TsalignError(
            f"{stage.name}: {failed:.0f} of {total:.0f} rows failed, more than max_failed_fraction = {limit:g} allows. "
            "What is done stays: raise the limit and resume; rows without an answer are asked again, those answered "
            f"badly with --retry-failed. All are in {stage.quarantine}, the first are:\n  " + "\n  ".join(examples)
        )
