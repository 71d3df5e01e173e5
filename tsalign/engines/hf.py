"""Sampling with Transformers' `generate`: needs nothing but torch, and every row draws from its own seed."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from tsalign.common.errors import TsalignError
from tsalign.common.progress import Advance, unseen
from tsalign.config import EngineConfig
from tsalign.data.batching import by_tokens
from tsalign.data.chat import decode
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import pad, padding_id, response_logps
from tsalign.engines import Completion, Failed, Request, by_text, prompts_that_fit, spent
from tsalign.runs.artifacts import Model


class HFEngine:
    """Batches by token budget; one model on one device."""

    def __init__(self, model: Model, config: EngineConfig, tensor_parallel: int) -> None:
        if tensor_parallel > 1:
            raise TsalignError(
                "resources.sample.tensor_parallel: not supported by the hf engine; set sampling.engine: vllm."
            )
        self.config, self.counts = config, Counter[str]()
        self.model, self.tokenizer = load_for_inference(model, "causal")
        eos = self.model.generation_config.eos_token_id
        ends = eos if isinstance(eos, list) else [eos]
        self.ends = sorted({int(end) for end in [*ends, self.tokenizer.eos_token_id] if end is not None})
        self.padding = padding_id(self.tokenizer)

    def generate(self, requests: list[Request], done: Advance = unseen) -> list[Completion | Failed]:
        """One completion a request, in order; `done` hears of each batch."""
        prompts, answers = prompts_that_fit(requests, self.tokenizer, self.config.max_model_len)
        done(len(answers))
        ending_together: dict[tuple[int, tuple[str, ...]], list[int]] = defaultdict(list)
        for index in prompts:
            ending_together[requests[index].max_tokens, requests[index].stop].append(index)
        for (max_tokens, _), members in ending_together.items():
            room = [len(prompts[i]) + max_tokens for i in members]
            for batch in by_tokens(room, self.config.batch_tokens):
                chosen = [members[i] for i in batch]
                answers.update(zip(chosen, self._batch([prompts[i] for i in chosen], [requests[i] for i in chosen])))
                done(len(chosen))
        self.counts.update(spent(prompts, answers))
        return [answers[i] for i in range(len(requests))]

    @torch.inference_mode()
    def logprobs(self, pairs: list[tuple[list[int], list[int]]], done: Advance = unseen) -> list[list[float] | None]:
        """The log-prob of each token of each response, float32."""
        found: dict[int, list[float] | None] = {}
        lengths = [len(prompt) + len(response) for prompt, response in pairs]
        for batch in by_tokens(lengths, self.config.batch_tokens):
            padded = pad([pairs[i][0] + pairs[i][1] for i in batch], self.padding, self.model.device)
            responses = torch.tensor([len(pairs[i][1]) for i in batch], device=self.model.device)
            logps = response_logps(self.model, padded, responses).tolist()
            found.update((i, row[len(row) - len(pairs[i][1]) :]) for i, row in zip(batch, logps))
            done(len(batch))
        self.counts.update(calls=len(pairs), tokens=sum(lengths))
        return [found[i] for i in range(len(pairs))]

    @torch.inference_mode()
    def next_token_logprobs(
        self, prompts: list[list[int]], top: int, done: Advance = unseen
    ) -> list[dict[str, float] | None]:
        """The `top` most likely next tokens of each prompt, as text, with their log-probs."""
        found: dict[int, dict[str, float] | None] = {}
        lengths = [len(prompt) for prompt in prompts]
        for batch in by_tokens(lengths, self.config.batch_tokens):
            padded = pad([prompts[i] for i in batch], self.padding, self.model.device)
            logits = self.model(**padded._asdict(), use_cache=False, logits_to_keep=1).logits[:, -1].float()
            logps, tokens = logits.log_softmax(-1).topk(top)
            for index, row in zip(batch, zip(tokens.tolist(), logps.tolist())):
                found[index] = by_text(self.tokenizer, zip(*row))
            done(len(batch))
        self.counts.update(calls=len(prompts), tokens=sum(lengths))
        return [found[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, prompts: list[list[int]], requests: list[Request]) -> list[Completion]:
        """Completions of requests that share `max_tokens` and `stop`."""
        max_tokens, stop = requests[0].max_tokens, requests[0].stop
        padded = pad(prompts, self.padding, self.model.device)
        sampler = SeededSampling(requests, self.model.device)
        output = self.model.generate(
            input_ids=padded.input_ids,
            attention_mask=padded.attention_mask,
            generation_config=GenerationConfig(
                max_new_tokens=max_tokens,
                do_sample=False,  # the processor leaves one token to choose
                eos_token_id=self.ends,
                pad_token_id=self.padding,
                stop_strings=list(stop) or None,
            ),
            logits_processor=LogitsProcessorList([sampler]),
            tokenizer=self.tokenizer,
        )
        return [self._completion(row, stop) for row in output[:, padded.input_ids.shape[1] :].tolist()]

    def _completion(self, ids: list[int], stop: tuple[str, ...]) -> Completion:
        end = next((i for i, token in enumerate(ids) if token in self.ends), None)
        kept = ids if end is None else ids[: end + 1]
        if end is None and self.padding not in self.ends:
            while kept and kept[-1] == self.padding:
                kept = kept[:-1]
        text = decode(self.tokenizer, kept)
        stopped = [text.find(end_text) for end_text in stop if end_text in text]
        finish = "stop" if end is not None or stopped else "length"
        return Completion(text[: min(stopped)].rstrip() if stopped else text, kept, finish)


class SeededSampling(LogitsProcessor):
    """Draws each row's next token by inverse transform from that row's own stream of uniform numbers.

    So a completion depends on its request alone, not on its neighbours in the batch. All have one `max_tokens`.
    """

    def __init__(self, requests: list[Request], device: torch.device) -> None:
        self.top_p = torch.tensor([request.top_p for request in requests], device=device)[:, None]
        self.temperature = torch.tensor([request.temperature for request in requests], device=device)[:, None]
        draws = [
            torch.rand(request.max_tokens, generator=torch.Generator().manual_seed(request.seed))
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
