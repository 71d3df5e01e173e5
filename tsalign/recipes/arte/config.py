"""What `recipe: arte` takes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tsalign.config.base import RunConfig, WritingConfig
from tsalign.config.models import ConfigModel, ModelConfig
from tsalign.config.training import DPOTrainConfig, SFTTrainConfig


class DraftConfig(ConfigModel):
    """How the teacher drafts questions."""

    questions: int = Field(250, ge=2, description="different questions a task")
    shown: int = Field(3, ge=1, description="seed questions in a prompt")
    asked: int = Field(5, ge=1, description="new questions that a prompt asks for")
    max_rounds: int = Field(10, ge=1, description="then go on with fewer; each round asks for what is still missing")
    max_failed_fraction: float = Field(0.1, ge=0, le=1, description="share of texts that may not parse")


class PairConfig(ConfigModel):
    """Which drafts become preferences of the teacher."""

    questions: int = Field(50, ge=1, description="question pairs a task")
    share: float = Field(0.25, gt=0, le=0.5, description="of the questions, from the top and from the bottom")
    rationales: int | None = Field(None, ge=1, description="rationale pairs a task; default: one for every question")
    keep_ties: bool = Field(False, description="also two random rationales where the student finds all alike")


class AnsweringConfig(WritingConfig):
    """How the student answers: one answer a question, the likeliest."""

    temperature: float = Field(0.0, ge=0, le=0)


class ItemsConfig(ConfigModel):
    """Which preference questions are used: those that tell models apart best (2-parameter IRT)."""

    models: tuple[ModelConfig, ...] = Field(min_length=1, description="who answers all of them")
    shots: tuple[int, ...] = Field((0, 1, 2, 3), min_length=1, description="each with so many examples")
    keep: int = Field(40, ge=1, description="questions a task")


class ARTEConfig(RunConfig):
    """The `arte` recipe: the teacher is aligned with what helps the student, which then learns from it."""

    teacher: ModelConfig
    student: ModelConfig
    tasks: tuple[str, ...] = Field(min_length=1, description="task files or folders of them, or toy:arte")
    ablation: Literal["arte", "original-teacher", "question-only", "rationale-only", "random-rationale"] = "arte"
    select_items: ItemsConfig | None = None
    drafts: DraftConfig = DraftConfig()
    writing: WritingConfig = Field(WritingConfig(), description="how the teacher writes")
    rationale_temperature: float = Field(1.0, ge=0, description="of drafts; tailored rationales are written at 0")
    answering: AnsweringConfig = Field(AnsweringConfig(), description="how the student answers")
    pairs: PairConfig = PairConfig()
    align: DPOTrainConfig
    rows_per_task: int = Field(
        225, ge=1, description="what the student learns from, by every ablation; some drafts may not parse"
    )
    tune: SFTTrainConfig
    shots: tuple[int, ...] = Field((0, 3), min_length=1, description="examples before a test question")
    templates: dict[str, str] = Field(
        default_factory=dict, description="arte_questions, arte_rationale, arte_answer: Jinja text, or the path of one"
    )

    @property
    def aligned_on(self) -> tuple[Literal["questions", "rationales"], ...]:
        """What the teacher is aligned on; nothing where its drafts are used as they are."""
        everything: dict[str, tuple[Literal["questions", "rationales"], ...]] = {
            "arte": ("questions", "rationales"),
            "question-only": ("questions",),
            "rationale-only": ("rationales",),
        }
        return everything.get(self.ablation, ())

    @model_validator(mode="after")
    def _enough_drafts(self) -> Self:
        if self.rows_per_task > self.drafts.questions:
            raise ValueError(f"rows_per_task: {self.rows_per_task} of {self.drafts.questions} (drafts.questions)")
        return self
