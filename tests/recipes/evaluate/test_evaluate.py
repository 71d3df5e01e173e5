"""`tsalign evaluate` for real: two built-in models under the oracle, without a run of any recipe."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planned import check_against_plan
from typer.testing import CliRunner

from tsalign.cli import app


def test_two_models_on_the_same_prompts(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--against", "toy:policy", "--sets", "toy=toy:tune", "--judge", "tsalign.toy.oracle:grade"]
    small = ["evaluation.prompts_per_set=5", "evaluation.temperatures=[1.0,0.0]", "sampling.engine=hf"]
    sampling = ["sampling.max_tokens=16", "sampling.max_model_len=128"]
    result = CliRunner().invoke(app, ["evaluate", "toy:policy", *arguments, "--run", "self", *small, *sampling])
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "runs/self/iterations/1/evaluation/summary.json").read_text())
    # At temperature 0 the same model writes the same answers; at 1 each side draws from seeds of its own.
    assert summary["win_rate"]["0.0"]["mean"] == 0.5
    assert 0.3 < summary["win_rate"]["1.0"]["mean"] < 0.7
    assert summary["warnings"] == []  # a healthy model under its own eyes
    for beside in summary["quality"].values():
        assert beside["log_prob"] == pytest.approx(summary["quality"]["base"]["log_prob"], abs=0.3)
        assert (beside["cut"] < 0.2, beside["repetition"] < 0.1) == (True, True)
    assert set(summary["scores"]["base"]) == {"add", "sort", "reverse", "count", "upper", "max", "date"}
    assert "50.0 %" in result.stdout
    check_against_plan(tmp_path / "runs/self")
