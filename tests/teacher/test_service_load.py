"""A thousand requests at once: all are answered, and the teacher does not go to sleep over them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import httpx
import pytest
from ray import serve

from tsalign.config import TeacherConfig
from tsalign.runs.artifacts import Model
from tsalign.teacher.service import Teacher

REQUESTS, IDLE_SECONDS = 1000, 20.0


@pytest.mark.slow
def test_a_thousand_at_once_are_all_answered(models: dict[str, Model], ray_session: None) -> None:
    teacher = Teacher(TeacherConfig(model=models["student"].path, idle_seconds=IDLE_SECONDS))
    with teacher:
        client = teacher.client()
        assert client.token
        headers = {"Authorization": f"Bearer {client.token.get_secret_value()}"}

        async def ask(http: httpx.AsyncClient, number: int) -> int:
            item = {"prompt": f"sort: fig {number}", "completions": ["apple", "fig"]}
            return (await http.post(f"{client.url}/v1/score", json={"items": [item]})).status_code

        async def ask_all() -> list[int]:
            limits = httpx.Limits(max_connections=None)
            async with httpx.AsyncClient(headers=headers, timeout=300, limits=limits, trust_env=False) as http:
                return await asyncio.gather(*(ask(http, number) for number in range(REQUESTS)))

        for _ in range(3):
            began = time.monotonic()
            assert Counter(asyncio.run(ask_all())) == {200: REQUESTS}
            print(f"{REQUESTS} in {time.monotonic() - began:.1f} s")
            (deployment,) = serve.status().applications[client.application].deployments.values()
            assert sum(deployment.replica_states.values()) >= 1, deployment
