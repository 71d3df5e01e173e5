"""Engines: what turns prompt tokens into completions on one actor. A new one is a file here and a line below."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple, Protocol

from tsalign.config import SamplingConfig
from tsalign.errors import TsalignError
from tsalign.runs.artifacts import Model


class Request(NamedTuple):
    """One completion to make."""

    prompt_ids: list[int]
    seed: int
    temperature: float


class Completion(NamedTuple):
    """What was made. `token_ids` include the end-of-sequence token where `finish` is `stop`."""

    text: str
    token_ids: list[int]
    finish: str


class Engine(Protocol):
    """Loads a model once and answers lists of requests, in order. Equal requests get equal answers."""

    def __init__(self, model: Model, sampling: SamplingConfig, tensor_parallel: int) -> None: ...

    def generate(self, requests: list[Request]) -> list[Completion]: ...


# Named, not imported: vLLM takes seconds to import, and may not be installed.
ENGINES: dict[str, str] = {
    "hf": "tsalign.engines.hf:HFEngine",
    "vllm": "tsalign.engines.vllm:VLLMEngine",
}


def open_engine(model: Model, sampling: SamplingConfig, tensor_parallel: int = 1) -> Engine:
    """The engine that `sampling.engine` names, with the model loaded.

    Raises:
        TsalignError: no such engine, or its package is not installed.
    """
    if sampling.engine not in ENGINES:
        raise TsalignError(f"sampling.engine: {sampling.engine!r} is not one of {', '.join(ENGINES)}.")
    module, _, name = ENGINES[sampling.engine].partition(":")
    try:
        engine = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise TsalignError(
            f"sampling.engine: {sampling.engine} needs the package {error.name}; "
            "install tsalign[gpu] or tsalign[cpu], or set sampling.engine: hf."
        ) from error
    return engine(model, sampling, tensor_parallel)
