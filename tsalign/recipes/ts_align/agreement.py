"""How often a student reward model orders completions as the teacher and the judge do, before and after an update."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from upath import UPath

from tsalign.common.storage import write_json
from tsalign.data.shards import Row, Shard, iterate, read_rows, take_counts
from tsalign.data.weights import has_head
from tsalign.data.workers import map_shards
from tsalign.engines import Failed
from tsalign.evaluation.metrics import agreements
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.report import Panel, Point, Report, Trend
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import Scorer
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import add_scores


@stage_function("ts_align/agreement", measures=True)
def agree(
    stage: Stage,
    verdicts: Dataset,
    base: Dataset,
    teacher: Scorer,
    students: tuple[Model, Model],
    temperature: float,
) -> Dataset:
    """Scores of teacher and students on pairs of completions at one temperature, `summary.json` and a report.

    Args:
        verdicts: of the newest policy's answers; its pairs are the `newest`.
        base: the initial policy's answers with `score.judge` and `score.teacher`; its pairs are the `fixed`.
        students: before and after this iteration's distillation.
    """
    arguments = {"base": base, "teacher": teacher, "students": students, "temperature": temperature}
    scored = map_shards(stage, verdicts, AgreementWorker, arguments, stage.resources.score)
    summary = agreement_rates(scored)
    write_json(stage.out / "summary.json", summary)
    report_of(summary).write(stage.out)
    stage.log({"student_agreement": summary["fixed"]["teacher"]["after"]})
    return scored


@agree.expects
def _expect_agreement(
    stage: PlannedStage,
    verdicts: Dataset,
    base: Dataset,
    teacher: Scorer,
    students: tuple[Model, Model],
    temperature: float,
) -> Dataset:
    for scorer in (teacher, *map(RewardModel, students)):
        scorer.check(stage.plan)
    judged = expected(verdicts)
    completions = times(judged.completions, 1 / judged.temperatures)
    stage.needs(teacher.who, stage.resources.score, teacher.work(judged.rows, completions))
    # Two students score the newest policy's completions and the initial one's.
    stage.needs(students[1].role, stage.resources.score, {"scores": times(judged.rows, completions, 4)})
    return stage.derived(judged)


class AgreementWorker:
    """Scores the newest policy's and the base's completions of the same prompts."""

    def __init__(self, base: Dataset, teacher: Scorer, students: tuple[Model, Model], temperature: float) -> None:
        self.base, self.temperature = UPath(base.path), temperature
        self.teacher, self.teacher_role = teacher.load(), teacher.who
        before, after = students
        self.student_role = after.role
        self.students = {"after": RewardModel(after).load()}
        if after == before:
            self.students["before"] = self.students["after"]
        elif has_head(before):  # else the training made it a reward model, and before there is nothing to compare
            self.students["before"] = RewardModel(before).load()

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        base = {row["prompt_id"]: row for row in read_rows(self.base / shard)}
        newest = [self._pairs({**row, "score.judge": row["score.policy"]}) for row in rows]
        fixed = [self._pairs(base[row["prompt_id"]]) for row in rows]
        failed: dict[int, Failed] = {}
        for pairs in (newest, fixed):
            for name, student in self.students.items():
                failed |= add_scores(pairs, f"score.{name}", student)
        failed |= add_scores(newest, "score.teacher", self.teacher)
        bad = [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        good = [i for i in range(len(rows)) if i not in failed]
        return Shard([_joined(rows[i], newest[i], fixed[i]) for i in good], bad, self._asked(), self.teacher.stop)

    def _asked(self) -> dict[str, float]:
        """What teacher and students counted; a student that both names hold has nothing left the second time."""
        counts = take_counts(self.teacher, self.teacher_role, "teacher")
        for student in self.students.values():
            for name, amount in take_counts(student, self.student_role, "student").items():
                counts[name] = counts.get(name, 0.0) + amount
        return counts

    def _pairs(self, row: Row) -> Row:
        """The row with the completions at the temperature only, and their known scores."""
        at = [i for i, completion in enumerate(row["completions"]) if completion["temperature"] == self.temperature]
        scores: Row = {name: [row[name][i] for i in at] for name in ("score.judge", "score.teacher") if name in row}
        return {"prompt": row["prompt"], "completions": [row["completions"][i] for i in at], **scores}


def _joined(row: Row, newest: Row, fixed: Row) -> Row:
    return {
        **{name: row[name] for name in ("prompt_id", "set")},
        **{f"newest.{name[6:]}": newest[name] for name in newest if name.startswith("score.")},
        **{f"fixed.{name[6:]}": fixed[name] for name in fixed if name.startswith("score.")},
    }


def agreement_rates(scored: Dataset) -> dict[str, Any]:
    """Agreement of the student before and after with teacher and judge, and of teacher with judge."""
    counted: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in iterate([scored]):
        for pairs in ("fixed", "newest"):
            for authority in ("teacher", "judge"):
                for who in ("before", "after", "teacher"):
                    if (scores := row.get(f"{pairs}.{who}")) is None:
                        continue
                    agreeing, count = agreements(row[f"{pairs}.{authority}"], scores)
                    total = counted[pairs, authority, who]
                    total[0] += agreeing
                    total[1] += count

    def share(*key: str) -> float | None:
        agreeing, count = counted[key]  # type: ignore[index]
        return agreeing / count if count else None

    return {
        pairs: {
            authority: {who: share(pairs, authority, who) for who in ("before", "after")}
            for authority in ("teacher", "judge")
        }
        | {"teacher_judge": share(pairs, "judge", "teacher")}
        for pairs in ("fixed", "newest")
    }


def report_of(summary: dict[str, Any]) -> Report:
    """How the student's agreement with the teacher went; it is unknown where no two scores differ."""
    fixed, newest = summary["fixed"]["teacher"], summary["newest"]["teacher"]
    curves = {
        "base policy's pairs": Point(fixed["after"], before=fixed["before"]),
        "newest pairs": Point(newest["after"], before=newest["before"]),
    }
    return Report(
        results={} if fixed["after"] is None else {"agreement": fixed["after"]},
        trends={"student ~ teacher": Trend(fixed["before"], fixed["after"])},
        panels={"Student's agreement with the teacher": Panel(curves, percent=True)},
    )
