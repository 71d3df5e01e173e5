"""The teacher that writes: its two routes over real HTTP, and the engine that asks them, with faults in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import ray
from fault_server import Reply, server
from pydantic import SecretStr

from tsalign.common.errors import TsalignError
from tsalign.config import SamplingConfig, TeacherConfig
from tsalign.data.chat import encode_prompt
from tsalign.engines import Completion, Failed, LogprobEngine, Request, open_engine, open_logprob_engine
from tsalign.engines.openai import OpenAIEngine
from tsalign.runs.artifacts import Endpoint, Model, fingerprint
from tsalign.scoring import Item
from tsalign.scoring.judge import LLMJudge
from tsalign.teacher.client import TeacherClient
from tsalign.teacher.service import Teacher
from tsalign.toy.world import tasks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

TOKEN = "a-secret-of-the-tests"
SAMPLING = SamplingConfig(engine="hf", max_tokens=8, max_model_len=128)
PROMPTS = [task.messages for task in tasks("tune", 0, 12)]


@pytest.fixture(scope="module")
def teacher(models: dict[str, Model], ray_session: None) -> Iterator[Teacher]:
    config = TeacherConfig(
        model=models["policy"].path, kind="judge", engine="hf", max_model_len=128, max_pending=40, idle_seconds=60
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(config.token_env, TOKEN)
        teacher = Teacher(config)
        with teacher:
            yield teacher


@pytest.fixture(scope="module")
def http(teacher: Teacher) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=teacher.endpoint().url, headers=headers, timeout=60) as http:
        yield http


@pytest.fixture(scope="module")
def local(models: dict[str, Model]) -> LogprobEngine:
    """The same model in this process."""
    return open_logprob_engine(models["policy"], SAMPLING)


# --- the routes ---


def test_choices_are_those_of_the_engine_with_seeds_in_a_row(http: httpx.Client, local: LogprobEngine) -> None:
    body = {"messages": PROMPTS[0], "n": 3, "seed": 7, "temperature": 0.9, "max_tokens": 8}
    answer = http.post("/chat/completions", json=body).json()
    expected = local.generate([Request(PROMPTS[0], 7 + i, 0.9, 8) for i in range(3)])
    assert answer["object"] == "chat.completion"
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert [(c["message"]["content"], c["finish_reason"]) for c in answer["choices"]] == [
        (one.text, one.finish) for one in expected
    ]
    assert len({one.text for one in expected}) > 1
    prompt, written = len(encode_prompt(local.tokenizer, PROMPTS[0])), sum(len(one.token_ids) for one in expected)
    assert answer["usage"] == {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
    }


def test_text_prompts_keep_their_order_and_show_log_probs(http: httpx.Client, local: LogprobEngine) -> None:
    prompts = ["sort: fig apple", "max: 3 14 2"]
    body = {"prompt": prompts, "n": 2, "seed": 1, "max_tokens": 6, "logprobs": 3}
    answer = http.post("/completions", json=body).json()
    ids = [local.tokenizer(prompt).input_ids for prompt in prompts]
    expected = local.generate([Request([], seed, 1.0, 6, prompt_ids=prompt) for prompt in ids for seed in (1, 2)])
    assert [choice["text"] for choice in answer["choices"]] == [one.text for one in expected]
    scored = local.logprobs([(ids[i // 2], one.token_ids) for i, one in enumerate(expected)])
    for choice, logps, one in zip(answer["choices"], scored, expected):
        shown = choice["logprobs"]
        assert shown["tokens"] == [local.tokenizer.decode([token]) for token in one.token_ids]
        assert shown["token_logprobs"] == pytest.approx(logps, abs=1e-4)
        for token, logp, likeliest in zip(shown["tokens"], shown["token_logprobs"], shown["top_logprobs"]):
            assert list(likeliest.values()) == sorted(likeliest.values(), reverse=True)
            assert likeliest.get(token, logp) == pytest.approx(logp)
            assert logp <= max(likeliest.values()) + 1e-6


def test_chat_shows_log_probs_only_where_asked(http: httpx.Client) -> None:
    body = {"messages": PROMPTS[1], "seed": 3, "max_tokens": 5, "temperature": 0}
    plain = http.post("/chat/completions", json=body).json()["choices"][0]
    shown = http.post("/chat/completions", json={**body, "logprobs": True, "top_logprobs": 2}).json()["choices"][0]
    assert plain["logprobs"] is None
    assert plain["message"] == shown["message"]
    for entry in shown["logprobs"]["content"]:
        assert entry["top_logprobs"][0]["token"] == entry["token"], "greedy decoding takes the likeliest"
        assert bytes(entry["bytes"]).decode() == entry["token"]
        assert len(entry["top_logprobs"]) == 2


def test_requests_with_different_settings_share_the_service(http: httpx.Client) -> None:
    def ask(settings: dict[str, Any]) -> Any:
        answer = http.post("/chat/completions", json={"messages": PROMPTS[2], "seed": 1, **settings}).json()
        return answer["choices"][0], answer["usage"]["completion_tokens"]

    wanted: list[dict[str, Any]] = [{"max_tokens": n, "top_p": p} for n in (1, 3, 5) for p in (0.1, 1.0)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, wanted))
    assert together == [ask(settings) for settings in wanted]
    assert [tokens <= settings["max_tokens"] for (_, tokens), settings in zip(together, wanted)] == [True] * 6
    first = together[4][0]["message"]["content"].split()[0]
    stopped, _ = ask({"max_tokens": 5, "top_p": 0.1, "stop": first})
    assert (stopped["message"]["content"], stopped["finish_reason"]) == ("", "stop")


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        ({"messages": []}, 400, "messages"),
        ({"messages": [{"role": "user"}]}, 400, "content"),
        ({"n": 0}, 400, "n: "),
        ({"stream": True}, 400, "stream"),
        ({"frequency_penalty": 1.0}, 400, "frequency_penalty"),
        ({"max_tokens": 500}, 400, "max_model_len is 128"),
        ({"messages": [{"role": "user", "content": "apple " * 300}]}, 400, "max_model_len is 128"),
        ({"model": "another"}, 404, "no model 'another' here"),
        ({"n": 41}, 413, "41 completions in one request; send at most 40"),
    ],
)
def test_refusals_are_errors_in_openai_format(
    http: httpx.Client, change: dict[str, Any], status: int, expected: str
) -> None:
    answer = http.post("/chat/completions", json={"messages": PROMPTS[0], **change})
    assert answer.status_code == status
    error = answer.json()["error"]
    assert expected in error["message"]
    assert error["type"]


def test_token_is_required_but_not_for_health(teacher: Teacher, http: httpx.Client) -> None:
    url = teacher.endpoint().url
    answer = httpx.post(f"{url}/chat/completions", json={"messages": PROMPTS[0]})
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{url}/models").status_code == 401
    assert [model["id"] for model in http.get("/models").json()["data"]] == [teacher.config.model]
    health = httpx.get(f"{url.removesuffix('/v1')}/healthz")
    assert health.json() == {"status": "ok", "model": teacher.fingerprint}


def test_overload_is_429_and_the_engine_gets_through(
    teacher: Teacher, http: httpx.Client, local: LogprobEngine
) -> None:
    body = {"messages": PROMPTS[0], "n": 20, "max_tokens": 60}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda seed: http.post("/chat/completions", json={**body, "seed": seed}), range(8)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["type"] == "rate_limit_error"

    requests = [Request(prompt, seed, 1.0, 8) for prompt in PROMPTS for seed in range(8)]
    endpoint = Endpoint(**{**vars(teacher.endpoint()), "concurrency": 64})
    made = OpenAIEngine(endpoint, SAMPLING).generate(requests)
    assert [(one.text, one.finish) for one in made] == [(one.text, one.finish) for one in local.generate(requests)]


# --- the engine against the service, with faults in between ---


def test_engine_at_the_service_writes_what_the_local_engine_writes(teacher: Teacher, local: LogprobEngine) -> None:
    requests = [Request(prompt, 5, 0.8, 8) for prompt in PROMPTS]
    engine = open_engine(teacher.endpoint(), SAMPLING)
    made, expected = engine.generate(requests + requests[:3]), local.generate(requests)
    assert [one.text for one in made] == [one.text for one in [*expected, *expected[:3]]]
    assert engine.counts["calls"] == len(PROMPTS), "equal requests are asked once"
    prompts = sum(len(encode_prompt(local.tokenizer, prompt)) for prompt in PROMPTS)
    assert engine.counts["tokens"] == prompts + sum(len(one.token_ids) for one in expected)


def test_engine_refused_by_the_service(teacher: Teacher) -> None:
    long = [Request([{"role": "user", "content": "apple " * 300}], 0, 1.0, 8), Request(PROMPTS[0], 0, 1.0, 8)]
    failed, made = open_engine(teacher.endpoint(), SAMPLING).generate(long)
    assert isinstance(failed, Failed)
    assert failed.reason.startswith("HTTP 400: ")
    assert "max_model_len is 128" in failed.reason
    assert isinstance(made, Completion)
    wrong = Endpoint(**{**vars(teacher.endpoint()), "token": SecretStr("another")})
    with pytest.raises(TsalignError, match="refused the request: HTTP 401: missing or wrong bearer token"):
        OpenAIEngine(wrong, SAMPLING).generate(long)


def test_passing_faults_before_the_service_cost_nothing_but_time(teacher: Teacher, local: LogprobEngine) -> None:
    endpoint = teacher.endpoint()

    def faulty(n: int, body: dict[str, Any]) -> Reply:
        right = httpx.post(f"{endpoint.url}/chat/completions", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
        if n == 1:
            time.sleep(2.5)
        return {0: (500, b"broken"), 2: (299, right.content), 3: (503, b""), 4: (429, {})}.get(
            n, (right.status_code, right.content)
        )

    requests = [Request(prompt, 5, 0.8, 8) for prompt in PROMPTS]
    with server(faulty) as (url, seen):
        proxied = Endpoint(url, endpoint.model, "x", request_timeout=2, concurrency=3)
        made = OpenAIEngine(proxied, SAMPLING).generate(requests)
    assert [one.text for one in made] == [one.text for one in local.generate(requests)]
    assert len(seen) == len(requests) + 5


# --- the teacher by kind ---


def test_a_judge_asks_the_service(teacher: Teacher) -> None:
    url = teacher.endpoint().url
    judge = Teacher(TeacherConfig(kind="judge", url=url, model=teacher.config.model))
    with judge as scorer:
        assert isinstance(scorer, LLMJudge)
        loaded = scorer.load()
        items = [Item([{"role": "user", "content": "hi"}], text) for text in ("fig", "pear", "fig")]
        assert loaded(items) == [None] * 3, "a question longer than the context is no verdict"
    assert loaded.counts["unanswered"] == 4
    assert "max_model_len is 128" in loaded.reasons[1]
    assert TOKEN not in f"{scorer!r} {fingerprint(scorer)} {judge.endpoint()!r}"


def test_kind_says_what_a_teacher_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def teacher(kind: str, url: str = "http://elsewhere/v1/") -> Teacher:
        return Teacher(TeacherConfig.model_validate({"kind": kind, "url": url, "model": "org/x"}))

    assert isinstance(teacher("reward").client(), TeacherClient)
    with pytest.raises(TsalignError, match="a reward model writes nothing"):
        teacher("reward").endpoint()
    with pytest.raises(TsalignError, match="set kind: judge"):
        teacher("generative").client()
    for url in ("http://elsewhere", "http://elsewhere/v1/", "http://elsewhere/v1"):
        endpoint = teacher("generative", url).endpoint()
        assert (endpoint.url, endpoint.model) == ("http://elsewhere/v1", "org/x")


# --- vLLM ---


def test_vllm_writes_requests_of_all_settings_beside_each_other(
    models: dict[str, Model], ray_session: None, local: LogprobEngine
) -> None:
    prompts = [encode_prompt(local.tokenizer, prompt) for prompt in PROMPTS]
    requests = [Request([], seed, float(seed % 2), 8, prompt_ids=prompt) for seed, prompt in enumerate(prompts)]
    top = [2 if seed % 3 else None for seed in range(len(prompts))]
    together, alone, stopped, refused = ray.get(_write.remote(models["policy"], requests, top))
    assert [one.completion for one in together] == [one.completion for one in alone]
    greedy = [one._replace(seed=0) for one in requests if not one.temperature]
    written = [one.completion for one, request in zip(together, requests) if not request.temperature]
    assert written == local.generate(greedy)
    assert [one.logprobs is None for one in together] == [count is None for count in top]
    for one, request in zip(together, requests):
        if one.logprobs is not None:
            (expected,) = local.logprobs([(request.prompt_ids, one.completion.token_ids)])
            assert [at.logprob for at in one.logprobs] == pytest.approx(expected, abs=1e-3)
            assert all(len(at.top) == 2 and at.top[0][1] >= at.top[1][1] for at in one.logprobs)
    assert stopped.completion.text == ""
    assert "maximum context length is 128" in refused


@ray.remote
def _write(model: Model, requests: list[Request], top: list[int | None]) -> Any:
    import psutil
    from vllm.exceptions import VLLMClientError
    from vllm.v1.engine.exceptions import EngineDeadError

    from tsalign.teacher.writers import VLLMWriter

    async def ask() -> Any:
        writer = VLLMWriter(model, SAMPLING, tensor_parallel=1)
        together = await asyncio.gather(*map(writer.write, requests, top))
        alone = [await writer.write(*one) for one in zip(requests, top)]
        first = together[0].completion.text.split()[0]
        stopped = await writer.write(requests[0]._replace(stop=(first,)), None)
        with pytest.raises(VLLMClientError) as refused:
            await writer.write(requests[0]._replace(prompt_ids=[1] * 500), None)

        long = asyncio.create_task(writer.write(requests[1]._replace(max_tokens=100, temperature=2.0), None))
        while not writer.engine.get_num_unfinished_requests():
            await asyncio.sleep(0)
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert writer.engine.get_num_unfinished_requests() == 0, "what nobody waits for is not written"
        assert (await writer.write(requests[0], None)).completion == alone[0].completion, "the engine goes on"
        await writer.check()

        (core,) = [one for one in psutil.Process().children(recursive=True) if "EngineCore" in one.name()]
        core.kill()
        with pytest.raises(EngineDeadError):
            await writer.write(requests[0], None)
        with pytest.raises(EngineDeadError):
            await writer.check()
        return together, alone, stopped, repr(refused.value)

    return asyncio.run(ask())
