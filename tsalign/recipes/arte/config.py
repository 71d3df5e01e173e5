"""What `recipe: arte` takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tsalign.config.base import RunConfig, WritingConfig
from tsalign.config.locations import FILES, TEXT
from tsalign.config.models import OPERATIONAL, ConfigModel, ModelConfig
from tsalign.config.training import DPOTrainConfig, SFTTrainConfig

NonNegative = Annotated[int, Field(ge=0)]


class DraftConfig(ConfigModel):
    """How the teacher drafts questions."""

    questions: int = Field(250, ge=2, description="Different new questions per task.")
    shown: int = Field(3, ge=1, description="Seed questions shown in a prompt.")
    asked: int = Field(5, ge=1, description="New questions that a prompt asks for.")
    max_rounds: int = Field(
        10, ge=1, description="Rounds, each asking for the questions still missing; after the last one fewer will do."
    )
    max_failed_fraction: Annotated[float, OPERATIONAL] = Field(
        0.1, ge=0, le=1, description="Share of the teacher's texts that may fail to parse before the run stops."
    )


class PairConfig(ConfigModel):
    """Which drafts become preferences of the teacher."""

    questions: int = Field(50, ge=1, description="Question pairs per task.")
    share: float = Field(
        0.25,
        gt=0,
        le=0.5,
        description="Share of a task's questions, from the top and from the bottom, that pairs draw from.",
    )
    rationales: int | None = Field(
        None, ge=1, description="Rationale pairs per task. None makes one for every question that has a preference."
    )
    keep_ties: bool = Field(
        False, description="Where the student scores all rationales equally, pair two random ones instead of none."
    )


class AnsweringConfig(WritingConfig):
    """How the student answers a question: once, greedily."""

    temperature: float = Field(0.0, ge=0, le=0, description="Sampling temperature; always 0.")


class ItemsConfig(ConfigModel):
    """Which preference questions are used: those that tell models apart best (2-parameter IRT)."""

    models: tuple[ModelConfig, ...] = Field(min_length=1, description="Models that answer all of them.")
    shots: tuple[NonNegative, ...] = Field(
        (0, 1, 2, 3), min_length=1, description="Numbers of examples that each model is shown, one run each."
    )
    keep: int = Field(40, ge=1, description="Questions to keep per task.")


class ARTEConfig(RunConfig):
    """The `arte` recipe: the teacher is aligned with what helps the student, which then learns from it."""

    teacher: ModelConfig = Field(description="The language model that writes the training data, and is aligned.")
    student: ModelConfig = Field(description="The language model that the data is for.")
    tasks: Annotated[tuple[str, ...], FILES] = Field(
        min_length=1, description="Task files (`<task>.yaml`), folders of them, or `toy:arte`."
    )
    ablation: Literal["arte", "original-teacher", "question-only", "rationale-only", "random-rationale"] = Field(
        "arte",
        description="`arte`: the teacher is aligned on questions and rationales. `question-only`, `rationale-only`: on "
        "one of them. `original-teacher`: on neither; the student learns the draft with the rationale it scored best. "
        "`random-rationale`: the same with a random rationale.",
    )
    select_items: ItemsConfig | None = Field(
        None, description="How preference questions are selected. None uses all of them."
    )
    drafts: DraftConfig = Field(DraftConfig(), description="How many questions the teacher drafts.")
    writing: WritingConfig = Field(WritingConfig(), description="How the teacher writes.")
    rationale_temperature: float = Field(
        1.0, ge=0, description="Sampling temperature of draft rationales; tailored ones are written at 0."
    )
    answering: AnsweringConfig = Field(AnsweringConfig(), description="How the student answers.")
    pairs: PairConfig = Field(PairConfig(), description="Which drafts become preferences of the teacher.")
    align: DPOTrainConfig = Field(description="Training of the teacher.")
    rows_per_task: int = Field(
        225,
        ge=1,
        description="Rows per task that the student learns from, with every ablation; fewer than `drafts.questions` "
        "leaves room for drafts that fail to parse.",
    )
    tune: SFTTrainConfig = Field(description="Training of the student.")
    shots: tuple[NonNegative, ...] = Field(
        (0, 3), min_length=1, description="Numbers of examples before a test question; the student is tested with each."
    )
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict,
        description="Your own `arte_questions`, `arte_rationale`, `arte_rationale_<technique>` or `arte_answer`: Jinja "
        "text, or the path of one.",
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
