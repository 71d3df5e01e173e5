"""Config errors name the key or line, what was expected, and how to mend it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tsalign.common.errors import TsalignError
from tsalign.config import override, parse_assignments, read_yaml, validate
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
    ],
)
def test_unknown_key_names_the_nearest(key: str, nearest: str) -> None:
    message = complaint({key: 1})
    assert message.startswith(f"run.yaml: {key}: unknown key")
    assert f"did you mean {nearest}?" in message


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
    assert "temperatures needs at least one value" in complaint({"evaluation.temperatures": []})


def test_required_key() -> None:
    content = minimal()
    content["tune"] = {}
    with pytest.raises(TsalignError, match=r"tune\.reference: Field required"):
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
