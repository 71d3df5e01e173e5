"""What a run asked of its models: calls and tokens, by the model's role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from upath import UPath

from tsalign.data.shards import UNREPORTED
from tsalign.report.attempts import asked_of_models


class Spent(TypedDict):
    """What was asked of one model: requests or items, and the tokens that it read and wrote, None if unknown."""

    calls: int
    tokens: int | None


Roles = dict[str, Spent]
NOTHING: Spent = {"calls": 0, "tokens": 0}


class Cost(TypedDict):
    """What stages asked, by role: all that was paid for, also by stages that failed or were done again.

    Attributes:
        alignment: without what only measures, such as the answers of an exam and the verdicts on them.
        measuring: the rest.
        prompts: asked in the alignment, over all iterations: candidate sets sampled.
        stages: stage -> role -> spent, for stages that ask a model.
    """

    alignment: Roles
    measuring: Roles
    prompts: int
    stages: dict[str, Roles]


def cost_of_run(run_dir: UPath) -> Cost:
    """From the counts `calls.<role>`, `tokens.<role>` and `prompts` in a run's ledger and committed shards."""
    asked = asked_of_models(run_dir)
    spent = [(one, roles) for one in asked if (roles := _by_role(one.counts))]
    stages: dict[str, Roles] = {}
    for one, roles in spent:
        stages[one.stage] = _total([stages.get(one.stage, {}), roles])
    return {
        "alignment": _total(roles for one, roles in spent if not one.measures),
        "measuring": _total(roles for one, roles in spent if one.measures),
        "prompts": int(sum(one.counts.get("prompts", 0) for one in asked if not one.measures)),
        "stages": stages,
    }


def _by_role(counts: Mapping[str, float]) -> Roles:
    units = (name.partition(".") for name in counts)
    roles = dict.fromkeys(role for unit, _, role in units if role and unit in ("calls", "tokens"))
    return {role: {"calls": int(counts.get(f"calls.{role}", 0)), "tokens": _tokens(counts, role)} for role in roles}


def _tokens(counts: Mapping[str, float], role: str) -> int | None:
    """A sum that lacks some calls is not known."""
    told = f"tokens.{role}" in counts or not counts.get(f"calls.{role}")
    return int(counts.get(f"tokens.{role}", 0)) if told and not counts.get(f"{UNREPORTED}.{role}") else None


def _total(stages: Iterable[Roles]) -> Roles:
    total: Roles = {}
    for roles in stages:
        for role, spent in roles.items():
            known = total.get(role, NOTHING)
            parts = known["tokens"], spent["tokens"]
            tokens = None if None in parts else sum(part or 0 for part in parts)
            total[role] = {"calls": known["calls"] + spent["calls"], "tokens": tokens}
    return total
