"""The teacher as a Ray Serve application: a reward model behind three HTTP routes."""

from __future__ import annotations

import asyncio
import math
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, SecretStr
from ray import serve
from starlette.middleware import Middleware

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.data.chat import encode_pair
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import padding_id
from tsalign.runs.artifacts import Model
from tsalign.scoring.reward_model import RewardModel, score_sequences
from tsalign.teacher.client import CHUNK
from tsalign.teacher.guard import Guard
from tsalign.teacher.serving import Admission, Body, ChatMessage, deployment_options, guarded, invalid, problem

BATCH_WAIT_SECONDS = 0.005


class ScoreItem(Body):
    """A prompt and the completions that compete for it."""

    prompt: str | Annotated[list[ChatMessage], Field(min_length=1)]
    completions: list[str] = Field(min_length=1)

    def conversation(self) -> list[dict[str, str]]:
        """The prompt as messages; plain text is one user turn."""
        if isinstance(self.prompt, str):
            return [{"role": "user", "content": self.prompt}]
        return [message.model_dump() for message in self.prompt]


class ScoreRequest(Body):
    """What `/v1/score` and `/v1/rank` take."""

    items: list[ScoreItem] = Field(min_length=1)


class Scores(BaseModel):
    """Scores in the order of the request; null where the model gave no finite number. `tokens` were scored."""

    scores: list[list[float | None]]
    tokens: int
    model: str


class Rankings(Scores):
    """For each item, the indices of its completions, best first."""

    rankings: list[list[int]]


def best_first(scores: list[float | None]) -> list[int]:
    """Indices by falling score, the earlier one first where they tie, those without a score last."""
    values = [-math.inf if score is None else score for score in scores]
    return sorted(range(len(values)), key=lambda index: values[index], reverse=True)


def longest(model: Any) -> float:
    """The tokens of the longest sequence that a model takes, as far as its config says."""
    return float(getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf)


# `serve.ingress` copies the routes when the class is made: what they use stands above it.
api = FastAPI(
    title="tsalign teacher",
    middleware=[Middleware(Guard, problem=problem, malformed=422)],
    exception_handlers={RequestValidationError: invalid},
)


@serve.deployment
@serve.ingress(api)
class TeacherReplica:
    """Holds the model; scores sequences of concurrent requests together."""

    def __init__(self, model: Model, config: TeacherConfig, token: SecretStr | None) -> None:
        self.name, self.token, self.admission = model.fingerprint, token, Admission(config.max_pending)
        self.model, self.tokenizer = load_for_inference(model, "reward")
        self.padding, self.longest = padding_id(self.tokenizer), longest(self.model)
        self._score.set_max_batch_size(config.max_batch_size)  # type: ignore[attr-defined]

    @api.get("/healthz")
    async def healthz(self) -> dict[str, str]:
        """Answers while the model works."""
        return {"status": "ok", "model": self.name}

    @api.post("/v1/score", **guarded)
    async def score(self, request: ScoreRequest) -> Scores:
        """A score for every completion; higher is better."""
        return await self._scores(request)

    @api.post("/v1/rank", **guarded)
    async def rank(self, request: ScoreRequest) -> Rankings:
        """The completions of every item, best first; the earlier one first where they tie."""
        result = await self._scores(request)
        return Rankings(**result.model_dump(), rankings=[best_first(scores) for scores in result.scores])

    async def _scores(self, request: ScoreRequest) -> Scores:
        with self.admission.admit(sum(len(item.completions) for item in request.items)):
            sequences = await asyncio.to_thread(self._encode, request)
            values = iter(await asyncio.gather(*map(self._score, sequences)))
        scores = [[next(values) for _ in item.completions] for item in request.items]
        return Scores(scores=scores, tokens=sum(map(len, sequences)), model=self.name)

    def _encode(self, request: ScoreRequest) -> list[list[int]]:
        sequences = []
        for index, item in enumerate(request.items):
            conversation = item.conversation()
            try:
                pairs = [encode_pair(self.tokenizer, conversation, text) for text in item.completions]
            except TsalignError as error:
                raise HTTPException(422, f"items[{index}]: {error}") from error
            for number, (prompt, response) in enumerate(pairs):
                tokens = len(prompt) + len(response)
                if tokens > self.longest:
                    where = f"items[{index}].completions[{number}]"
                    raise HTTPException(
                        422, f"{where}: {tokens} tokens with its prompt; the model takes {self.longest:.0f}"
                    )
                sequences.append(prompt + response)
        return sequences

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def _score(self, sequences: list[list[int]]) -> list[float | None]:
        budget = RewardModel.batch_tokens
        scores = await asyncio.to_thread(score_sequences, self.model, sequences, self.padding, budget)
        return [value if math.isfinite(value) else None for value in scores]


def application(model: Model, config: TeacherConfig, token: SecretStr | None) -> serve.Application:
    """The deployment that `serve.run` takes."""
    # One batch on the device and one waiting keep a replica busy.
    options = deployment_options(config, max(2.0, 2 * config.max_batch_size / CHUNK))
    deployment = TeacherReplica.options(**options)  # type: ignore[attr-defined]
    return deployment.bind(model, config, token)
