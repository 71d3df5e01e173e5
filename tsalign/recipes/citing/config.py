"""What `recipe: citing` takes."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tsalign.config.base import AlignConfig, SamplingConfig, WritingConfig
from tsalign.config.models import ConfigModel, ModelConfig, WriterConfig
from tsalign.config.training import DPOTrainConfig, SFTTrainConfig


class RubricsConfig(ConfigModel):
    """Categories of instructions, a rubric for each, and how an instruction finds its own."""

    categories: str = Field(
        "set",
        description="set: the name of the prompt file; cluster: k-means of the embeddings; "
        "or a file of prompts with a column `category`",
    )
    clusters: int = Field(16, ge=2, description="categories: cluster; how many")
    sample: int = Field(2000, ge=1, description="prompts that categories, and the words of tfidf, are made from")
    examples: int = Field(8, ge=1, description="instructions of a category that the teacher is shown")
    encoder: ModelConfig = Field(
        ModelConfig(model="tfidf"), description="or a Transformers model, whose last hidden states are averaged"
    )
    min_similarity: float = Field(0.1, ge=-1, le=1, description="cosine below which the fallback rubric is used")
    fallback: str = Field(
        "Answers what was asked, correctly and completely; explains where that helps; is clear and to the point.",
        description="rubric of instructions that are like no category",
    )


class CITINGConfig(AlignConfig):
    """The `citing` recipe: the policy answers, the teacher revises, the policy learns to rewrite what it answered."""

    policy: ModelConfig
    teacher: WriterConfig
    sampling: SamplingConfig = SamplingConfig(k=1)
    writing: WritingConfig = WritingConfig()
    max_failed_fraction: float = Field(0.01, ge=0, le=1, description="share of the teacher's texts that may not parse")
    rubrics: RubricsConfig = RubricsConfig()
    passes: int = Field(1, ge=1, description="times that a held-out draft is rewritten, each judged")
    method: Literal["citing", "revision-sft", "sft", "rubric-sft"] = Field(
        "citing",
        description="controls: SFT on the revisions without a draft; on demonstrations; on those with the rubric",
    )
    demonstrations: str | None = Field(None, description="sft, rubric-sft: a file with a reply to every prompt")
    templates: dict[str, str] = Field(
        default_factory=dict, description="citing_rubric, citing_revise, citing_rewrite: Jinja text, or the path of one"
    )
    tune: SFTTrainConfig
    preference: DPOTrainConfig | None = Field(None, description="after tune: prefer the revision to the draft")

    @property
    def imitates(self) -> bool:
        """Whether demonstrations are what is learnt, and no teacher revises."""
        return self.method in ("sft", "rubric-sft")

    @model_validator(mode="after")
    def _what_the_method_needs(self) -> Self:
        if self.imitates and self.demonstrations is None:
            raise ValueError(f"method {self.method} needs demonstrations: a file with a reply to every prompt")
        if self.imitates and self.preference:
            raise ValueError(f"preference: method {self.method} has no revisions to prefer")
        return self
