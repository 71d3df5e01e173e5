"""A policy that says one word for ever, evaluated for real: the win rate comes with one clear warning, everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner
from upath import UPath

from tsalign.cli import app
from tsalign.common.registry import builtin
from tsalign.report.plots import plot_run
from tsalign.runs.report import read_report

WORD = "cat"


def parrot(folder: Path) -> Path:
    """The toy policy with all inputs alike, and all that comes of them turned into one word."""
    source = str(builtin("model", "toy:policy"))
    tokenizer, model = AutoTokenizer.from_pretrained(source), AutoModelForCausalLM.from_pretrained(source)
    model.config.tie_word_embeddings = False
    model.lm_head = torch.nn.Linear(model.config.hidden_size, model.config.vocab_size, bias=False)
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(1.0)
        state = model.model(input_ids=torch.tensor([[0, 1]])).last_hidden_state[0, -1]
        model.lm_head.weight.zero_()
        model.lm_head.weight[tokenizer.convert_tokens_to_ids(WORD)] = 50 * state / state.square().sum()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_policy_that_repeats_one_word_is_warned_of(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--against", "toy:policy", "--sets", "toy=toy:tune", "--judge", "tsalign.toy.oracle:grade"]
    small = ["evaluation.prompts_per_set=3", "sampling.engine=hf", "sampling.max_tokens=16"]
    command = ["evaluate", str(parrot(tmp_path / "parrot")), *arguments, "--run", "bad", *small]
    result = CliRunner().invoke(app, [*command, "sampling.max_model_len=128"])
    assert result.exit_code == 0, result.output
    printed = " ".join(result.stdout.split())
    assert "warning: 1/evaluation: the policy's answers" in printed
    assert "cut at max_tokens 0.0 % -> 100.0 %" in printed
    assert f"after {' '.join([WORD] * 16)}" in printed

    shown = json.loads(CliRunner().invoke(app, ["show", "bad", "--json"]).stdout)
    (warning,) = shown["warnings"]
    for reason in ("very unlikely under the initial policy", "repeat themselves (92.3 % of 4-grams", "much alike"):
        assert reason in warning
    report = read_report(UPath(tmp_path / "runs/bad/iterations/1/evaluation"))
    assert report is not None
    likely = report.panels["Log-prob under the initial policy"].points["per token"]
    assert likely.before is not None
    assert likely.value is not None
    assert likely.value < likely.before - 2
    assert [sample.after for sample in report.samples] == [" ".join([WORD] * 16)] * 2
    assert plot_run(UPath(tmp_path / "runs/bad")).exists()
