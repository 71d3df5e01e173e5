"""What `tsalign evaluate` takes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tsalign.config.base import DataConfig, EvaluationConfig, RunConfig, SamplingConfig
from tsalign.config.models import WriterConfig


class EvaluateConfig(RunConfig):
    """The `evaluate` recipe: two models, and how the first one answers."""

    recipe: str = "evaluate"
    model: WriterConfig
    against: WriterConfig
    procedure: Literal["direct", "guided", "rewrite"] = Field(
        "direct", description="guided: the retrieved rubric in the prompt; rewrite: a draft, then `passes` rewrites"
    )
    rubrics: str | None = Field(None, description="folder that a citing run wrote; for guided and rewrite")
    passes: int = Field(1, ge=1)
    templates: dict[str, str] = Field(default_factory=dict, description="template name: path of your own")
    data: DataConfig = DataConfig(prompts=[])
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig

    @model_validator(mode="after")
    def _rubrics_where_needed(self) -> Self:
        if self.procedure != "direct" and self.rubrics is None:
            raise ValueError(f"procedure {self.procedure} needs `rubrics`, the folder that a citing run wrote")
        return self
