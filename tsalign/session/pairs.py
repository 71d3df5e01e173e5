"""Preferences for a reader's eye: both texts side by side, with scores, and where the teacher reversed the order."""

from __future__ import annotations

from itertools import islice
from typing import Any

from tsalign.data.shards import Row, iterate
from tsalign.runs.artifacts import Dataset
from tsalign.session.markup import Html, table, tag, together

LONGEST = 2000  # characters of a text that are shown
COLUMNS = ["prompt", "chosen", "rejected", "flipped", "score.label", "score.student"]


class Pairs(list[Row]):
    """The first preferences of a stage, as rows; a notebook shows them as a table."""

    def _repr_html_(self) -> Html:
        headers = ("prompt", "chosen", "rejected")
        marked = "⇄: the teacher reversed the student's order" if any(row.get("flipped") for row in self) else ""
        return together(table(headers, map(_cells, self), wide=True), tag("small", marked))


def first_pairs(made: Dataset, count: int) -> Pairs:
    """The first `count` preferences, read from as many shards as they take."""
    return Pairs(islice(iterate([made], COLUMNS), count))


def _cells(row: Row) -> list[Html]:
    flip = tag("b", " ⇄", style="color:#c98a27") if row.get("flipped") else ""
    return [
        tag("div", _short(row["prompt"][-1]["content"]), flip),
        *(tag("div", _short(row[side][-1]["content"]), _scores(row, place)) for place, side in SIDES),
    ]


SIDES = ((0, "chosen"), (1, "rejected"))


def _scores(row: Row, place: int) -> Html:
    """Who scored a side how, below its text."""
    given: dict[str, Any] = {"label": row.get("score.label"), "student": row.get("score.student")}
    told = [f"{who} {scores[place]:.3g}" for who, scores in given.items() if scores]
    return tag("div", " · ".join(told), style="opacity:.65;font-size:85%")


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
