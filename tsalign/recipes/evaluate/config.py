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

    name: str = Field(
        "direct",
        description="`direct`, `guided`, `rewrite`, or a name from the entry points `tsalign.procedures`; "
        "the procedure's own keys go beside this one.",
    )

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

    recipe: str = Field("evaluate", description="Always `evaluate`.")
    model: WriterConfig = Field(description="The model to evaluate.")
    against: WriterConfig = Field(description="The model to compare it with; it answers directly.")
    procedure: ProcedureConfig = Field(ProcedureConfig(), description="How `model` answers.")
    data: DataConfig = Field(
        DataConfig(prompts=[]), description="How prompts are read; `evaluation.sets` names their files."
    )
    sampling: SamplingConfig = Field(SamplingConfig(), description="How both models write.")
    evaluation: EvaluationConfig = Field(description="Prompts, judge and temperatures.")
