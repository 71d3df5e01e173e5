"""What `recipe: ts-align` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tsalign.config.base import AlignConfig
from tsalign.config.models import ConfigModel, ModelConfig, TeacherConfig
from tsalign.config.training import CustomTrainConfig, DPOTrainConfig, LogisticTrainConfig, MarginRankingTrainConfig

CUSTOM = "an objective of your own"


class MiningConfig(ConfigModel):
    """Which pair of each candidate set becomes a preference."""

    strategy: Literal["ts-align", "teacher-all", "student-only", "random", "off-policy"] = "ts-align"
    refresh: float = Field(0.0, ge=0, lt=1, description="share of prompts on which the student is updated first")
    tie_margin: float = Field(1e-4, ge=0, description="teacher scores closer than this are a tie, and dropped")

    @model_validator(mode="after")
    def _refresh_needs_student(self) -> Self:
        if self.refresh and self.strategy != "ts-align":
            raise ValueError(f"refresh works with strategy ts-align only, not {self.strategy}")
        return self


def _ranking_loss(value: Any) -> str:
    """The tag of the block: margin_ranking where no objective is named."""
    given = value.get("objective", "margin_ranking") if isinstance(value, dict) else getattr(value, "objective", "")
    return given if given in ("margin_ranking", "logistic") else CUSTOM


DistillConfig = Annotated[
    Annotated[MarginRankingTrainConfig, Tag("margin_ranking")]
    | Annotated[LogisticTrainConfig, Tag("logistic")]
    | Annotated[CustomTrainConfig, Tag(CUSTOM)],
    Discriminator(_ranking_loss),
]


class TSAlignConfig(AlignConfig):
    """The `ts-align` recipe: policy, student and teacher."""

    policy: ModelConfig
    student: ModelConfig
    teacher: TeacherConfig
    mining: MiningConfig = MiningConfig()
    distill: DistillConfig = MarginRankingTrainConfig()
    tune: DPOTrainConfig
    student_preferences: str | None = Field(None, description="file with what the student learnt before, for replay")
