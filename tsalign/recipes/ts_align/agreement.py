"""How often a student reward model orders completions as the teacher and the judge do, before and after an update."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from upath import UPath

from tsalign.common.progress import unseen
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
from tsalign.scoring import Scorer, placement
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import add_scores


@stage_function("ts_align/newest_pairs", measures=True)
def newest_pairs(stage: Stage, verdicts: Dataset, teacher: Scorer, temperature: float) -> Dataset:
    """The newest policy's completions at one temperature, with the judge's scores and the teacher's.

    A stage of its own, so that what waits for the teacher holds no GPU that the teacher may need.
    """
    arguments = {"teacher": teacher, "temperature": temperature}
    return map_shards(stage, verdicts, PairsWorker, arguments, placement([teacher], stage.resources))


@newest_pairs.expects
def _expect_pairs(stage: PlannedStage, verdicts: Dataset, teacher: Scorer, temperature: float) -> Dataset:
    teacher.check(stage.plan)
    judged = expected(verdicts)
    completions = times(judged.completions, 1 / judged.temperatures)
    stage.needs(teacher.who, placement([teacher], stage.resources), teacher.work(judged.rows, completions))
    return stage.derived(judged, completions=completions, temperatures=1)


class PairsWorker:
    """Asks the teacher about the completions at one temperature."""

    def __init__(self, teacher: Scorer, temperature: float) -> None:
        self.teacher, self.role, self.temperature, self.report = teacher.load(), teacher.who, temperature, unseen
        self.teacher.report = lambda share: self.report(share)

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        pairs = [at_temperature({**row, "score.judge": row["score.policy"]}, self.temperature) for row in rows]
        failed = add_scores(pairs, "score.teacher", self.teacher)
        good = [row for index, row in enumerate(pairs) if index not in failed]
        bad = [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        return Shard(good, bad, take_counts(self.teacher, self.role, "teacher"), self.teacher.stop)


def at_temperature(row: Row, temperature: float) -> Row:
    """The row with its completions at one temperature only, and their known scores."""
    at = [i for i, completion in enumerate(row["completions"]) if completion["temperature"] == temperature]
    scores: Row = {name: [row[name][i] for i in at] for name in ("score.judge", "score.teacher") if name in row}
    known = {name: row[name] for name in ("prompt_id", "set", "prompt")}
    return {**known, "completions": [row["completions"][i] for i in at], **scores}


@stage_function("ts_align/agreement", version=2, measures=True)
def agree(stage: Stage, newest: Dataset, base: Dataset, students: tuple[Model, Model], temperature: float) -> Dataset:
    """Scores of the students on pairs of completions at one temperature, `summary.json` and a report.

    Args:
        newest: the newest policy's answers with `score.judge` and `score.teacher`; its pairs are the `newest`.
        base: the initial policy's answers with the same; its pairs are the `fixed`.
        students: before and after this iteration's distillation.
    """
    arguments = {"base": base, "students": students, "temperature": temperature}
    scored = map_shards(stage, newest, AgreementWorker, arguments, stage.resources.score)
    summary = agreement_rates(scored)
    write_json(stage.out / "summary.json", summary)
    report_of(summary).write(stage.out)
    stage.log({"student_agreement": summary["fixed"]["teacher"]["after"]})
    return scored


@agree.expects
def _expect_agreement(
    stage: PlannedStage, newest: Dataset, base: Dataset, students: tuple[Model, Model], temperature: float
) -> Dataset:
    for scorer in map(RewardModel, students):
        scorer.check(stage.plan)
    pairs = expected(newest)
    # Two students score the newest policy's completions and the initial one's.
    stage.needs(students[1].role, stage.resources.score, {"scores": times(pairs.rows, pairs.completions, 4)})
    return stage.derived(pairs)


class AgreementWorker:
    """Scores the newest policy's and the base's completions of the same prompts."""

    def __init__(self, base: Dataset, students: tuple[Model, Model], temperature: float) -> None:
        self.base, self.temperature = UPath(base.path), temperature
        before, after = students
        self.student_role = after.role
        self.students = {"after": RewardModel(after).load()}
        if after == before:
            self.students["before"] = self.students["after"]
        elif has_head(before):  # else the training made it a reward model, and before there is nothing to compare
            self.students["before"] = RewardModel(before).load()

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        base = {row["prompt_id"]: row for row in read_rows(self.base / shard)}
        fixed = [at_temperature(base[row["prompt_id"]], self.temperature) for row in rows]
        failed: dict[int, Failed] = {}
        for pairs in (rows, fixed):
            for name, student in self.students.items():
                failed |= add_scores(pairs, f"score.{name}", student)
        bad = [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        good = [_joined(rows[i], fixed[i]) for i in range(len(rows)) if i not in failed]
        return Shard(good, bad, self._asked())

    def _asked(self) -> dict[str, float]:
        """What the students counted; a student that both names hold has nothing left the second time."""
        counts: dict[str, float] = {}
        for student in self.students.values():
            for name, amount in take_counts(student, self.student_role, "student").items():
                counts[name] = counts.get(name, 0.0) + amount
        return counts


def _joined(newest: Row, fixed: Row) -> Row:
    return {
        **{name: newest[name] for name in ("prompt_id", "set")},
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
