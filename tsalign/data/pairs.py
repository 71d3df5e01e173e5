"""Which two completions of a set make a preference, and the row that it becomes: pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def best_and_worst(scores: Sequence[float]) -> tuple[int, int]:
    """Indices of the highest and the lowest score; the first one where several are equal."""
    order = range(len(scores))
    return max(order, key=lambda i: scores[i]), min(order, key=lambda i: scores[i])


def random_pair(texts: Sequence[str], seed: int) -> tuple[int, int]:
    """Two candidates with different texts where there are any, else the same one twice."""
    first_of = {text: index for index, text in reversed(list(enumerate(texts)))}
    if len(first_of) < 2:
        return 0, 0
    one, two = random.Random(seed).sample(sorted(first_of.values()), 2)
    return one, two


def preference(prompt_id: str, set_: str, prompt: Any, chosen: Row, rejected: Row) -> Row:
    """The columns that every preference has, in TRL's conversational form.

    Args:
        chosen, rejected: each with `text`, and `finish`: `stop`, or `length` where it was cut.
    """
    return {
        "prompt_id": prompt_id,
        "set": set_,
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": chosen["text"]}],
        "rejected": [{"role": "assistant", "content": rejected["text"]}],
        "chosen_finish": chosen["finish"],
        "rejected_finish": rejected["finish"],
    }


def was_cut(row: Row, side: str) -> bool:
    """Whether the chosen or rejected side of a preference ended at `max_tokens`; files of others do not say."""
    return row.get(f"{side}_finish") == "length"


def preference_of(row: Row, nominees: Sequence[int], labels: Sequence[float], tie_margin: float) -> Row | None:
    """The preference between the nominees of a candidate set with the highest and the lowest label.

    Args:
        nominees: indices of completions.
        labels: one score per nominee.
        tie_margin: difference of the labels up to which they tie; the result is then None.
    """
    best, worst = best_and_worst(labels)
    chosen, rejected = row["completions"][nominees[best]], row["completions"][nominees[worst]]
    if labels[best] - labels[worst] <= tie_margin:
        return None
    return {
        **preference(row["prompt_id"], row["set"], row["prompt"], chosen, rejected),
        **{name: row[name] for name in ("prompt_ids", "writer", "sampling")},
        "chosen_ids": chosen["token_ids"],
        "rejected_ids": rejected["token_ids"],
        "chosen_origin": {**chosen, "token_ids": None},
        "rejected_origin": {**rejected, "token_ids": None},
        "score.label": [labels[best], labels[worst]],
    }
