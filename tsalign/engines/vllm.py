"""Sampling with vLLM, on GPUs and on CPU alike."""

from __future__ import annotations

import os
from typing import Any

import torch

from tsalign.config import SamplingConfig
from tsalign.data.chat import decode, encode_prompt, load_tokenizer
from tsalign.engines import Completion, Request
from tsalign.runs.artifacts import Model
from tsalign.storage import local_folder

if not torch.cuda.is_available():
    # In an actor on CPU: no second process, no core binding against Ray's, a small cache.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")

from vllm import LLM, SamplingParams, TokensPrompt


class VLLMEngine:
    """vLLM's offline `LLM`: continuous batching, prefix caching across the K completions of a prompt."""

    def __init__(self, model: Model, sampling: SamplingConfig, tensor_parallel: int) -> None:
        self.sampling = sampling
        self.tokenizer = load_tokenizer(model)
        cuda = torch.cuda.is_available()
        options: dict[str, Any] = {"gpu_memory_utilization": sampling.gpu_memory}
        if not cuda:
            # On CPU, vLLM cannot rewind the seeded generator of a request whose prompt it reads in pieces.
            whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(8192, sampling.max_model_len)}
            options = {"enforce_eager": True, **whole}
        options["dtype"] = model.dtype if cuda or model.dtype != "auto" else "float32"
        with local_folder(model.path) as folder:
            self.llm = LLM(
                model=folder,
                revision=model.revision,
                trust_remote_code=model.trust_remote_code,
                max_model_len=sampling.max_model_len,
                tensor_parallel_size=tensor_parallel,
                enable_prefix_caching=True,
                disable_log_stats=True,
                **options,
            )

    def generate(self, requests: list[Request]) -> list[Completion]:
        """One completion a request, in order."""
        ids = [request.prompt_ids or encode_prompt(self.tokenizer, request.prompt) for request in requests]
        prompts = [TokensPrompt(prompt_token_ids=prompt_ids) for prompt_ids in ids]
        outputs = self.llm.generate(prompts, [self._parameters(request) for request in requests], use_tqdm=False)
        return [self._completion(output.outputs[0]) for output in outputs]

    def _parameters(self, request: Request) -> SamplingParams:
        return SamplingParams(
            seed=request.seed,
            temperature=request.temperature,
            top_p=self.sampling.top_p,
            max_tokens=self.sampling.max_tokens,
            stop=list(self.sampling.stop) or None,
        )

    def _completion(self, output: Any) -> Completion:
        ids = list(output.token_ids)
        text = output.text.strip() if self.sampling.stop else decode(self.tokenizer, ids)
        return Completion(text, ids, "length" if output.finish_reason == "length" else "stop")
