r"""ARTE (arXiv 2406.19227): a teacher is aligned with what helps the student learn, then writes its training data.

On one GPU (a smaller teacher), and on eight:

    tsalign run configs/arte_paper.yaml storage=runs tasks=[tasks/bbh] \
      teacher.model=meta-llama/Meta-Llama-3-8B-Instruct \
      "resources={sample: {gpus: 1}, score: {gpus: 1}, train_teacher: {gpus: 1}, train_student: {gpus: 1}}"
    tsalign run configs/arte_paper.yaml storage=runs tasks=[tasks/bbh]

Left out of the paper's method: rationale prompts written by hand for each task (four general ones instead; a task may
bring its own), and validation questions written by GPT-4 (a task file has to have them).

Ours where the paper is silent: a question pair's completions hold as many questions as the prompt asks for, ties
between rationales are dropped, and draft rationales are written at `rationale_temperature`.
"""

from __future__ import annotations

from pathlib import Path

from tsalign.prompts import templates
from tsalign.recipes.arte.config import ARTEConfig, ItemsConfig
from tsalign.recipes.arte.drafting import draft, naive, techniques, write_rationales
from tsalign.recipes.arte.exact_match import Answering, answer, exact_match
from tsalign.recipes.arte.icl_accuracy import ICLAccuracy
from tsalign.recipes.arte.irt import select_items
from tsalign.recipes.arte.tailoring import Choice, pair_questions, pair_rationales, sft_rows
from tsalign.recipes.arte.tasks import Task, ask, only, read_tasks
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage_function import measuring
from tsalign.scoring.logprob import reference_scores
from tsalign.scoring.stage import score
from tsalign.training.stage import train

Tasks = tuple[Task, ...]
# Which rationale of a question the student learns: an aligned teacher writes one.
CHOICE: dict[str, Choice] = {"original-teacher": "best", "random-rationale": "random"}

FOLDER = Path(__file__).parent


@recipe("arte", ARTEConfig)
def arte(run: Run, cfg: ARTEConfig) -> None:
    """Draft, let the student score the drafts, align the teacher, write anew, teach the student, test it."""
    teacher, student = run.model(cfg.teacher, "teacher"), run.model(cfg.student, "student")
    texts, tasks = templates.texts(FOLDER, cfg.templates), run.read(read_tasks, cfg.tasks)
    if cfg.select_items:
        tasks = discriminative(run, cfg, cfg.select_items, tasks, texts["arte_answer"])
    held_out = run.stage("test", ask, tasks, "test")
    exam = Answering(texts["arte_answer"], tasks, cfg.shots)
    baseline = run.overlap(run.stage, "baseline", measuring(answer), student, held_out, exam, cfg.answering)

    # Knowledge elicitation: draft questions, and rationales by several techniques.
    drafted = run.stage("drafts", draft, teacher, tasks, texts["arte_questions"], cfg.drafts, cfg.writing)
    by_technique = (techniques(tasks, texts), cfg.drafts, cfg.writing, cfg.rationale_temperature)
    drafts = run.stage("rationales", write_rationales, teacher, drafted, *by_technique)
    # Preference collection: the student's accuracy with a draft as its only example.
    if cfg.ablation != "random-rationale":
        preference = {"student": ICLAccuracy(student, tasks, texts["arte_answer"], cfg.answering)}
        drafts = run.stage("scores", score, drafts, preference)
    # Preference alignment of the teacher, and tailored generation by it.
    if cfg.aligned_on:
        teacher = align(run, cfg, teacher, drafts, tasks, texts["arte_questions"])
        asked = run.stage("questions", draft, teacher, tasks, texts["arte_questions"], cfg.drafts, cfg.writing)
        naively = (naive(tasks, texts), cfg.drafts, cfg.writing, 0.0)
        drafts = run.stage("tailored", write_rationales, teacher, asked, *naively)
    # Supervised fine-tuning of the student.
    choice = CHOICE.get(cfg.ablation, "only")
    rows = run.stage("sft_rows", sft_rows, drafts, choice, texts["arte_answer"], cfg.rows_per_task)
    student = run.stage("student", train, student, [rows], cfg.tune, "student")
    run.stage("exact_match", exact_match, student, held_out, exam, cfg.answering, baseline.result())
    run.wait()


def align(run: Run, cfg: ARTEConfig, teacher: Model, scored: Dataset, tasks: Tasks, template: str) -> Model:
    """The teacher after DPO on both kinds of preferences, or on the one that the ablation leaves."""
    pairs = []
    if "questions" in cfg.aligned_on:
        pairs.append(run.stage("question_pairs", pair_questions, scored, tasks, template, cfg.pairs, cfg.drafts))
    if "rationales" in cfg.aligned_on:
        pairs.append(run.stage("rationale_pairs", pair_rationales, scored, cfg.pairs))
    reference = reference_scores(teacher, cfg.align, cfg.writing)
    referred = [run.stage(f"reference_{i}", score, part, reference) for i, part in enumerate(pairs)]
    return run.stage("teacher", train, teacher, referred, cfg.align, "teacher")


def discriminative(run: Run, cfg: ARTEConfig, items: ItemsConfig, tasks: Tasks, template: str) -> Tasks:
    """The tasks with those preference questions only that tell the models of `select_items` apart."""
    asked = run.stage("items", ask, tasks, "preference")
    exam = Answering(template, tasks, items.shots)
    subjects = [run.model(model, "select_items") for model in items.models]
    answered = [run.stage(f"items_{i}", answer, model, asked, exam, cfg.answering) for i, model in enumerate(subjects)]
    return only(tasks, run.stage("selected_items", select_items, answered, items.keep))
