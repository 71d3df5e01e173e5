"""What a user gets wrong, through the real command: exit code 2, one message that names it, and nothing started."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from tsalign.cli import app
from tsalign.recipes import find
from tsalign.runs.machine import shortages
from tsalign.runs.plan import Plan, PlannedStage
from tsalign.toy.names import model

CONFIG: dict[str, Any] = {
    "recipe": "ts-align",
    "run": "mine",
    "storage": "runs",
    "iterations": 1,
    "policy": {"model": "toy:policy"},
    "student": {"model": "toy:student"},
    "teacher": {"model": "toy:teacher"},
    "data": {"prompts": "prompts.jsonl"},
    "sampling": {"engine": "hf", "max_tokens": 16, "max_model_len": 128},
    "evaluation": {"judge": "tsalign.toy.oracle:grade", "sets": {"held": "held.jsonl"}},
    "tune": {"reference": "initial"},
}
FILES: dict[str, bytes] = {
    "prompts.jsonl": b'{"prompt": "hello"}\n' * 30,
    "held.jsonl": b'{"prompt": "good morning"}\n',
    "empty.jsonl": b"",
    "blank.jsonl": b"\n\n\n",
    "questions.jsonl": b'{"question": "why?", "id": 1}\n' * 30,
    "words.jsonl": b"hello\nworld\n",
    "object.json": b'{"prompt": "one object"}',
    "cut.json": b'[{"prompt": "a"}, {"pro',
    "cut.parquet": b"PAR1 and then nothing",
    "notes.txt": b"hello",
    "cut.jsonl.gz": b"\x1f\x8b\x08 not gzip",
    "replies.jsonl": b'{"prompt": "a", "chosen": "b"}\n',
    "binary.jinja": b"\xff\xfe\x00\x01" * 9,
    "a_file": b"x",
    "judge_broken.py": b"import no_such_module_anywhere\ndef grade(prompt, completion): return 1.0\n",
    "judge_syntax.py": b"def grade(prompt, completion:\n",
    "judge_raises.py": b"raise RuntimeError('not today')\n",
    "judge_wrong.py": b"NUMBER = 3\ndef grade(completion): return 1.0\n",
    "judge_fine.py": b"def grade(prompt, completion): return 1.0\n",
}
Call = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a config that can be run, and files that cannot be used."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a_folder").mkdir()
    pq.write_table(pa.table({"question": ["why?"] * 30}), tmp_path / "questions.parquet")
    pq.write_table(pa.table({"prompt": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return tmp_path


@pytest.fixture
def refused(place: Path) -> Call:
    """Calls the command, which has to refuse in one message, and gives that."""

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert (result.exit_code, result.stdout) == (2, ""), result.output or repr(result.exception)
        assert "Traceback" not in result.output
        assert result.stderr.strip()
        assert not (place / "runs").exists()
        return result.stderr.strip()

    return call


def test_the_config_that_the_faults_are_put_into_is_fine(place: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "config.yaml"])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "bad.yaml: is empty"),
        (b"# nothing\n", "bad.yaml: is empty"),
        (b"- a\n- b\n", "bad.yaml: expected a mapping of keys, got list"),
        (b"ts-align", "bad.yaml: expected a mapping of keys, got str"),
        (b"recipe: ts-align\nsystem: \xe9t\xe9\n", "bad.yaml:2: is not UTF-8"),
        ("recipe: ts-align".encode("utf-16"), "bad.yaml:1: is not UTF-8"),
        (b"recipe: ts-align\nrun: a\0b\n", "bad.yaml:2: not valid YAML: the character '\\x00'"),
        (b'recipe: ts-align\nrun: "a\\0b"\n', "bad.yaml:2: not valid YAML: the character"),
        (b"recipe: ts-align\ntune:\n\tbeta: 1\n", "bad.yaml:3: not valid YAML: found character '\\t'"),
        (b"recipe: ts-align\ndata: [1, 2\ntune: {}\n", "bad.yaml:3: not valid YAML"),
        (b"recipe: ts-align\nseed: 1\nseed: 2\n", "bad.yaml:3: not valid YAML: the key 'seed' is given twice"),
        (b"recipe: ts-align\ntune:\n  beta: 1\n  beta: 2\n", "bad.yaml:4: not valid YAML: the key 'beta'"),
        (b"recipe: ts-align\ndata: &d\n  prompts: *d\n", "stands for what contains it"),
        (b"a: &a [1, 1]\n" + b"".join(b"x%d: &x%d [%s]\n" % (n, n, b"*x%d, " % (n - 1) * 9 if n else b"*a") for n in range(9)), "more than 100,000 values"),  # noqa: E501
        (b"recipe: " + b"[" * 5000, "nested too deeply"),
        (b"recipe: ts-align\n" + b"# a long comment\n" * 70_000, "expected a YAML file of at most"),
        (b"recipe: ts-align\n---\nrecipe: pad\n", "bad.yaml:2: not valid YAML"),
        (b"recipe: !!python/object:os.system {}\n", "bad.yaml:1: not valid YAML"),
        (b"recipe: ts-align\nrun: 2024-13-45\n", "'2024-13-45' is no timestamp; quote it"),
        (b"recipe: ts-align\nseed: !!int x\n", "'x' is no int"),
        (b"run: x\n", "bad.yaml: recipe: required, but not given"),
        (b"recipe: 3\n", "bad.yaml: recipe: is 3"),
        (b"recipe: [ts-align]\n", "bad.yaml: recipe: is ['ts-align']"),
        (b"recipe: tsalign\n", "recipe: 'tsalign' is not one of ts-align"),
        (b"recipe: no_such:recipe\n", "recipe: 'no_such:recipe': No module named 'no_such'"),
        (b"recipe: json:dumps\n", "recipe: 'json:dumps' is a function; expected a function with @recipe"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config(place: Path, refused: Call, content: bytes, expected: str) -> None:
    (place / "bad.yaml").write_bytes(content)
    assert expected in refused("plan", "bad.yaml")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere.yaml"], "nowhere.yaml: no such config file"),
        (["a_folder"], "a_folder: is a folder"),
        (["a_file/config.yaml"], "a_file/config.yaml: no such config file"),
        (["config.yaml", "tune.beta"], "'tune.beta': expected key.path=value"),
        (["config.yaml", "=3"], "'=3': expected key.path=value"),
        (["config.yaml", "tune..beta=3"], "tune..beta: expected the names of keys with single dots"),
        (["config.yaml", ".=3"], ".: expected the names of keys"),
        (["config.yaml", "recipe.name=3"], "recipe.name: recipe is a value, not a block of keys"),
        (["config.yaml", "loggers=[]", "loggers.0=wandb"], "loggers.0: loggers is a list, not a block of keys"),
        (["config.yaml", "seed=[1"], "'seed=[1': the value is not valid YAML"),
        (["config.yaml", "tune={beta: 1, beta: 2}"], "the key 'beta' is given twice"),
        (["config.yaml", "data.prompts=*.jsonl"], "'data.prompts=*.jsonl': the value is not valid YAML"),
    ],
)
def test_what_the_command_line_gets_wrong(refused: Call, arguments: list[str], expected: str) -> None:
    assert expected in refused("plan", *arguments)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("iterations=true", "iterations: expected a whole number (got 'true')"),
        ("iterations=2.5", "iterations: expected a whole number (got 2.5)"),
        ("iterations=1000000", "iterations: Input should be less than or equal to 1000"),
        ("seed=-1", "seed: Input should be greater than or equal to 0"),
        ("tune.zero_stage=true", "tune.zero_stage: Input should be 0, 1, 2 or 3"),
        ("tune.learning_rate=.inf", "tune.learning_rate: expected a finite number (got inf)"),
        ("tune.beta=.nan", "tune.beta: expected a finite number (got nan)"),
        ("tune.beta=1e999", "tune.beta: expected a finite number"),
        ("tune.betas=[0.9, 1.5]", "tune.betas.1: Input should be less than 1"),
        ("evaluation.temperatures=[1.0, .nan]", "evaluation.temperatures.1: expected a finite number"),
        ("evaluation.temperatures=[-1]", "evaluation.temperatures.0: Input should be greater than or equal to 0"),
        ("evaluation.temperatures=1.0", "evaluation.temperatures: expected a list (got 1.0)"),
        ("evaluation.temperatures=[]", "evaluation.temperatures: expected at least 1 in the list"),
        ("evaluation.sets=[held.jsonl]", "evaluation.sets: expected a mapping of names to values"),
        ("evaluation.sets={1: held.jsonl}", "evaluation.sets.1"),
        ("sampling.stop=END", "sampling.stop: expected a list"),
        ("sampling.max_tokens=128", "max_tokens: 128 of max_model_len 128 leaves no room for a prompt"),
        ("sampling.engine=vlm", "sampling.engine: expected vllm, hf, openai"),
        ("sampling=3", "sampling: expected a block of keys (got 3)"),
        ("data=", "data: expected a block of keys (got None)"),
        ("data.prompts=3", "data.prompts: expected text; quote it (got 3)"),
        ("policy.model=", "policy.model: expected text"),
        ("run=2024-01-01", "run: expected text; quote it"),
        ("run=..", "run: expected letters, digits"),
        ("storage=''", "storage: expected text that is not empty"),
        ("loggers=[wandbb]", "loggers.0: Input should be 'tensorboard', 'wandb' or 'mlflow'"),
        ("resources.sample.gpus=1.5", "resources.sample.gpus: expected a share of one GPU"),
        ("teacher.gpus=2.5", "teacher.gpus: expected a share of one GPU"),
        ("teacher.url=http://", "teacher.url: expected a URL such as"),
        ("teacher.url='http://a b/v1'", "teacher.url: expected a URL such as"),
        ("teacher.url=http://host:99999", "teacher.url: expected a URL such as"),
        ("teacher.url=localhost", "teacher.url: expected a URL such as"),
        ("teacher.kind=rewrad", "teacher.kind: Input should be 'reward', 'judge' or 'generative'"),
        ("distill.objective=margin", "distill.objective: expected margin_ranking, logistic, or module:Class"),
    ],
)
def test_a_value_that_is_not_allowed(refused: Call, change: str, expected: str) -> None:
    message = refused("plan", "config.yaml", change)
    assert message.startswith("config.yaml: ")
    assert expected in message


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("tune.lr", "did you mean tune.learning_rate?"),
        ("lr", "did you mean distill.learning_rate or tune.learning_rate?"),
        ("distill.lr", "did you mean distill.learning_rate?"),
        ("tune.batch", "did you mean tune.batch_size?"),
        ("tune.num_epochs", "did you mean tune.epochs?"),
        ("tune.num-epochs", "did you mean tune.epochs?"),
        ("sampling.max_new_tokens", "did you mean sampling.max_tokens?"),
        ("sampling.temp", "did you mean sampling.temperature?"),
        ("sampling.n", "did you mean sampling.k?"),
        ("sampling.num_return_sequences", "did you mean sampling.k?"),
        ("sampling.learning_rate", "did you mean distill.learning_rate or tune.learning_rate?"),
        ("temperature", "did you mean sampling.temperature?"),
        ("judge", "did you mean evaluation.judge?"),
        ("evaluation.prompts", "did you mean data.prompts or"),
        ("resources.gpus", "did you mean resources.sample.gpus or"),
        ("resources.sample.num_gpus", "did you mean resources.sample.gpus?"),
        ("tune.margin", "did you mean distill.margin?"),
        ("tune.nothing_like_it", "valid here: objective, epochs,"),
    ],
)
def test_an_unknown_key_finds_its_block(refused: Call, key: str, expected: str) -> None:
    message = refused("plan", "config.yaml", f"{key}=1")
    assert f"config.yaml: {key}: unknown key" in message
    assert expected in message


# What a plan finds, and so a run before it starts.
CHECKED = [
    (["policy.model=./nowhere"], "policy.model: ./nowhere: no config.json there"),
    (["policy.model=a_file"], "policy.model: a_file: no config.json there"),
    (["policy.model=a_folder"], "policy.model: a_folder: no config.json there"),
    (["policy.model=no/such/model"], "policy.model: 'no/such/model': neither a folder that is here nor a hub id"),
    (["policy.model='two words'"], "policy.model: 'two words': neither a folder"),
    (["policy.model=''"], "policy.model: "),
    (["policy.model=toy:polcy"], "policy.model: toy:polcy: no such model; expected toy:policy"),
    (["policy.model=" + "x" * 5000], "policy.model: "),
    (["policy.model=toy:student"], "policy.model: "),
    (["student.model=toy:policy"], "student.model: "),
    (["teacher.model=./nowhere"], "teacher.model: ./nowhere: no config.json there"),
    (["teacher.model=toy:policy"], "teacher.model: "),
    (["teacher.kind=generative", "teacher.model=toy:policy"], "teacher.kind: a generative teacher only writes"),
    (["teacher.kind=judge"], "teacher.model: "),
    (["policy.chat_template=nowhere.jinja"], "policy.chat_template: "),
    (["policy.chat_template=binary.jinja"], "binary.jinja: is not UTF-8 text"),
    (["evaluation.judge=tsalign.toy.oracle:grad"], "evaluation.judge: judge 'tsalign.toy.oracle:grad': module"),
    (["evaluation.judge=no_such_module:grade"], "No module named 'no_such_module'"),
    (["evaluation.judge=grade"], "evaluation.judge: judge 'grade': "),
    (["evaluation.judge=''"], "evaluation.judge: judge '': "),
    (["evaluation.judge=a:b:c"], "evaluation.judge: judge 'a:b:c': "),
    (["evaluation.judge='rewardmodel:org/x'"], "did you mean reward_model:<model>?"),
    (["evaluation.judge='reward_model:'"], "judge.model: "),
    (["evaluation.judge='reward_model:./nowhere'"], "judge.model: ./nowhere: no config.json there"),
    (["evaluation.judge='reward_model:toy:policy'"], "judge.model: "),
    (["evaluation.judge='judge:x@htp://host'"], "judge: url: expected a URL such as"),
    (["evaluation.judge='judge:x@'"], "judge: url: expected a URL such as"),
    (["evaluation.judge=judge_broken:grade"], "No module named 'no_such_module_anywhere'"),
    (["evaluation.judge=judge_syntax:grade"], "SyntaxError: "),
    (["evaluation.judge=judge_raises:grade"], "RuntimeError: not today"),
    (["evaluation.judge=judge_wrong:grade"], "it is called with (prompt, completion)"),
    (["evaluation.judge=judge_wrong:NUMBER"], "not a function"),
    (["sampling.engine=openai"], "engine of the policy: openai needs an endpoint"),
    (["sampling.engine=no_such:Engine"], "engine of the policy: sampling.engine: 'no_such:Engine': No module"),
    (["resources.sample.tensor_parallel=2"], "resources.sample.tensor_parallel: not supported by hf"),
    (["sampling.engine=vllm", "sampling.max_model_len=9999"], "fewer than max_model_len 9999"),
    (["distill.objective=no_such:Loss"], "objective of the student: objective: 'no_such:Loss': No module"),
    (["data.prompts=empty.jsonl"], "data.prompts: empty.jsonl: has no rows"),
    (["data.prompts=blank.jsonl"], "data.prompts: blank.jsonl: has no rows"),
    (["data.prompts=empty.parquet"], "data.prompts: empty.parquet: has no rows"),
    (["data.prompts=questions.jsonl"], "questions.jsonl:1: has none of the columns prompt, messages, instruction"),
    (["data.prompts=questions.parquet"], "has none of the columns prompt, messages, instruction; found question"),
    (["data.prompts=words.jsonl"], "words.jsonl:1: not JSON"),
    (["data.prompts=object.json"], "object.json: cannot be read as .json: expected an array"),
    (["data.prompts=cut.json"], "cut.json: cannot be read as .json"),
    (["data.prompts=cut.parquet"], "cut.parquet: cannot be read as .parquet"),
    (["data.prompts=cut.jsonl.gz"], "cut.jsonl.gz: cannot be read as .jsonl"),
    (["data.prompts=notes.txt"], "notes.txt: unknown format; expected .jsonl"),
    (["data.prompts=a_folder"], "data.prompts: a_folder: no prompt file found"),
    (["data.prompts=[]"], "data.prompts: names no file of prompts"),
    (["data.prompts=''"], "data.prompts: is empty"),
    (["data.prompts=toy:trian"], "data.prompts: toy:trian: no such rows; expected toy:train"),
    (["evaluation.sets={}"], "evaluation: no prompts to evaluate on"),
    (["evaluation.sets={mine: empty.jsonl}"], "evaluation.sets.mine: empty.jsonl: has no rows"),
    (["evaluation.sets={mine: notes.txt}"], "evaluation.sets.mine: "),
    (["evaluation.sets={held_out: held.jsonl}", "data.eval_fraction=0.1"], "evaluation.sets: held_out is the name"),
    (["student_preferences=replies.jsonl"], "student_preferences: "),
    (["storage=a_file"], "storage: a_file: "),
    (["storage=a_file/runs"], "a_file is a file; expected a folder"),
    (["storage=/proc/runs"], "storage: /proc/runs: cannot be written"),
    (["storage=foo://bucket/runs"], "storage: foo://bucket/runs: no storage is known as foo://"),
]


@pytest.mark.parametrize(("changes", "expected"), CHECKED, ids=lambda value: " ".join(value)[:60])
def test_a_plan_checks_all_that_is_cheap(refused: Call, changes: list[str], expected: str) -> None:
    assert expected in refused("plan", "config.yaml", *changes)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        *CHECKED[::9],
        (["data.prompts=nowhere.jsonl"], "data.prompts: nowhere.jsonl: no prompt file found"),
        (["data.prompts='nothing-*.jsonl'"], "data.prompts: nothing-*.jsonl: no prompt file found"),
        (["evaluation.sets={mine: nowhere.jsonl}"], "evaluation.sets.mine: nowhere.jsonl: no prompt file found"),
        (["student_preferences=nowhere.jsonl"], "student_preferences: nowhere.jsonl: no prompt file found"),
        (["resources.sample.replicas=900"], "resources.sample: 900 x 1 CPU, for "),
        (["resources.score.gpus=64"], "resources.score: 1 x 1 CPU, 64 GPU, for "),
        (["resources.train_policy.cpus=900"], "resources.train_policy: 1 x 900 CPU, for policy: needs "),
        (["teacher.cpus=900"], "teacher: a replica needs "),
        (["teacher.host=0.0.0.0"], "teacher.host: 0.0.0.0 is open to the network"),
        (["loggers=[mlflow]"], "loggers: mlflow is not installed"),
        (["storage=.", "run=a_folder/.."], "run: expected letters, digits"),
    ],
    ids=lambda value: " ".join(value)[:60],
)
def test_a_run_checks_before_it_starts(
    refused: Call, monkeypatch: pytest.MonkeyPatch, changes: list[str], expected: str
) -> None:
    monkeypatch.delenv("TSALIGN_TEACHER_TOKEN", raising=False)
    assert expected in refused("run", "config.yaml", *changes)


def test_a_model_that_an_offline_machine_does_not_have(refused: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused("run", "config.yaml", "policy.model=org/none", "policy.revision=v1")
    assert "policy.model: org/none: not in the cache of this machine, and HF_HUB_OFFLINE is set" in message


def test_every_problem_is_in_one_message(refused: Call) -> None:
    changes = ["policy.model=./nowhere", "evaluation.judge=no:judge", "data.prompts=notes.txt", "storage=a_file"]
    for command in ("plan", "run"):
        lines = refused(command, "config.yaml", *changes).splitlines()
        assert [line.split(":")[0].strip() for line in lines] == [
            "storage",
            "policy.model",
            "data.prompts",
            "evaluation.judge",
        ]


def test_a_judge_in_the_working_directory_is_found(place: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "config.yaml", "evaluation.judge=judge_fine:grade"])
    assert result.exit_code == 0, result.output


def test_a_model_without_a_chat_template_is_told_before(place: Path, refused: Call) -> None:
    folder = shutil.copytree(model("policy"), place / "bare")
    (folder / "chat_template.jinja").unlink()
    message = refused("plan", "config.yaml", f"policy.model={folder}")
    assert f"policy.chat_template: {folder}: the tokenizer has no chat template" in message
    told = ["policy.chat_template='{{ messages[0].content }}'", f"policy.model={folder}"]
    assert CliRunner().invoke(app, ["plan", "config.yaml", *told]).exit_code == 0


def test_a_folder_that_is_not_a_run_is_left_alone(place: Path) -> None:
    mine = place / "mine"
    mine.mkdir()
    (mine / "config.yaml").write_text("precious: true\n")
    result = CliRunner().invoke(app, ["run", "config.yaml", "storage=."])
    assert (result.exit_code, f"run: {mine} is there and is not a run" in result.stderr) == (2, True)
    assert [path.name for path in mine.iterdir()] == ["config.yaml"]
    assert (mine / "config.yaml").read_text() == "precious: true\n"


def test_an_alias_is_overridden_in_one_place_only(place: Path) -> None:
    text = yaml.safe_dump({**CONFIG, "tune": None}) + "aliased: &x {reference: initial}\n"
    config = yaml.safe_load(text)
    config["tune"] = config["distill"] = config.pop("aliased")
    from tsalign.config import override

    changed = override(config, {"tune.beta": 0.2})
    assert (changed["tune"], changed["distill"]) == ({"reference": "initial", "beta": 0.2}, {"reference": "initial"})
    assert override({"tune": None}, {"tune.beta": 0.2}) == {"tune": {"beta": 0.2}}


def test_what_is_elsewhere_is_left_open_in_a_plan(place: Path) -> None:
    away = ["policy.model=s3://bucket/model", "data.prompts=s3://bucket/p.jsonl", "storage=s3://bucket/runs"]
    result = CliRunner().invoke(app, ["plan", "config.yaml", *away, "student.model=org/student"])
    assert result.exit_code == 0, result.output
    assert "not counted: s3://bucket/p.jsonl (not on this machine)" in result.stdout


def test_a_plan_says_what_would_not_fit_here(place: Path) -> None:
    result = CliRunner().invoke(app, ["plan", "config.yaml", "resources.train_policy.gpus=999"])
    assert result.exit_code == 0, result.output
    assert "does not fit here: resources.train_policy: 1 x 1 CPU, 999 GPU" in " ".join(result.stdout.split())


def test_a_service_and_those_that_ask_it_have_to_fit_together() -> None:
    from tsalign.config import ResourceConfig
    from tsalign.runs.plan import Service

    resources, plan = ResourceConfig(mine={"replicas": 2}), Plan()  # type: ignore[arg-type]
    plan.services.append(Service("teacher", 4, 1.0, 0.0))
    PlannedStage("preferences", 1, False, resources, plan).needs("teacher", resources.mine, {"calls": 1})
    assert list(shortages(plan, resources, {"CPU": 3})) == []
    (short,) = shortages(plan, resources, {"CPU": 2})
    assert short == "resources.mine: 2 x 1 CPU, for preferences: needs 1 more CPU than there is (2 CPU, 0 GPU)."


@pytest.mark.parametrize("recipe", ["ts-align", "pad", "citing", "arte"])
def test_a_plan_takes_well_below_two_seconds(recipe: str) -> None:
    quickstart = str(find(recipe).quickstart)
    CliRunner().invoke(app, ["plan", quickstart])  # imports
    began = time.process_time()
    assert CliRunner().invoke(app, ["plan", quickstart]).exit_code == 0
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ({"seeds": []}, "description: expected text"),
        ({"description": "Add.", "seeds": []}, "seeds: expected a list of questions"),
        ({"description": "Add.", "seeds": [{"question": "1 + 1", "answer": 2}]}, "quote numbers"),
    ],
)
def test_a_task_that_is_malformed(place: Path, refused: Call, task: dict[str, Any], expected: str) -> None:
    content = yaml.safe_load(find("arte").quickstart.read_text())  # type: ignore[union-attr]
    (place / "arte.yaml").write_text(yaml.safe_dump({**content, "tasks": ["task.yaml"]}))
    (place / "task.yaml").write_text(yaml.safe_dump(task))
    rows = [{"split": split, "question": f"a {split}?", "answer": "b"} for split in ("test", "preference")]
    (place / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert expected in refused("plan", "arte.yaml")


@pytest.mark.parametrize(
    ("command", "recipe", "changes", "expected"),
    [
        ("plan", "citing", ["method=sft", "demonstrations=questions.jsonl"], "demonstrations: "),
        ("plan", "citing", ["method=sft", "demonstrations=held.jsonl"], "held.jsonl:1: no reply; expected completion"),
        ("run", "citing", ["method=sft", "demonstrations=nowhere.jsonl"], "demonstrations: nowhere.jsonl: no prompt"),
        ("plan", "citing", ["rubrics.categories=held.jsonl"], "held.jsonl:1: category: expected text"),
        ("plan", "citing", ["rubrics.encoder.model=./nowhere"], "rubrics.encoder.model: ./nowhere: no config.json"),
        ("plan", "citing", ["teacher={url: htp://x, model: y}"], "teacher.url: expected a URL such as"),
        ("plan", "citing", ["templates={citing_rubrik: x}"], "templates.citing_rubrik: no such template"),
        ("plan", "pad", ["templates={pad_choice: nowhere.jinja}"], "templates.pad_choice: "),
        ("plan", "pad", ["teacher.model=toy:teacher"], "teacher.model: "),
        ("plan", "pad", ["keep=9"], "keep: cannot keep 9 of 5 responses"),
        ("run", "arte", ["tasks=[nowhere]"], "tasks: nowhere: no task found"),
        ("plan", "arte", ["answering.max_tokens=96"], "max_tokens: 96 of max_model_len 96"),
        ("plan", "arte", ["shots=[-1]"], "shots.0: Input should be greater than or equal to 0"),
    ],
)
def test_what_other_recipes_check(
    place: Path, refused: Call, command: str, recipe: str, changes: list[str], expected: str
) -> None:
    assert expected in refused(command, str(find(recipe).quickstart), *changes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["./nowhere", "--sets", "held.jsonl"], "model.model: ./nowhere: no config.json there"),
        (["toy:policy", "--sets", "nowhere.jsonl"], "evaluation.sets.nowhere: nowhere.jsonl: no prompt file found"),
        (["gpt@http://host:99999/v1", "--sets", "held.jsonl"], "model.url: expected a URL such as"),
        (["toy:policy", "--sets", "held.jsonl", "--procedure", "guidde"], "procedure.name: 'guidde' is not one of"),
        (["toy:policy", "--sets", "held.jsonl", "--run", "../x"], "run: expected letters, digits"),
    ],
)
def test_what_evaluate_checks(refused: Call, arguments: list[str], expected: str) -> None:
    judged = ["--against", "toy:policy", "--judge", "tsalign.toy.oracle:grade"]
    assert expected in refused("evaluate", *arguments, *judged)
