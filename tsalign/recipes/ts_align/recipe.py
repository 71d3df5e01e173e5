r"""TS-Align (arXiv 2405.20215): a student proposes the pair, a teacher decides it, both policy and student learn.

On one GPU, and on eight:

    tsalign run configs/ts_align_1gpu.yaml data.prompts=prompts.jsonl
    tsalign run configs/ts_align_paper.yaml storage=runs data.prompts=prompts.jsonl teacher.max_replicas=2 \
      "resources={sample: {replicas: 6, gpus: 1}, score: {replicas: 2, gpus: 1}, mine: {replicas: 2}, \
      train_policy: {replicas: 4, gpus: 1}, train_student: {replicas: 2, gpus: 1}}"

Left out of the paper's method: adapters; policy and student train all of their weights.

Ours where the paper is silent: the policy's update and the student's both start from this iteration's pairs, side by
side; the student replays a share of its earlier preferences; ties are dropped; and `mining.refresh` (off by default)
updates the student on random pairs before it selects.
"""

from __future__ import annotations

from tsalign.data.preferences import load_preferences
from tsalign.data.prompts import load_prompts, portion
from tsalign.evaluation.exam import Exam
from tsalign.recipes.ts_align.agreement import agree, newest_pairs
from tsalign.recipes.ts_align.config import MiningConfig, TSAlignConfig
from tsalign.recipes.ts_align.mining import mine
from tsalign.runs.artifacts import Model
from tsalign.runs.iteration import Iteration
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.scoring import Scorer
from tsalign.scoring.logprob import reference_scores
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import score
from tsalign.stages.sampling import sample
from tsalign.teacher.service import Teacher
from tsalign.training.stage import train

RANDOM = MiningConfig(strategy="random")
STUDENT_SELECTS = ("ts-align", "off-policy", "student-only")


@recipe("ts-align", TSAlignConfig)
def ts_align(run: Run, cfg: TSAlignConfig) -> None:
    """Sample K, let the student rank them and the teacher re-rank best against worst; distil, tune, repeat."""
    base = policy = run.model(cfg.policy, "policy")
    student = run.model(cfg.student, "student")
    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation.sets, policy)
    earlier = [run.stage("earlier", load_preferences, cfg.student_preferences)] if cfg.student_preferences else []

    with run.service(Teacher, cfg.teacher) as teacher:
        exam = Exam(run, cfg, base, {"teacher": teacher}, tokens_of=base)
        for it in run.iterations(cfg.iterations, streaming=cfg.pipeline == "streaming"):
            before, refresh = student, cfg.mining.refresh
            replay = (earlier, cfg.distill.replay)
            # Candidates: the current policy samples K responses.
            writer = base if cfg.mining.strategy == "off-policy" else policy
            candidates = it.stream("candidates", sample, writer, portion(prompts, it.number, cfg.data), cfg.sampling)

            # Preliminary pair: the student scores all K; its best and worst go to the teacher, which re-ranks the two.
            preferences = []
            if refresh:
                fresh = it.stream("fresh_preferences", mine, candidates, teacher, RANDOM, share=(0.0, refresh))
                preferences.append(fresh)
                student = it.stage("student", train, student, preferences, cfg.distill, "student", *replay)
            if cfg.mining.strategy in STUDENT_SELECTS:
                ranker = {"student": RewardModel(student)}
                candidates = it.stream("scores", score, candidates, ranker, share=(refresh, 1.0))
            preferences.append(it.stream("preferences", mine, candidates, teacher, cfg.mining))

            # Student update: the teacher's order is distilled into the student.
            learning = None
            if cfg.mining.strategy != "student-only" and not refresh:
                learning = run.overlap(
                    it.stage, "student", train, student, preferences, cfg.distill, "student", *replay
                )
            # Policy update: DPO on the same pairs.
            reference = reference_scores(base if cfg.tune.reference == "initial" else policy, cfg.tune, cfg.sampling)
            pairs = [it.stage(f"reference_{i}", score, part, reference) for i, part in enumerate(preferences)]
            policy = it.stage("policy", train, policy, pairs, cfg.tune, "policy")
            student = learning.result() if learning else student
            earlier = earlier + preferences
            run.overlap(examine, it, exam, policy, teacher, (before, student))
        run.wait()


def examine(it: Iteration, exam: Exam, policy: Model, teacher: Scorer, students: tuple[Model, Model]) -> None:
    """The new policy against the initial one, and the student before and after its update."""
    verdicts, temperature = exam.examine(it, policy), exam.cfg.temperatures[0]
    newest = it.stage("newest_pairs", newest_pairs, verdicts, teacher, temperature)
    it.stage("agreement", agree, newest, exam.base.result(), students, temperature)
