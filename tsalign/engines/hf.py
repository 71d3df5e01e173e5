"""Sampling with Transformers' `generate`: needs nothing but torch, and every row draws from its own seed."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tsalign.config import SamplingConfig
from tsalign.data.batching import by_tokens
from tsalign.data.chat import decode, encode_prompt
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import pad, padding_id
from tsalign.engines import Completion, Request
from tsalign.errors import TsalignError
from tsalign.runs.artifacts import Model


class HFEngine:
    """Batches by token budget; one model on one device."""

    def __init__(self, model: Model, sampling: SamplingConfig, tensor_parallel: int) -> None:
        if tensor_parallel > 1:
            raise TsalignError("resources.sample.tensor_parallel: the hf engine has none; use sampling.engine: vllm.")
        self.sampling = sampling
        self.model, self.tokenizer = load_for_inference(model, "causal")
        eos = self.model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self.ends = sorted({int(end) for end in [*ends, self.tokenizer.eos_token_id] if end is not None})
        self.padding = padding_id(self.tokenizer)

    def generate(self, requests: list[Request]) -> list[Completion]:
        """One completion a request, in order."""
        done: dict[int, Completion] = {}
        prompts = [request.prompt_ids or encode_prompt(self.tokenizer, request.prompt) for request in requests]
        room = [len(prompt_ids) + self.sampling.max_tokens for prompt_ids in prompts]
        for batch in by_tokens(room, self.sampling.batch_tokens):
            done.update(zip(batch, self._batch([prompts[i] for i in batch], [requests[i] for i in batch])))
        return [done[i] for i in range(len(requests))]

    @torch.inference_mode()
    def _batch(self, prompts: list[list[int]], requests: list[Request]) -> list[Completion]:
        padded = pad(prompts, self.padding, self.model.device)
        sampler = SeededSampling(requests, self.sampling, self.model.device)
        output = self.model.generate(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            generation_config=GenerationConfig(
                max_new_tokens=self.sampling.max_tokens,
                do_sample=False,  # the processor leaves one token to choose
                eos_token_id=self.ends,
                pad_token_id=self.padding,
                stop_strings=list(self.sampling.stop) or None,
            ),
            logits_processor=LogitsProcessorList([sampler]),
            tokenizer=self.tokenizer,
        )
        return [self._completion(row) for row in output[:, padded.input_ids.shape[1] :].tolist()]

    def _completion(self, ids: list[int]) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        kept = ids if end is None else ids[: end + 1]
        if end is None and self.padding not in self.ends:
            while kept and kept[-1] == self.padding:
                kept = kept[:-1]
        text = decode(self.tokenizer, kept)
        stopped = [text.find(stop) for stop in self.sampling.stop if stop in text]
        finish = "stop" if end is not None or stopped else "length"
        return Completion(text[: min(stopped)].rstrip() if stopped else text, kept, finish)


class SeededSampling(LogitsProcessor):
    """Draws each row's next token by inverse transform from that row's own stream of uniform numbers.

    So a completion depends on its request alone, not on its neighbours in the batch.
    """

    def __init__(self, requests: list[Request], sampling: SamplingConfig, device: torch.device) -> None:
        self.top_p = sampling.top_p
        self.temperature = torch.tensor([request.temperature for request in requests], device=device)[:, None]
        draws = [
            torch.rand(sampling.max_tokens, generator=torch.Generator().manual_seed(request.seed))
            for request in requests
        ]
        self.uniform = torch.stack(draws).to(device)  # [B, max_tokens]
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [B, V] in, and out with everything but the drawn token at -inf."""
        greedy = self.temperature == 0
        scaled = scores.float() / self.temperature.masked_fill(greedy, 1.0)
        probabilities, order = scaled.softmax(-1).sort(-1, descending=True)
        cumulative = probabilities.cumsum(-1)
        # A token stays in the nucleus while the mass before it is below top_p.
        nucleus = (cumulative - probabilities < self.top_p).sum(-1, keepdim=True)
        mass = cumulative.gather(1, nucleus - 1)
        rank = torch.searchsorted(cumulative, self.uniform[:, self.step, None] * mass).clamp(max=nucleus - 1)
        drawn = order.gather(1, rank.masked_fill(greedy, 0))
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)
