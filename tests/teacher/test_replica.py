"""One replica of the teacher, without Serve around it."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model, model_from

COMPLETIONS = ["apple", "apple pear", "", "pear apple fig lemon", "Fig!", "a b c d"]
ITEMS = [{"prompt": f"sort: {'lemon ' * n}", "completions": [text]} for n in range(20) for text in COMPLETIONS]


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine to its end, all on one loop: Serve's batch queue belongs to the first that it sees."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def app() -> Iterator[ModuleType]:
    """A copy of the module: Serve keeps the batch queue in its class, and this one must not get into a deployment."""
    spec = importlib.util.find_spec("tsalign.teacher.app")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture
def replica(app: ModuleType, models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class inside the deployment, in the context that Serve's batching looks for."""
    from ray import serve

    context = SimpleNamespace(_deployment_config=SimpleNamespace(max_ongoing_requests=1000))
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    config = TeacherConfig(model=models["student"].path, max_batch_size=32, max_pending=100)
    return app.TeacherReplica.func_or_class.__mro__[1](model_from(config, "teacher"), config, None)


def _request(count: int) -> Any:
    from tsalign.teacher.app import ScoreRequest

    return ScoreRequest.model_validate({"items": ITEMS[:count]})


class Fake(torch.nn.Module):
    """A model whose scores are a function of the sequences' lengths."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, attention_mask: torch.Tensor, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.function(attention_mask.sum(1).float())[:, None])


def test_concurrent_requests_share_batches(replica: Any, run: Any) -> None:
    sizes: list[int] = []
    replica.model = Fake(lambda lengths: sizes.append(len(lengths)) or lengths)  # type: ignore[func-returns-value]

    async def ask() -> list[Any]:
        return await asyncio.gather(*(replica.score(_request(count)) for count in (5, 6, 7, 8, 9, 10)))

    answers = run(ask())
    assert [len(answer.scores) for answer in answers] == [5, 6, 7, 8, 9, 10]
    assert max(sizes) > 10, "sequences of several requests in one batch"
    assert max(sizes) <= 32
    assert answers[0].scores == answers[5].scores[:5]
    assert replica.admission.pending == 0


def test_health_answers_and_the_queue_is_bounded_while_the_model_works(replica: Any, run: Any) -> None:
    from fastapi import HTTPException

    release = threading.Event()
    replica.model = Fake(lambda lengths: lengths / lengths if release.wait(30) else lengths)

    async def ask() -> Any:
        busy = asyncio.create_task(replica.score(_request(70)))
        await asyncio.sleep(0.1)
        assert (await replica.healthz())["status"] == "ok"
        with pytest.raises(HTTPException, match="70 of 100 sequences are waiting") as refusal:
            await replica.score(_request(31))
        assert refusal.value.status_code == 429
        release.set()
        return await busy

    assert run(ask()).scores == [[1.0]] * 70


def test_a_number_that_is_not_finite_is_null_and_ranks_last(replica: Any, run: Any) -> None:
    from tsalign.teacher.app import ScoreRequest

    replica.model = Fake(lambda lengths: lengths.where(lengths != lengths.median(), torch.nan))
    request = ScoreRequest.model_validate({"items": [{"prompt": "x", "completions": ["a", "b b", "c c c"]}]})
    answer = run(replica.rank(request))
    assert [score is None for score in answer.scores[0]] == [False, True, False]
    assert answer.rankings == [[2, 0, 1]]
