"""Two models on the same prompts under one judge, without an alignment run: what `tsalign evaluate` does."""

from __future__ import annotations

from tsalign.evaluation import procedures
from tsalign.evaluation.exam import Exam
from tsalign.evaluation.procedures import Asked
from tsalign.recipes.evaluate.config import EvaluateConfig
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run


@recipe("evaluate", EvaluateConfig)
def evaluate_models(run: Run, cfg: EvaluateConfig) -> None:
    """`model` answers by `procedure`, `against` directly; each step of the procedure is judged separately."""
    procedure = procedures.find(cfg.procedure.name)
    exam = Exam(run, cfg, run.model(cfg.against, "against"))
    asked = Asked("model", run.model(cfg.model, "model"), exam.held_out, exam.sampling, exam.cfg.temperatures)
    for it in run.iterations(1):
        exam.compare_steps(it, procedure.answer(it, asked, cfg.procedure.options()))
