"""What `tsalign evaluate` takes."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, Field, model_validator

from tsalign.config.base import DataConfig, EvaluationConfig, RunConfig, SamplingConfig
from tsalign.config.loading import validate
from tsalign.config.models import ConfigModel, WriterConfig
from tsalign.evaluation import procedures


class ProcedureConfig(ConfigModel):
    """How `model` answers; other keys belong to the procedure."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("direct", description="direct, guided, rewrite, or that of an installed package")

    def options(self) -> ConfigModel:
        """The procedure's own keys.

        Raises:
            TsalignError: no such procedure, or keys that it does not take.
        """
        return validate(procedures.find(self.name).config_type, dict(self.model_extra or {}), "procedure")

    @model_validator(mode="after")
    def _options_are_valid(self) -> Self:
        self.options()
        return self


class EvaluateConfig(RunConfig):
    """The `evaluate` recipe: two models, and how the first one answers."""

    recipe: str = "evaluate"
    model: WriterConfig = Field(description="the model to judge")
    against: WriterConfig = Field(description="the model to compare it with, which answers directly")
    procedure: ProcedureConfig = Field(ProcedureConfig(), description="how `model` answers")
    data: DataConfig = Field(DataConfig(prompts=[]), description="how prompts are read; evaluation.sets names them")
    sampling: SamplingConfig = Field(SamplingConfig(), description="how both models write")
    evaluation: EvaluationConfig
