"""A web server for the tests that read from one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loaders.decode.web_server import Quiet, Server, handler


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Serves the folder `web`."""
    server = Server(tmp_path / "web")
    server.folder.mkdir()
    with Quiet(("127.0.0.1", 0), handler(server)) as running:
        server.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.over.set()
        running.shutdown()
        thread.join()
