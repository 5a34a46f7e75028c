"""Reading from a real HTTP server, with all its moods, and from disk: the right bytes or a DataError."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from cacl.errors import DataError
from cacl.loaders.decode import storage
from tests.loaders.decode.web_server import Server


@pytest.fixture
def address(server: Server) -> str:
    (server.folder / "numbers").write_bytes(bytes(range(256)))
    return f"http://127.0.0.1:{server.port}/numbers"


NUMBERS = bytes(range(100, 140))


@pytest.mark.parametrize("mood", ["503", "500", "429", "drop", "hang up"])
def test_passing_trouble(server: Server, address: str, mood: str) -> None:
    server.moods.extend([mood] * 2)
    assert storage.read(address, 100, 140) == NUMBERS
    assert len(server.heard()) == 3
    assert storage.read(address, 100, 140) == NUMBERS
    assert len(server.heard()) == 1


@pytest.mark.parametrize("mood", ["503", "drop", "hang up"])
def test_lasting_trouble(server: Server, address: str, mood: str) -> None:
    server.moods.extend([mood] * 100)
    with pytest.raises(DataError, match=rf"^{address}: cannot be read, 5 attempts failed \(.+\)$"):
        storage.read(address, 100, 140)
    # aiohttp itself asks again where it is hung up on.
    assert storage.MAX_ATTEMPTS <= len(server.heard()) <= 2 * storage.MAX_ATTEMPTS


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> str:
    """Lets reads wait 0.4 s for 40 bytes, and returns what is said of servers that take longer."""
    monkeypatch.setattr(storage, "IDLE_TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(storage, "MIN_BYTES_PER_SECOND", 1000)
    return r"silent for 0\.4 s, or below 1000 bytes a second"


HOLDING = ["silent", "drip 30"]
"""One that sends a byte every 30 ms is never silent for long, and takes 1.2 s for 40 bytes."""


@pytest.mark.parametrize("mood", HOLDING)
def test_servers_that_hold_a_read(
    server: Server, address: str, impatient: str, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.moods.append(mood)
    assert storage.read(address, 100, 140) == NUMBERS
    assert len(server.heard()) > 1
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 2)
    server.moods.extend([mood] * 2)
    with pytest.raises(DataError, match=rf"^{address}: cannot be read, 2 attempts failed \({impatient}\)$"):
        storage.read(address, 100, 140)


@pytest.mark.parametrize("mood", HOLDING)
def test_servers_that_hold_a_download(
    server: Server, address: str, impatient: str, tmp_path: Path, mood: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.moods.append(mood)
    assert storage.download(address, tmp_path / "cache", "1").read_bytes() == bytes(range(256))
    assert len(server.heard()) > 1
    monkeypatch.setattr(storage, "MAX_ATTEMPTS", 2)
    server.moods.extend([mood] * 2)
    with pytest.raises(DataError, match=rf"^{address}: cannot be read, 2 attempts failed \({impatient}\)$"):
        storage.download(address, tmp_path / "cache", "2")
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_slow_servers_have_time(server: Server, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time grows with the bytes: 1.5 s for 60 bytes are more than a silent server has, and less than this one."""
    monkeypatch.setattr(storage, "IDLE_TIMEOUT_SECONDS", 1)
    monkeypatch.setattr(storage, "MIN_BYTES_PER_SECOND", 20)
    (server.folder / "numbers").write_bytes(bytes(range(60)))
    server.moods.append("drip 25")
    assert storage.read(address, 0, 60) == bytes(range(60))
    server.moods.append("drip 25")
    assert storage.download(address, tmp_path / "cache", "1").read_bytes() == bytes(range(60))
    assert len(server.heard()) == 2


def test_pauses_double(server: Server, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(storage, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    monkeypatch.setattr(storage, "FIRST_BACKOFF_SECONDS", 0.25)
    server.moods.extend(["503"] * 3)
    assert storage.read(address, 100, 140) == NUMBERS
    assert pauses == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("status", ["404", "410", "403", "401"])
def test_final_answers(server: Server, address: str, status: str) -> None:
    server.moods.append(status)
    with pytest.raises(DataError, match=rf"^{address}: is not there, or may not be read"):
        storage.read(address, 100, 140)
    assert len(server.heard()) == 1


def test_a_server_without_ranges(server: Server, address: str) -> None:
    server.moods.extend(["no ranges"] * 10)
    with pytest.raises(DataError, match=rf"^{address}: the server gave 256 bytes where 40 from 100 on were"):
        storage.read(address, 100, 140)
    assert len(server.heard()) == 1


def test_answers_that_are_too_short(server: Server, address: str) -> None:
    server.moods.append("short")
    with pytest.raises(DataError, match=rf"^{address}: holds 39 bytes from 100 on, where 40 were written$"):
        storage.read(address, 100, 140)
    with pytest.raises(DataError, match=rf"^{address}: holds 16 bytes from 240 on, where 100 were written$"):
        storage.read(address, 240, 340)


# --- On disk


def test_reads_from_disk(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_bytes(bytes(range(256)))
    assert storage.read(file, 100, 140) == NUMBERS
    assert storage.read(file, 0, 256) == bytes(range(256))
    for start, stop, held in ((250, 260, 6), (256, 257, 0), (10**12, 10**12 + 5, 0)):
        with pytest.raises(DataError, match=rf"^{file}: holds {held} bytes from {start} on, where {stop - start} were"):
            storage.read(file, start, stop)
    for wrong, reason in {
        tmp_path: "Is a directory",
        tmp_path / "nothing": "No such file or directory",
        file / "a": "Not a directory",
    }.items():
        with pytest.raises(DataError, match=rf"^{wrong}: cannot be read \({reason}\)$"):
            storage.read(wrong, 0, 1)


def test_no_descriptor_is_kept(server: Server, address: str, tmp_path: Path) -> None:
    def look(location: Path | str) -> None:
        assert storage.read(location, 100, 140) == NUMBERS
        with pytest.raises(DataError):
            storage.read(location, 200, 300)

    look(address)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        look(server.folder / "numbers")
        with pytest.raises(DataError):
            storage.read(tmp_path, 0, 1)
    assert len(os.listdir("/proc/self/fd")) <= before
    for _ in range(20):  # Threads come and go with each epoch.
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, [address] * 8))
    # Connections that may be used again, and their other ends in this process: one each for so many at once.
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * 4


def test_without_what_web_servers_need() -> None:
    code = "import sys; sys.modules['aiohttp'] = None\nfrom cacl.loaders.decode import storage\n"
    code += "storage.read('http://127.0.0.1:9/x', 0, 1)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("cacl.errors.DataError: http://127.0.0.1:9/x: cannot be opened (")
    assert last.endswith("web servers need pip install 'cacl[remote]', other stores theirs")
