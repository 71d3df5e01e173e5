"""ARTE's parts: drafts, the student's preference, pairs, exact match; and the recipe in the built-in world."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from planned import check_against_plan

from tsalign import api
from tsalign.common.errors import TsalignError
from tsalign.common.progress import Advance, unseen
from tsalign.config import ModelConfig, WritingConfig
from tsalign.data.pairs import was_cut
from tsalign.data.shards import iterate, write_rows
from tsalign.engines import Completion, Failed, Request
from tsalign.prompts.parsers import Unparsed, questions
from tsalign.recipes import find
from tsalign.recipes.arte.config import DraftConfig, PairConfig
from tsalign.recipes.arte.drafting import QuestionWriting, RationaleWriting, draft
from tsalign.recipes.arte.exact_match import Answering, answer, exact_match, matches, right_answers
from tsalign.recipes.arte.icl_accuracy import ICLAccuracy, LoadedICLAccuracy
from tsalign.recipes.arte.tailoring import question_pairs, rationale_pair, sft_rows, tagged_questions
from tsalign.recipes.arte.tasks import Question, Task, ask, read_tasks
from tsalign.recipes.arte.toy.rows import TECHNIQUES, student_rows, teacher_rows, templates
from tsalign.recipes.arte.toy.tokenizer import build_arte_tokenizer
from tsalign.recipes.arte.toy.world import KNOWN_TASKS, OTHER_NAMES, TEST_TASKS, TUNE_TASKS, rationale
from tsalign.runs.artifacts import Dataset, model_from
from tsalign.runs.report import read_report
from tsalign.scoring import Item
from tsalign.toy.tokenizer import build_tokenizer

ROW = {"prompt_id": "7", "task": "sums", "description": "Add.", "seeds": [{"question": "1 1", "answer": "2"}]}
TASK = Task("sums", "Add.", (Question("1 1", "2"),), tuple(Question(f"{n} 0", str(n)) for n in range(4)), ())
TEMPLATE = "{{ description }} {% for e in examples %}{{ e.question }}={{ e.rationale }} {% endfor %}{{ question }}="
WRITING = WritingConfig(engine="hf", max_tokens=10, max_model_len=160)


def said(*texts: str, finish: str = "stop") -> list[Completion]:
    """What a teacher answered."""
    return [Completion(text, [], finish) for text in texts]


def test_drafts_are_read_and_malformed_ones_quarantined() -> None:
    drafting = QuestionWriting("{{ description }} {{ seeds[0].question }} {{ asked }}", 5)
    assert drafting.prompts(ROW) == [[{"role": "user", "content": "Add. 1 1 5"}]]
    text = (
        "<Question_1><input>2  2</input><target>4</target></Question_1>"
        "<Question_2><input>3 3</input><target>6</Question_2>"
    )
    written = drafting.read(ROW, said(text))
    assert [(row["question"], row["answer"]) for row in written.rows] == [("2 2", "4")]
    assert written.counts == {"malformed": 1}
    assert written.failed == [
        {"prompt_id": "7", "reason": "1 malformed of 2 questions", "answered": True, "text": text}
    ]
    with pytest.raises(Unparsed, match="no well-formed"):
        drafting.read(ROW, said("what?"))


def test_rationales_keep_the_naive_prompt_whatever_the_technique() -> None:
    explaining = RationaleWriting("naive {{ question }}", {"sums": {"a": "A {{ question }}", "b": "B {{ question }}"}})
    row = {**ROW, "question": "2 2"}
    assert [prompt[0]["content"] for prompt in explaining.prompts(row)] == ["A 2 2", "B 2 2"]
    written = explaining.read(row, said("so <ans>4</ans>", "no answer"))
    (made,) = written.rows
    assert made["prompt"] == [{"role": "user", "content": "naive 2 2"}]
    assert made["techniques"] == ["a"]
    assert [completion["text"] for completion in made["completions"]] == ["so <ans>4</ans>"]
    assert [row["reason"] for row in written.failed] == ["b: expected one <ans>...</ans>, found 0"]
    (cut,) = explaining.read(row, said("so <ans>4</ans> and", "no answer", finish="length")).rows
    assert cut["completions"][0]["finish"] == "length"


class Scripted:
    """Knows the answer when the example says `good`, cannot answer about `broken`, remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.counts: Counter[str] = Counter()

    def generate(self, requests: list[Request], done: Advance = unseen) -> list[Completion | Failed]:
        done(len(requests))
        self.asked += [request.prompt[-1]["content"] for request in requests]
        assert {request.temperature for request in requests} == {0.0}
        return [self._answer(request.prompt[-1]["content"]) for request in requests]

    def _answer(self, prompt: str) -> Completion | Failed:
        if "broken" in prompt and prompt.endswith(" 3 0="):
            return Failed("too long")
        number = prompt.split()[-2]
        right = "good" in prompt or int(number) < 1
        return Completion(f"<ans>{number if right else 'x'}</ans>", [1, 2, 3], "stop")


def item(question: str, text: str) -> Item:
    return Item([], text, row={"task": "sums", "question": question})


def test_accuracy_in_context_is_the_share_of_right_answers_after_the_one_example(models: dict[str, Any]) -> None:
    scorer = ICLAccuracy(models["policy"], (TASK,), TEMPLATE, WRITING)
    engine = Scripted()
    loaded = LoadedICLAccuracy(scorer, engine)
    shares: list[float] = []
    loaded.report = shares.append
    scores = loaded([item("5 5", "good"), item("5 5", "bad"), item("5 5", "good"), item("6 6", "broken")])
    assert scores == [1.0, 0.25, 1.0, None]
    # Example by example, so that what they share lies together; equal ones once.
    assert engine.asked[:4] == [f"Add. 5 5=good {n} 0=" for n in range(4)]
    assert len(engine.asked) == 12
    assert shares == [pytest.approx(1.0)]


def test_the_toy_student_tells_telling_rationales_from_others() -> None:
    name, rule = next(iter(TUNE_TASKS.items()))
    student = model_from(ModelConfig(model="toy:arte_student"), "student")
    score = ICLAccuracy(student, read_tasks(["toy:arte-tune"]), templates()["arte_answer"], WRITING).load()
    row = {"task": name, "question": "7 3 12"}
    other = next(one for one in TUNE_TASKS.values() if one.pick != rule.pick)
    texts = [rationale(rule, (7, 3, 12), "steps"), rationale(other, (7, 3, 12), "steps"), "zero <ans> 0 </ans>"]
    telling, wrong, empty = score([Item([], text, row=row) for text in texts])
    assert telling is not None
    assert telling > 0.8
    assert wrong is not None
    assert wrong < 0.4
    assert empty is not None
    assert empty < 0.4
    questions = read_tasks(["toy:arte-tune"])[0].preference
    assert score.counts["calls"] == 3 * len(questions)
    assert score.counts["tokens"] > score.counts["calls"] * 10


def scored(prompt_id: str, scores: list[float], texts: list[str] | None = None, finish: str = "stop") -> dict[str, Any]:
    texts = texts or [f"{prompt_id}-{index}" for index in range(len(scores))]
    return {
        "prompt_id": prompt_id,
        "task": "sums",
        "description": "Add.",
        "question": f"q{prompt_id}",
        "answer": "1",
        "prompt": [{"role": "user", "content": "naive"}],
        "completions": [{"text": text, "token_ids": None, "finish": finish} for text in texts],
        "score.student": scores,
    }


def test_question_pairs_come_from_the_top_and_the_bottom_quarter() -> None:
    rows = [scored(str(n), [n / 10, n / 10]) for n in range(8)]
    made = question_pairs(rows, PairConfig(questions=30), size=2, seed=1)
    assert len(made) == 30
    assert {row["prompt_id"] for better, _ in made for row in better} == {"6", "7"}
    assert {row["prompt_id"] for _, worse in made for row in worse} == {"0", "1"}
    assert made == question_pairs(rows, PairConfig(questions=30), size=2, seed=1)
    assert question_pairs([scored(str(n), [0.5]) for n in range(8)], PairConfig(), 1, 0) == []
    assert question_pairs(rows[:3], PairConfig(), 1, 0) == []


def test_what_pairs_ask_the_teacher_to_write_is_what_is_parsed() -> None:
    text = tagged_questions([{"question": "1 2", "answer": "3"}, {"question": "4 5", "answer": "9"}])
    assert questions(text) == ([("1 2", "3"), ("4 5", "9")], 0)


def test_rationale_pairs_take_best_and_worst_and_drop_ties() -> None:
    pair = rationale_pair(scored("1", [0.2, 0.9, 0.9, 0.1]))
    assert pair is not None
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("1-1", "1-3")
    assert pair["prompt"] == [{"role": "user", "content": "naive"}]
    assert (pair["chosen_finish"], pair["rejected_finish"]) == ("stop", "stop")
    assert was_cut(rationale_pair(scored("1", [0.2, 0.9], finish="length")), "chosen")
    assert rationale_pair(scored("1", [0.5, 0.5])) is None
    tie = rationale_pair(scored("1", [0.5, 0.5]), keep_ties=True)
    assert tie is not None
    assert tie["chosen"] != tie["rejected"]
    assert rationale_pair(scored("1", [0.5, 0.5], ["same", "same"]), keep_ties=True) is None


def test_sft_rows_are_as_many_for_every_choice(ray_session: None, make_stage: Callable) -> None:
    stage, _ = make_stage("candidates")
    write_rows(stage.out, [scored(str(n), [0.1, 0.7, 0.3]) for n in range(9)], shard_size=64)
    candidates = Dataset(str(stage.out), "candidates")
    learnt = {}
    for choice in ("only", "best", "random"):
        stage, log = make_stage(choice)
        learnt[choice] = list(iterate([sft_rows(stage, candidates, choice, TEMPLATE, 5)]))
        assert log["rows"] == 5
    assert {row["completion"][-1] for row in learnt["only"]} == {"0"}
    assert {row["completion"][-1] for row in learnt["best"]} == {"1"}
    assert len({row["completion"][-1] for row in learnt["random"]}) > 1
    assert {row["prompt"][0]["content"] for row in learnt["best"]} == {
        f"Add. q{r['prompt_id']}=" for r in learnt["best"]
    }
    assert [row["prompt_id"] for row in learnt["best"]] == [row["prompt_id"] for row in learnt["random"]]
    with pytest.raises(TsalignError, match="task sums has 9 questions, not 10"):
        sft_rows(make_stage("more")[0], candidates, "only", TEMPLATE, 10)


def test_answers_match_only_exactly_and_inside_the_tag() -> None:
    assert matches("so <ans> 12 </ans>", "12")
    assert not matches("so 12", "12")
    assert not matches("<ans>12.0</ans>", "12")
    assert not matches("<ans>12</ans><ans>12</ans>", "12")


def test_exact_match_counts_by_task_and_number_of_shots(ray_session: None, make_stage: Callable) -> None:
    tasks = read_tasks(["toy:arte-tune"])[:2]
    student = model_from(ModelConfig(model="toy:arte_student"), "student")
    asked = ask(make_stage("questions")[0], tasks, "preference")
    stage, log = make_stage("exact_match")
    exam = Answering(templates()["arte_answer"], tasks, (0, 3))
    baseline = answer(make_stage("baseline")[0], student, asked, exam, WRITING)
    answered = exact_match(stage, student, asked, exam, WRITING, baseline)
    content = json.loads((stage.out / "summary.json").read_text())
    summary = content["exact_match"]
    assert content["baseline"] == right_answers(baseline)
    rows = list(iterate([answered]))
    for place, shots in enumerate(("0", "3")):
        for task in tasks:
            right = [row["correct"][place] for row in rows if row["task"] == task.name]
            assert summary[shots]["by_task"][task.name] == pytest.approx(sum(right) / len(right))
            assert right == [matches(row["answers"][place], row["answer"]) for row in rows if row["task"] == task.name]
    assert log["exact_match_0_shot"] == summary["0"]["mean"]
    report = read_report(stage.out)
    assert report.results == {f"{shots}-shot exact match": summary[shots]["mean"] for shots in ("0", "3")}
    assert list(report.table.columns) == ["0-shot, before", "3-shot, before", "0-shot", "3-shot"]
    assert report.table.columns["3-shot"].values == summary["3"]["by_task"]


def test_drafting_goes_on_until_there_are_enough_and_leaks_nothing(ray_session: None, make_stage: Callable) -> None:
    tasks = read_tasks(["toy:arte-tune"])[:2]
    teacher = model_from(ModelConfig(model="toy:arte_teacher"), "teacher")
    config = DraftConfig(questions=12, max_failed_fraction=0.3)
    writing = WritingConfig(engine="hf", max_tokens=64, max_model_len=160)
    stage, log = make_stage("drafts")
    rows = list(iterate([draft(stage, teacher, tasks, templates()["arte_questions"], config, writing)]))
    assert [sum(row["task"] == task.name for row in rows) for task in tasks] == [12, 12]
    assert len({row["prompt_id"] for row in rows}) == log["rows"] == 24
    known = {(task.name, one.question) for task in tasks for one in (*task.preference, *task.test)}
    assert not known & {(row["task"], row["question"]) for row in rows}
    short = draft(
        make_stage("short")[0], teacher, tasks, templates()["arte_questions"],
        config.model_copy(update={"questions": 60, "max_rounds": 1}), writing,
    )  # fmt: skip
    assert 24 < len(list(iterate([short]))) < 120


def test_the_student_never_met_the_tasks_it_is_tested_on() -> None:
    met = {row["prompt"][0]["content"].split()[0] for row in student_rows(0, 2000)}
    assert met == {*KNOWN_TASKS, *OTHER_NAMES}
    assert not met & {*TEST_TASKS, *TUNE_TASKS}
    assert {row["prompt"][0]["content"].split()[0] for row in teacher_rows(0, 500)} == {*TEST_TASKS, *TUNE_TASKS}
    assert set(TECHNIQUES) == {name for name in templates() if name.startswith("arte_rationale_")}


def test_tags_are_tokens_that_survive_decoding() -> None:
    tokenizer, old = build_arte_tokenizer(), build_tokenizer()
    assert old.get_vocab().items() <= tokenizer.get_vocab().items()
    for rows in (student_rows(0, 50), teacher_rows(0, 50)):
        for row in rows:
            ids = tokenizer(row["completion"]).input_ids
            assert tokenizer.unk_token_id not in ids
            assert tokenizer.decode(ids, skip_special_tokens=True).split() == row["completion"].split()


def test_the_recipe_end_to_end(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    smaller: dict[str, Any] = {
        "run": "arte",
        "tasks": ["toy:arte-tune"],
        "drafts.questions": 10,
        "pairs.questions": 6,
        "rows_per_task": 8,
        "align.epochs": 1,
        "tune.epochs": 1,
        "select_items": {"models": [{"model": "toy:arte_student"}], "shots": [0, 1], "keep": 4},
    }
    api.run(api.load(find("arte").quickstart, smaller))
    folder = tmp_path / "runs" / "arte"
    summary = json.loads((folder / "exact_match" / "summary.json").read_text())
    for rates in (summary["baseline"], summary["exact_match"]):
        assert set(rates) == {"0", "3"}
        assert set(rates["0"]["by_task"]) == set(TUNE_TASKS)
    assert len(list(iterate([Dataset(str(folder / "selected_items"), "")]))) == 4 * len(TUNE_TASKS)
    assert len(list(iterate([Dataset(str(folder / "sft_rows"), "")]))) == 8 * len(TUNE_TASKS)
    assert (folder / "teacher" / "model.safetensors").exists()
    check_against_plan(folder)


def test_more_rows_than_drafts_are_refused() -> None:
    with pytest.raises(TsalignError, match="rows_per_task: 99 of 48"):
        api.load(find("arte").quickstart, {"rows_per_task": 99})
