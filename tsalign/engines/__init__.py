"""Engines: what turns prompt tokens into completions on one actor. A new one is a file here and a line below."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, Protocol

from tsalign.config import SamplingConfig
from tsalign.errors import TsalignError
from tsalign.runs.artifacts import Endpoint, Model


class Request(NamedTuple):
    """One completion to make. Without `prompt_ids` the engine encodes `prompt` by its model's chat template."""

    prompt: list[dict[str, str]]
    seed: int
    temperature: float
    prompt_ids: list[int] | None = None


class Completion(NamedTuple):
    """What was made. `token_ids` include the end-of-sequence token where `finish` is `stop`."""

    text: str
    token_ids: list[int]
    finish: str


class Failed(NamedTuple):
    """A request that got no completion."""

    reason: str


class Engine(Protocol):
    """Loads a model once and answers lists of requests, in order. Equal requests get equal answers."""

    def generate(self, requests: list[Request]) -> Sequence[Completion | Failed]: ...


# Named, not imported: vLLM takes seconds to import, and may not be installed.
ENGINES: dict[str, str] = {
    "hf": "tsalign.engines.hf:HFEngine",
    "vllm": "tsalign.engines.vllm:VLLMEngine",
    "openai": "tsalign.engines.openai:OpenAIEngine",
}


def open_engine(writer: Model | Endpoint, sampling: SamplingConfig, tensor_parallel: int = 1) -> Engine:
    """The engine that `sampling.engine` names with the model loaded; for an endpoint always `openai`.

    Raises:
        TsalignError: no such engine, its package is not installed, or `openai` for a model without a URL.
    """
    chosen = "openai" if isinstance(writer, Endpoint) else sampling.engine
    if chosen not in ENGINES:
        raise TsalignError(f"sampling.engine: {chosen!r} is not one of {', '.join(ENGINES)}.")
    if chosen == "openai" and isinstance(writer, Model):
        raise TsalignError(f"sampling.engine: openai asks an endpoint; give the model {writer.path} a `url`.")
    module, _, name = ENGINES[chosen].partition(":")
    try:
        engine = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise TsalignError(
            f"sampling.engine: {chosen} needs the package {error.name}; "
            "install tsalign[gpu] or tsalign[cpu], or set sampling.engine: hf."
        ) from error
    return engine(writer, sampling, tensor_parallel)
