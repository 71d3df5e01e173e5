"""Config errors name the key or line, what was expected, and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsalign.common.errors import TsalignError
from tsalign.config import CustomTrainConfig, override, parse_assignments, read_yaml, validate
from tsalign.recipes.pad.config import PADConfig
from tsalign.recipes.ts_align.config import TSAlignConfig


def minimal() -> dict[str, Any]:
    return {
        "recipe": "ts-align",
        "policy": {"model": "toy:policy"},
        "student": {"model": "toy:student"},
        "teacher": {},
        "data": {"prompts": "prompts.jsonl"},
        "evaluation": {"judge": "tsalign.toy.oracle:grade"},
        "tune": {"reference": "initial"},
    }


def complaint(changes: dict[str, Any]) -> str:
    with pytest.raises(TsalignError) as caught:
        validate(TSAlignConfig, override(minimal(), changes), "run.yaml")
    return str(caught.value)


def test_minimal_config_is_valid() -> None:
    config = validate(TSAlignConfig, minimal(), "run.yaml")
    assert (config.iterations, config.sampling.k, config.mining.strategy) == (3, 8, "ts-align")


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("tune.betta", "tune.beta"),
        ("iteration", "iterations"),
        ("resources.sample.replica", "resources.sample.replicas"),
        ("mining.stratgy", "mining.strategy"),
        ("beta", "tune.beta"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    message = complaint({key: 1})
    assert message.startswith(f"run.yaml: {key}: unknown key")
    assert f"did you mean {nearest}?" in message


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"distill.margn": 1}, "distill.margn: unknown key for margin_ranking; did you mean distill.margin?"),
        ({"distill.objective": "logistic", "distill.margn": 1}, "distill.margn: unknown key for logistic; did you"),
        (
            {"distill.objective": "my:Loss", "distill.gamma": 1},
            "unknown key for an objective of your own; valid here: ",
        ),
        ({"distill.objective": "margin"}, "distill.objective: expected margin_ranking, logistic, or module:Class (got"),
        ({"policy": "toy:policy"}, "policy: expected a block of keys (got 'toy:policy')"),
    ],
)
def test_blocks_of_a_union_know_their_own_keys(changes: dict[str, Any], problem: str) -> None:
    assert problem in complaint(changes)


@pytest.mark.parametrize(
    ("tune", "problem"),
    [
        ({"objective": "dpo", "reference": "previous", "group_size": 3}, "tune.group_size: unknown key for dpo; valid"),
        ({"betta": 1}, "tune.betta: unknown key for pad_ppd; did you mean tune.beta?"),
        ({"objective": "dppo"}, "tune.objective: expected one of 'pad_ppd', 'pad_vpd', 'pad_released', 'dpo', 'simpo'"),
        (3, "tune: expected a block of keys (got 3)"),
    ],
)
def test_each_objective_of_pad_has_its_own_keys(tune: Any, problem: str) -> None:
    content = {key: minimal()[key] for key in ("recipe", "policy", "data", "evaluation")}
    with pytest.raises(TsalignError) as caught:
        validate(PADConfig, {**content, "teacher": {"model": "toy:pad_teacher"}, "tune": tune}, "run.yaml")
    assert problem in str(caught.value)


def test_defaults_belong_to_the_objective() -> None:
    distill = [override(minimal(), {"distill.objective": name}) for name in ("margin_ranking", "logistic")]
    assert [validate(TSAlignConfig, content, "run.yaml").distill.margin for content in distill] == [1.0, 0.0]
    content = {key: minimal()[key] for key in ("recipe", "policy", "data", "evaluation")}
    tune = [{"objective": "pad_vpd"}, {"objective": "dpo", "reference": "previous"}, {"objective": "simpo"}]
    teacher = {"model": "toy:pad_teacher"}
    configs = [validate(PADConfig, {**content, "teacher": teacher, "tune": one}, "run.yaml") for one in tune]
    assert [config.tune.beta for config in configs] == [10.0, 0.1, 2.0]


def test_an_objective_of_your_own_keeps_its_options() -> None:
    own = {"objective": "my.losses:Focal", "options": {"gamma": 2}, "replay": 0.25}
    config = validate(TSAlignConfig, {**minimal(), "distill": own}, "run.yaml")
    assert isinstance(config.distill, CustomTrainConfig)
    assert (config.distill.options, config.distill.replay) == ({"gamma": 2}, 0.25)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("iterations", 0),
        ("sampling.k", 0),
        ("sampling.top_p", 1.5),
        ("data.max_bad_fraction", -0.1),
        ("tune.learning_rate", 0),
        ("tune.reference", "latest"),
        ("mining.strategy", "best"),
        ("run", "a/b"),
    ],
)
def test_value_out_of_range_names_key_and_value(key: str, value: object) -> None:
    message = complaint({key: value})
    assert f"run.yaml: {key}" in message
    assert repr(value) in message


def test_evaluation_needs_a_temperature() -> None:
    assert "evaluation.temperatures: expected at least 1 in the list (got [])" in complaint(
        {"evaluation.temperatures": []}
    )


def test_required_key() -> None:
    content = minimal()
    content["tune"] = {}
    with pytest.raises(TsalignError, match=r"tune\.reference: required, but not given"):
        validate(TSAlignConfig, content, "run.yaml")


def test_every_problem_in_one_message() -> None:
    message = complaint({"iterations": 0, "tune.betta": 1})
    assert "iterations" in message
    assert "tune.betta" in message


def test_refresh_needs_the_paper_strategy() -> None:
    assert "refresh works with strategy ts-align only" in complaint(
        {"mining.refresh": 0.5, "mining.strategy": "teacher-all"}
    )


def test_values_cannot_change_after_loading() -> None:
    config = validate(TSAlignConfig, minimal(), "run.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


def test_bad_yaml_names_the_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("recipe: ts-align\ndata: [1, 2\ntune: {}\n")
    with pytest.raises(TsalignError, match=r"bad\.yaml:\d+: not valid YAML"):
        read_yaml(bad)


def test_yaml_that_is_no_mapping(tmp_path: Path) -> None:
    bad = tmp_path / "list.yaml"
    bad.write_text("- a\n- b\n")
    with pytest.raises(TsalignError, match="expected a mapping of keys, got list"):
        read_yaml(bad)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TsalignError, match="no such config file"):
        read_yaml(tmp_path / "none.yaml")


def test_assignments_are_read_as_yaml() -> None:
    assert parse_assignments(["tune.beta=0.2", "evaluation.temperatures=[1.0, 0]", "run=a=b"]) == {
        "tune.beta": 0.2,
        "evaluation.temperatures": [1.0, 0],
        "run": "a=b",
    }


@pytest.mark.parametrize("pair", ["tune.beta", "=3"])
def test_assignment_without_key_or_value(pair: str) -> None:
    with pytest.raises(TsalignError, match=r"expected key\.path=value"):
        parse_assignments([pair])


def test_override_leaves_the_input_alone() -> None:
    content = minimal()
    changed = override(content, {"tune.beta": 0.2, "sampling.k": 4})
    assert (changed["tune"], changed["sampling"]) == ({"reference": "initial", "beta": 0.2}, {"k": 4})
    assert content == minimal()


def test_override_through_a_value() -> None:
    with pytest.raises(TsalignError, match="recipe is a value, not a block"):
        override(minimal(), {"recipe.name": 1})
