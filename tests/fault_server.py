"""A small HTTP server that answers as a test tells it to, faults included."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# Status, body and further headers of an answer. The status 299 announces more bytes than it sends; None closes the
# connection without an answer.
Reply = tuple[int | None, Any] | tuple[int | None, Any, dict[str, str]]
Behaviour = Callable[[int, dict[str, Any]], Reply]


@contextmanager
def server(
    behave: Behaviour, probes: int = 404, headers: list[str | None] | None = None
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers request n as `behave(n, body)` says; gives its URL and the bodies it got.

    Args:
        probes: status of what is only asked to see whether it is up.
        headers: gets the `Authorization` of each request.
    """
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(probes)
            self.end_headers()

        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if headers is not None:
                headers.append(self.headers["Authorization"])
            status, answer, *more = behave(len(seen) - 1, seen[-1])
            if status is None:
                return
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) + 10 * (status == 299)))
            for name, value in more[0].items() if more else ():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", seen
    listening.shutdown()
    listening.server_close()
