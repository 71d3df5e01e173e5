"""Engines: what turns prompt tokens into completions on one actor. A new one is a file here and a line below."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, cast

from transformers import PreTrainedTokenizerBase

from tsalign.common import registry
from tsalign.common.errors import TsalignError
from tsalign.common.progress import Advance, unseen
from tsalign.config import EngineConfig, SamplingConfig
from tsalign.data.chat import encode_prompt
from tsalign.data.checks import check_context, check_model
from tsalign.data.sources import Message
from tsalign.runs.artifacts import Endpoint, Model
from tsalign.runs.plan import Plan


class Request(NamedTuple):
    """One completion to make, and how its tokens are drawn.

    Attributes:
        max_tokens: written at most.
        stop: texts that end the completion and are not part of it.
        prompt_ids: tokens of the prompt; without them the engine encodes `prompt` by its model's chat template.
    """

    prompt: list[Message]
    seed: int
    temperature: float
    max_tokens: int
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    prompt_ids: list[int] | None = None


def request_from(
    sampling: SamplingConfig,
    prompt: list[Message],
    seed: int,
    temperature: float | None = None,
    prompt_ids: list[int] | None = None,
) -> Request:
    """A request with the sampling parameters of a config; `temperature`, where given, instead of the config's."""
    drawn_at = sampling.temperature if temperature is None else temperature
    return Request(prompt, seed, drawn_at, sampling.max_tokens, sampling.top_p, sampling.stop, prompt_ids)


class Completion(NamedTuple):
    """What was made. `token_ids` include the end-of-sequence token where `finish` is `stop`."""

    text: str
    token_ids: list[int]
    finish: str


class Failed(NamedTuple):
    """A request that got no completion, or an item that got no score.

    Attributes:
        unanswered: no answer came at all: the service was down, or failed for this one; asking later may help.
        down: the service is down, so that nothing more can be asked for now.
    """

    reason: str
    unanswered: bool = False
    down: bool = False

    def row(self, prompt_id: str, **more: Any) -> dict[str, Any]:
        """The failed row that it makes of a row."""
        return {"prompt_id": prompt_id, "reason": self.reason, "answered": not self.unanswered, **more}


def first_failure(answers: Iterable[Completion | Failed]) -> Failed | None:
    """What a row with these answers failed of, unanswered where one of them is; None where all are completions."""
    failed = [answer for answer in answers if isinstance(answer, Failed)]
    return failed[0]._replace(unanswered=any(one.unanswered for one in failed)) if failed else None


class Engine(Protocol):
    """Loads a model once and answers lists of requests, in order. Equal requests get equal answers.

    Attributes:
        counts: sums since a stage last took them: `calls`, the completions made, or sequences read for log-probs;
            and `tokens`, those read and written. A prompt of several requests is read for each of them.
    """

    counts: Counter[str]

    def generate(self, requests: list[Request], done: Advance = unseen) -> Sequence[Completion | Failed]:
        """One answer a request, in order; `done` is called with how many more of them there are."""


class LogprobEngine(Engine, Protocol):
    """An engine that also shows its model's log-probs, at temperature 1; None for what is beyond `max_model_len`."""

    tokenizer: PreTrainedTokenizerBase

    def logprobs(self, pairs: list[tuple[list[int], list[int]]], done: Advance = unseen) -> list[list[float] | None]:
        """The log-prob of each token of each response, from token ids of prompts and responses."""

    def next_token_logprobs(
        self, prompts: list[list[int]], top: int, done: Advance = unseen
    ) -> list[dict[str, float] | None]:
        """The `top` most likely next tokens of each prompt, as text, with their log-probs."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, request: Request) -> list[int]:
    """The tokens of a request's prompt."""
    return request.prompt_ids or encode_prompt(tokenizer, request.prompt)


def prompts_that_fit(
    requests: list[Request], tokenizer: PreTrainedTokenizerBase, max_model_len: int
) -> tuple[dict[int, list[int]], dict[int, Completion | Failed]]:
    """Token ids of the requests that leave room for a completion, by index; and failures of those that do not."""
    fitting: dict[int, list[int]] = {}
    failed: dict[int, Completion | Failed] = {}
    for index, request in enumerate(requests):
        ids = prompt_ids(tokenizer, request)
        limit = max_model_len - request.max_tokens
        if len(ids) <= limit:
            fitting[index] = ids
        else:
            failed[index] = Failed(f"prompt has {len(ids)} tokens; max_model_len - max_tokens leaves {limit}")
    return fitting, failed


def spent(prompts: Mapping[int, list[int]], answers: Mapping[int, Completion | Failed]) -> dict[str, int]:
    """What an engine counts for the completions of prompts, by index."""
    made = [answer for answer in map(answers.get, prompts) if isinstance(answer, Completion)]
    read, written = sum(map(len, prompts.values())), sum(len(completion.token_ids) for completion in made)
    return {"calls": len(made), "tokens": read + written}


def by_text(tokenizer: PreTrainedTokenizerBase, logps: Iterable[tuple[int, float]]) -> dict[str, float]:
    """Log-probs of token ids as those of their texts; ids with the same text add up."""
    found: dict[str, float] = {}
    for token, logp in logps:
        text = str(tokenizer.decode([token]))
        found[text] = logp + math.log1p(math.exp(found[text] - logp)) if text in found else logp
    return found


HF = EngineConfig(engine="hf")

# Named, not imported: vLLM takes seconds to import, and may not be installed.
ENGINES: dict[str, str] = {
    "hf": "tsalign.engines.hf:HFEngine",
    "vllm": "tsalign.engines.vllm:VLLMEngine",
    "openai": "tsalign.engines.openai:OpenAIEngine",
}


def open_engine(writer: Model | Endpoint, config: EngineConfig, tensor_parallel: int = 1) -> Engine:
    """The engine that `config.engine` names with the model loaded; for an endpoint always `openai`.

    Raises:
        TsalignError: no such engine, its package is not installed, or `openai` for a model without a URL.
    """
    chosen = "openai" if isinstance(writer, Endpoint) else config.engine
    if chosen == "openai" and isinstance(writer, Model):
        raise TsalignError(
            f"sampling.engine: openai needs an endpoint; set the `url` of model {writer.path}, or another engine."
        )
    try:
        engine = registry.find("engines", ENGINES, chosen, "sampling.engine")
    except ModuleNotFoundError as error:
        raise TsalignError(
            f"sampling.engine: {chosen} needs the package {error.name}; "
            "install tsalign[gpu] or tsalign[cpu], or set sampling.engine: hf."
        ) from error
    opened: Engine = engine(writer, config, tensor_parallel)
    return opened


def check_engine(plan: Plan, writer: Model | Endpoint, config: EngineConfig, tensor_parallel: int = 1) -> None:
    """Note what keeps an engine from being opened for a writer, as far as that shows without loading it."""
    if isinstance(writer, Endpoint):
        return
    with plan.checking(f"engine of the {writer.role}"):
        if config.engine not in ENGINES:
            registry.find("engines", ENGINES, config.engine, "sampling.engine")
        if config.engine == "openai":
            raise TsalignError("openai needs an endpoint; set a `url` beside the `model`, or another engine.")
        if config.engine == "hf" and tensor_parallel > 1:
            raise TsalignError("resources.sample.tensor_parallel: not supported by hf; set sampling.engine: vllm.")
        if plan.ready and config.engine == "vllm" and find_spec("vllm") is None:
            raise TsalignError("vllm is not installed; install tsalign[gpu] or tsalign[cpu], or set engine: hf.")
    check_model(plan, writer, "causal")
    if config.engine == "vllm":
        check_context(plan, writer, config.max_model_len)


def open_logprob_engine(model: Model, config: EngineConfig) -> LogprobEngine:
    """The engine that `config.engine` names, for log-probs; engines of local models have them.

    Raises:
        TsalignError: as `open_engine`.
    """
    return cast(LogprobEngine, open_engine(model, config))
