"""From a policy to what is said of its win rate, as the stages' workers do it: a healthy one, and one that repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from upath import UPath

from tsalign.common.registry import builtin
from tsalign.config import EvaluationConfig, SamplingConfig
from tsalign.data.shards import Row, Shard, write_shard
from tsalign.evaluation.reporting import report_of
from tsalign.evaluation.stage import EvaluationWorker
from tsalign.evaluation.summary import summarise
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.report import Report
from tsalign.scoring import scorer_from_name
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.stage import ScoreWorker
from tsalign.stages.generation import GenerationWorker
from tsalign.stages.sampling import Candidates
from tsalign.toy.world import tasks

WORD = "cat"
SHARD = "part-00000.parquet"
SAMPLING = SamplingConfig(engine="hf", k=2, max_tokens=16, max_model_len=128)
EVALUATION = EvaluationConfig(judge="tsalign.toy.oracle:grade")


def toy_policy() -> str:
    return str(builtin("model", "toy:policy"))


def parrot(folder: Path) -> str:
    """The toy policy with all inputs alike, and all that comes of them turned into one word."""
    tokenizer, model = AutoTokenizer.from_pretrained(toy_policy()), AutoModelForCausalLM.from_pretrained(toy_policy())
    model.config.tie_word_embeddings = False
    model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(1.0)
        state = model.model(input_ids=torch.tensor([[0, 1]])).last_hidden_state[0, -1]
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(WORD)] = 50 * state / state.square().sum()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def answers(path: str, seed: int) -> list[Row]:
    """Answers to toy prompts, with their log-prob under the initial policy."""
    asked: list[dict[str, Any]] = [
        {"prompt_id": task.prompt, "set": task.family, "prompt": task.messages, "prompt_ids": None}
        for task in tasks("tune", 0, 42)
    ]
    candidates = Candidates(SAMPLING, EVALUATION.temperatures, seed, "w")
    written = GenerationWorker(Model(path, path), candidates, SAMPLING, 1)(asked, SHARD)
    initial = LogProb(Model(toy_policy(), "base"), "mean")
    return ScoreWorker({"initial": initial}, (0.0, 1.0))(written.rows, SHARD).rows


def examined(path: str, folder: Path) -> tuple[dict[str, Any], Report]:
    """The summary of a policy's exam against the toy policy, and its report."""
    judge = scorer_from_name(EVALUATION.judge)
    write_shard(UPath(folder) / "base" / SHARD, Shard(answers(toy_policy(), 0)))
    verdicts = EvaluationWorker(Dataset(str(folder / "base"), "b"), judge)(answers(path, 1), SHARD)
    write_shard(UPath(folder) / "verdicts" / SHARD, verdicts)
    summary = summarise(Dataset(str(folder / "verdicts"), "v"), EVALUATION, 1, 0)
    return summary, report_of(summary)


def test_a_healthy_policy_is_not_doubted(tmp_path: Path) -> None:
    summary, report = examined(toy_policy(), tmp_path)
    assert report.warnings == ()
    base, policy = summary["quality"]["base"], summary["quality"]["policy"]
    assert policy["log_prob"] == pytest.approx(base["log_prob"], abs=0.4)
    assert (policy["cut"], policy["repetition"]) == pytest.approx((base["cut"], base["repetition"]), abs=0.05)
    assert len(report.samples) == 2


def test_a_policy_that_repeats_one_word_is_warned_of_in_one_line(tmp_path: Path) -> None:
    summary, report = examined(parrot(tmp_path / "parrot"), tmp_path)
    (warning,) = report.warnings
    for reason in (
        "are very unlikely under the initial policy (log-prob -",
        "repeat themselves (92.3 % of 4-grams, before: ",
        "are much alike (distinct-3 ",
        "and are cut at max_tokens (100.0 % of them, before: 0.0 %): the win rate may come from degenerate text",
    ):
        assert reason in warning
    assert [sample.after for sample in report.samples] == [" ".join([WORD] * 16)] * 2
    likely = report.panels["Log-prob under the initial policy"].points["per token"]
    assert (likely.before, likely.value) == tuple(summary["quality"][who]["log_prob"] for who in ("base", "policy"))
