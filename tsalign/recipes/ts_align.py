"""TS-Align (arXiv 2405.20215): a student proposes the pair, a teacher decides it, both policy and student learn.

Ours where the paper is silent: the student is updated before the policy, keeps a replay share of its earlier
preferences, and `mining.refresh` (off by default) updates it on random pairs before it selects.
"""

from __future__ import annotations

from tsalign.config import MiningConfig, TSAlignConfig
from tsalign.data.preferences import load_preferences
from tsalign.data.prompts import load_evaluation, load_prompts, portion
from tsalign.evaluation.stage import evaluate, judge_from
from tsalign.mining import mine
from tsalign.recipes import recipe
from tsalign.runs.artifacts import model_from
from tsalign.runs.run import Run
from tsalign.sampling import sample
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import score
from tsalign.teacher.service import Teacher
from tsalign.training.stage import train

RANDOM = MiningConfig(strategy="random")
SELECTED_BY_STUDENT = ("ts-align", "off-policy", "student-only")


@recipe("ts-align", TSAlignConfig)
def ts_align(run: Run, cfg: TSAlignConfig) -> None:
    """Sample K, let the student rank them and the teacher re-rank best against worst; distil, tune, repeat."""
    base = policy = model_from(cfg.policy, "policy")
    student = model_from(cfg.student, "student")
    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation, policy)
    held_out = run.stage("held_out", load_evaluation, cfg.data, cfg.evaluation, policy)
    exam = cfg.sampling.model_copy(update={"k": cfg.evaluation.k})
    judge = judge_from(cfg.evaluation)
    known = [run.stage("known", load_preferences, cfg.student_preferences)] if cfg.student_preferences else []

    with Teacher(cfg.teacher) as service:
        teacher = service.client()
        answers = run.stage("base_answers", sample, base, held_out, exam, cfg.evaluation.temperatures)
        reference_answers = run.stage("base_scores", score, answers, {"judge": judge, "teacher": teacher})

        for it in run.iterations(cfg.iterations):
            previous, student_before, refresh = policy, student, cfg.mining.refresh
            writer = base if cfg.mining.strategy == "off-policy" else policy
            candidates = it.stage("candidates", sample, writer, portion(prompts, it.number, cfg.data), cfg.sampling)

            preferences = []
            if refresh:
                preferences += [
                    it.stage("refresh_preferences", mine, candidates, teacher, RANDOM, share=(0.0, refresh))
                ]
                student = it.stage("student", train, student, preferences, cfg.distill, "student", known)
            if cfg.mining.strategy in SELECTED_BY_STUDENT:
                ranker = {"student": RewardModel(student)}
                candidates = it.stage("scores", score, candidates, ranker, share=(refresh, 1.0))
            preferences += [it.stage("preferences", mine, candidates, teacher, cfg.mining)]
            if cfg.mining.strategy != "student-only" and not refresh:
                student = it.stage("student", train, student, preferences, cfg.distill, "student", known)
            known += preferences

            reference = base if cfg.tune.reference == "initial" else previous
            logged = [
                it.stage(f"reference_{i}", score, part, {"reference": LogProb(reference)})
                for i, part in enumerate(preferences)
            ]
            policy = it.stage("policy", train, policy, logged, cfg.tune, "policy")

            answers = it.stage("answers", sample, policy, held_out, exam, cfg.evaluation.temperatures)
            students = (student_before, student)
            it.stage("evaluation", evaluate, answers, reference_answers, cfg.evaluation, teacher, students)
