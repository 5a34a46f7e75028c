"""A real HTTP server for a folder, which can be told to misbehave."""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote_to_bytes


class Request(NamedTuple):
    method: str
    path: str
    """The path as it was sent."""
    range: str
    sent: int
    """The number of bytes of the file in the answer."""


@dataclass
class Server:
    """A web server for a folder."""

    folder: Path
    port: int = 0
    moods: deque[str] = field(default_factory=deque)
    """How each of the next requests is answered. Further ones are served properly."""
    requests: list[Request] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    """Once it is set, no answer waits any longer."""

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}/set"

    def heard(self) -> list[Request]:
        """Returns the requests since the last call."""
        heard, self.requests[:] = list(self.requests), []
        return heard


def handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            mood = server.moods.popleft() if server.moods else ""
            wanted = self.headers.get("Range", "")
            file = server.folder / os.fsdecode(unquote_to_bytes(self.path)).lstrip("/")
            status, body, extra = 200, b"", {}
            if mood.isdigit():
                status = int(mood)
            elif "?" in self.path or "#" in self.path or not file.is_file():
                status = 404
            else:
                body = file.read_bytes()
                if wanted and mood != "no ranges":
                    match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
                    assert match
                    start, last = map(int, match.groups())
                    start += mood == "off by one"
                    last = min(last + (mood == "off by one"), len(body) - 1) - (mood == "short")
                    status, extra = 206, {"Content-Range": f"bytes {start}-{last}/{len(body)}"}
                    body = body[start : last + 1]
            server.requests.append(Request(self.command, self.path, wanted, len(body)))
            if mood == "hang up":
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            if mood == "silent":
                server.over.wait()
            self.end_headers()
            if self.command == "GET" and mood.startswith("drip"):
                self.drip(body, mood)
            elif self.command == "GET":
                self.wfile.write(body[: len(body) // 2] if mood == "drop" else body)
                self.close_connection = mood == "drop"

        def drip(self, body: bytes, mood: str) -> None:
            """Sends a byte every few milliseconds, until it is done or nobody listens."""
            for byte in body:
                self.wfile.write(bytes([byte]))
                if server.over.wait(float(mood.removeprefix("drip ")) / 1000):
                    return

    return Handler


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None: ...
