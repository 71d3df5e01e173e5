"""The teacher service over real HTTP, and the teacher that a run asks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tsalign.common.errors import TsalignError
from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model, fingerprint, model_from
from tsalign.scoring import Item
from tsalign.scoring.reward_model import RewardModel
from tsalign.teacher import service
from tsalign.teacher.client import TeacherClient
from tsalign.teacher.service import Teacher, serve_forever

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

TOKEN = "a-secret-of-the-tests"
COMPLETIONS = ["apple", "apple pear", "", "pear apple fig lemon", "Fig!", "a b c d"]
ITEMS = [Item([{"role": "user", "content": f"sort: {'lemon ' * n}"}], text) for n in range(20) for text in COMPLETIONS]


@pytest.fixture(scope="module")
def teacher(models: dict[str, Model], ray_session: None) -> Iterator[Teacher]:
    """One deployment for all tests; it sleeps after five seconds without a request."""
    config = TeacherConfig(model=models["student"].path, idle_seconds=5, max_pending=128, max_batch_size=32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(config.token_env, TOKEN)
        teacher = Teacher(config)
        with teacher:
            yield teacher


@pytest.fixture(scope="module")
def http(teacher: Teacher) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=teacher.client().url, headers=headers, timeout=60) as http:
        yield http


def body(*items: Item) -> dict[str, Any]:
    return {"items": [{"prompt": item.prompt, "completions": [item.completion]} for item in items]}


def test_scores_are_those_of_the_reward_model(teacher: Teacher) -> None:
    scorer = teacher.client().load()
    direct = RewardModel(model_from(teacher.config, "teacher")).load()(ITEMS)
    assert scorer(ITEMS) == pytest.approx(direct, abs=1e-5)
    assert scorer.counts["calls"] == len(ITEMS)
    assert scorer.counts["tokens"] > len(ITEMS)
    assert len(set(direct)) > len(ITEMS) // 2, "the model should tell completions apart"


def test_text_prompt_is_a_user_turn(http: httpx.Client, teacher: Teacher) -> None:
    item = ITEMS[7]
    plain = {"items": [{"prompt": item.prompt[0]["content"], "completions": [item.completion]}]}
    first, second = http.post("/v1/score", json=plain).json(), http.post("/v1/score", json=body(item)).json()
    assert first == second
    assert first["model"] == teacher.fingerprint
    assert first["tokens"] > 0


def test_rank_is_best_first(http: httpx.Client) -> None:
    content = {"items": [{"prompt": "sort: fig apple", "completions": COMPLETIONS}]}
    answer = http.post("/v1/rank", json=content).json()
    (scores,), (ranking,) = answer["scores"], answer["rankings"]
    assert ranking == sorted(range(len(scores)), key=lambda index: -scores[index])
    assert answer["scores"] == http.post("/v1/score", json=content).json()["scores"]


@pytest.mark.parametrize("header", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}])
def test_token_is_required_but_not_for_health(teacher: Teacher, header: dict[str, str]) -> None:
    url = teacher.client().url
    answer = httpx.post(f"{url}/v1/score", json=body(ITEMS[0]), headers=header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert httpx.get(f"{url}/healthz").json() == {"status": "ok", "model": teacher.fingerprint}


def test_token_shows_nowhere(teacher: Teacher) -> None:
    from ray import serve

    shown = f"{teacher.client()!r} {teacher._deployment!r} {serve.status()!r} {fingerprint(teacher.client())}"
    assert TOKEN not in shown


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "items"),
        ({"items": []}, "items"),
        ({"items": [{"prompt": "x", "completions": []}]}, "completions"),
        ({"items": [{"prompt": "x", "completion": "y"}]}, "completion"),
        ({"items": [{"prompt": [], "completions": ["y"]}]}, "prompt"),
        ({"items": [{"prompt": [{"role": "user"}], "completions": ["y"]}]}, "content"),
    ],
)
def test_bad_bodies_are_422(http: httpx.Client, content: dict[str, Any], expected: str) -> None:
    answer = http.post("/v1/score", json=content)
    assert answer.status_code == 422
    assert expected in json.dumps(answer.json()["detail"])


def test_overload_is_429_and_the_client_gets_through(teacher: Teacher, http: httpx.Client) -> None:
    content = body(*(Item(item.prompt, item.completion * 2) for item in ITEMS[:100]))
    with ThreadPoolExecutor(40) as pool:
        answers = list(pool.map(lambda _: http.post("/v1/score", json=content), range(40)))
    assert {answer.status_code for answer in answers} == {200, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.headers["Retry-After"] == "1"
    assert http.post("/v1/score", json=body(*ITEMS, *ITEMS)).status_code == 413

    url = teacher.client().url
    patient = TeacherClient(url, SecretStr(TOKEN), "x", chunk=60, concurrency=8).load()
    items = [Item(item.prompt, f"{item.completion} {n}") for n in range(4) for item in ITEMS]
    assert None not in patient(items)


def test_second_teacher_shares_serve_and_leaves_the_first(teacher: Teacher, models: dict[str, Model]) -> None:
    from ray import serve

    second = Teacher(TeacherConfig(model=models["student"].path))
    with second:
        assert second.client().url != teacher.client().url
        assert None not in second.client().load()(ITEMS[:2])
        name = second._deployment.name
    assert {name, teacher._deployment.name} & serve.status().applications.keys() == {teacher._deployment.name}


def test_sleeps_without_requests_and_wakes(teacher: Teacher, http: httpx.Client) -> None:
    import ray

    def asleep() -> bool:
        return not _replicas(teacher) and ray.available_resources()["CPU"] == ray.cluster_resources()["CPU"]

    deadline = time.monotonic() + 30
    while not asleep() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert asleep()
    assert http.post("/v1/score", json=body(ITEMS[0])).status_code == 200
    assert _replicas(teacher) == 1


def _replicas(teacher: Teacher) -> int:
    from ray import serve

    assert teacher._deployment
    parts = serve.status().applications[teacher._deployment.name].deployments.values()
    return sum(sum(part.replica_states.values()) for part in parts)


def test_serve_forever_leaves_a_serve_that_runs_alone(teacher: Teacher) -> None:
    with pytest.raises(TsalignError, match="Ray Serve is already running at http://127"):
        serve_forever(teacher.config)


# --- without any server ---


def test_only_the_model_identifies_a_teacher(models: dict[str, Model]) -> None:
    known = Teacher(TeacherConfig(model=models["student"].path)).fingerprint
    assert known == Teacher(TeacherConfig(model=models["student"].path, port=1234, gpus=1)).fingerprint
    here, there = TeacherClient("http://a", SecretStr("x"), known), TeacherClient("http://b", None, known, chunk=1)
    assert fingerprint(here) == fingerprint(there)
    assert fingerprint(here) != fingerprint(TeacherClient("http://a", SecretStr("x"), "another"))


def test_running_teacher_is_not_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TeacherConfig(url="http://elsewhere:1/", model="org/judge", request_timeout=3)
    monkeypatch.setenv(config.token_env, TOKEN)
    teacher = Teacher(config)
    with teacher as client:
        pass
    assert (client.url, client.token, client.request_timeout) == ("http://elsewhere:1/", SecretStr(TOKEN), 3)
    assert client.fingerprint == teacher.fingerprint
    assert client.fingerprint != Teacher(config.model_copy(update={"model": "org/other"})).fingerprint


def test_only_a_teacher_with_a_token_listens_beyond_this_machine(
    models: dict[str, Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, SecretStr | None]] = []

    @contextmanager
    def deployed(config: TeacherConfig, _model: Any, name: str, _route: str, token: SecretStr | None) -> Iterator[Any]:
        asked.append((config.host, token))
        yield service.Deployment(name, "http://x", token)

    monkeypatch.setattr(service, "deployed", deployed)
    for spans in (False, True):
        monkeypatch.setattr(service, "spans_nodes", lambda spans=spans: spans)
        Teacher(TeacherConfig(model=models["student"].path, token_env="NO_SUCH_VARIABLE")).client()
    (alone, first), (wide, second) = asked
    assert (alone, wide) == ("127.0.0.1", "0.0.0.0")
    assert first
    assert second
    assert first != second
