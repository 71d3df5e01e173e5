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

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.data.chat import encode_prompt
from tsalign.runs.artifacts import Model
from tsalign.teacher.openai_format import ChatWish, TextWish, Wish, answer, chat_choice, invalid, refused, text_choice
from tsalign.teacher.serving import Admission, deployment_options, guarded
from tsalign.teacher.writers import Wanted, Written, open_writer

# `serve.ingress` copies the routes when the class is made: what they use stands above it.
api = FastAPI(
    title="tsalign generative teacher",
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

    def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        self.writer.check()

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Answers while the model works."""
        return {"status": "ok", "model": self.fingerprint}

    @api.get("/v1/models", **guarded)
    async def models(self) -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [{"id": self.name, "object": "model", "owned_by": "tsalign"}]}

    @api.post("/v1/chat/completions", **guarded)
    async def chat(self, wish: ChatWish) -> dict[str, Any]:
        """`n` replies to a conversation."""
        top = wish.top_logprobs if wish.logprobs else None
        with self.admission.admit(wish.n):
            prompt = await asyncio.to_thread(self._encode_chat, wish)
            written = await self._write(wish, prompt, wish.max_tokens, top)
        choices = [chat_choice(one, self.writer.tokenizer) for one in written]
        return self._answer("chat.completion", choices, [prompt], written)

    @api.post("/v1/completions", **guarded)
    async def complete(self, wish: TextWish) -> dict[str, Any]:
        """`n` continuations of each prompt, prompt by prompt."""
        texts = [wish.prompt] if isinstance(wish.prompt, str) else wish.prompt
        with self.admission.admit(wish.n * len(texts)):
            prompts = [self.writer.tokenizer(text).input_ids for text in texts]
            each = await asyncio.gather(*(self._write(wish, ids, wish.max_tokens, wish.logprobs) for ids in prompts))
        written = [one for own in each for one in own]
        choices = [text_choice(one, self.writer.tokenizer) for one in written]
        return self._answer("text_completion", choices, prompts, written)

    def _encode_chat(self, wish: ChatWish) -> list[int]:
        try:
            return encode_prompt(self.writer.tokenizer, [message.model_dump() for message in wish.messages])
        except TsalignError as error:
            raise HTTPException(400, str(error)) from error

    async def _write(self, wish: Wish, prompt: list[int], max_tokens: int | None, top: int | None) -> list[Written]:
        """`n` completions, the i-th with seed `seed + i`, as vLLM does."""
        if wish.model not in (None, self.name):
            raise HTTPException(404, f"no model {wish.model!r} here; this is {self.name!r}")
        if not prompt:
            raise HTTPException(400, "the prompt has no tokens")
        room = self.room - len(prompt)
        if room < (max_tokens or 1):
            raise HTTPException(
                400, f"{len(prompt)} prompt tokens and {max_tokens or 1} new ones; max_model_len is {self.room}"
            )
        seed = secrets.randbits(62) if wish.seed is None else wish.seed
        common = (wish.temperature, wish.top_p, max_tokens or room, wish.stops(), top)
        return await asyncio.gather(*(self.writer.write(Wanted(prompt, seed + i, *common)) for i in range(wish.n)))

    def _answer(
        self, kind: str, choices: list[dict[str, Any]], prompts: list[list[int]], written: list[Written]
    ) -> dict[str, Any]:
        usage = sum(map(len, prompts)), sum(len(one.completion.token_ids) for one in written)
        return answer(kind, self.name, self.fingerprint, choices, usage)


def application(model: Model, config: TeacherConfig, token: str | None) -> serve.Application:
    """The deployment that `serve.run` takes."""
    # Requests that one batch holds keep a replica busy.
    options = deployment_options(config, float(config.max_batch_size))
    deployment = GenerativeReplica.options(**options)  # type: ignore[attr-defined]
    return deployment.bind(model, config, SecretStr(token) if token else None)
