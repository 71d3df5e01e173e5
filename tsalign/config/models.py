"""Models in their roles: loaded by us, served by us, or behind somebody else's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from tsalign.config.blocks import leaves
from tsalign.config.locations import MODEL, TEXT
from tsalign.config.values import Gpus, Node, Url

# Marks keys of how work is done, and when it is given up: changing them invalidates nothing that was made.
OPERATIONAL = "operational"


class ConfigModel(BaseModel):
    """A block of the YAML. Unknown keys are errors; values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_is_no_number(cls, content: Any) -> Any:
        """Pydantic takes True for 1; as a word it is refused."""
        if not isinstance(content, dict):
            return content
        numbers = {name for name, field in cls.model_fields.items() if _only_numbers(field.annotation)}
        return {key: _worded(value) if key in numbers else value for key, value in content.items()}


def _only_numbers(annotation: Any) -> bool:
    taken = set(leaves(annotation))
    return bool not in taken and any(one in (int, float) or isinstance(one, int) for one in taken)


def _worded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_worded(one) for one in value]
    return str(value).lower() if isinstance(value, bool) else value


class ModelConfig(ConfigModel):
    """A model that tsalign loads."""

    model: Annotated[str, MODEL] = Field(
        description="Hub id, folder or storage URI of a Hugging Face model, or a built-in one (`toy:policy`)."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id. None is the default branch.")
    chat_template: Annotated[str | None, TEXT] = Field(
        None, description="Chat template, as Jinja text or the path of one. None is the tokenizer's own."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that comes with the model.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format for inference; `auto` is bfloat16 on a GPU, float32 on a CPU."
    )


class EndpointConfig(ConfigModel):
    """A model behind an OpenAI-compatible API."""

    url: Url = Field(description="Base URL of the API, ending in `/v1`.")
    model: str = Field(description="Name of the model there.")
    token_env: str = Field("OPENAI_API_KEY", description="Environment variable that holds the API key.")
    concurrency: int = Field(16, ge=1, description="Requests in flight per actor.")
    request_timeout: float = Field(120.0, gt=0, description="Seconds to wait for one answer.")
    patience: float = Field(
        1800.0, gt=0, description="Seconds without an answer after which the endpoint counts as down."
    )
    max_spent_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens, of prompts and answers, after which an actor sends no more requests. None is no limit.",
    )


ENDPOINT, LOCAL = "a model behind a url", "a model without a url"


def _where_it_runs(value: Any) -> str:
    return ENDPOINT if isinstance(value, EndpointConfig) or (isinstance(value, dict) and "url" in value) else LOCAL


# A model that only has to write text: behind an API where there is a `url`, else loaded by us.
WriterConfig = Annotated[
    Annotated[EndpointConfig, Tag(ENDPOINT)] | Annotated[ModelConfig, Tag(LOCAL)],
    Discriminator(_where_it_runs),
]


class TeacherConfig(ModelConfig):
    """A teacher that Ray Serve hosts for the length of the run, or one that already runs at `url`."""

    model: Annotated[str, MODEL] = Field(
        "toy:teacher", description="Hub id, folder or storage URI of a Hugging Face model, or a built-in one."
    )
    kind: Literal["reward", "judge", "generative"] = Field(
        "reward",
        description="`reward` serves a reward model; `judge` serves a language model that is asked which completion is "
        "better; `generative` serves one that only writes.",
    )
    engine: Literal["hf", "vllm"] = Field("vllm", description="Engine of a judge or generative teacher.")
    max_model_len: int = Field(
        4096, ge=2, description="Tokens of prompt and completion together, of a judge or generative teacher."
    )
    asks: Literal["pair", "axes", "axes_pair"] = Field(
        "pair",
        description="What a judge is asked: which of two is better (`pair`), the same on three axes (`axes_pair`), or "
        "a mark from 1 to 10 on each axis (`axes`).",
    )
    templates: Annotated[dict[str, str], TEXT] = Field(
        default_factory=dict,
        description="Of a judge: your own `judge_pair`, `judge_axes` or `judge_axes_pair`: Jinja text, or the path of "
        "one.",
    )
    url: Url | None = Field(None, description="Base URL of a teacher that already runs. None deploys one.")
    host: str = Field("127.0.0.1", description="Address to listen on; any other than loopback needs the token.")
    port: int = Field(0, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    token_env: str = Field(
        "TSALIGN_TEACHER_TOKEN", description="Environment variable that holds the bearer token of the teacher."
    )
    max_replicas: int = Field(1, ge=1, description="Replicas at full load; an idle teacher has none.")
    cpus: float = Field(1.0, ge=0, description="CPUs of a replica.")
    gpus: Gpus = Field(0.0, ge=0, description="GPUs of a replica; a fraction shares a GPU with other actors.")
    node: Node | None = Field(
        None,
        description="The nodes that replicas may use: the name of a custom resource that they have, or labels, as "
        "`{key: value}`. None is any node.",
    )
    idle_seconds: float = Field(20.0, gt=0, description="Seconds without requests before replicas scale to zero.")
    max_batch_size: int = Field(256, ge=1, description="Sequences gathered into one dynamic batch.")
    max_pending: int = Field(8192, ge=1, description="Sequences waiting in a replica before it answers 429.")
    request_timeout: float = Field(120.0, gt=0, description="Seconds that a client waits for one answer.")
    patience: float = Field(
        1800.0,
        gt=0,
        description="Seconds without an answer after which the teacher counts as down; far more than its model needs "
        "to load.",
    )

    @model_validator(mode="after")
    def _only_a_judge_is_asked(self) -> Self:
        if self.templates and self.kind != "judge":
            raise ValueError(f"templates: a teacher of kind {self.kind} is not asked to judge; set kind: judge")
        return self


class ServeConfig(ConfigModel):
    """What `tsalign serve teacher` reads of a config; it ignores all other keys."""

    teacher: TeacherConfig = Field(description="The teacher to serve.")
