"""Procedures: how a model answers held-out prompts, in one step or several; each step gives candidate sets.

A new one is a function with the parameters of `direct` and a config of its own, and a line in `PROCEDURES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tsalign.common import registry
from tsalign.config import ConfigModel, SamplingConfig
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.iteration import Iteration
from tsalign.runs.stage_function import measuring
from tsalign.stages.sampling import sample

PROCEDURES = {
    "direct": "tsalign.evaluation.procedures:DIRECT",
    "guided": "tsalign.recipes.citing.procedures:GUIDED",
    "rewrite": "tsalign.recipes.citing.procedures:REWRITE",
}


@dataclass(frozen=True)
class Asked:
    """Who answers what.

    Attributes:
        name: prefix of the stages' names.
        sampling: with as many completions a prompt as evaluation wants.
        temperatures: each prompt is answered at each.
    """

    name: str
    model: Model | Endpoint
    prompts: Dataset
    sampling: SamplingConfig
    temperatures: tuple[float, ...]


class Answer(Protocol):
    """The function of a procedure."""

    def __call__(self, it: Iteration, asked: Asked, config: Any, /) -> dict[str, Dataset]:
        """Name of a step -> its candidate sets, the final ones last."""


@dataclass(frozen=True)
class Procedure:
    """A function, and the config that it takes."""

    config_type: type[ConfigModel]
    answer: Answer


def find(name: str) -> Procedure:
    """The procedure of a name.

    Raises:
        TsalignError: no such procedure.
    """
    found: Procedure = registry.find("procedures", PROCEDURES, name, "procedure.name")
    return found


class DirectConfig(ConfigModel):
    """Keys of the procedure `direct`: none."""


def direct(it: Iteration, asked: Asked, config: DirectConfig | None = None) -> dict[str, Dataset]:
    """`draft`: answers to the prompts as they are."""
    arguments = (asked.model, asked.prompts, asked.sampling, asked.temperatures)
    return {"draft": it.stage(f"{asked.name}_draft", measuring(sample), *arguments)}


DIRECT = Procedure(DirectConfig, direct)
