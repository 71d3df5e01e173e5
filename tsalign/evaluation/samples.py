"""Two prompts of an exam with what the initial policy answered and what the new one does, for a reader's eye."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest

from tsalign.common.seeds import derive
from tsalign.data.shards import Row
from tsalign.runs.report import Sample

COUNT = 2
CHARACTERS = 240


def lowest(rows: Iterable[Row]) -> list[Row]:
    """The rows whose prompt ids have the lowest hashes: the same prompts in every iteration and every run."""
    return nsmallest(COUNT, rows, key=lambda row: derive("sample", row["prompt_id"]))


def sample_of(row: Row, at: int) -> Sample:
    """The last turn of a verdict's prompt, and both answers of the number `at`."""
    before, after = (row[side][at]["text"] for side in ("base_completions", "completions"))
    return Sample(shown(row["prompt"][-1]["content"]), shown(before), shown(after))


def shown(text: str) -> str:
    """A text on one line: cut where it is long, and what a terminal would not print as escapes such as `\\n`."""
    short = text if len(text) <= CHARACTERS else f"{text[:CHARACTERS]}..."
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in short)
