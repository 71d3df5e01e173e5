"""What is checked before a run starts: models by their headers, files by their first rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.registry import builtin, is_builtin
from tsalign.common.storage import is_remote, resolve, text_or_file
from tsalign.data import weights
from tsalign.data.headers import read_object
from tsalign.data.sources import BadRow, Record, expand, find_files, read
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import ExpectedModel, Plan

FIRST_FILES, FIRST_ROWS = 20, 20
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")


def check_model(plan: Plan, model: Model, needs: weights.Needs) -> None:
    """Note what keeps a model of a config from being used; nothing is told of one that a stage would make."""
    if not isinstance(model, ExpectedModel) and plan.first(model.path, model.role, needs):
        with plan.checking(f"{model.role}.model"):
            weights.check(model, needs)
        with plan.checking(f"{model.role}.chat_template"):
            _check_chat_template(model)


def check_context(plan: Plan, model: Model, max_model_len: int) -> None:
    """Note where vLLM would refuse a model's folder, because texts may be longer than what the model was made for."""
    file = resolve(model.path) / "config.json"
    if isinstance(model, ExpectedModel) or not plan.first(model.path, max_model_len) or not file.exists():
        return
    with plan.checking(f"{model.role}.model"):
        content = read_object(file)
        longest = content.get("max_position_embeddings")
        stretched = content.get("rope_scaling") or dict(content.get("rope_parameters") or {}).get("factor")
        if isinstance(longest, int) and longest < max_model_len and not stretched:
            raise TsalignError(
                f"{model.path}: takes {longest} tokens (max_position_embeddings), fewer than max_model_len "
                f"{max_model_len}; lower max_model_len."
            )


def _check_chat_template(model: Model) -> None:
    folder = resolve(model.path)
    if model.chat_template:
        text_or_file(model.chat_template, f"{model.role}.chat_template")
    elif folder.exists() and not model.trust_remote_code and not _has_chat_template(folder):
        raise TsalignError(
            f"{folder}: the tokenizer has no chat template; set {model.role}.chat_template to Jinja text or the path "
            "of a file that holds it."
        )


def _has_chat_template(folder: UPath) -> bool:
    if any((folder / name).exists() for name in CHAT_TEMPLATES):
        return True
    settings = folder / "tokenizer_config.json"
    return settings.exists() and bool(read_object(settings).get("chat_template"))


def check_rows(plan: Plan, key: str, locations: Sequence[str], taken: Callable[[Record], Any]) -> None:
    """Note where a key names no files, files without rows, or files of which none of the first rows can be used.

    Args:
        taken: raises BadRow for a row that cannot be used.
    """
    if not plan.first(key, *locations):
        return
    if not locations:
        plan.problems.append(f"{key}: names no file of prompts.")
    for location in locations:
        with plan.checking(key):
            _check_location(plan, location, taken)


def _check_location(plan: Plan, location: str, taken: Callable[[Record], Any]) -> None:
    if not location.strip():
        raise TsalignError("is empty; expected a file, a folder or a glob.")
    if is_builtin(location):
        builtin("rows", location)  # that there are such rows
    if is_builtin(location) or is_remote(location):
        return
    asked = expand if plan.ready or resolve(location).is_dir() else find_files
    names = [str(file) for file in asked(location)]
    first = {name: list(islice(read([name]), FIRST_ROWS)) for name in names[:FIRST_FILES]}
    if first and len(names) == len(first) and not any(first.values()):
        raise TsalignError(f"{location}: has no rows.")
    for name, records in first.items():
        _check_first(name, records, taken)


def _check_first(name: str, records: Sequence[Record], taken: Callable[[Record], Any]) -> None:
    for record in reversed(records):
        try:
            return taken(record)
        except BadRow as error:
            found = f"; found {', '.join(map(str, record.row))}" if isinstance(record.row, dict) else ""
            reason = f"{name}:{record.line}: {error}{found}"
    if records:
        raise TsalignError(f"{reason}. None of its first {len(records)} rows can be used.")
    return None
