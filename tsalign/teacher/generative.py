"""The teacher that writes, as a Ray Serve application: a causal LM behind two routes in OpenAI's format."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import SecretStr
from ray import serve
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware import Middleware

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.data.chat import encode_prompt
from tsalign.engines import Request
from tsalign.runs.artifacts import Model
from tsalign.teacher.guard import Guard
from tsalign.teacher.openai_format import (
    BaseRequest,
    ChatCompletionRequest,
    CompletionRequest,
    chat_choice,
    invalid,
    problem,
    refused,
    response,
    text_choice,
)
from tsalign.teacher.serving import Admission, deployment_options, guarded
from tsalign.teacher.writers import Generation, open_writer

# `serve.ingress` copies the routes when the class is made: what they use stands above it.
api = FastAPI(
    title="tsalign generative teacher",
    middleware=[Middleware(Guard, problem=problem, malformed=400)],
    exception_handlers={AnyHTTPException: refused, RequestValidationError: invalid},
)


@serve.deployment
@serve.ingress(api)
class GenerativeReplica:
    """Holds the model; writes for concurrent requests together."""

    def __init__(self, model: Model, config: TeacherConfig, token: SecretStr | None) -> None:
        self.name, self.fingerprint, self.token = config.model, model.fingerprint, token
        self.admission, self.room = Admission(config.max_pending), config.max_model_len
        self.writer = open_writer(model, config)

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.writer.check()

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Answers while the model works."""
        return {"status": "ok", "model": self.fingerprint}

    @api.get("/v1/models", **guarded)
    async def models(self) -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "tsalign"}]}

    @api.post("/v1/chat/completions", **guarded)
    async def chat(self, request: ChatCompletionRequest) -> dict[str, Any]:
        """`n` replies to a conversation."""
        top = request.top_logprobs if request.logprobs else None
        with self.admission.admit(request.n):
            prompt = await asyncio.to_thread(self._encode_chat, request)
            made = await self._generate(request, prompt, request.max_tokens, top)
        choices = [chat_choice(one, self.writer.tokenizer) for one in made]
        return self._response("chat.completion", choices, [prompt], made)

    @api.post("/v1/completions", **guarded)
    async def complete(self, request: CompletionRequest) -> dict[str, Any]:
        """`n` continuations of each prompt, prompt by prompt. A prompt is raw: special tokens in it are such."""
        texts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
        with self.admission.admit(request.n * len(texts)):
            prompts = await asyncio.to_thread(lambda: [self.writer.tokenizer(text).input_ids for text in texts])
            each = await asyncio.gather(
                *(self._generate(request, ids, request.max_tokens, request.logprobs) for ids in prompts)
            )
        made = [one for own in each for one in own]
        choices = [text_choice(one, self.writer.tokenizer) for one in made]
        return self._response("text_completion", choices, prompts, made)

    def _encode_chat(self, request: ChatCompletionRequest) -> list[int]:
        try:
            return encode_prompt(self.writer.tokenizer, [message.model_dump() for message in request.messages])
        except TsalignError as error:
            raise HTTPException(400, str(error)) from error

    async def _generate(
        self, request: BaseRequest, prompt: list[int], max_tokens: int | None, top: int | None
    ) -> list[Generation]:
        """`n` completions, the i-th with seed `seed + i`, as vLLM does."""
        if request.model not in (None, self.name):
            raise HTTPException(404, f"no model {request.model!r} here; this is {self.name!r}")
        if not prompt:
            raise HTTPException(400, "the prompt has no tokens")
        room = self.room - len(prompt)
        if room < (max_tokens or 1):
            raise HTTPException(
                400, f"{len(prompt)} prompt tokens and {max_tokens or 1} new ones; max_model_len is {self.room}"
            )
        seed = secrets.randbits(62) if request.seed is None else request.seed
        common = (request.temperature, max_tokens or room, request.top_p, request.stops(), prompt)
        wanted = (Request([], seed + i, *common) for i in range(request.n))
        return await asyncio.gather(*(self.writer.write(one, top) for one in wanted))

    def _response(
        self, kind: str, choices: list[dict[str, Any]], prompts: list[list[int]], made: list[Generation]
    ) -> dict[str, Any]:
        usage = sum(map(len, prompts)), sum(len(one.completion.token_ids) for one in made)
        return response(kind, self.name, self.fingerprint, choices, usage)


def application(model: Model, config: TeacherConfig, token: SecretStr | None) -> serve.Application:
    """The deployment that `serve.run` takes."""
    # Requests that one batch holds keep a replica busy.
    options = deployment_options(config, float(config.max_batch_size))
    deployment = GenerativeReplica.options(**options)  # type: ignore[attr-defined]
    return deployment.bind(model, config, token)
