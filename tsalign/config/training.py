"""How one model is optimised; each objective has its own block of keys, chosen by the key `objective`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tsalign.common import registry
from tsalign.config.models import OPERATIONAL, ConfigModel

Share = Annotated[float, Field(ge=0, lt=1)]


class TrainConfig(ConfigModel):
    """The keys of every training, whatever its objective."""

    objective: str = Field(description="The loss to minimise.")
    epochs: float = Field(1.0, gt=0, description="Passes over the training examples; fractions are allowed.")
    batch_size: int = Field(64, ge=1, description="Examples per optimiser step, over all workers.")
    batch_tokens: Annotated[int, OPERATIONAL] = Field(
        16384, ge=1, description="Tokens, padding included, in one micro-batch of one worker."
    )
    max_length: int = Field(2048, ge=2, description="Tokens of the longest sequence; longer examples are dropped.")
    learning_rate: float = Field(1e-6, gt=0, description="Peak learning rate of AdamW, reached after the warm-up.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="Decay rates of AdamW's two moments.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate decays after the warm-up; `cosine` and `linear` end at zero."
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps over which the learning rate rises from 0.")
    clip: float = Field(1.0, gt=0, description="Norm to which the gradient of a step is clipped.")
    precision: Literal["bf16", "fp32"] = Field(
        "bf16", description="`bf16`: bfloat16 with float32 master weights; `fp32`: float32 throughout."
    )
    gradient_checkpointing: Annotated[bool, OPERATIONAL] = Field(
        False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(
        2, description="DeepSpeed ZeRO stage: what is partitioned over the workers (3: also the weights)."
    )
    offload_optimizer: bool = Field(False, description="Keep the optimiser's state in CPU memory.")
    checkpoint_steps: Annotated[int, OPERATIONAL] = Field(
        200, ge=1, description="Optimiser steps between checkpoints; an interrupted training repeats at most this many."
    )
    max_failures: Annotated[int, OPERATIONAL] = Field(
        2, ge=0, description="Worker failures that Ray Train recovers from by itself; one more fails the run."
    )


class SFTTrainConfig(TrainConfig):
    """Supervised fine-tuning: cross-entropy on the tokens of the completion."""

    objective: Literal["sft"] = Field("sft", description="Supervised fine-tuning.")


class DPOTrainConfig(TrainConfig):
    """Direct preference optimisation (arXiv 2305.18290)."""

    objective: Literal["dpo"] = Field("dpo", description="Direct preference optimisation.")
    reference: Literal["initial", "previous"] = Field(
        description="The reference model: `initial` is the model before the run, `previous` the one at the start of "
        "the iteration."
    )
    reference_engine: Annotated[Literal["hf", "vllm"], OPERATIONAL] = Field(
        "hf",
        description="Engine of the reference's log-probs. `vllm` is faster on GPUs; its numbers differ from the "
        "training's in the last digits.",
    )
    beta: float = Field(0.1, gt=0, description="Scale of the log-ratios of policy and reference.")
    nll: float = Field(0.1, ge=0, description="Weight of the length-normalised NLL of the chosen completion.")


class SimPOTrainConfig(TrainConfig):
    """SimPO (arXiv 2405.14734): preferences on length-normalised log-probs, without a reference model."""

    objective: Literal["simpo"] = Field("simpo", description="SimPO.")
    beta: float = Field(2.0, gt=0, description="Scale of the mean log-probs.")
    gamma: float = Field(1.0, ge=0, description="Margin that is subtracted from the scaled difference.")
    nll: float = Field(0.0, ge=0, description="Weight of the length-normalised NLL of the chosen completion.")


class RewardTrainConfig(TrainConfig):
    """The keys of every training of a reward model on preferences."""

    replay: float = Field(0.5, ge=0, description="Earlier preferences to mix in, as a share of the new ones.")


class MarginRankingTrainConfig(RewardTrainConfig):
    """Margin ranking: max(0, margin - (r+ - r-))."""

    objective: Literal["margin_ranking"] = Field("margin_ranking", description="Margin ranking loss.")
    margin: float = Field(1.0, ge=0, description="Difference of rewards beyond which a pair has no loss.")


class LogisticTrainConfig(RewardTrainConfig):
    """Bradley-Terry: -log sigmoid(r+ - r- - margin)."""

    objective: Literal["logistic"] = Field("logistic", description="Logistic (Bradley-Terry) loss.")
    margin: float = Field(0.0, ge=0, description="Margin that is subtracted from the difference of rewards.")


class CustomTrainConfig(RewardTrainConfig):
    """An objective of your own, or of an installed package."""

    objective: str = Field(description="`module:Class`, or a name from the entry points `tsalign.objectives`.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the objective's own; it gets them as `config.options`."
    )

    @field_validator("objective")
    @classmethod
    def _importable_or_installed(cls, name: str) -> str:
        known = registry.names("objectives", {"margin_ranking": "", "logistic": ""})
        if ":" not in name and name not in known:
            raise ValueError(f"expected {', '.join(known)}, or module:Class")
        return name
