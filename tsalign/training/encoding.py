"""From rows to examples: each worker encodes its share of the shards, and all of them map the whole."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import torch.distributed as dist
from transformers import PreTrainedTokenizerBase
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.data.shards import Row, iterate, read_counts, read_rows
from tsalign.training.examples import Example, ExampleStore, save_examples
from tsalign.training.job import Job


def encode_all(job: Job, tokenizer: PreTrainedTokenizerBase, rank: int, workers: int) -> ExampleStore:
    """The examples of all rows, in the shards' order and replayed ones last; files that are there are kept.

    Raises:
        TsalignError: no row became an example.
    """
    shards = [shard for dataset in job.datasets for shard in dataset.shards()]
    files = [UPath(job.work) / "examples" / f"{index:05d}.arrow" for index in range(len(shards) + bool(job.replay))]
    for index in range(rank, len(files), workers):
        if not files[index].exists():
            rows = read_rows(shards[index]) if index < len(shards) else _replayed(job)
            save_examples(files[index], _encoded(job, rows, tokenizer))
    dist.barrier()
    examples = ExampleStore(files)
    if not len(examples):
        raise TsalignError(
            f"{job.out}: nothing to train on: no row made an example of at most {job.config.max_length} tokens; "
            "check the counts of the previous stage, or raise max_length."
        )
    return examples


def sample_replay(rows: Iterable[Row], count: int, seed: int) -> list[Row]:
    """`count` rows drawn uniformly from a stream of unknown length (reservoir sampling)."""
    rng, kept = random.Random(seed), []
    for index, row in enumerate(rows):
        if index < count:
            kept.append(row)
        elif (slot := rng.randint(0, index)) < count:
            kept[slot] = row
    return kept


def _replayed(job: Job) -> list[Row]:
    """Earlier rows, `replay_share` for each new one."""
    new = sum(read_counts(dataset)["rows"] for dataset in job.datasets)
    return sample_replay(iterate(job.replay), round(job.replay_share * new), job.seed)


def _encoded(job: Job, rows: list[Row], tokenizer: PreTrainedTokenizerBase) -> Iterator[Example]:
    for row in rows:
        example = job.objective.encode(row, tokenizer)
        if example and max(map(len, example.sequences)) <= job.config.max_length:
            yield example
