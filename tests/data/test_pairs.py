"""Which two completions become a preference, whatever the scores; and the row in TRL's form."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tsalign.data.pairs import best_and_worst, preference, preference_of, random_pair, was_cut

SCORES = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=9)


def candidate_set(count: int) -> dict[str, Any]:
    completions = [
        {"text": f"text {i}", "token_ids": [i, 0], "finish": "stop", "seed": i, "temperature": 1.0}
        for i in range(count)
    ]
    return {
        "prompt_id": "p",
        "set": "s",
        "prompt": [{"role": "user", "content": "q"}],
        "prompt_ids": [7, 8],
        "writer": "w",
        "sampling": "{}",
        "completions": completions,
        "score.student": [0.0] * count,
    }


@given(SCORES)
def test_the_first_of_equals_is_best_and_worst(scores: list[float]) -> None:
    best, worst = best_and_worst(scores)
    assert best == scores.index(max(scores))
    assert worst == scores.index(min(scores))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_random_pairs_reach_every_two_texts(texts: list[str]) -> None:
    drawn = {random_pair(texts, seed) for seed in range(200)}
    if len(set(texts)) == 1:
        assert drawn == {(0, 0)}
        return
    firsts = {texts.index(text) for text in texts}
    assert {index for pair in drawn for index in pair} == firsts, "the first completion stands for its text"
    assert all(texts[one] != texts[two] for one, two in drawn)


@given(st.data())
def test_a_preference_has_what_both_sides_came_from(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 6))
    nominees = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=count, unique=True))
    labels = data.draw(st.lists(st.floats(-10, 10), min_size=len(nominees), max_size=len(nominees)))
    margin = data.draw(st.floats(0, 5))
    row = candidate_set(count)
    made = preference_of(row, nominees, labels, margin)
    if max(labels) - min(labels) <= margin:
        assert made is None
        return
    assert made is not None
    chosen, rejected = nominees[labels.index(max(labels))], nominees[labels.index(min(labels))]
    assert made["chosen"] == [{"role": "assistant", "content": f"text {chosen}"}]
    assert made["rejected"] == [{"role": "assistant", "content": f"text {rejected}"}]
    assert (made["chosen_ids"], made["rejected_ids"]) == ([chosen, 0], [rejected, 0])
    assert (made["chosen_origin"]["seed"], made["rejected_origin"]["seed"]) == (chosen, rejected)
    assert made["chosen_origin"]["token_ids"] is None, "the tokens are stored once"
    assert made["score.label"] == [max(labels), min(labels)]
    assert made["score.label"][0] - made["score.label"][1] > margin
    assert {name: made[name] for name in ("prompt_ids", "writer", "sampling")} == {
        "prompt_ids": [7, 8],
        "writer": "w",
        "sampling": "{}",
    }
    assert row == candidate_set(count), "the candidate set is not touched"


def test_a_preference_is_what_trl_reads() -> None:
    prompt = [{"role": "user", "content": "q"}]
    sides = ({"text": "yes", "finish": "stop"}, {"text": "no", "finish": "length"})
    made = preference("p", "s", prompt, *sides)
    assert (was_cut(made, "chosen"), was_cut(made, "rejected")) == (False, True)
    assert made == {
        "prompt_id": "p",
        "set": "s",
        "prompt": prompt,
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
        "chosen_finish": "stop",
        "rejected_finish": "length",
    }
