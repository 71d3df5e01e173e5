"""Tasks: a description, a few solved questions to show, and labelled questions to choose drafts by and to test on.

A task is `<task>.yaml` and, beside it, `<task>.jsonl`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from upath import UPath

from tsalign.common import strict_yaml
from tsalign.common.errors import TsalignError
from tsalign.common.registry import builtin, is_builtin
from tsalign.common.storage import is_remote, resolve, text_or_file
from tsalign.data.shards import Row, iterate, write_rows
from tsalign.runs.artifacts import Dataset, fingerprint
from tsalign.runs.plan import ONE_TASK, Amount, ExpectedDataset, Plan, PlannedStage
from tsalign.runs.reader import reader
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

Split = Literal["preference", "test"]
KEYS = ("name", "description", "seeds", "techniques")
SHARD_SIZE = 64


@dataclass(frozen=True)
class Question:
    """A question with its answer; `rationale` is what is shown of it as an example, if not the bare answer."""

    question: str
    answer: str
    rationale: str = ""

    @property
    def shown(self) -> str:
        """The reply of an example in a prompt."""
        return self.rationale or f"<ans>{self.answer}</ans>"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        description: what every prompt of the task begins with.
        seeds: shown to the teacher when it writes questions, and as examples when the student is tested.
        preference: the student's accuracy on these says what a draft is worth.
        test: used for the final test only.
        techniques: name -> prompt template for rationales, instead of the shared ones.
    """

    name: str
    description: str
    seeds: tuple[Question, ...]
    preference: tuple[Question, ...]
    test: tuple[Question, ...]
    techniques: dict[str, str] = field(default_factory=dict)


class UnreadTasks(Task):
    """In a plan: all tasks of a location, its `name`, that cannot be read; their number is unknown."""


@reader
def read_tasks(locations: Sequence[str]) -> tuple[Task, ...]:
    """The tasks of YAML files, folders of them, and built-in names, in order.

    Raises:
        TsalignError: no task there, a malformed one, or two of one name; with file and line.
    """
    tasks = [task for location in locations for task in _located(location)]
    names = [task.name for task in tasks]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise TsalignError(f"tasks: two are named {double!r}; give every task a unique name.")
    return tuple(tasks)


@read_tasks.expects
def _expect_tasks(plan: Plan, locations: Sequence[str]) -> tuple[Task, ...]:
    """The tasks that are on this machine; each other location stands for an unknown number of them."""
    away = [
        place
        for place in locations
        if is_remote(place) or not (plan.ready or is_builtin(place) or _files(place))  # a run says what is missing
    ]
    for place in away:
        plan.leave_uncounted(place)
    read = read_tasks([place for place in locations if place not in away])
    return (*read, *(UnreadTasks(place, "", (), (), ()) for place in away))


def count_in(tasks: Sequence[Task], of: Callable[[Task], int] = lambda _: 1) -> Amount:
    """The sum over the tasks of a number of each, or how many they are; unknown where some could not be read."""
    return None if any(isinstance(task, UnreadTasks) for task in tasks) else float(sum(map(of, tasks)))


@stage_function("arte/ask")
def ask(stage: Stage, tasks: Sequence[Task], split: Split) -> Dataset:
    """The labelled questions of a split: rows of `prompt_id, task, question, answer`."""
    rows = [
        {"prompt_id": fingerprint(task.name, one.question), "task": task.name, **_plain(one)}
        for task in tasks
        for one in getattr(task, split)
    ]
    write_rows(stage.out, rows, shard_size=SHARD_SIZE)
    stage.log({"questions": len(rows), "tasks": len(tasks)})
    return Dataset(str(stage.out), stage.fingerprint)


@ask.expects
def _expect_asked(stage: PlannedStage, tasks: Sequence[Task], split: Split) -> Dataset:
    questions = count_in(tasks, lambda task: len(getattr(task, split)))
    stage.needs("", ONE_TASK, {"rows": questions})
    return stage.dataset(questions, sets=count_in(tasks))


def only(tasks: Sequence[Task], chosen: Dataset) -> tuple[Task, ...]:
    """The tasks with only those preference questions that are among the rows of `chosen`."""
    if isinstance(chosen, ExpectedDataset):
        each = None if chosen.rows is None or chosen.sets is None else round(chosen.rows / chosen.sets)
        return tuple(replace(task, preference=task.preference[:each]) for task in tasks)
    kept = {(row["task"], row["question"]) for row in iterate([chosen], ["task", "question"])}
    return tuple(
        replace(task, preference=tuple(one for one in task.preference if (task.name, one.question) in kept))
        for task in tasks
    )


def _plain(one: Question) -> Row:
    return {"question": one.question, "answer": one.answer}


def _located(location: str) -> list[Task]:
    if is_builtin(location):
        return list(builtin("tasks", location))
    if not (files := _files(location)):
        raise TsalignError(f"tasks: {location}: no task found; expected <task>.yaml with <task>.jsonl beside it.")
    return [_read(file) for file in files]


def _files(location: str) -> list[UPath]:
    path = resolve(location)
    return sorted(path.glob("*.yaml"), key=str) if path.is_dir() else [path] if path.exists() else []


def _read(file: UPath) -> Task:
    content = _yaml(file)
    if unknown := sorted(set(content) - set(KEYS)):
        raise TsalignError(f"{file}: {unknown[0]}: unknown key; valid here: {', '.join(KEYS)}")
    description = content.get("description")
    if not isinstance(description, str) or not description.strip():
        raise TsalignError(f"{file}: description: expected text")
    seeds = content.get("seeds")
    if not isinstance(seeds, list) or not seeds:
        raise TsalignError(f"{file}: seeds: expected a list of questions, each with question and answer")
    labelled = file.with_suffix(".jsonl")
    if not labelled.exists():
        raise TsalignError(f"{labelled}: no such file; expected rows of split, question and answer.")
    rows = _labelled(labelled)
    return Task(
        name=str(content.get("name", file.stem)),
        description=description.strip(),
        seeds=tuple(_question(seed, f"{file}: seeds[{index}]") for index, seed in enumerate(seeds)),
        preference=tuple(one for split, one in rows if split == "preference"),
        test=tuple(one for split, one in rows if split == "test"),
        techniques=_techniques(content.get("techniques", {}), file),
    )


def _yaml(file: UPath) -> dict[str, Any]:
    content = strict_yaml.read(file)
    if not isinstance(content, dict):
        raise TsalignError(f"{file}: expected a mapping with {', '.join(KEYS)}")
    return content


def _labelled(file: UPath) -> list[tuple[Split, Question]]:
    rows: list[tuple[Split, Question]] = []
    seen: dict[str, int] = {}
    for line, raw in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        if not raw.strip():
            continue
        where = f"{file}:{line}"
        try:
            row = json.loads(raw)
        except json.JSONDecodeError as error:
            raise TsalignError(f"{where}: not JSON: {error.msg}, column {error.colno}") from error
        one = _question(row, where)
        if row.get("split") not in get_args(Split):
            raise TsalignError(f"{where}: split: expected {' or '.join(get_args(Split))}, got {row.get('split')!r}")
        if one.question in seen:
            raise TsalignError(f"{where}: the same question as in line {seen[one.question]}; ask each question once.")
        seen[one.question] = line
        rows.append((row["split"], one))
    if missing := set(get_args(Split)) - {split for split, _ in rows}:
        raise TsalignError(f"{file}: no row with split {min(missing)!r}; a task needs both preference and test rows.")
    return rows


def _question(row: Any, where: str) -> Question:
    if not isinstance(row, dict):
        raise TsalignError(f"{where}: expected an object with question and answer, got {type(row).__name__}")
    for name in ("question", "answer"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise TsalignError(f"{where}: {name}: expected text, got {row.get(name)!r}; quote numbers.")
    return Question(row["question"].strip(), row["answer"].strip(), str(row.get("rationale", "")).strip())


def _techniques(content: Any, file: UPath) -> dict[str, str]:
    """Name -> template text; a value is Jinja text, or the path of one, from the task's folder."""
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise TsalignError(f"{file}: techniques: expected a mapping of names to Jinja texts or paths")
    return {name: text_or_file(value, f"{file}: techniques.{name}", file.parent) for name, value in content.items()}
