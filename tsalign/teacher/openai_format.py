"""OpenAI's wire format: what its two routes take, and what they, and errors, give."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field
from starlette.requests import Request as HTTPRequest
from starlette.responses import JSONResponse
from transformers import PreTrainedTokenizerBase

from tsalign.teacher.serving import Body, ChatMessage, flaws
from tsalign.teacher.writers import Generation, TokenLogprob

MAX_TOP = 20  # vLLM's own limit
MAX_CHOICES = 128
MAX_STOPS = 16
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}


StopText = Annotated[str, Field(min_length=1)]


class BaseRequest(Body):
    """What both routes take. Parameters that have no effect here are refused, not ignored."""

    model: str | None = None
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: StopText | Annotated[list[StopText], Field(max_length=MAX_STOPS)] | None = None
    stream: Literal[False] = False
    user: str | None = None

    def stops(self) -> tuple[str, ...]:
        """The texts that end a completion."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class ChatCompletionRequest(BaseRequest):
    """What `/v1/chat/completions` takes."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(
        None,
        ge=1,
        validation_alias=AliasChoices("max_tokens", "max_completion_tokens"),
        description="default: no limit",
    )
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_TOP)


class CompletionRequest(BaseRequest):
    """What `/v1/completions` takes."""

    prompt: str | Annotated[list[str], Field(min_length=1)]
    max_tokens: int = Field(16, ge=1)
    logprobs: int | None = Field(None, ge=0, le=MAX_TOP)


def response(kind: str, model: str, fingerprint: str, choices: list[dict[str, Any]], usage: tuple[int, int]) -> Any:
    """The body of a response; `usage` is tokens of prompts and of completions."""
    return {
        "id": f"{'chatcmpl' if kind == 'chat.completion' else 'cmpl'}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [{"index": index, **choice} for index, choice in enumerate(choices)],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


def chat_choice(made: Generation, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """One of the `choices` of a chat."""
    text, _, finish = made.completion
    logprobs = None if made.logprobs is None else {"content": [_chat_logprob(one, tokenizer) for one in made.logprobs]}
    return {"message": {"role": "assistant", "content": text}, "finish_reason": finish, "logprobs": logprobs}


def text_choice(made: Generation, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """One of the `choices` of a completion."""
    text, _, finish = made.completion
    logprobs = None if made.logprobs is None else _text_logprobs(made.logprobs, tokenizer)
    return {"text": text, "finish_reason": finish, "logprobs": logprobs}


def _chat_logprob(at: TokenLogprob, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    def one(token: int, logprob: float) -> dict[str, Any]:
        text = str(tokenizer.decode([token]))
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {**one(at.token, at.logprob), "top_logprobs": [one(*likely) for likely in at.top]}


def _text_logprobs(logprobs: list[TokenLogprob], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    texts = [str(tokenizer.decode([one.token])) for one in logprobs]
    return {
        "tokens": texts,
        "token_logprobs": [one.logprob for one in logprobs],
        "top_logprobs": [{str(tokenizer.decode([token])): logp for token, logp in one.top} for one in logprobs],
        "text_offset": [sum(map(len, texts[:index])) for index in range(len(texts))],
    }


def problem(status: int, message: str, headers: Any = None) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = TYPES.get(status, "invalid_request_error")
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": status}}, status, headers)


async def refused(_: HTTPRequest, error: Any) -> JSONResponse:
    """Handler of `HTTPException`."""
    return problem(error.status_code, str(error.detail), error.headers)


async def invalid(_: HTTPRequest, error: Any) -> JSONResponse:
    """Handler of bodies that do not validate."""
    return problem(400, flaws(error))
