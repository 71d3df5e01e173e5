r"""PAD (arXiv 2502.14272): a policy learns the teacher's distribution over the rankings of its own responses.

On one GPU, and on eight:

    tsalign run configs/pad_paper.yaml storage=runs data.prompts=prompts.jsonl \
      "resources={sample: {gpus: 1}, score: {gpus: 1}, train_policy: {gpus: 1}}"
    tsalign run configs/pad_paper.yaml storage=runs data.prompts=prompts.jsonl

Left out of the paper's method: its way of splitting a ranking into cheaper parts, which is not published; more than
`tune.group_size` responses are ranked in overlapping groups. Prompts that are too long are dropped, not truncated.

Ours: options are asked in both orders, the loop may be repeated, and there is an optional NLL term. `tune.objective`
also runs the paper's other losses, and DPO and SimPO on the best and the worst response, on the same samples.
"""

from __future__ import annotations

from pathlib import Path

from tsalign.config import DPOTrainConfig, SimPOTrainConfig
from tsalign.data.prompts import load_prompts, portion
from tsalign.evaluation.exam import Exam
from tsalign.prompts.templates import texts
from tsalign.recipes.pad.config import PADConfig
from tsalign.recipes.pad.diversity import diversify
from tsalign.recipes.pad.option_probability import OptionProbability
from tsalign.recipes.pad.rankings import pair, rank
from tsalign.runs.artifacts import Model
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.scoring import Scorer
from tsalign.scoring.logprob import LogProb, reference_scores
from tsalign.scoring.stage import score
from tsalign.stages.sampling import sample
from tsalign.training.stage import train

FOLDER = Path(__file__).parent


@recipe("pad", PADConfig)
def pad(run: Run, cfg: PADConfig) -> None:
    """Sample n, keep the most different, let the teacher score them, match its ranking; repeat."""
    base = policy = run.model(cfg.policy, "policy")
    scorers = teacher_scorers(cfg, run.model(cfg.teacher, "teacher"))
    prompts = run.stage("prompts", load_prompts, cfg.data, cfg.evaluation.sets, policy)
    exam = Exam(run, cfg, base, tokens_of=base)
    for it in run.iterations(cfg.iterations):
        # Sampling, and the selection of diverse responses.
        sampled = it.stage("candidates", sample, policy, portion(prompts, it.number, cfg.data), cfg.sampling)
        candidates = it.stage("diverse", diversify, sampled, cfg.keep)
        # Reward calibration: the teacher's log-likelihood and selection probability.
        scored = it.stage("scores", score, candidates, scorers)
        learnt = it.stage("rankings", rank, scored, cfg.scoring)
        # Preference distillation, or a baseline.
        if isinstance(cfg.tune, DPOTrainConfig | SimPOTrainConfig):
            learnt = it.stage("pairs", pair, learnt)
        if isinstance(cfg.tune, DPOTrainConfig):
            reference = reference_scores(base if cfg.tune.reference == "initial" else policy, cfg.tune, cfg.sampling)
            learnt = it.stage("reference", score, learnt, reference)
        policy = it.stage("policy", train, policy, [learnt], cfg.tune, "policy")
        run.overlap(exam.examine, it, policy)
    run.wait()


def teacher_scorers(cfg: PADConfig, teacher: Model) -> dict[str, Scorer]:
    """How likely the teacher finds a response, and how often it picks it; what has no weight is not asked."""
    scoring = cfg.scoring
    question = texts(FOLDER, cfg.templates)["pad_choice"]
    choice = OptionProbability(teacher, question, scoring.swap_options, scoring.max_option_tokens, scoring.inference)
    scorers: dict[str, Scorer] = {"logprob": LogProb(teacher, "mean", False, scoring.inference), "choice": choice}
    weights = {"logprob": scoring.alpha, "choice": 1 - scoring.alpha}
    return {name: scorer for name, scorer in scorers.items() if weights[name]}
