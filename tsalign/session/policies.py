"""What a run learnt, in this process: the model of a role with its tokenizer, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import derive
from tsalign.config import EngineConfig
from tsalign.data.sources import Message
from tsalign.engines import Completion, Request
from tsalign.engines.hf import HFEngine
from tsalign.runs.artifacts import Model


@lru_cache(maxsize=1)
def engine_of(model: Model, max_model_len: int) -> HFEngine:
    """The model in memory, on this process's GPU if it has one; the last one asked for stays there."""
    return HFEngine(model, EngineConfig(engine="hf", max_model_len=max_model_len), 1)


def write(
    engine: HFEngine,
    prompts: Sequence[str | list[Message]],
    sampling: dict[str, Any],
    system: str | None,
    seed: int,
) -> list[str]:
    """One text a prompt, in order; equal arguments give equal texts.

    Args:
        sampling: `temperature`, `top_p`, `max_tokens`, `stop`.
        system: the system message of prompts that have none.

    Raises:
        TsalignError: a prompt has too many tokens.
    """
    requests = [
        Request(prompt=_messages(prompt, system), seed=derive(seed, number), **sampling)
        for number, prompt in enumerate(prompts)
    ]
    texts = []
    for number, answer in enumerate(engine.generate(requests)):
        if not isinstance(answer, Completion):
            raise TsalignError(f"prompt {number}: {answer.reason}")
        texts.append(answer.text)
    return texts


def _messages(prompt: str | list[Message], system: str | None) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if system and messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    return messages
