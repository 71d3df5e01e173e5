"""An engine behind a service: many requests at once, each with its own settings."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple, Protocol
from uuid import uuid4

import torch
from ray import serve

from tsalign.common.storage import local_folder
from tsalign.config import EngineConfig, TeacherConfig
from tsalign.data.batching import by_tokens
from tsalign.data.chat import load_tokenizer
from tsalign.data.tensors import pad
from tsalign.data.weights import check
from tsalign.engines import Completion, Request, prompt_ids
from tsalign.runs.artifacts import Model

BATCH_WAIT_SECONDS = 0.005


class TokenLogprob(NamedTuple):
    """A token of a completion and its log-prob at temperature 1, and the same of the likeliest there, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


class Generation(NamedTuple):
    """A completion; `logprobs` holds an entry a token where they were asked for."""

    completion: Completion
    logprobs: list[TokenLogprob] | None


class Writer(Protocol):
    """A loaded model that any number of coroutines ask."""

    tokenizer: Any

    async def write(self, request: Request, top_logprobs: int | None) -> Generation:
        """One completion; with log-probs unless `top_logprobs` is None, also those of that many likeliest tokens."""

    async def check(self) -> None:
        """Raises once it cannot write any more."""


def open_writer(model: Model, config: TeacherConfig) -> Writer:
    """The writer that `config.engine` names. vLLM splits the model over all GPUs of the replica."""
    loading = EngineConfig(engine=config.engine, max_model_len=config.max_model_len)
    if config.engine == "vllm":
        return VLLMWriter(model, loading, tensor_parallel=max(1, int(config.gpus)))
    return HFWriter(model, loading, config.max_batch_size)


class HFWriter:
    """Gathers concurrent requests into batches; those of a batch wait for its longest completion."""

    def __init__(self, model: Model, config: EngineConfig, max_batch_size: int) -> None:
        from tsalign.engines.hf import HFEngine

        self.engine = HFEngine(model, config, tensor_parallel=1)
        self.tokenizer = self.engine.tokenizer
        self._batch.set_max_batch_size(max_batch_size)  # type: ignore[attr-defined]

    async def write(self, request: Request, top_logprobs: int | None) -> Generation:
        """One completion, written together with those of other requests."""
        return await self._batch((request, top_logprobs))

    async def check(self) -> None:
        """Nothing runs between batches that could end."""

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def _batch(self, batch: list[tuple[Request, int | None]]) -> list[Generation]:
        return await asyncio.to_thread(self._generate, batch)

    def _generate(self, batch: list[tuple[Request, int | None]]) -> list[Generation]:
        completions: list[Completion] = self.engine.generate([request for request, _ in batch])  # type: ignore[assignment]
        asking = {index: top for index, (_, top) in enumerate(batch) if top is not None}
        prompts = {index: prompt_ids(self.tokenizer, batch[index][0]) for index in asking}
        logprobs = self._logprobs(prompts, completions, asking)
        return [Generation(completion, logprobs.get(index)) for index, completion in enumerate(completions)]

    @torch.inference_mode()
    def _logprobs(
        self, prompts: dict[int, list[int]], completions: list[Completion], top: dict[int, int]
    ) -> dict[int, list[TokenLogprob]]:
        """Log-probs of completions by a second pass, by index, with the `top` likeliest tokens."""
        found = {}
        asking = list(prompts)
        sequences = {i: prompts[i] + completions[i].token_ids for i in asking}
        for batch in by_tokens([len(sequences[i]) for i in asking], self.engine.config.batch_tokens):
            members = [asking[i] for i in batch]
            padded = pad([sequences[i] for i in members], self.engine.padding, self.engine.model.device)
            longest = max(len(completions[i].token_ids) for i in members)
            logits = self.engine.model(**padded._asdict(), use_cache=False, logits_to_keep=longest + 1).logits
            for index, row in zip(members, logits[:, :-1].float().log_softmax(-1)):
                response = completions[index].token_ids
                found[index] = _by_token(row[longest - len(response) :], response, top[index])
        return found


def _by_token(logps: torch.Tensor, response: list[int], top: int) -> list[TokenLogprob]:
    """From log-probs [R, V] of a response of R tokens, an entry a token."""
    own = logps.gather(1, torch.tensor(response, device=logps.device)[:, None])[:, 0].tolist()
    best, tokens = logps.topk(top)
    likeliest = [list(zip(*pair)) for pair in zip(tokens.tolist(), best.tolist())]
    return [TokenLogprob(*entry) for entry in zip(response, own, likeliest)]


class VLLMWriter:
    """vLLM's `AsyncLLM`, its engine in a process of its own: requests join and leave the batch at every step."""

    def __init__(self, model: Model, config: EngineConfig, tensor_parallel: int) -> None:
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        from tsalign.engines.vllm import engine_arguments

        check(model, "causal")
        self.tokenizer = load_tokenizer(model)
        with local_folder(model.path) as folder:
            arguments = AsyncEngineArgs(folder, **engine_arguments(model, config, tensor_parallel))
            self.engine = AsyncLLM.from_engine_args(arguments)

    async def write(self, request: Request, top_logprobs: int | None) -> Generation:
        """One completion, written beside all others that are under way; cancelling it takes it out of the batch."""
        from vllm import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        from tsalign.engines.vllm import completion, sampling_parameters

        prompt = TokensPrompt(prompt_token_ids=prompt_ids(self.tokenizer, request))
        final = RequestOutputKind.FINAL_ONLY
        parameters = sampling_parameters(request, logprobs=top_logprobs, output_kind=final)
        (made,) = [output async for output in self.engine.generate(prompt, parameters, uuid4().hex)]
        output: Any = made.outputs[0]
        logprobs = (
            None
            if top_logprobs is None
            else [_likeliest(token, at, top_logprobs) for token, at in zip(output.token_ids, output.logprobs)]
        )
        return Generation(completion(output, self.tokenizer, request.stop), logprobs)

    async def check(self) -> None:
        """Raises vLLM's `EngineDeadError` once the engine has failed."""
        await self.engine.check_health()


def _likeliest(token: int, at: dict[int, Any], top: int) -> TokenLogprob:
    """From vLLM's log-probs at a position, which hold the token's own and those of the likeliest."""
    best = sorted(((other, entry.logprob) for other, entry in at.items()), key=lambda pair: -pair[1])
    return TokenLogprob(token, at[token].logprob, best[:top])
