"""Optimisation of one model by one objective; a subclass an objective."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tsalign.config.models import ConfigModel


class TrainConfig(ConfigModel):
    """Optimisation of one model by one objective."""

    objective: str
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(64, ge=1, description="examples per optimiser step, over all workers")
    batch_tokens: int = Field(16384, ge=1, description="padded tokens in one micro-batch of one worker")
    max_length: int = Field(2048, ge=2, description="longer examples are dropped and counted")
    learning_rate: float = Field(1e-6, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps")
    clip: float = Field(1.0, gt=0, description="gradient norm")
    precision: Literal["bf16", "fp32"] = "bf16"
    gradient_checkpointing: bool = False
    zero_stage: Literal[0, 1, 2, 3] = 2
    offload_optimizer: bool = False
    checkpoint_steps: int = Field(200, ge=1, description="a cut training redoes at most so many steps")
    max_failures: int = Field(2, ge=0, description="worker failures that Ray Train mends by itself")


class SimPOTrainConfig(TrainConfig):
    """SimPO: preferences on length-normalised log-probs, without a reference."""

    objective: Literal["simpo"] = "simpo"
    beta: float = Field(2.0, gt=0, description="scale of the mean log-probs")
    gamma: float = Field(1.0, ge=0, description="margin, after beta")
    nll: float = Field(0.0, ge=0, description="weight of the length-normalised NLL of the chosen completion")


class SFTTrainConfig(TrainConfig):
    """Supervised fine-tuning on prompt and completion."""

    objective: Literal["sft"] = "sft"


class RewardTrainConfig(TrainConfig):
    """Distillation of the teacher's order into the student."""

    objective: str = Field(
        "margin_ranking", pattern=r"^(margin_ranking|logistic|[\w.]+:\w+)$", description="or module:Class of your own"
    )
    margin: float = Field(1.0, ge=0)
    replay: float = Field(0.5, ge=0, description="earlier preferences mixed in, as a share of the new ones")


class DPOTrainConfig(TrainConfig):
    """Direct preference optimisation of the policy."""

    objective: Literal["dpo"] = "dpo"
    reference: Literal["initial", "previous"] = Field(
        description="the policy before the run, or at the start of the iteration"
    )
    beta: float = Field(0.1, gt=0)
    nll: float = Field(0.1, ge=0, description="weight of the length-normalised NLL of the chosen completion")
