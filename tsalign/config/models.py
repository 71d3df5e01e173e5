"""Models in their roles: local ones, the teacher service, and endpoints that somebody else serves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag


class ConfigModel(BaseModel):
    """A block of the YAML. Unknown keys are errors; values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(ConfigModel):
    """A model in one of the roles."""

    model: str = Field(description="hub id, local folder, storage URI, or toy:policy | toy:student | toy:teacher")
    revision: str | None = Field(None, description="branch, tag or commit of a hub id")
    chat_template: str | None = Field(None, description="Jinja text or path; default: the tokenizer's own")
    trust_remote_code: bool = False
    dtype: Literal["auto", "float32", "bfloat16"] = Field("auto", description="for inference; auto: bfloat16 on GPU")


class EndpointConfig(ConfigModel):
    """A model that somebody else serves behind an OpenAI-compatible API."""

    url: str = Field(pattern=r"^https?://", description="base URL, ending in /v1")
    model: str = Field(description="its name there")
    token_env: str = Field("OPENAI_API_KEY", description="environment variable that holds the key")
    concurrency: int = Field(16, ge=1, description="requests in flight, an actor")
    request_timeout: float = Field(120.0, gt=0, description="seconds to wait for one answer")
    max_spent_tokens: int | None = Field(
        None,
        ge=1,
        description="tokens, of prompts and answers, after which an actor sends no more requests; None: no limit",
    )


ENDPOINT, LOCAL = "a model behind a url", "a model without a url"


def _where_it_runs(value: Any) -> str:
    return ENDPOINT if isinstance(value, EndpointConfig) or (isinstance(value, dict) and "url" in value) else LOCAL


# A model that only has to write text: with `url` an endpoint, else a model of our own actors.
WriterConfig = Annotated[
    Annotated[EndpointConfig, Tag(ENDPOINT)] | Annotated[ModelConfig, Tag(LOCAL)],
    Discriminator(_where_it_runs),
]


class TeacherConfig(ModelConfig):
    """The teacher as a Ray Serve application, or one that already runs at `url`."""

    model: str = "toy:teacher"
    kind: Literal["reward", "judge", "generative"] = Field("reward", description="what is served, and how it scores")
    engine: Literal["hf", "vllm"] = Field("vllm", description="what a judge or generative teacher writes with")
    max_model_len: int = Field(4096, ge=2, description="prompt + completion of a judge or generative teacher")
    asks: Literal["pair", "axes", "axes_pair"] = Field("pair", description="what a judge is asked about completions")
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


class ServeConfig(ConfigModel):
    """What `tsalign serve teacher` takes; it looks at nothing else of a recipe's config."""

    teacher: TeacherConfig
