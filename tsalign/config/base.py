"""Blocks that recipes share: prompts, sampling, evaluation; the keys of every run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tsalign.common import registry
from tsalign.config.locations import FILES, SCORER, TEXT
from tsalign.config.models import OPERATIONAL, ConfigModel
from tsalign.config.placement import ResourceConfig
from tsalign.config.values import RunName


class DataConfig(ConfigModel):
    """Where prompts come from and which of them are used."""

    prompts: Annotated[str | list[str], FILES] = Field(
        description="Files, folders or globs of JSONL, JSON or Parquet, on any filesystem; or `toy:train`."
    )
    system: str | None = Field(
        None, description="System prompt for conversations that have none. None adds no system message."
    )
    max_prompt_tokens: int = Field(
        1024, ge=1, description="Tokens of the longest prompt, by the policy's tokenizer; longer ones are quarantined."
    )
    eval_fraction: float = Field(
        0.0, ge=0, lt=1, description="Share of the prompts held out, by content hash, as the evaluation set `held_out`."
    )
    max_bad_fraction: Annotated[float, OPERATIONAL] = Field(
        0.01, ge=0, le=1, description="Share of the rows that may be malformed or too long before the run stops."
    )
    prompts_per_iteration: int | None = Field(
        None, ge=1, description="Prompts in each iteration. None uses all prompts in every iteration."
    )
    shard_size: int = Field(
        512, ge=1, description="Prompts per shard; an interrupted actor repeats at most the shard it was working on."
    )


class EngineConfig(ConfigModel):
    """How an engine loads a model."""

    engine: str = Field(
        "vllm",
        description="`vllm`, `hf` (Transformers), `module:Class`, or a name from the entry points `tsalign.engines`.",
    )
    max_model_len: int = Field(
        4096,
        ge=2,
        description="Tokens of prompt and completion together; prompts that leave no room become failed rows.",
    )
    gpu_memory: Annotated[float, OPERATIONAL] = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory that vLLM may use."
    )
    batch_tokens: Annotated[int, OPERATIONAL] = Field(
        16384, ge=1, description="Tokens in one forward batch of the `hf` engine."
    )

    @field_validator("engine")
    @classmethod
    def _known_or_importable(cls, name: str) -> str:
        known = registry.names("engines", {"vllm": "", "hf": "", "openai": ""})
        if ":" not in name and name not in known:
            raise ValueError(f"expected {', '.join(known)}, or module:Class")
        return name

    def engine_keys(self, **changes: Any) -> EngineConfig:
        """Only the keys of this block, of a config that has more; some of them changed."""
        return EngineConfig(**(self.model_dump(include=set(EngineConfig.model_fields)) | changes))


class SamplingConfig(EngineConfig):
    """How a model is loaded and writes completions."""

    k: int = Field(8, ge=1, description="Completions per prompt.")
    temperature: float = Field(1.0, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Probability mass of the likeliest tokens that are sampled from.")
    max_tokens: int = Field(512, ge=1, description="Tokens of the longest completion.")
    stop: tuple[str, ...] = Field((), description="Texts that end a completion, besides the end-of-sequence token.")

    @model_validator(mode="after")
    def _room_for_a_prompt(self) -> Self:
        if self.max_tokens >= self.max_model_len:
            raise ValueError(
                f"max_tokens: {self.max_tokens} of max_model_len {self.max_model_len} leaves no room for a prompt; "
                "lower max_tokens or raise max_model_len"
            )
        return self


class WritingConfig(SamplingConfig):
    """How a model answers a question: with one text."""

    k: Literal[1] = Field(1, description="Texts per question; always 1.")


class JudgingConfig(EngineConfig):
    """How a judge that is a language model is loaded and asked; other judges take none of these keys."""

    engine: Literal["hf", "vllm"] = Field("hf", description="Engine of a judge that is loaded here, not behind a url.")
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict,
        description="Your own `judge_pair`, `judge_axes` or `judge_axes_pair`: Jinja text, or the path of one.",
    )


class EvaluationConfig(ConfigModel):
    """Win rate against the initial policy, and the student's agreement."""

    sets: Annotated[dict[str, str], FILES] = Field(
        default_factory=dict,
        description="Name of each evaluation set and its prompt file; `toy:test` makes one set per task family.",
    )
    judge: Annotated[str, SCORER] = Field(
        description="What compares answers: `reward_model:<model>`, `judge:<model>[@url]` or another scorer, or "
        "`module:function` of prompt and completion."
    )
    judging: JudgingConfig = Field(
        JudgingConfig(), description="How a judge that is a language model is loaded and asked."
    )
    temperatures: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (1.0,), min_length=1, description="Sampling temperatures to evaluate at; reports lead with the first."
    )
    k: int = Field(
        2,
        ge=2,
        description="Completions per prompt and temperature; the student's agreement is measured on pairs of them.",
    )
    prompts_per_set: int = Field(200, ge=1, description="Prompts of each set, at most; the same ones in every run.")
    tie_margin: float = Field(0.0, ge=0, description="Difference of the judge's scores up to which two answers tie.")


class RunConfig(ConfigModel):
    """The keys of every run."""

    recipe: str = Field(description="Name of the recipe, or `module:attribute` of your own.")
    run: RunName | None = Field(
        None,
        description="Name of the run: letters, digits, `.`, `_` and `-`, the first a letter or a digit. None makes one "
        "of the recipe and the time.",
    )
    storage: str = Field(
        "runs", min_length=1, description="Folder or URI (`s3://`, `gs://`) for runs; every node must reach it."
    )
    seed: int = Field(0, ge=0, description="Seed of everything random in the run.")
    max_failed_fraction: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of a stage's rows that may fail before the run stops; after raising it, resume.",
    )
    resources: ResourceConfig = Field(ResourceConfig(), description="Where stages run.")
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",), description="Where metrics go, besides `metrics.jsonl`."
    )


class AlignConfig(RunConfig):
    """The keys of every recipe that aligns a policy on prompts."""

    iterations: int = Field(3, ge=1, le=1000, description="Rounds of the recipe.")
    data: DataConfig = Field(description="Prompts.")
    sampling: SamplingConfig = Field(SamplingConfig(), description="How the policy writes.")
    evaluation: EvaluationConfig = Field(description="How policies are evaluated.")
