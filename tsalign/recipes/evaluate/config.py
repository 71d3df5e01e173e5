"""What `tsalign evaluate` takes."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from tsalign.config.base import DataConfig, EvaluationConfig, RunConfig, SamplingConfig
from tsalign.config.models import ConfigModel, WriterConfig


class ProcedureConfig(ConfigModel):
    """How `model` answers; other keys belong to the procedure."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("direct", description="direct, guided, rewrite, or that of an installed package")

    @property
    def options(self) -> dict[str, Any]:
        """The procedure's own keys."""
        return dict(self.model_extra or {})


class EvaluateConfig(RunConfig):
    """The `evaluate` recipe: two models, and how the first one answers."""

    recipe: str = "evaluate"
    model: WriterConfig = Field(description="the model to judge")
    against: WriterConfig = Field(description="the model to compare it with, which answers directly")
    procedure: ProcedureConfig = Field(ProcedureConfig(), description="how `model` answers")
    data: DataConfig = Field(DataConfig(prompts=[]), description="how prompts are read; evaluation.sets names them")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how both models write")
    evaluation: EvaluationConfig
