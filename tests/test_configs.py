"""The configs that ship: all valid, all planned, and one run for real on prompts from a file, with vLLM."""

from __future__ import annotations

import json
import shlex
import socket
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tsalign
from tsalign.api import load
from tsalign.cli import app
from tsalign.config import parse_assignments
from tsalign.recipes import find, with_quickstart

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


QUICKSTARTS = [find(name).quickstart for name in with_quickstart()]
# Prompts that are here instead of those that are not, and a total that only the plan of that recipe has.
PLANNED = {
    "ts-align": ("data.prompts=toy:train", "teacher calls"),
    "pad": ("data.prompts=toy:train", "teacher questions"),
    "arte": ("tasks=[toy:arte]", "teacher rationales"),
    "citing": ("data.prompts=toy:train", "teacher revisions"),
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine without a network and without the clouds' packages, in an empty folder."""

    def unreachable(*_: object) -> None:
        raise AssertionError("a plan asked the network")

    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(socket.socket, "connect", unreachable)
    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("path", [*CONFIGS, *QUICKSTARTS], ids=lambda path: f"{path.parent.stem}/{path.stem}")
def test_configs_are_valid_and_planned(path: Path) -> None:
    prompts, expected = PLANNED[load(path, {}).recipe]
    as_it_is = CliRunner().invoke(app, ["plan", str(path)])
    assert as_it_is.exit_code == 0, as_it_is.output
    # What is not here is named, and what depends on it is unknown.
    assert ("not counted" in as_it_is.stdout) == ("unknown" in as_it_is.stdout) == (path in CONFIGS)
    counted = CliRunner().invoke(app, ["plan", str(path), prompts])
    assert counted.exit_code == 0, counted.output
    assert "unknown" not in counted.stdout
    for result in (as_it_is, counted):
        assert expected in result.stdout
        assert "Nothing was started." in result.stdout


def test_every_recipe_has_a_config_at_the_scale_of_its_paper() -> None:
    assert {load(path, {}).recipe for path in CONFIGS if path.stem.endswith("_paper")} == set(PLANNED)


@pytest.mark.parametrize("recipe", list(PLANNED))
def test_the_commands_of_a_recipe_are_valid(recipe: str) -> None:
    """Each recipe's module opens with the commands for one GPU and for eight."""
    text = sys.modules[find(recipe).function.__module__].__doc__ or ""
    commands = [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.startswith("    tsalign run")]
    assert len(commands) == 2
    for command, gpus in zip(commands, (1, 8)):
        _, _, path, *pairs = shlex.split(command)
        config = load(ROOT / path, parse_assignments(pairs))
        assert config.recipe == recipe
        sizes = [config.resources.sample, config.resources.score, config.resources.train_policy]
        assert max(size.replicas * size.actor_gpus for size in sizes) <= gpus


INSTRUCTIONS = [
    {"instruction": f"Rewrite the sentence {index} times, politely.", "input": "Give me the book!", "output": "..."}
    for index in range(40)
]


def test_any_prompts_with_vllm_on_cpu(tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "instructions.json"
    prompts.write_text(json.dumps(INSTRUCTIONS))
    summary = tsalign.run(
        ROOT / "configs" / "any_prompts.yaml",
        run="mine",
        data__prompts=str(prompts),
        data__eval_fraction=0.3,
        sampling__max_tokens=8,
    )
    assert summary["status"] == "done"
    (iteration,) = summary["iterations"]
    won = iteration["reports"]["evaluation"]["table"]["columns"]["win rate"]
    assert set(won["values"]) == {"held_out"}
    assert won["mean"] == summary["results"]["win rate T=1.0"]
    assert summary["cost"]["alignment"]["teacher"]["calls"] > 0
    ledger = [json.loads(line) for line in (tmp_path / "runs" / "mine" / "ledger.jsonl").read_text().splitlines()]
    assert ("1/policy", "done") in {(entry.get("stage"), entry.get("state")) for entry in ledger}
