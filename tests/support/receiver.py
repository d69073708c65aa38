"""A receiver of notifications on this machine: an HTTP server that keeps what it is sent."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What has come in so far, and how it is answered."""

    port: int = 0
    received: list[dict[str, Any]] = field(default_factory=list)  # JSON bodies, in order
    status: int = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def subjects(self) -> list[str]:
        return [message["subject"] for message in self.received]


@contextmanager
def listening() -> Iterator[Receiver]:
    """Listen on a free port of the loopback until the block is left."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.received.append(json.loads(body))
            self.send_response(receiver.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing on the console."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()
