"""What a run asked of its models: calls and tokens, by the model's role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict

from upath import UPath

from tsalign.data.shards import UNREPORTED
from tsalign.runs.ledger import Ledger


class Spent(TypedDict):
    """What was asked of one model: requests or items, and the tokens that it read and wrote, None if unknown."""

    calls: int
    tokens: int | None


Roles = dict[str, Spent]
NOTHING: Spent = {"calls": 0, "tokens": 0}


class Cost(TypedDict):
    """What finished stages asked, by role.

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
    """From the counts `calls.<role>`, `tokens.<role>` and `prompts` in a run's ledger."""
    done = Ledger(run_dir / "ledger.jsonl").done()
    measure = {stage: entry for stage, entry in done.items() if entry.get("measures")}
    align = {stage: entry["counts"] for stage, entry in done.items() if stage not in measure}
    spent = {stage: roles for stage, entry in done.items() if (roles := _by_role(entry["counts"]))}
    return {
        "alignment": _total(spent[stage] for stage in spent if stage in align),
        "measuring": _total(spent[stage] for stage in spent if stage in measure),
        "prompts": int(sum(counts.get("prompts", 0) for counts in align.values())),
        "stages": spent,
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
