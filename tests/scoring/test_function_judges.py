"""Functions as judges: what is no finite number is a failed row with the function's file and line, never a loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_evaluation import LongerWins, candidate_set, stored

from tsalign.common.errors import TsalignError
from tsalign.data.shards import Shard
from tsalign.evaluation.stage import EvaluationWorker
from tsalign.recipes.ts_align.config import MiningConfig
from tsalign.recipes.ts_align.mining import MineWorker
from tsalign.scoring import Item, LoadedScorer, Scorer
from tsalign.scoring.function import PythonFunction
from tsalign.scoring.stage import ScoreWorker

Message = dict[str, str]
RETURNS: dict[str, Any] = {}  # by completion


def given_back(prompt: list[Message], completion: str) -> Any:
    return RETURNS[completion]


def divides(prompt: list[Message], completion: str) -> float:
    return 1 / completion.count("a")


def calls_another(prompt: list[Message], completion: str) -> float:
    return math.sqrt(-len(completion))


def refuses(prompt: list[Message], completion: str) -> float:
    raise TsalignError("judge.key: not set.")


def of_one(completion: str) -> float:
    return 0.0


def of_three(prompt: list[Message], completion: str, reference: str) -> float:
    return 0.0


def of_three_with_default(prompt: list[Message], completion: str, scale: float = 2.0) -> float:
    return scale


def by_names(*, prompt: list[Message], completion: str) -> float:
    return 0.0


async def later(prompt: list[Message], completion: str) -> float:
    return 0.0


class Callable_:
    def __call__(self, prompt: list[Message], completion: str) -> float:
        return 3.0


an_object, a_number, in_c = Callable_(), 7, max


def loaded(function: str) -> LoadedScorer:
    return PythonFunction(f"{__name__}:{function}").load()


def asked(*completions: str) -> list[Item]:
    return [Item([{"role": "user", "content": "hi"}], completion) for completion in completions]


NUMBERS: list[tuple[Any, float]] = [
    *((1.5, 1.5), (2, 2.0), (True, 1.0), (-0.0, 0.0)),
    *((np.float32(0.5), 0.5), (np.array(2.0), 2.0), (torch.tensor(3.0), 3.0), (torch.tensor([4.0]), 4.0)),
]


@pytest.mark.parametrize(("given", "score"), NUMBERS, ids=repr)
def test_numbers_of_any_library_are_scores(given: Any, score: float) -> None:
    RETURNS["x"] = given
    assert loaded("given_back").scored(asked("x")) == [score]


NO_NUMBERS: list[tuple[Any, str]] = [
    (None, "returned None, expected a number"),
    ("0.7", "returned '0.7', expected a number"),
    (b"1", "returned b'1', expected a number"),
    ("x" * 500, f"returned '{'x' * 79}, expected a number"),
    ([1.0], r"returned [1.0], expected a number"),
    ({"score": 1}, "returned {'score': 1}, expected a number"),
    (1j, "returned 1j, expected a number"),
    (10**400, "expected a number"),
    (torch.tensor([1.0, 2.0]), "returned tensor([1., 2.]), expected a number"),
    (np.array([1.0, 2.0]), "returned array([1., 2.]), expected a number"),
    (math.nan, "the score is nan, not a finite number"),
    (math.inf, "the score is inf, not a finite number"),
    (-math.inf, "the score is -inf, not a finite number"),
    (np.float32("nan"), "the score is nan, not a finite number"),
    (torch.tensor(math.inf), "the score is inf, not a finite number"),
]


@pytest.mark.parametrize(
    ("given", "reason"), NO_NUMBERS, ids=[f"{type(one).__name__}-{why[:24]}" for one, why in NO_NUMBERS]
)
def test_anything_else_is_a_missing_score_with_its_reason(given: Any, reason: str) -> None:
    RETURNS.update(bad=given, good=1.0)
    scorer = loaded("given_back")
    assert scorer.scored(asked("good", "bad", "good")) == [1.0, None, 1.0]
    assert list(scorer.reasons) == [1]
    assert reason in scorer.reasons[1]
    assert scorer.scored(asked("good")) == [1.0]
    assert scorer.reasons == {}, "reasons are those of the last call"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("divides", "raised ZeroDivisionError: division by zero"),
        ("calls_another", "raised ValueError: "),
        ("given_back", "raised KeyError: 'unheard of'"),
    ],
)
def test_a_function_that_raises_fails_the_row_with_file_and_line(function: str, reason: str) -> None:
    scorer = loaded(function)
    assert scorer.scored(asked("unheard of" if function == "given_back" else "b")) == [None]
    where = globals()[function].__code__
    assert reason in scorer.reasons[0]
    assert f"({__file__}:{where.co_firstlineno})" in scorer.reasons[0], "where the function begins"
    assert f"({__file__}:{where.co_firstlineno + 1})" in scorer.reasons[0], "and where it raised"


def test_an_error_that_the_user_can_fix_ends_the_stage() -> None:
    with pytest.raises(TsalignError, match=r"judge\.key: not set"):
        loaded("refuses").scored(asked("x"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "of_one",
            r"of_one' \(.*test_function_judges\.py:\d+\): too many positional arguments; .*\(prompt, completion\)",
        ),
        ("of_three", r"missing a required argument: 'reference'; it is called with"),
        ("by_names", "too many positional arguments"),
        ("a_number", "a_number': a int, not a function"),
        ("asked_nobody", "has no attribute 'asked_nobody'; expected module:function"),
    ],
)
def test_wrong_arguments_are_told_before_the_first_row(function: str, message: str) -> None:
    with pytest.raises(TsalignError, match=message):
        loaded(function)


@pytest.mark.parametrize("function", ["of_three_with_default", "an_object"])
def test_what_can_be_called_with_both_is_a_judge(function: str) -> None:
    assert loaded(function).scored(asked("x")) in ([2.0], [3.0])


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.parametrize(("function", "reason"), [("later", "returned <coroutine"), ("in_c", "raised TypeError")])
def test_functions_of_other_kinds_fail_row_by_row(function: str, reason: str) -> None:
    scorer = loaded(function)
    assert scorer.scored(asked("x")) == [None]
    assert reason in scorer.reasons[0]


class Scripted(LoadedScorer):
    def __init__(self, scores: list[Any]) -> None:
        super().__init__()
        self.scores = scores

    def __call__(self, items: list[Item]) -> list[float | None]:
        return self.scores


class Script(LongerWins):
    """The same scores in every call, comparing or not."""

    def __init__(self, *scores: Any, comparative: bool = False) -> None:
        object.__setattr__(self, "scores", list(scores))
        object.__setattr__(self, "comparative", comparative)

    def load(self) -> LoadedScorer:
        return Scripted(self.scores)  # type: ignore[attr-defined]


def scored_rows(scorer: Scorer, folder: Path) -> Shard:
    worker = ScoreWorker({"judge": scorer}, (0.0, 1.0))
    return worker([candidate_set("one", "a", "b"), candidate_set("two", "c", "d")], "part-00000.parquet")


def judged_alone(scorer: Scorer, folder: Path) -> Shard:
    known = [{**candidate_set(name, "a", "b"), "score.judge": [0.0, 0.0]} for name in ("one", "two")]
    worker = EvaluationWorker(stored(folder / "base", *known), scorer)
    return worker([candidate_set("one", "a", "b"), candidate_set("two", "c", "d")], "part-00000.parquet")


def judged_side_by_side(scorer: Scorer, folder: Path) -> Shard:
    worker = EvaluationWorker(stored(folder / "base", candidate_set("one", "x"), candidate_set("two", "y")), scorer)
    return worker([candidate_set("one", "a"), candidate_set("two", "b")], "part-00000.parquet")


def mined(scorer: Scorer, folder: Path) -> Shard:
    made = [
        {
            **candidate_set(name, "a", "b"),
            "score.student": [0.0, 1.0],
            "writer": "w",
            "sampling": "s",
            "prompt_ids": [1],
        }
        for name in ("one", "two")
    ]
    return MineWorker(scorer, MiningConfig(), 0, (0.0, 1.0))(made, "part-00000.parquet")


PLACES: list[Callable[[Scorer, Path], Shard]] = [scored_rows, judged_alone, judged_side_by_side, mined]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None], ids=str)
def test_no_place_takes_such_a_score_for_a_loss(
    place: Callable[[Scorer, Path], Shard], bad: float | None, tmp_path: Path
) -> None:
    shard = place(Script(1.0, bad, 1.0, 0.0), tmp_path)
    assert [row["prompt_id"] for row in shard.rows] == ["two"]
    (failed,) = shard.failed
    assert failed["prompt_id"] == "one"
    assert bad is None or f"the score is {bad}, not a finite number" in failed["reason"]


def test_a_scorer_that_gives_too_few_scores_is_named() -> None:
    with pytest.raises(TsalignError, match="Scripted: 1 scores for 2 items; give one each"):
        Scripted([1.0]).scored(asked("a", "b"))
