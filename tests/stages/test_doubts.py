"""What sampling warns of before anything is learnt from it: completions without an end, sets without a choice."""

from __future__ import annotations

from typing import Any

import pytest
from upath import UPath

from tsalign.config import SamplingConfig
from tsalign.runs.report import Report, mostly, read_report, warn, warnings_of
from tsalign.stages.sampling import doubts, statistics

SAMPLING = SamplingConfig(k=4, max_tokens=256)
CUT = "of the completions are cut at max_tokens: raise sampling.max_tokens, which is 256."
SAME = "of the prompts got one text 4 times, which teaches nothing: raise sampling.temperature."


@pytest.mark.parametrize(
    ("cut", "identical", "said"),
    [
        (0, 0, ()),
        (200, 50, ()),  # half is not most
        (400, 0, (f"100.0 % {CUT}",)),
        (201, 0, (f"50.2 % {CUT}",)),
        (0, 90, (f"90.0 % {SAME}",)),
        (400, 100, (f"100.0 % {CUT}", f"100.0 % {SAME}")),
    ],
)
def test_doubts(cut: int, identical: int, said: tuple[str, ...]) -> None:
    counts = {"rows": 100, "completions": 400, "cut": cut, "identical": identical}
    assert doubts(counts, SAMPLING) == said


def candidates(*texts: str, finish: str = "stop") -> dict[str, Any]:
    return {"completions": [{"text": text, "token_ids": [1, 2], "finish": finish} for text in texts]}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (candidates("a"), (1, 2, 0, 0, 0)),  # one completion leaves no choice to begin with
        (candidates("a", "b"), (2, 4, 0, 0, 0)),
        (candidates("a", "b", "a"), (3, 6, 0, 1, 0)),
        (candidates("a", "a", "a", finish="length"), (3, 6, 3, 2, 1)),
    ],
)
def test_statistics_of_a_candidate_set(row: dict[str, Any], expected: tuple[int, ...]) -> None:
    names = ("completions", "completion_tokens", "cut", "duplicates", "identical")
    assert tuple(statistics(row)[name] for name in names) == expected


def test_nothing_of_nothing_is_not_most() -> None:
    assert mostly(0, 0, "are odd") == ()


def test_warnings_lie_beside_the_output(tmp_path: Any) -> None:
    warn(UPath(tmp_path))
    assert read_report(UPath(tmp_path)) is None
    assert warnings_of(UPath(tmp_path)) == ()
    warn(UPath(tmp_path), "one [bold]", "two")
    assert read_report(UPath(tmp_path)) == Report(warnings=("one [bold]", "two"))
    assert warnings_of(UPath(tmp_path)) == ("one [bold]", "two")
