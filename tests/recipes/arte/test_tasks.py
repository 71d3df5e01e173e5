"""Task files: what is read, what is refused with its place, and the built-in tasks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tsalign.common.errors import TsalignError
from tsalign.data.shards import iterate, write_rows
from tsalign.recipes.arte.tasks import ask, only, read_tasks
from tsalign.recipes.arte.toy.world import TEST_TASKS, TUNE_TASKS

TASK = """
name: sums
description: Add the numbers.
seeds:
  - {question: "1 + 1", answer: "2"}
  - {question: "2 + 1", answer: "3", rationale: "Two and one is <ans>3</ans>"}
techniques: {short: "{{ description }} {{ question }}", long: long.jinja}
"""
ROWS = [
    {"split": "preference", "question": "3 + 1", "answer": "4"},
    {"split": "test", "question": "4 + 4", "answer": "8"},
]


def write_task(folder: Path, task: str = TASK, rows: list[object] | None = None) -> str:
    (folder / "sums.yaml").write_text(task)
    (folder / "long.jinja").write_text("{{ description }} At length: {{ question }}")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in (ROWS if rows is None else rows)]
    (folder / "sums.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder / "sums.yaml")


def test_a_task_is_read_with_its_labelled_questions(tmp_path: Path) -> None:
    (task,) = read_tasks([write_task(tmp_path)])
    assert (task.name, task.description) == ("sums", "Add the numbers.")
    assert [seed.shown for seed in task.seeds] == ["<ans>2</ans>", "Two and one is <ans>3</ans>"]
    assert [one.question for one in task.preference + task.test] == ["3 + 1", "4 + 4"]
    assert task.techniques == {
        "short": "{{ description }} {{ question }}",
        "long": "{{ description }} At length: {{ question }}",
    }
    assert read_tasks([str(tmp_path)]) == (task,)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*ROWS, "{"], r"sums.jsonl:3: not JSON"),
        ([*ROWS, {"split": "train", "question": "a", "answer": "b"}], r"sums.jsonl:3: split: .*got 'train'"),
        ([*ROWS, {"split": "test", "question": "a", "answer": 5}], r"sums.jsonl:3: answer: expected text, got 5"),
        ([*ROWS, {"split": "test", "question": "3 + 1", "answer": "4"}], r"sums.jsonl:3: the same question .* line 1"),
        (ROWS[:1], r"no row with split 'test'"),
        (["[]"], r"sums.jsonl:1: expected an object"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(TsalignError, match=message):
        read_tasks([write_task(tmp_path, rows=rows)])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("description: [", r"sums.yaml:2?1?.*not valid YAML"),
        ("- a", "expected a mapping"),
        ("seeds: []", "description: expected text"),
        ("description: a", "seeds: expected a list"),
        ("description: a\nseeds: [{question: b}]", r"seeds\[0\]: answer"),
        ("descriptoin: a", "descriptoin: unknown key"),
        (TASK.replace("long.jinja", "short.jinja"), "techniques.long: .*no such file"),
    ],
)
def test_a_malformed_task_is_refused(tmp_path: Path, task: str, message: str) -> None:
    with pytest.raises(TsalignError, match=message):
        read_tasks([write_task(tmp_path, task)])


def test_tasks_that_are_not_there_or_are_there_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TsalignError, match="no task found"):
        read_tasks([str(tmp_path / "none.yaml")])
    with pytest.raises(TsalignError, match="no such tasks"):
        read_tasks(["toy:other"])
    with pytest.raises(TsalignError, match="two are named 'sums'"):
        read_tasks([write_task(tmp_path)] * 2)


def test_the_built_in_tasks_are_solved_and_share_no_question() -> None:
    tasks = read_tasks(["toy:arte", "toy:arte-tune"])
    assert len({task.name for task in tasks}) == 16
    for task in tasks:
        rule = (TEST_TASKS | TUNE_TASKS)[task.name]
        asked = task.seeds + task.preference + task.test
        assert len({one.question for one in asked}) == len(asked)
        assert all(one.answer == str(rule.answer([int(n) for n in one.question.split()])) for one in asked)


def test_only_what_was_selected_is_left(make_stage: Callable, tmp_path: Path) -> None:
    tasks = read_tasks(["toy:arte"])
    stage, log = make_stage("questions")
    asked = ask(stage, tasks, "preference")
    rows = list(iterate([asked]))
    assert log["questions"] == len(rows) == sum(len(task.preference) for task in tasks)
    write_rows(stage.out, rows[::5], shard_size=64)
    kept = only(tasks, asked)
    assert sum(len(task.preference) for task in kept) == len(rows[::5])
    assert [task.test for task in kept] == [task.test for task in tasks]
