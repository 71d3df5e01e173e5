"""Training examples: what every objective encodes its rows to, stored once as Arrow and mapped by all workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from upath import UPath

from tsalign.common.storage import atomic
from tsalign.data.tensors import Padded, pad

SCHEMA = pa.schema(
    {
        "sequences": pa.list_(pa.list_(pa.int32())),
        "response_lengths": pa.list_(pa.int32()),
        "values": pa.list_(pa.float64()),
    }
)


class Example(NamedTuple):
    """One prompt's sequences (prompt + response tokens) with a number each.

    `values` mean what the objective says: reference log-probs for DPO, target scores for ranking losses.
    """

    sequences: list[list[int]]
    response_lengths: list[int]
    values: list[float]


@dataclass(frozen=True)
class Batch:
    """A micro-batch. S sequences of B examples.

    Attributes:
        padded: int64 [S, T] each.
        response_lengths: int64 [S].
        values: float32 [S].
        group: int64 [S], the example that a sequence belongs to.
        weight: float32 [B], 0 for an example that only fills up a worker's share.
    """

    padded: Padded
    response_lengths: Tensor
    values: Tensor
    group: Tensor
    weight: Tensor


def collate(examples: Sequence[Example], weights: Sequence[float], padding: int, device: torch.device) -> Batch:
    """Examples as one micro-batch on `device`."""
    sizes = torch.tensor([len(example.sequences) for example in examples])
    flat = [sequence for example in examples for sequence in example.sequences]
    return Batch(
        padded=pad(flat, padding, device),
        response_lengths=torch.tensor([n for e in examples for n in e.response_lengths], device=device),
        values=torch.tensor([v for e in examples for v in e.values], dtype=torch.float32, device=device),
        group=torch.repeat_interleave(torch.arange(len(examples)), sizes).to(device),
        weight=torch.tensor(weights, dtype=torch.float32, device=device),
    )


def save_examples(path: UPath, examples: Iterator[Example], chunk: int = 4096) -> None:
    """Write examples to an Arrow file, atomically, `chunk` at a time in memory."""
    with atomic(path) as temporary, temporary.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        rows: list[dict[str, Any]] = []
        for example in examples:
            rows.append(example._asdict())
            if len(rows) == chunk:
                writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
                rows.clear()
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))


class ExampleStore:
    """All examples of a training stage, memory-mapped where the filesystem is local."""

    def __init__(self, files: Sequence[UPath]) -> None:
        self.table = pa.concat_tables([_open(file) for file in files])
        sequences = self.table["sequences"].combine_chunks()
        self.width = np.diff(sequences.offsets.to_numpy())  # sequences of each example
        lengths = np.diff(sequences.flatten().offsets.to_numpy())
        starts = np.concatenate([[0], np.cumsum(self.width)[:-1]]) if len(self.width) else np.zeros(0, int)
        self.longest = np.maximum.reduceat(lengths, starts) if len(self.width) else np.zeros(0, int)
        responses = self.table["response_lengths"].combine_chunks().flatten().to_numpy()
        self.response_tokens = np.add.reduceat(responses, starts) if len(self.width) else np.zeros(0, int)

    def __len__(self) -> int:
        return self.table.num_rows

    def take(self, indices: Sequence[int]) -> list[Example]:
        """The examples at `indices`, in that order."""
        return [Example(**row) for row in self.table.take(pa.array(indices)).to_pylist()]


def _open(file: UPath) -> pa.Table:
    if file.protocol:
        return pa.ipc.open_file(pa.BufferReader(file.read_bytes())).read_all()
    return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
