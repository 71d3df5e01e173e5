"""What `recipe: citing` takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tsalign.config.base import AlignConfig, SamplingConfig, WritingConfig
from tsalign.config.locations import FILES, TEXT
from tsalign.config.models import ConfigModel, ModelConfig, WriterConfig
from tsalign.config.training import DPOTrainConfig, SFTTrainConfig


class RubricsConfig(ConfigModel):
    """Categories of instructions, a rubric for each, and how an instruction finds its own."""

    categories: Annotated[str, FILES] = Field(
        "set",
        description="`set`: the name of the prompt file; `cluster`: k-means of the embeddings; or a file of prompts "
        "with a column `category`.",
    )
    clusters: int = Field(16, ge=2, description="Number of categories, with `categories: cluster`.")
    sample: int = Field(
        2000, ge=1, description="Prompts, at most, from which categories and the weights of `tfidf` are made."
    )
    examples: int = Field(8, ge=1, description="Instructions of a category that the teacher is shown.")
    encoder: ModelConfig = Field(
        ModelConfig(model="tfidf"),
        description="What embeds instructions: `tfidf`, or a Transformers model whose last hidden states are averaged.",
    )
    min_similarity: float = Field(
        0.1, ge=-1, le=1, description="Cosine to the nearest category below which the fallback rubric is used."
    )
    fallback: str = Field(
        "Answers what was asked, correctly and completely; explains where that helps; is clear and to the point.",
        description="Rubric of instructions that resemble no category.",
    )


class CITINGConfig(AlignConfig):
    """The `citing` recipe: the policy answers, the teacher revises, the policy learns to rewrite what it answered."""

    policy: ModelConfig = Field(description="The model to align; it writes the drafts.")
    teacher: WriterConfig = Field(description="The model that writes rubrics and revisions.")
    sampling: SamplingConfig = Field(SamplingConfig(k=1), description="How the policy writes.")
    writing: WritingConfig = Field(WritingConfig(), description="How the teacher writes.")
    rubrics: RubricsConfig = Field(RubricsConfig(), description="Categories and their rubrics.")
    passes: int = Field(
        1, ge=1, le=100, description="Times that a held-out draft is rewritten; each rewrite is judged."
    )
    method: Literal["citing", "revision-sft", "sft", "rubric-sft"] = Field(
        "citing",
        description="`citing`: learn to revise one's own draft. Controls: `revision-sft`: learn the revisions "
        "without a draft; `sft`: learn demonstrations; `rubric-sft`: learn them with the rubric in the prompt.",
    )
    demonstrations: Annotated[str | None, FILES] = Field(
        None, description="File with a reply to every prompt, for methods `sft` and `rubric-sft`. None: there is none."
    )
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict,
        description="Your own `citing_rubric`, `citing_revise` or `citing_rewrite`: Jinja text, or the path of one.",
    )
    tune: SFTTrainConfig = Field(description="Training of the policy.")
    preference: DPOTrainConfig | None = Field(
        None,
        description="A second training, after `tune`, that prefers the revision to the draft. None: there is none.",
    )

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
