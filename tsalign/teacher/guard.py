"""What a teacher looks at before it takes a request: the token, then the body's size, then whether it is JSON."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from typing import Any, cast

from pydantic import SecretStr
from pydantic_core import from_json
from ray import serve
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 32 << 20  # of some 8,000 completions of 4 kB
OPEN = ("/healthz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json")  # without the token
Problem = Callable[[int, str, Mapping[str, str] | None], Response]


class Guard:
    """ASGI middleware in front of all routes but those of `OPEN`, inside a replica.

    Nothing of a body is read without the token, never more than a body may have, and what reaches the routes is JSON:
    no NaN, no lone surrogates, no nesting without end.
    """

    def __init__(self, app: ASGIApp, problem: Problem, malformed: int) -> None:
        """`problem` makes the responses; `malformed` is the status of a body that is no JSON."""
        self.app, self.problem, self.malformed = app, problem, malformed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer what may not pass, and pass on the rest."""
        if scope["type"] != "http" or scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) in OPEN:
            await self.app(scope, receive, send)
            return
        found = await self._examined(scope, receive)
        if isinstance(found, Response):
            await found(scope, receive, send)
        else:
            await self.app(scope, _replay(found, receive), send)

    async def _examined(self, scope: Scope, receive: Receive) -> bytes | Response:
        """The body, or why it is none."""
        headers, replica = Headers(scope=scope), cast(Any, serve.get_replica_context().servable_object)
        if not authorized(headers.get("Authorization", ""), replica.token):
            return self.problem(401, "missing or wrong bearer token", {"WWW-Authenticate": "Bearer"})
        announced, body = headers.get("Content-Length", ""), bytearray()
        too_long = self.problem(413, f"the body has more than {MAX_BODY_BYTES} bytes; send fewer at once", None)
        if announced.isdigit() and int(announced) > MAX_BODY_BYTES:
            return too_long
        message: Message = {"type": "http.request", "more_body": True}
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY_BYTES:
                return too_long
        try:
            if body:
                from_json(bytes(body), allow_inf_nan=False)
        except ValueError as error:
            return self.problem(self.malformed, f"body: not valid JSON: {error}", None)
        return bytes(body)


def authorized(given: str, token: SecretStr | None) -> bool:
    """Whether an `Authorization` header holds the teacher's bearer token, where it has one."""
    if token is None:
        return True
    scheme, _, presented = given.partition(" ")
    return scheme.lower() == "bearer" and hmac.compare_digest(
        presented.strip().encode(), token.get_secret_value().encode()
    )


def _replay(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already, then what follows it."""
    messages: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
