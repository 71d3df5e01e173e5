"""What stages ask an engine: requests, their seeds to the digit, and what becomes of the answers."""

from __future__ import annotations

from typing import Any

import pytest
from test_writing import Echo

from tsalign.common.seeds import derive
from tsalign.config import SamplingConfig
from tsalign.engines import Completion, Failed
from tsalign.recipes.citing.procedures import Rewriting
from tsalign.stages.generation import Asking
from tsalign.stages.sampling import Candidates
from tsalign.stages.writing import Questions

SAMPLING = SamplingConfig(engine="hf", k=2, max_tokens=7, top_p=0.9, stop=("#",))
ROW: dict[str, Any] = {
    "prompt_id": "p",
    "prompt": [{"role": "user", "content": "sort 2 1"}],
    "prompt_ids": [1, 2],
    "rubric": "in order",
    "word": "cat",
}
DRAFTED = {**ROW, "completions": [{"text": "2 1", "temperature": 0.5}, {"text": "1 2", "temperature": 0.0}]}
TEMPERATURES = (1.0, 0.7)
CANDIDATES = Candidates(SAMPLING, TEMPERATURES, derive(3, 2), "w")
QUESTIONS = Questions(Echo(), SAMPLING, derive(3, 2, "2/revisions"))
REWRITING = Rewriting(
    "{{ instruction }} | {{ rubric }} | {{ answer }}", SAMPLING, TEMPERATURES, derive(3, 2, "2/answers_rewrite_1"), "w"
)


@pytest.mark.parametrize(
    ("asking", "row", "drawn"),
    [
        (
            CANDIDATES,
            ROW,
            [
                (2956031315954642712, 1.0),
                (7957444955436354670, 1.0),
                (2552772788533811179, 0.7),
                (3962598940318765706, 0.7),
            ],
        ),
        (
            QUESTIONS,
            ROW,
            [
                (618262281963186196, 1.0),
                (823058031563285206, 1.0),
                (3783722510601445819, 1.0),
                (2882084125497170466, 1.0),
            ],
        ),
        (
            REWRITING,
            ROW,
            [
                (9110771974773769934, 1.0),
                (2917154999880628833, 1.0),
                (3117749967959518015, 0.7),
                (3488982216624807862, 0.7),
            ],
        ),
        (REWRITING, DRAFTED, [(9110771974773769934, 0.5), (2917154999880628833, 0.0)]),
    ],
    ids=["sample", "write", "rewrite without drafts", "rewrite"],
)
def test_seeds_and_temperatures_never_change(asking: Asking, row: dict[str, Any], drawn: list[Any]) -> None:
    """Published numbers and runs that are resumed depend on them."""
    requests = asking.requests(row)
    assert [(request.seed, request.temperature) for request in requests] == drawn
    assert {(request.max_tokens, request.top_p, request.stop) for request in requests} == {(7, 0.9, ("#",))}


def test_what_each_asks() -> None:
    assert {(str(one.prompt), str(one.prompt_ids)) for one in CANDIDATES.requests(ROW)} == {
        (str(ROW["prompt"]), "[1, 2]")
    }
    drafts = [request.prompt[0]["content"] for request in REWRITING.requests(DRAFTED)]
    assert drafts == ["sort 2 1 | in order | 2 1", "sort 2 1 | in order | 1 2"]
    assert REWRITING.requests(ROW)[0].prompt[0]["content"] == "sort 2 1 | in order |"


ANSWERS = [
    Completion("1 2", [5, 6, 7], "stop"),
    Completion("1 2", [5, 6, 8], "stop"),
    Completion("2", [9], "length"),
    Completion("3", [8], "stop"),
]


def test_completions_become_a_candidate_set() -> None:
    requests = CANDIDATES.requests(ROW)
    written = CANDIDATES.read(ROW, requests, ANSWERS)
    (made,) = written.rows
    assert [(one["text"], one["seed"], one["temperature"]) for one in made["completions"]] == [
        (answer.text, request.seed, request.temperature) for answer, request in zip(ANSWERS, requests)
    ]
    assert made["writer"] == "w"
    assert made["sampling"] == '{"engine": "hf", "top_p": 0.9, "max_tokens": 7, "stop": ["#"]}'
    assert written.counts.items() >= {"completions": 4, "completion_tokens": 8, "cut": 1, "duplicates": 1}.items()


def test_one_missing_completion_fails_the_set_and_is_all_that_is_kept_of_it() -> None:
    written = CANDIDATES.read(ROW, CANDIDATES.requests(ROW), [*ANSWERS[:3], Failed("too long")])
    assert written.rows == []
    assert written.failed == [{"prompt_id": "p", "reason": "too long", "answered": True}]
    down = [Failed("too long"), *ANSWERS[1:3], Failed("down", unanswered=True)]
    written = CANDIDATES.read(ROW, CANDIDATES.requests(ROW), down)
    assert written.failed == [{"prompt_id": "p", "reason": "too long", "answered": False}]
    assert written.counts == {}


def test_what_was_written_beside_a_missing_answer_is_kept_and_counted() -> None:
    written = QUESTIONS.read(ROW, QUESTIONS.requests(ROW), [*ANSWERS[:2], Failed("too long"), ANSWERS[2]])
    assert written.rows == []
    assert written.failed == [
        {"prompt_id": "p", "reason": "too long", "answered": True, "text": "1 2\n---\n1 2\n---\n2"}
    ]
    assert written.counts == {"completions": 3, "completion_tokens": 7, "cut": 1}
