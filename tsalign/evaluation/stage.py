"""The evaluation stage: answers judged against those of another policy to the same prompts."""

from __future__ import annotations

from typing import Any

from upath import UPath

from tsalign.common.progress import unseen
from tsalign.common.storage import write_json
from tsalign.config import EvaluationConfig
from tsalign.data.shards import Row, Shard, read_rows, take_counts
from tsalign.data.workers import map_shards
from tsalign.engines import Failed
from tsalign.evaluation.reporting import report_of, report_of_step
from tsalign.evaluation.summary import summarise
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.scoring import Item, Scorer, items, placement
from tsalign.scoring.stage import add_scores


@stage_function("evaluate", version=2, measures=True)
def evaluate(
    stage: Stage, answers: Dataset, base: Dataset, judge: Scorer, evaluation: EvaluationConfig, step: str = ""
) -> Dataset:
    """Verdicts on every answer, `summary.json` and a report beside them, and the win rates in the metrics.

    Args:
        answers: candidate sets of the policy for the held-out prompts, at each temperature.
        base: those of the policy that it is compared with, for the same prompts. With `score.judge` the judge sees
            the answers alone; without, each answer beside the base's of the same number.
        step: the step of a procedure that made the answers, where it is not the last.
    """
    arguments: dict[str, Any] = {"base": base, "judge": judge}
    verdicts = map_shards(stage, answers, EvaluationWorker, arguments, placement([judge], stage.resources))
    summary = summarise(verdicts, evaluation, stage.iteration, stage.seed)
    write_json(stage.out / "summary.json", summary)
    report = report_of_step(step, summary) if step else report_of(summary)
    report.write(stage.out)
    stage.log({f"win_rate_t{t}": rate["mean"] for t, rate in summary["win_rate"].items()})
    return verdicts


@evaluate.expects
def _expect_verdicts(
    stage: PlannedStage,
    answers: Dataset,
    base: Dataset,
    judge: Scorer,
    evaluation: EvaluationConfig,
    step: str = "",
) -> Dataset:
    judge.check(stage.plan)
    given = expected(answers)
    side_by_side = (times(given.rows, given.completions), 2.0)
    work = judge.work(*side_by_side) if judge.comparative else judge.work(given.rows, given.completions)
    stage.needs(judge.who, placement([judge], stage.resources), work)
    return stage.derived(given)


class EvaluationWorker:
    """Scores the answers, joined row by row with the base's answers to the same prompts."""

    def __init__(self, base: Dataset, judge: Scorer) -> None:
        self.base, self.judge, self.role = UPath(base.path), judge.load(), judge.who
        self.report = unseen

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        self.judge.report = self.report
        base = {row["prompt_id"]: row for row in read_rows(self.base / shard)}
        unmatched = [row["prompt_id"] for row in rows if row["prompt_id"] not in base]
        bad = [Failed("the base has no answer").row(missing) for missing in unmatched]
        rows = [row for row in rows if row["prompt_id"] in base]
        others = [base[row["prompt_id"]] for row in rows]
        known = all("score.judge" in other for other in others)
        failed = add_scores(rows, "score.judge", self.judge) if known else self._side_by_side(rows, others)
        bad += [failure.row(rows[index]["prompt_id"]) for index, failure in failed.items()]
        verdicts = [_verdict(row, other) for index, (row, other) in enumerate(zip(rows, others)) if index not in failed]
        return Shard(verdicts, bad, take_counts(self.judge, self.role, "judge"), self.judge.stop)

    def _side_by_side(self, rows: list[Row], others: list[Row]) -> dict[int, Failed]:
        """`score.judge` of rows and others, each answer judged in one group with the other's of the same number."""
        pairs = [
            (index, mine, theirs)
            for index, (row, other) in enumerate(zip(rows, others))
            for mine, theirs in zip(items(row), items(other))
        ]
        asked: list[Item] = []
        for group, (_, mine, theirs) in enumerate(pairs):
            asked += [mine._replace(group=group), theirs._replace(group=group)]
        scores = self.judge.scored(asked)
        failed: dict[int, Failed] = {}
        for row in (*rows, *others):
            row["score.judge"] = []
        for group, (index, _, _) in enumerate(pairs):
            both = scores[2 * group : 2 * group + 2]
            rows[index]["score.judge"].append(both[0])
            others[index]["score.judge"].append(both[1])
            if None in both:
                failed[index] = self.judge.failure("the judge gave no verdict", 2 * group, both)
        return failed


def _verdict(row: Row, base: Row) -> Row:
    likelihood = {
        name: one["score.initial"]
        for name, one in {"log_prob": row, "base_log_prob": base}.items()
        if "score.initial" in one
    }
    return {
        **{name: row[name] for name in ("prompt_id", "set", "prompt", "completions")},
        "base_completions": base["completions"],
        "temperature": [completion["temperature"] for completion in row["completions"]],
        **likelihood,
        "score.policy": row["score.judge"],
        "score.base": base["score.judge"],
    }
