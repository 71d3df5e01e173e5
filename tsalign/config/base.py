"""What recipes share: prompts, sampling, evaluation, placement."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tsalign.config.models import ConfigModel


class DataConfig(ConfigModel):
    """Prompts for training."""

    prompts: str | list[str] = Field(description="JSONL, JSON or Parquet files, or toy:train")
    system: str | None = Field(None, description="system prompt put before every conversation without one")
    max_prompt_tokens: int = Field(1024, ge=1, description="longer prompts go to quarantine; the policy's tokens")
    eval_fraction: float = Field(0.0, ge=0, lt=1, description="share held out, by content hash, as evaluation set")
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    prompts_per_iteration: int | None = Field(None, ge=1, description="default: all prompts in every iteration")
    shard_size: int = Field(512, ge=1, description="prompts a shard; a cut stage redoes at most one")


class EngineConfig(ConfigModel):
    """How an engine loads a model."""

    engine: str = Field("vllm", description="hf or vllm")
    max_model_len: int = Field(4096, ge=2, description="prompt + completion; longer prompts become failed rows")
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of GPU memory that vLLM may take")
    batch_tokens: int = Field(16384, ge=1, description="tokens in one forward batch of the hf engine")


class SamplingConfig(EngineConfig):
    """How a model is loaded and writes completions."""

    k: int = Field(8, ge=1, description="completions per prompt")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()


class WritingConfig(SamplingConfig):
    """How a model that is asked about something writes: one text a question."""

    k: Literal[1] = 1


class EvaluationConfig(ConfigModel):
    """Win rate against the initial policy, and the student's agreement."""

    sets: dict[str, str] = Field(default_factory=dict, description="name: prompt file; toy:test gives seven")
    judge: str = Field(description="module:function, or one of the scorers: reward_model:<model>, judge:<model>[@url]")
    temperatures: tuple[float, ...] = (1.0,)
    k: int = Field(2, ge=2, description="completions per prompt and temperature; pairs of them measure agreement")
    prompts_per_set: int = Field(200, ge=1)
    tie_margin: float = Field(0.0, ge=0, description="judge scores closer than this are a tie")

    @model_validator(mode="after")
    def _some_temperature(self) -> Self:
        if not self.temperatures:
            raise ValueError("temperatures needs at least one value")
        return self


class Placement(ConfigModel):
    """Actors of one kind: how many and how big."""

    replicas: int = Field(1, ge=1)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)

    @property
    def actor_gpus(self) -> float:
        """GPUs of one actor."""
        return self.gpus


class SamplePlacement(Placement):
    """Sampling actors; with tensor parallelism each takes `tensor_parallel` times `gpus`."""

    tensor_parallel: int = Field(1, ge=1)

    @property
    def actor_gpus(self) -> float:
        """GPUs of one actor."""
        return self.gpus * self.tensor_parallel


class ResourceConfig(ConfigModel):
    """Where stages run. Changing it never invalidates a finished stage."""

    sample: SamplePlacement = SamplePlacement()
    score: Placement = Placement()
    mine: Placement = Placement()
    train_policy: Placement = Placement()
    train_student: Placement = Placement()
    train_teacher: Placement = Placement()
    wait_seconds: float = Field(300, gt=0, description="how long to wait for nodes before saying what is missing")


class RunConfig(ConfigModel):
    """What everything that runs has."""

    recipe: str
    run: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]+$", description="run name; default: recipe and time")
    storage: str = Field("runs", description="folder or URI (s3://, gs://) that all nodes reach")
    seed: int = Field(0, ge=0)
    resources: ResourceConfig = ResourceConfig()
    loggers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)


class AlignConfig(RunConfig):
    """What every alignment recipe has."""

    iterations: int = Field(3, ge=1)
    data: DataConfig
    sampling: SamplingConfig = SamplingConfig()
    evaluation: EvaluationConfig
