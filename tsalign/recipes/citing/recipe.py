r"""CITING (arXiv 2310.02527): a teacher writes rubrics and revises the policy's answers; the policy learns to do so.

On one GPU, and on eight; the teacher is an API whose key is in OPENAI_API_KEY:

    tsalign run configs/citing_paper.yaml storage=runs data.prompts=alpaca.jsonl demonstrations=alpaca.jsonl \
      tune.offload_optimizer=true "resources={sample: {gpus: 1}, score: {gpus: 1}, train_policy: {gpus: 1}}"
    tsalign run configs/citing_paper.yaml storage=runs data.prompts=alpaca.jsonl demonstrations=alpaca.jsonl

Left out of the paper's method: the first fine-tuning on instructions; the policy comes with it.

Ours where the paper is silent: what a category is, how a rubric is found, the fallback, and the number of passes.
`method` exchanges what is learned for a control; each learns from as many rows.
"""

from __future__ import annotations

from pathlib import Path

from tsalign.data.prompts import load_prompts, portion
from tsalign.evaluation.exam import Exam
from tsalign.evaluation.procedures import Asked, direct
from tsalign.prompts import templates
from tsalign.recipes.citing.config import CITINGConfig
from tsalign.recipes.citing.procedures import guided_by, rewritten
from tsalign.recipes.citing.retrieval import match
from tsalign.recipes.citing.revision import Revision, demonstrate, prefer, revise
from tsalign.recipes.citing.rubrics import categorise, write_rubrics
from tsalign.runs.artifacts import Folder, Model
from tsalign.runs.iteration import Iteration
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.scoring.logprob import reference_scores
from tsalign.scoring.stage import score
from tsalign.stages.sampling import sample
from tsalign.training.stage import train

FOLDER = Path(__file__).parent


@recipe("citing", CITINGConfig)
def citing(run: Run, cfg: CITINGConfig) -> None:
    """Rubrics once; then answer, have the answers revised, learn to rewrite them, repeat."""
    base = policy = run.model(cfg.policy, "policy")
    teacher = run.model(cfg.teacher, "teacher")
    texts = templates.texts(FOLDER, cfg.templates)
    rewrite = None if cfg.method in ("sft", "revision-sft") else texts["citing_rewrite"]

    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation.sets, policy)
    exam = Exam(run, cfg, base, tokens_of=base)
    # Rubric crafting, and rubric matching.
    categories = run.stage("categories", categorise, prompts, cfg.rubrics)
    rubrics = run.stage("rubrics", write_rubrics, teacher, categories, texts["citing_rubric"], cfg.rubrics, cfg.writing)
    matched = run.stage("matched", match, prompts, rubrics)

    for it in run.iterations(cfg.iterations):
        # Curriculum: the current policy answers, the teacher revises by the rubric.
        asked = portion(matched, it.number, cfg.data)
        if cfg.demonstrations and cfg.imitates:
            rows = it.stage("demonstrations", demonstrate, asked, cfg.demonstrations, cfg.sampling.k, rewrite)
        else:
            drafts = it.stage("candidates", sample, policy, asked, cfg.sampling)
            revision = Revision(texts["citing_revise"], rewrite)
            rows = it.stage("revisions", revise, teacher, drafts, revision, cfg.writing)
        # Self-revision training: instruction, rubric and own answer -> revision.
        policy = it.stage("policy", train, policy, [rows], cfg.tune, "policy")
        if cfg.preference:
            reference = reference_scores(
                base if cfg.preference.reference == "initial" else policy, cfg.preference, cfg.sampling
            )
            pairs = it.stage("reference", score, it.stage("preferences", prefer, rows), reference)
            policy = it.stage("preferring", train, policy, [pairs], cfg.preference, "policy")
        run.overlap(examine, it, cfg, exam, policy, rubrics, texts["citing_rewrite"])
    run.wait()


def examine(it: Iteration, cfg: CITINGConfig, exam: Exam, policy: Model, rubrics: Folder, template: str) -> None:
    """The policy's answers by the method's procedure, those of each step judged by themselves."""
    asked = Asked("answers", policy, exam.held_out, exam.sampling, exam.cfg.temperatures)
    if cfg.method == "citing":
        answers = rewritten(it, asked, rubrics, template, cfg.passes)
    elif cfg.method == "rubric-sft":
        answers = guided_by(it, asked, rubrics, template)
    else:
        answers = direct(it, asked)
    exam.compare_steps(it, answers)
