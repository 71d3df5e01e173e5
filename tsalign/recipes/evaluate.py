"""Two models on the same prompts under one judge, without an alignment run: what `tsalign evaluate` does."""

from __future__ import annotations

from tsalign import procedures
from tsalign.config import EvaluateConfig
from tsalign.evaluation.exam import Exam
from tsalign.recipes import recipe
from tsalign.rubrics import rubrics_from
from tsalign.runs.artifacts import Dataset, writer_from
from tsalign.runs.run import Iteration, Run


@recipe("evaluate", EvaluateConfig)
def evaluate_models(run: Run, cfg: EvaluateConfig) -> None:
    """`model` answers by `procedure`, `against` directly; every step of the procedure is judged by itself."""
    exam = Exam(run, cfg, writer_from(cfg.against, "against"))
    for it in run.iterations(1):
        *steps, last = answers(it, cfg, exam).items()
        for name, made in steps:
            exam.judge(it, f"evaluation_{name}", made)
        exam.judge(it, "evaluation", last[1])


def answers(it: Iteration, cfg: EvaluateConfig, exam: Exam) -> dict[str, Dataset]:
    """The model's candidate sets, step by step."""
    model, temperatures = writer_from(cfg.model, "model"), cfg.evaluation.temperatures
    asked = ("model", model, exam.held_out, exam.sampling, temperatures)
    if cfg.rubrics is None or cfg.procedure == "direct":
        return procedures.direct(it, *asked)
    rubrics = rubrics_from(cfg.rubrics)
    if cfg.procedure == "guided":
        return procedures.guided(it, *asked, rubrics, cfg.templates)
    return procedures.rewrite(it, *asked, rubrics, cfg.passes, cfg.templates)
