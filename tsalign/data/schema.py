"""The columns that stages exchange, with their Arrow types; `docs/data.md` describes each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

MESSAGES = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
TOKENS = pa.list_(pa.int32())
COMPLETION = pa.struct(
    {
        "text": pa.string(),
        "token_ids": TOKENS,
        "finish": pa.string(),
        "seed": pa.int64(),
        "temperature": pa.float64(),
    }
)
SCORES = pa.list_(pa.float64())

COLUMNS: dict[str, pa.DataType] = {
    "prompt_id": pa.string(),
    "set": pa.string(),
    "prompt": MESSAGES,
    "prompt_ids": TOKENS,
    "completions": pa.list_(COMPLETION),
    "base_completions": pa.list_(COMPLETION),
    "writer": pa.string(),
    "chosen": MESSAGES,
    "rejected": MESSAGES,
    "chosen_ids": TOKENS,
    "rejected_ids": TOKENS,
    "chosen_origin": COMPLETION,
    "rejected_origin": COMPLETION,
    "flipped": pa.bool_(),
    "sampling": pa.string(),
}


def to_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a table with the documented types; columns named `score.*` hold one float per completion."""
    names = list(rows[0]) if rows else []
    fields = [pa.field(name, COLUMNS[name] if name in COLUMNS else _other(name, rows)) for name in names]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def _other(name: str, rows: list[dict[str, Any]]) -> pa.DataType:
    return SCORES if name.startswith("score.") else pa.array([row[name] for row in rows]).type
