"""Models of the toy world before any training: random weights, and reward models grown from a language model."""

from __future__ import annotations

import torch
from pydantic import Field
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from tsalign.config import ConfigModel
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.toy.tokenizer import build_tokenizer

HEAD_SIZE = 32  # the smallest that vLLM has on CPU
POSITIONS = 2048  # far beyond what training shows, so that the models run on any prompts


class Shape(ConfigModel):
    """The size of a Llama."""

    hidden: int = Field(description="Size of the hidden states.")
    layers: int = Field(description="Transformer blocks.")
    intermediate: int = Field(description="Size of the feed-forward layers.")


@stage_function("toy/blank")
def initialise(stage: Stage, shape: Shape, tokenizer: PreTrainedTokenizerFast | None = None) -> Model:
    """A causal LM with random weights, tied embeddings, and the toy tokenizer or one with more tokens."""
    torch.manual_seed(stage.seed)
    tokenizer = tokenizer or build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // HEAD_SIZE,
        num_key_value_heads=shape.hidden // HEAD_SIZE,
        head_dim=HEAD_SIZE,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=True,
        initializer_range=0.1,  # small models learn to copy sooner than from the usual 0.02
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(str(stage.out))
    tokenizer.save_pretrained(str(stage.out))
    return Model(str(stage.out), stage.fingerprint)


@initialise.expects
def _expect_blank(stage: PlannedStage, shape: Shape, tokenizer: PreTrainedTokenizerFast | None = None) -> Model:
    stage.needs("", ONE_TASK, {})
    return stage.model("policy")


@stage_function("toy/reward_model")
def as_reward_model(stage: Stage, trunk: Model, fresh_layers: int) -> Model:
    """A reward model on the body of a causal LM, with `fresh_layers` more on top that start close to the identity."""
    torch.manual_seed(stage.seed)
    body = AutoModelForCausalLM.from_pretrained(trunk.path)
    config = LlamaConfig.from_pretrained(
        trunk.path, num_labels=1, num_hidden_layers=body.config.num_hidden_layers + fresh_layers, layer_types=None
    )
    model = LlamaForSequenceClassification(config)
    model.model.load_state_dict(body.model.state_dict(), strict=False)
    with torch.no_grad():
        for layer in model.model.layers[body.config.num_hidden_layers :]:
            layer.self_attn.o_proj.weight *= 0.1
            layer.mlp.down_proj.weight *= 0.1
        model.score.weight *= 0.1
    model.save_pretrained(str(stage.out))
    build_tokenizer().save_pretrained(str(stage.out))
    return Model(str(stage.out), stage.fingerprint)


@as_reward_model.expects
def _expect_reward_model(stage: PlannedStage, trunk: Model, fresh_layers: int) -> Model:
    stage.needs("", ONE_TASK, {})
    return stage.model("student")
