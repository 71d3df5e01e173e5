"""An engine behind a service: many requests at once, each with its own settings."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import defaultdict
from concurrent.futures import Future
from itertools import count
from typing import Any, NamedTuple, Protocol

import torch
from ray import serve

from tsalign.config import SamplingConfig, TeacherConfig
from tsalign.data.batching import by_tokens
from tsalign.data.chat import decode
from tsalign.data.tensors import pad
from tsalign.engines import Completion, Request
from tsalign.runs.artifacts import Model

BATCH_WAIT_SECONDS = 0.005


class Wanted(NamedTuple):
    """One completion to write, of `prompt_ids`; `top` likeliest tokens shown at each place, none shown at None."""

    prompt_ids: list[int]
    seed: int
    temperature: float
    top_p: float
    max_tokens: int
    stop: tuple[str, ...]
    top: int | None


class Shown(NamedTuple):
    """A token of a completion and its log-prob at temperature 1, and the same of the likeliest there, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


class Written(NamedTuple):
    """A completion; `shown` holds an entry a token where that was wanted."""

    completion: Completion
    shown: list[Shown] | None


class Writer(Protocol):
    """A loaded model that any number of coroutines ask."""

    tokenizer: Any

    async def write(self, wanted: Wanted) -> Written: ...

    def check(self) -> None:
        """Raises RuntimeError once it cannot write any more."""


def open_writer(model: Model, config: TeacherConfig) -> Writer:
    """The writer that `config.engine` names. vLLM splits the model over all GPUs of the replica."""
    sampling = SamplingConfig(engine=config.engine, max_model_len=config.max_model_len)
    if config.engine == "vllm":
        return VLLMWriter(model, sampling, tensor_parallel=max(1, int(config.gpus)))
    return HFWriter(model, sampling, config.max_batch_size)


class HFWriter:
    """Gathers concurrent requests into batches; those of a batch wait for its longest completion."""

    def __init__(self, model: Model, sampling: SamplingConfig, max_batch_size: int) -> None:
        from tsalign.engines.hf import HFEngine

        self.engine = HFEngine(model, sampling, tensor_parallel=1)
        self.tokenizer = self.engine.tokenizer
        self._batch.set_max_batch_size(max_batch_size)  # type: ignore[attr-defined]

    async def write(self, wanted: Wanted) -> Written:
        """One completion, written together with what others want."""
        return await self._batch(wanted)

    def check(self) -> None:
        """Nothing runs between batches that could end."""

    @serve.batch(batch_wait_timeout_s=BATCH_WAIT_SECONDS)
    async def _batch(self, batch: list[Wanted]) -> list[Written]:
        return await asyncio.to_thread(self._generate, batch)

    def _generate(self, batch: list[Wanted]) -> list[Written]:
        alike: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        for index, wanted in enumerate(batch):
            alike[wanted.top_p, wanted.max_tokens, wanted.stop].append(index)
        completions: dict[int, Completion] = {}
        for (top_p, max_tokens, stop), members in alike.items():
            changes = {"top_p": top_p, "max_tokens": max_tokens, "stop": stop}
            self.engine.sampling = self.engine.sampling.model_copy(update=changes)
            requests = [Request([], batch[i].seed, batch[i].temperature, batch[i].prompt_ids) for i in members]
            completions.update(zip(members, self.engine.generate(requests)))  # type: ignore[arg-type]
        shown = self._show([(batch[i].prompt_ids, completions[i].token_ids, batch[i].top) for i in range(len(batch))])
        return [Written(completions[i], shown.get(i)) for i in range(len(batch))]

    @torch.inference_mode()
    def _show(self, written: list[tuple[list[int], list[int], int | None]]) -> dict[int, list[Shown]]:
        """Log-probs by a second pass over those that want them: (prompt ids, response ids, top)."""
        wanting = [i for i, (_, _, top) in enumerate(written) if top is not None]
        found = {}
        budget = self.engine.sampling.batch_tokens
        for batch in by_tokens([len(written[i][0]) + len(written[i][1]) for i in wanting], budget):
            members = [wanting[i] for i in batch]
            padded = pad(
                [written[i][0] + written[i][1] for i in members], self.engine.padding, self.engine.model.device
            )
            longest = max(len(written[i][1]) for i in members)
            logits = self.engine.model(**padded._asdict(), use_cache=False, logits_to_keep=longest + 1).logits
            for index, row in zip(members, logits[:, :-1].float().log_softmax(-1)):
                _, response, top = written[index]
                found[index] = _shown(row[longest - len(response) :], response, top or 0)
        return found


def _shown(logps: torch.Tensor, response: list[int], top: int) -> list[Shown]:
    """Log-probs [R, V] of a response of R tokens, as entries."""
    own = logps.gather(1, torch.tensor(response, device=logps.device)[:, None])[:, 0].tolist()
    best, tokens = logps.topk(top)
    likeliest = [list(zip(*pair)) for pair in zip(tokens.tolist(), best.tolist())]
    return [Shown(*entry) for entry in zip(response, own, likeliest)]


class VLLMWriter:
    """Continuous batching: a thread steps vLLM's engine while there is work; requests join and leave at any step."""

    def __init__(self, model: Model, sampling: SamplingConfig, tensor_parallel: int) -> None:
        from tsalign.engines.vllm import VLLMEngine

        engine = VLLMEngine(model, sampling, tensor_parallel)
        self.tokenizer, self._core = engine.tokenizer, engine.llm.llm_engine
        self._inbox: queue.SimpleQueue[tuple[Wanted, Future[Written]]] = queue.SimpleQueue()
        self._waiting: dict[str, tuple[Wanted, Future[Written]]] = {}
        self._numbers = count()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    async def write(self, wanted: Wanted) -> Written:
        """One completion, written beside all others that are under way."""
        future: Future[Written] = Future()
        self._inbox.put((wanted, future))
        return await asyncio.wrap_future(future)

    def check(self) -> None:
        """Raises RuntimeError when vLLM's engine has failed."""
        if not self._thread.is_alive():
            raise RuntimeError("vLLM's engine has stopped")

    def _work(self) -> None:
        try:
            while True:
                while not self._waiting or not self._inbox.empty():
                    self._add(*self._inbox.get())
                outputs: list[Any] = self._core.step()
                for output in outputs:
                    if output.finished:
                        wanted, future = self._waiting.pop(output.request_id)
                        future.set_result(self._written(wanted, output.outputs[0]))
        except Exception as error:
            for _, future in self._waiting.values():
                future.set_exception(RuntimeError(f"vLLM's engine failed: {error!r}"))
            raise

    def _add(self, wanted: Wanted, future: Future[Written]) -> None:
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        if not future.set_running_or_notify_cancel():
            return
        name = str(next(self._numbers))
        try:
            parameters = SamplingParams(
                seed=wanted.seed,
                temperature=wanted.temperature,
                top_p=wanted.top_p,
                max_tokens=wanted.max_tokens,
                stop=list(wanted.stop) or None,
                logprobs=wanted.top,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            self._core.add_request(name, TokensPrompt(prompt_token_ids=wanted.prompt_ids), parameters)
        except Exception as error:  # whatever is wrong with this one, the others go on
            future.set_exception(ValueError(f"vLLM refuses the request: {error}"))
        else:
            self._waiting[name] = wanted, future

    def _written(self, wanted: Wanted, output: Any) -> Written:
        ids = list(output.token_ids)
        text = output.text.strip() if wanted.stop else decode(self.tokenizer, ids)
        completion = Completion(text, ids, "length" if output.finish_reason == "length" else "stop")
        if wanted.top is None:
            return Written(completion, None)
        shown = []
        for token, at in zip(ids, output.logprobs):
            best = sorted(((other, entry.logprob) for other, entry in at.items()), key=lambda pair: -pair[1])
            shown.append(Shown(token, at[token].logprob, best[: wanted.top]))
        return Written(completion, shown)
