"""What `recipe: pad` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tsalign.config.base import AlignConfig, EngineConfig, SamplingConfig
from tsalign.config.locations import TEXT
from tsalign.config.models import ModelConfig
from tsalign.config.training import DPOTrainConfig, SimPOTrainConfig, TrainConfig


class TeacherScoreConfig(EngineConfig):
    """The teacher's score of a response: beta * (alpha * mean log-prob + (1 - alpha) * log selection probability)."""

    alpha: float = Field(0.0, ge=0, le=1, description="Weight of the mean log-prob; 0 is the released setting.")
    beta: float = Field(10.0, gt=0, description="Scale of the score; a larger one sharpens the teacher's distribution.")
    swap_options: bool = Field(True, description="Ask every question in both orders; false is the released behaviour.")
    max_option_tokens: int = Field(2500, ge=1, description="Tokens to which a response is cut in a question.")
    keep_decided: bool = Field(
        False,
        description="Keep only prompts with a response that is selected more often than not, and one that is not.",
    )
    engine: Literal["hf", "vllm"] = Field("vllm", description="Engine of the teacher; it must show log-probs.")
    max_model_len: int = Field(
        8192, ge=2, description="Tokens of the longest question; longer ones become failed rows."
    )

    @model_validator(mode="after")
    def _decided_needs_questions(self) -> Self:
        if self.keep_decided and self.alpha == 1:
            raise ValueError("keep_decided needs selection probabilities, but alpha 1 asks for none; lower alpha")
        return self

    @property
    def inference(self) -> EngineConfig:
        """How the teacher is loaded."""
        return self.engine_keys()


class PADTrainConfig(TrainConfig):
    """PAD: the policy's distribution over rankings is matched to the teacher's."""

    objective: Literal["pad_ppd", "pad_vpd", "pad_released"] = Field(
        "pad_ppd",
        description="`pad_ppd`: Jensen-Shannon divergence; `pad_vpd`: likelihood of the teacher's ranking; "
        "`pad_released`: the divergence as the authors' code computes it.",
    )
    beta: float = Field(10.0, gt=0, description="Scale of the policy's mean log-probs.")
    nll: float = Field(
        0.0, ge=0, description="Weight of the length-normalised NLL of the response that the teacher scores best."
    )
    group_size: int = Field(
        6, ge=2, le=6, description="Responses ranked together; more than this are ranked in overlapping groups."
    )


def _objective(value: Any) -> Any:
    """A block without the key `objective` means the paper's."""
    return {"objective": "pad_ppd", **value} if isinstance(value, dict) else value


# The paper's losses, or a baseline on the best and the worst response; each objective has its own keys.
TuneConfig = Annotated[
    PADTrainConfig | DPOTrainConfig | SimPOTrainConfig, Field(discriminator="objective"), BeforeValidator(_objective)
]


class PADConfig(AlignConfig):
    """The `pad` recipe: the policy writes and learns, the teacher scores; both are local models."""

    iterations: int = Field(1, ge=1, le=1000, description="Rounds of the recipe; the paper has one.")
    policy: ModelConfig = Field(description="The model to align; it writes the responses.")
    teacher: ModelConfig = Field(description="The language model whose probabilities score the responses.")
    sampling: SamplingConfig = Field(SamplingConfig(k=5, top_p=0.95), description="How the policy writes.")
    keep: int = Field(4, ge=2, description="Responses per prompt to keep: the most different ones of `sampling.k`.")
    scoring: TeacherScoreConfig = Field(TeacherScoreConfig(), description="How the teacher scores.")
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict, description="Your own `pad_choice`: Jinja text, or the path of one."
    )
    tune: TuneConfig = Field(description="Training of the policy.")

    @model_validator(mode="after")
    def _keep_of_sampled(self) -> Self:
        if self.keep > self.sampling.k:
            raise ValueError(f"keep: cannot keep {self.keep} of {self.sampling.k} responses (sampling.k)")
        return self
