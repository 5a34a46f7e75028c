"""What happens to files: deleted, cut short, overwritten, replaced by another video."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from tests.conftest import encode


def deleted(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwritten(path: Path) -> None:
    """Puts noise in the place of every coded frame, and leaves the container as it was."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content, noise = bytearray(path.read_bytes()), np.random.default_rng(0)
    for packet in packets:
        at = content.index(packet)
        content[at : at + len(packet)] = b"\xff" + noise.bytes(len(packet) - 1)
    path.write_bytes(content)


def rotten(path: Path) -> None:
    """Flips one bit of the last coded frame of an MP4 file made for streaming."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def replaced(path: Path) -> None:
    encode(path, frames=60, size=(32, 32), codec="libvpx-vp9" if path.suffix == ".webm" else "libx264")


def ended_early(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        size, codec = (stream.width, stream.height), "libvpx-vp9" if stream.codec.name == "vp9" else "libx264"
    encode(path, frames=2, size=size, codec=codec)


DAMAGES: dict[str, Callable[[Path], None]] = {
    damage.__name__: damage for damage in (deleted, emptied, truncated, overwritten, replaced, ended_early)
}
