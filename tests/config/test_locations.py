"""Which keys of a config name files and models."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from tsalign import api
from tsalign.config import ConfigModel
from tsalign.config.blocks import leaves
from tsalign.config.locations import locations
from tsalign.recipes import find, with_quickstart

EVALUATION = {"judge": "judge:/models/judge", "sets": {"easy": "easy.jsonl"}}


def named(content: dict[str, Any]) -> dict[str, str]:
    return {str(found): f"{found.kind} {found.name}" for found in locations(api.load(content, {}))}


def test_all_that_ts_align_names() -> None:
    content = {
        "recipe": "ts-align",
        "policy": {"model": "models/policy", "chat_template": "chat.jinja"},
        "student": {"model": "org/student", "chat_template": "{{ messages }}"},
        "teacher": {"model": "/models/teacher", "kind": "judge", "templates": {"judge_pair": "pair.jinja"}},
        "student_preferences": "earlier.jsonl",
        "data": {"prompts": ["a.jsonl", "toy:train"]},
        "evaluation": EVALUATION,
        "tune": {"reference": "initial"},
    }
    assert named(content) == {
        "policy.model": "model models/policy",
        "policy.chat_template": "text chat.jinja",
        "student.model": "model org/student",
        "teacher.model": "model /models/teacher",
        "teacher.templates.judge_pair": "text pair.jinja",
        "student_preferences": "files earlier.jsonl",
        "data.prompts.0": "files a.jsonl",
        "data.prompts.1": "files toy:train",
        "evaluation.sets.easy": "files easy.jsonl",
        "evaluation.judge": "model /models/judge",
    }


@pytest.mark.parametrize("judge", ["judge:gpt@https://host/v1", "my_module:grade", "tsalign.toy.oracle:grade"])
def test_what_is_behind_a_url_or_code_is_no_model(judge: str) -> None:
    content = {
        "recipe": "evaluate",
        "model": {"model": "gpt", "url": "https://host/v1"},
        "against": {"model": "org/old"},
        "procedure": {"name": "rewrite", "rubrics": "rubrics"},
        "evaluation": {**EVALUATION, "judge": judge},
    }
    found = {"against.model": "model org/old", "evaluation.sets.easy": "files easy.jsonl"}
    assert named(content) == {**found, "procedure.rubrics": "files rubrics"}


def test_models_in_lists() -> None:
    content = {
        "recipe": "arte",
        "teacher": {"model": "org/teacher"},
        "student": {"model": "org/student"},
        "tasks": ["tasks/a.yaml", "tasks"],
        "select_items": {"models": [{"model": "m/a", "chat_template": "t.jinja"}, {"model": "m/b"}]},
        "align": {"reference": "initial"},
        "tune": {},
    }
    found = named(content)
    assert found["select_items.models.0.chat_template"] == "text t.jinja"
    assert found["select_items.models.1.model"] == "model m/b"
    assert found["tasks.1"] == "files tasks"


WORDS = ("path of one", "Hugging Face model", "File ", "Files", "files", "prompt file", "Folder ")
NO_LOCATIONS = {("RunConfig", "storage"), ("EvaluateConfig", "data")}


def blocks_of(config: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if config not in seen:
        seen.add(config)
        for field in config.model_fields.values():
            for leaf in leaves(field.annotation):
                if isinstance(leaf, type) and issubclass(leaf, BaseModel):
                    blocks_of(leaf, seen)
    return seen


@pytest.mark.parametrize("recipe", [*with_quickstart(), "evaluate"])
def test_every_key_that_tells_of_a_file_is_marked(recipe: str) -> None:
    """A key whose description speaks of files, and that nobody marked, would stay behind when a run is sent away."""
    for block in blocks_of(find(recipe).config_type, set()):
        for name in block.__annotations__.keys() & block.model_fields.keys():
            field = block.model_fields[name]
            tells = any(word in (field.description or "") for word in WORDS)
            holds_text = any(leaf is str for leaf in leaves(field.annotation))
            if tells and holds_text and issubclass(block, ConfigModel) and (block.__name__, name) not in NO_LOCATIONS:
                assert any(isinstance(mark, str) for mark in field.metadata), f"{block.__name__}.{name}"
