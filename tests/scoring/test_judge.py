"""The judge at a scripted endpoint: order swapped and averaged, answers parsed strictly."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from fault_server import Behaviour, server
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from test_openai_engine import said

from tsalign.data.chat import encode_prompt, load_tokenizer
from tsalign.engines.openai import OpenAIEngine
from tsalign.prompts import templates
from tsalign.recipes.ts_align.config import MiningConfig
from tsalign.recipes.ts_align.mining import MineWorker
from tsalign.runs.artifacts import Endpoint, Model, fingerprint
from tsalign.scoring import Item, scorer_from_name
from tsalign.scoring.judge import AXES, SHORT, Asked, LLMJudge, Mode
from tsalign.scoring.stage import ScoreWorker

PROMPT = [{"role": "user", "content": "Name fruit."}]
ITEMS = [
    Item(PROMPT, "apple", group=0),
    Item(PROMPT, "apple pear", group=0),
    Item(PROMPT, "apple pear fig", group=0),
    Item(PROMPT, "lemon", group=1),
    Item(PROMPT, "lemon fig", group=1),
]
Replies = tuple[str, ...]


def judge_at(url: str, mode: Mode = "pair", **endpoint: Any) -> LLMJudge:
    template = templates.texts(templates.FOLDER)[f"judge_{mode}"]
    return LLMJudge(Endpoint(f"{url}/v1", "a-judge", "x", concurrency=2, role="judge", **endpoint), template, mode)


def shown(body: dict[str, Any]) -> Replies:
    """The replies in a question, in their order."""
    return tuple(re.findall(r"<reply(?:_[AB])?>\n(.*?)\n</reply", body["messages"][-1]["content"], re.DOTALL))


def saying(answer: Callable[[Replies], str]) -> Behaviour:
    """A judge whose words depend on the replies in its question."""
    return lambda _, body: (200, said(answer(shown(body))))


def longer(replies: Replies) -> str:
    return "A" if len(replies[0]) > len(replies[1]) else "B"


def test_the_score_is_the_share_of_wins_in_the_group() -> None:
    with server(saying(longer)) as (url, seen):
        asked = judge_at(url).load()
        shares: list[float] = []
        asked.report = shares.append
        assert asked(ITEMS) == [0.0, 0.5, 1.0, 0.0, 1.0]
        assert sum(shares) == pytest.approx(1.0)
        assert len(shares) >= 8, "each answer counts as it comes"
        assert asked(ITEMS[::-1]) == [1.0, 0.0, 1.0, 0.5, 0.0]
    assert len(seen) == 2 * (3 + 1), "each pair in both orders, and no question twice"
    assert {shown(body) for body in seen} >= {("apple", "apple pear"), ("apple pear", "apple")}
    assert seen[0]["temperature"] == 0


@pytest.mark.parametrize("word", ["A", "B", "Tie", "None", "b.", " tie\n"])
def test_a_judge_that_heeds_places_only_says_nothing(word: str) -> None:
    with server(saying(lambda _: word)) as (url, _):
        assert judge_at(url).load()(ITEMS) == [0.5] * 5


def test_equal_completions_are_a_tie_that_nobody_is_asked_about() -> None:
    items = [Item(PROMPT, text) for text in ("fig", "fig", "fig pear")]
    with server(saying(longer)) as (url, seen):
        assert judge_at(url).load()(items) == [0.25, 0.25, 1.0]
    assert {frozenset(shown(body)) for body in seen} == {frozenset({"fig", "fig pear"})}


def test_an_answer_that_does_not_parse_gives_no_score_to_those_it_is_about() -> None:
    def unclear(replies: Replies) -> str:
        return "A, I think" if replies == ("apple pear fig", "apple pear") else longer(replies)

    with server(saying(unclear)) as (url, _):
        asked = judge_at(url).load()
        assert asked(ITEMS) == [0.0, None, None, 0.0, 1.0]
    assert asked.counts["malformed"] == 1
    assert asked.reasons.keys() == {1, 2}
    assert "expected one of A, B, Tie, None" in asked.reasons[1]
    assert "it wrote 'A, I think'" in asked.reasons[1]


def test_no_answer_and_no_rival_are_no_scores() -> None:
    def refusing(_: int, body: dict[str, Any]) -> tuple[int, Any]:
        if "lemon" in shown(body):
            return 400, {"error": {"message": "not that"}}
        return 200, said(longer(shown(body)))

    alone = Item(PROMPT, "plum", group=7)
    with server(refusing) as (url, _):
        asked = judge_at(url).load()
        assert asked([*ITEMS, alone]) == [0.0, 0.5, 1.0, None, None, None]
    assert (asked.counts["unanswered"], asked.counts["malformed"]) == (2, 0)
    assert asked.reasons == {
        3: "HTTP 400: not that",
        4: "HTTP 400: not that",
        5: "no other completion to compare it with",
    }


def test_axes_of_one_completion() -> None:
    def rate(replies: Replies) -> str:
        (reply,) = replies
        return f"articulate: 7\nIn-Depth: {len(reply.split())}/10\ncomprehensive: 1"

    with server(saying(rate)) as (url, seen):
        asked = judge_at(url, "axes").load()
        assert asked(ITEMS[:3]) == pytest.approx([3.0, 10 / 3, 11 / 3])
        assert asked.by_axis(ITEMS[1:2]) == [{"articulate": 7.0, "in-depth": 2.0, "comprehensive": 1.0}]
    assert len(seen) == 3
    with server(saying(lambda _: "articulate: 7\nin-depth: 11\ncomprehensive: 1")) as (url, _):
        asked = judge_at(url, "axes").load()
        assert asked(ITEMS[:1]) == [None]
    assert "in-depth: 11 is not between 1 and 10" in asked.reasons[0]


def test_axes_of_two_completions_are_swapped_and_averaged() -> None:
    def compare(replies: Replies) -> str:
        # better wording: the longer one; depth: whichever stands first; coverage: no difference
        return f"articulate: {longer(replies)}\nin-depth: A\ncomprehensive: Tie"

    with server(saying(compare)) as (url, _):
        asked = judge_at(url, "axes_pair").load()
        by_axis = asked.by_axis(ITEMS[3:])
        assert by_axis == [dict(zip(AXES, (0.0, 0.5, 0.5))), dict(zip(AXES, (1.0, 0.5, 0.5)))]
        assert asked(ITEMS[3:]) == pytest.approx([1 / 3, 2 / 3])
    with server(saying(lambda _: "articulate: A\nin-depth: A")) as (url, _):
        asked = judge_at(url, "axes_pair").load()
        assert asked.by_axis(ITEMS[3:]) == [None, None]
    assert asked.counts["malformed"] == 2


class Scripted(Asked):
    """A judge without a service: `prefers` numbers every text."""

    def __init__(self, prefers: Callable[[str, str], str]) -> None:
        super().__init__(judge_at("http://nowhere"))
        self.engine = self
        self.prefers = prefers

    def generate(self, requests: list[Any], done: Any) -> list[Any]:
        from tsalign.engines import Completion

        replies = [shown({"messages": request.prompt}) for request in requests]
        return [Completion(self.prefers(*pair), [], "stop") for pair in replies]


@given(st.lists(st.text("abc", min_size=1, max_size=4), min_size=2, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_shares_of_a_group_add_up_whatever_the_judge_says(texts: list[str], random: Any) -> None:
    scores = Scripted(lambda a, b: random.choice(["A", "B", "Tie"]))([Item(PROMPT, text) for text in texts])
    assert None not in scores
    assert sum(map(float, scores)) == pytest.approx(len(texts) / 2)  # type: ignore[arg-type]
    assert all(0 <= float(score) <= 1 for score in scores)  # type: ignore[arg-type]


def candidate_set(name: str, *texts: str) -> dict[str, Any]:
    made = [{"text": text, "token_ids": [1], "finish": "stop", "seed": 0, "temperature": 1.0} for text in texts]
    return {"prompt_id": name, "set": "", "prompt": PROMPT, "prompt_ids": [1], "writer": "", "sampling": ""} | {
        "completions": made,
        "score.student": [float(index) for index in range(len(made))],
    }


def test_a_judge_is_a_teacher() -> None:
    rows = [
        candidate_set("one", "fig pear", "fig", "pear"),
        candidate_set("two", "bad", "lemon"),
        candidate_set("none", "a", "a"),
    ]

    def picky(replies: Replies) -> str:
        return "bad question" if "bad" in replies else longer(replies)

    with server(saying(picky)) as (url, seen):
        worker = MineWorker(judge_at(url), MiningConfig(), 0, (0.0, 1.0))
        shard = worker(rows, "part-00000.parquet")
    (made,) = shard.rows
    # the student's best and worst were "pear" and "fig pear"
    assert (made["chosen"][0]["content"], made["rejected"][0]["content"]) == ("fig pear", "pear")
    assert made["score.label"] == [1.0, 0.0]
    (failed,) = shard.failed
    assert failed["prompt_id"] == "two"
    assert "it wrote 'bad question'" in failed["reason"]
    assert (shard.counts["calls.judge"], shard.counts["tokens.judge"]) == (4, 28)
    assert shard.counts["teacher_malformed"] == 2
    assert len(seen) == 4


def test_failed_rows_of_a_score_say_what_the_judge_wrote() -> None:
    rows = [candidate_set("one", "fig pear", "fig"), candidate_set("two", "bad", "lemon")]
    with server(saying(lambda replies: "hm" if "bad" in replies else longer(replies))) as (url, _):
        shard = ScoreWorker({"judge": judge_at(url)}, (0.0, 1.0))(rows, "part-00000.parquet")
    assert [row["score.judge"] for row in shard.rows] == [[1.0, 0.0]]
    assert "it wrote 'hm'" in shard.failed[0]["reason"]
    assert shard.counts["judge_malformed"] == 2
    assert shard.counts["calls.judge"] == 4


def test_a_local_model_judges_too(models: dict[str, Model]) -> None:
    asked = scorer_from_name(f"judge_axes:{models['policy'].path}").load()
    assert asked(ITEMS[:2]) == [None, None], "a random model rates nothing"
    assert asked.counts["malformed"] == asked.counts["calls"] == 2
    tokenizer = load_tokenizer(models["policy"])
    template = templates.texts(templates.FOLDER)["judge_axes"]
    prompts = [templates.render(template, prompt=PROMPT, completion=item.completion) for item in ITEMS[:2]]
    read = sum(len(encode_prompt(tokenizer, prompt)) for prompt in prompts)
    assert read < asked.counts["tokens"] <= read + 2 * SHORT.max_tokens


def test_names_of_judges(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-of-the-tests")
    remote = scorer_from_name("judge:org/judge@https://elsewhere/v1")
    assert isinstance(remote, LLMJudge)
    assert remote.writer == Endpoint(
        "https://elsewhere/v1",
        "org/judge",
        fingerprint("https://elsewhere/v1", "org/judge"),
        SecretStr("a-secret-of-the-tests"),
        role="judge",
    )
    assert "a-secret" not in repr(remote)
    assert isinstance(remote.load().engine, OpenAIEngine)  # type: ignore[attr-defined]
    monkeypatch.delenv("OPENAI_API_KEY")
    assert fingerprint(scorer_from_name("judge:org/judge@https://elsewhere/v1")) == fingerprint(remote)
    names = ("judge", "judge_axes", "judge_axes_pair")
    compares = {name: scorer_from_name(f"{name}:x@https://y/v1").comparative for name in names}
    assert compares == {"judge": True, "judge_axes": False, "judge_axes_pair": True}
