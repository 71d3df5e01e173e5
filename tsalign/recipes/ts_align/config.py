"""What `recipe: ts-align` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from tsalign.config.base import AlignConfig
from tsalign.config.locations import FILES
from tsalign.config.models import ConfigModel, ModelConfig, TeacherConfig
from tsalign.config.training import CustomTrainConfig, DPOTrainConfig, LogisticTrainConfig, MarginRankingTrainConfig

CUSTOM = "an objective of your own"


class MiningConfig(ConfigModel):
    """How each candidate set becomes a preference."""

    strategy: Literal["ts-align", "teacher-all", "student-only", "random", "off-policy"] = Field(
        "ts-align",
        description="`ts-align`: the student picks best and worst, the teacher decides between them. Controls: "
        "`teacher-all`: the teacher ranks all; `student-only`: no teacher; `random`: the teacher decides a random "
        "pair; `off-policy`: as `ts-align`, but the initial policy writes in every iteration.",
    )
    refresh: float = Field(
        0.0, ge=0, lt=1, description="Share of the prompts whose random pairs update the student before it selects."
    )
    tie_margin: float = Field(
        1e-4, ge=0, description="Difference of the teacher's scores up to which a pair ties and is dropped."
    )

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

    policy: ModelConfig = Field(description="The model to align; it writes the candidates.")
    student: ModelConfig = Field(
        description="The small reward model that ranks candidates. Any other language model gets a fresh head in its "
        "first training, and ranks from then on: start one so with `mining.refresh`."
    )
    teacher: TeacherConfig = Field(description="The strong model that decides between two candidates.")
    mining: MiningConfig = Field(MiningConfig(), description="How candidates become preferences.")
    distill: DistillConfig = Field(MarginRankingTrainConfig(), description="Training of the student.")
    tune: DPOTrainConfig = Field(description="Training of the policy.")
    pipeline: Literal["phased", "streaming"] = Field(
        "phased",
        description="`phased`: sampling, the student's ranking and the teacher's take turns. `streaming`: all three at "
        "once, each a shard behind the one before, for clusters that have room for all of them; the rows are the same.",
    )
    student_preferences: Annotated[str | None, FILES] = Field(
        None,
        description="File of preferences that the student learnt from before the run, to replay. None replays those of "
        "earlier iterations only.",
    )
