"""The scripts of `ray_jobs/`: what they take of a config, and the stages of TS-Align one by one."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from upath import UPath

from tsalign import api
from tsalign.cli.scripts import only
from tsalign.common.errors import TsalignError
from tsalign.recipes import find
from tsalign.runs.artifacts import Model
from tsalign.runs.dry_run import plan
from tsalign.runs.ledger import Ledger

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "ray_jobs").glob("*.py"))
SINGLE = {"sample": "sampling", "mine": "mining", "distill": "distilling", "tune": "tuning"}
STAGES = {
    "sample": ["prompts", "candidates"],
    "mine": ["candidates", "scores", "preferences"],
    "distill": ["preferences", "student"],
    "tune": ["preferences", "reference", "policy"],
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_line_at_its_top_starts_it(path: Path) -> None:
    [line] = re.findall(r"ray job submit(?:.*\\\n)?.*", path.read_text())
    words = shlex.split(line.replace("\\\n", ""))
    command = words[words.index("--") + 1 :]
    assert command[:3] == ["python", f"ray_jobs/{path.name}", "--config"]
    assert command[3].startswith("configs/") <= (ROOT / command[3]).exists()


@pytest.mark.parametrize("name", SINGLE)
def test_a_script_takes_its_keys_of_any_config(name: str) -> None:
    content = yaml.safe_load((ROOT / "configs" / "ts_align_paper.yaml").read_text())
    given = {"storage": "/shared/runs", "run": "demo", "data.prompts": "toy:train"}
    files = {"candidates": "toy:train"} if name == "mine" else {"preferences": "toy:student_preferences"}
    content |= {"run": "demo", "data": {"prompts": "toy:train"}, **({} if name == "sample" else files)}
    config = api.load(only(f"ray_jobs.{name}:{SINGLE[name]}", content, {}), {})
    assert config.run == f"demo-{name}"
    assert config.resources.sample.replicas == 24
    planned = [need.stage for need in plan(config, find(config.recipe).function).needs]
    assert planned == STAGES[name]
    assert only("evaluate", content, given)["run"] == "demo"


def test_a_key_that_a_script_does_not_take_is_told() -> None:
    content = {"policy": {"model": "m"}, "tune": {"reference": "initial"}, "preferences": "p.jsonl", "nonsense": 1}
    recipe = "ray_jobs.tune:tuning"
    assert "nonsense" not in only(recipe, content, {})
    with pytest.raises(TsalignError, match="nonsense: unknown key"):
        api.load(only(recipe, content, {"nonsense": 1}), {})


@pytest.mark.slow
def test_one_stage_after_the_other(
    ray_session: None, models: dict[str, Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": f"add {n} 1"}) + "\n" for n in range(8)))
    quick = {"batch_size": 4, "precision": "fp32", "zero_stage": 0}
    config = {
        "recipe": "ts-align",
        "run": "demo",
        "storage": str(tmp_path / "runs"),
        "policy": {"model": models["policy"].path},
        "student": {"model": models["student"].path},
        "mining": {"strategy": "student-only"},
        "data": {"prompts": str(tmp_path / "prompts.jsonl")},
        "sampling": {"engine": "hf", "k": 3, "max_tokens": 8, "max_model_len": 128},
        "distill": quick,
        "tune": {"reference": "initial", **quick},
        "evaluation": {"judge": "tsalign.toy.oracle:grade"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    runs = tmp_path / "runs"
    made = {
        "sample": "",
        "mine": f"candidates={runs}/demo-sample/candidates/part-*.parquet",
        "distill": f"preferences={runs}/demo-mine/preferences/preferences.jsonl",
        "tune": f"preferences={runs}/demo-mine/preferences/part-*.parquet",
    }
    for name, given in made.items():
        argv = [f"{name}.py", "--config", str(tmp_path / "config.yaml"), *([given] if given else [])]
        monkeypatch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "ray_jobs" / f"{name}.py"), run_name="__main__")
        assert ended.value.code == 0
        assert f"{runs}/demo-{name}/{STAGES[name][-1]}" in capsys.readouterr().out
        assert list(Ledger(UPath(runs / f"demo-{name}" / "ledger.jsonl")).done()) == STAGES[name]
    assert (runs / "demo-tune" / "policy" / "model.safetensors").exists()
