"""Typed configuration: every key with its bounds and meaning, from YAML plus dotted overrides."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tsalign.errors import TsalignError


class Section(BaseModel):
    """A block of the YAML. Unknown keys are errors; values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """A model in one of the roles."""

    model: str = Field(description="hub id, local folder, storage URI, or toy:policy | toy:student | toy:teacher")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    chat_template: str | None = Field(None, description="Jinja text or path; default: the tokenizer's own")
    trust_remote_code: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="for inference; auto: bfloat16 on GPU")


class TeacherConfig(ModelConfig):
    """The teacher as a Ray Serve application, or one that already runs at `url`."""

    model: str = "toy:teacher"
    url: str | None = Field(None, description="base URL of a running teacher; nothing is deployed then")
    host: str = Field("127.0.0.1", description="listen address; anything but loopback needs the token")
    port: int = Field(0, ge=0, le=65535, description="0: a free port")
    token_env: str = Field("TSALIGN_TEACHER_TOKEN", description="environment variable that holds the bearer token")
    max_replicas: int = Field(1, ge=1)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)
    idle_seconds: float = Field(20.0, gt=0, description="without requests for so long, replicas scale to zero")
    max_batch_size: int = Field(256, ge=1, description="sequences gathered into one dynamic batch")
    max_pending: int = Field(8192, ge=1, description="sequences waiting in a replica before it answers 429")
    request_timeout: float = Field(120.0, gt=0, description="seconds a client waits for one answer")
    max_failed_fraction: float = Field(0.01, ge=0, le=1, description="share of rows that may stay unscored")


class DataConfig(Section):
    """Prompts for training."""

    prompts: str | list[str] = Field(description="JSONL, JSON or Parquet files, or toy:train")
    system: str | None = Field(None, description="system prompt put before every conversation without one")
    max_prompt_tokens: int = Field(1024, ge=1, description="longer prompts go to quarantine; the policy's tokens")
    eval_fraction: float = Field(0.0, ge=0, lt=1, description="share held out, by content hash, as evaluation set")
    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    prompts_per_iteration: int | None = Field(None, ge=1, description="default: all prompts in every iteration")
    shard_size: int = Field(512, ge=1, description="prompts a shard; a cut stage redoes at most one")


class SamplingConfig(Section):
    """How an engine writes completions."""

    engine: str = Field("vllm", description="hf or vllm")
    k: int = Field(8, ge=1, description="completions per prompt")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()
    max_model_len: int = Field(4096, ge=2, description="prompt + completion; longer prompts become failed rows")
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of GPU memory that vLLM may take")
    batch_tokens: int = Field(16384, ge=1, description="tokens in one forward batch of the hf engine")


class MiningConfig(Section):
    """Which pair of each candidate set becomes a preference."""

    strategy: Literal["ts-align", "teacher-all", "student-only", "random", "off-policy"] = "ts-align"
    refresh: float = Field(0.0, ge=0, lt=1, description="share of prompts on which the student is updated first")
    tie_margin: float = Field(1e-4, ge=0, description="teacher scores closer than this are a tie, and dropped")

    @model_validator(mode="after")
    def _refresh_needs_student(self) -> Self:
        if self.refresh and self.strategy != "ts-align":
            raise ValueError(f"refresh works with strategy ts-align only, not {self.strategy}")
        return self


class TrainConfig(Section):
    """Optimisation of one model by one objective."""

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


class EvaluationConfig(Section):
    """Win rate against the initial policy, and the student's agreement."""

    sets: dict[str, str] = Field(default_factory=dict, description="name: prompt file; toy:test gives seven")
    judge: str = Field(description="module:function, reward:<model> or logprob:<model>")
    temperatures: tuple[float, ...] = (1.0,)
    k: int = Field(2, ge=2, description="completions per prompt and temperature; pairs of them measure agreement")
    prompts_per_set: int = Field(200, ge=1)
    tie_margin: float = Field(0.0, ge=0, description="judge scores closer than this are a tie")

    @model_validator(mode="after")
    def _some_temperature(self) -> Self:
        if not self.temperatures:
            raise ValueError("temperatures needs at least one value")
        return self


class Placement(Section):
    """Actors of one kind: how many and how big."""

    replicas: int = Field(1, ge=1)
    cpus: float = Field(1.0, ge=0)
    gpus: float = Field(0.0, ge=0)


class SamplePlacement(Placement):
    """Sampling actors; with tensor parallelism each takes `tensor_parallel` GPUs."""

    tensor_parallel: int = Field(1, ge=1)


class ResourceConfig(Section):
    """Where stages run. Changing it never invalidates a finished stage."""

    sample: SamplePlacement = SamplePlacement()
    score: Placement = Placement()
    mine: Placement = Placement()
    train_policy: Placement = Placement()
    train_student: Placement = Placement()
    wait_seconds: float = Field(300, gt=0, description="how long to wait for nodes before saying what is missing")


class RunConfig(Section):
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


class TSAlignConfig(AlignConfig):
    """The `ts-align` recipe: policy, student and teacher."""

    policy: ModelConfig
    student: ModelConfig
    teacher: TeacherConfig
    mining: MiningConfig = MiningConfig()
    distill: RewardTrainConfig = RewardTrainConfig()
    tune: DPOTrainConfig
    student_preferences: str | None = Field(None, description="file with what the student learnt before, for replay")


C = TypeVar("C", bound=RunConfig)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        TsalignError: no such file, not YAML, or not a mapping; with file and line.
    """
    if not path.is_file():
        raise TsalignError(f"{path}: no such config file. `configs/` holds examples.")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise TsalignError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    if not isinstance(content, dict):
        raise TsalignError(f"{path}: expected a mapping of keys, got {type(content).__name__}.")
    return content


def override(content: dict[str, Any], assignments: dict[str, Any]) -> dict[str, Any]:
    """`content` with dotted keys set: `{"tune.beta": 0.2}`. The input is not changed."""
    result: dict[str, Any] = yaml.safe_load(yaml.safe_dump(content))
    for dotted, value in assignments.items():
        *parents, last = dotted.split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise TsalignError(f"{dotted}: {parent} is a value, not a block of keys.")
        node[last] = value
    return result


def parse_assignments(pairs: list[str]) -> dict[str, Any]:
    """`["tune.beta=0.2"]` -> `{"tune.beta": 0.2}`; values are read as YAML."""
    assignments = {}
    for pair in pairs:
        key, sep, value = pair.partition("=")
        if not sep or not key:
            raise TsalignError(f"{pair!r}: expected key.path=value, for example tune.beta=0.2")
        try:
            assignments[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise TsalignError(f"{pair!r}: the value is not valid YAML; quote it if it is text.") from error
    return assignments


def validate(schema: type[C], content: dict[str, Any], source: str) -> C:
    """`content` as a typed config; every problem in one message, unknown keys with the nearest valid one."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        lines = [_explain(schema, dict(problem)) for problem in error.errors()]
        raise TsalignError(f"{source}: " + "\n  ".join(lines)) from error


def _explain(schema: type[BaseModel], problem: dict[str, Any]) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] != "extra_forbidden":
        given = "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
        return f"{path}: {problem['msg']}{given}"
    known = _keys(schema)
    inside = [key for key in known if key.rpartition(".")[0] == path.rpartition(".")[0]]
    near = difflib.get_close_matches(path, inside, 1, 0.5) or difflib.get_close_matches(path, known, 1, 0.4)
    hint = f"did you mean {near[0]}?" if near else f"valid here: {', '.join(inside)}"
    return f"{path}: unknown key; {hint}"


def _keys(schema: type[BaseModel], prefix: str = "") -> list[str]:
    found = []
    for name, field in schema.model_fields.items():
        found.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += _keys(field.annotation, f"{prefix}{name}.")
    return found
