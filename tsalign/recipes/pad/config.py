"""What `recipe: pad` takes."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from tsalign.config.base import AlignConfig, EngineConfig, SamplingConfig
from tsalign.config.models import ModelConfig
from tsalign.config.training import DPOTrainConfig, SimPOTrainConfig, TrainConfig


class TeacherScoreConfig(EngineConfig):
    """The teacher's score of a response: beta * (alpha * mean log-prob + (1 - alpha) * log selection probability)."""

    alpha: float = Field(0.0, ge=0, le=1, description="weight of the mean log-prob; 0 is the released setting")
    beta: float = Field(10.0, gt=0, description="scale: the larger, the sharper the teacher's distribution")
    swap_options: bool = Field(True, description="ask every question in both orders; false is the released behaviour")
    max_option_tokens: int = Field(2500, ge=1, description="a response is cut to so many tokens in a question")
    keep_decided: bool = Field(False, description="only prompts with selection probabilities above and up to 0.5")
    engine: Literal["hf", "vllm"] = "vllm"
    max_model_len: int = Field(8192, ge=2, description="tokens of a question; longer ones become failed rows")

    @model_validator(mode="after")
    def _decided_needs_questions(self) -> Self:
        if self.keep_decided and self.alpha == 1:
            raise ValueError("keep_decided reads selection probabilities, and with alpha 1 none are asked for")
        return self

    @property
    def inference(self) -> EngineConfig:
        """How the teacher is loaded."""
        return EngineConfig(**self.model_dump(include=set(EngineConfig.model_fields)))


class PADTrainConfig(TrainConfig):
    """Distillation of the teacher's ranking into the policy."""

    objective: Literal["pad_ppd", "pad_vpd", "pad_released"] = "pad_ppd"
    beta: float = Field(10.0, gt=0, description="scale of the policy's mean log-probs")
    nll: float = Field(0.0, ge=0, description="weight of the length-normalised NLL of the teacher's best response")
    group_size: int = Field(6, ge=2, le=6, description="more responses than this are ranked in overlapping groups")


def _objective(value: Any) -> Any:
    """A block without the key `objective` means the paper's."""
    return {"objective": "pad_ppd", **value} if isinstance(value, dict) else value


# The paper's losses, or a baseline on the best and the worst response; each objective has its own keys.
TuneConfig = Annotated[
    PADTrainConfig | DPOTrainConfig | SimPOTrainConfig, Field(discriminator="objective"), BeforeValidator(_objective)
]


class PADConfig(AlignConfig):
    """The `pad` recipe: the policy writes and learns, the teacher scores; both are local models."""

    iterations: int = Field(1, ge=1)
    policy: ModelConfig
    teacher: ModelConfig
    sampling: SamplingConfig = SamplingConfig(k=5, top_p=0.95)
    keep: int = Field(4, ge=2, description="the most different of the sampled responses that go on")
    scoring: TeacherScoreConfig = TeacherScoreConfig()
    templates: dict[str, str] = Field(default_factory=dict, description="pad_choice: path of your own template")
    tune: TuneConfig

    @model_validator(mode="after")
    def _keep_of_sampled(self) -> Self:
        if self.keep > self.sampling.k:
            raise ValueError(f"keep: cannot keep {self.keep} of {self.sampling.k} responses (sampling.k)")
        return self
