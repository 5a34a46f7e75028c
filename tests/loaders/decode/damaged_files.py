"""Ways to damage a file."""

from __future__ import annotations

from pathlib import Path

from tests.loaders.decode import streams


def halves(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def overwritten(path: Path, frame: int) -> None:
    """Changes the middle of a coded frame."""
    with streams.coded(path) as (_, frames):
        coded = frames[frame].data
    data = bytearray(path.read_bytes())
    middle = data.index(coded) + len(coded) // 2
    data[middle : middle + 8] = b"\xff" * 8
    path.write_bytes(data)
