"""What tests of prepared sets share: a set, and ways to make it, to change it and to look at it."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av

from cacl.config import DataConfig
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.index_reader import PreparedIndex
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.summary import PrepareSummary
from cacl.loaders.prepared.transcode import TranscodeSettings

SETTINGS = TranscodeSettings(short_side=48)

GOOD = ["run/a.mp4", "run/b.avi", "walk/a.mp4", "walk/c.webm"]

BAD = ["walk/empty.mp4", "walk/text.mp4"]


def run(source: Path, target: Path, settings: TranscodeSettings = SETTINGS, *, workers: int = 1) -> PrepareSummary:
    return prepare(DataConfig(root=str(source)), target, settings, workers=workers, progress=lambda *_: None)


def opened(target: Path, split: int = 1) -> Catalog:
    return scan(DataConfig(root=str(target), fold=split))


def files(target: Path) -> dict[str, tuple[int, int]]:
    """Returns inode and modification time of every file beside the prepared videos, and of these."""
    found = [path for path in (target / "videos").rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def indexed(target: Path) -> tuple[object, ...]:
    """Returns all that the index says."""
    opened = PreparedIndex(target / INDEX_NAME, "")
    return opened.digest, opened.tables, opened.about


def make_long(path: Path, short: Path) -> Path:
    """Repeats a short video, which is quicker than encoding a long one."""
    return remux(short, path, times=30)


def remux(source: Path, path: Path, *, skip: int = 0, times: int = 1) -> Path:
    with av.open(str(source)) as opened, av.open(str(path), "w") as container:
        stream = opened.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in opened.demux(stream) if packet.pts is not None and packet.dts is not None]
        length = sum(packet.duration or 0 for packet in packets)
        for packet in packets:
            packet.stream = copy
        for _ in range(times):
            for packet in packets[skip:]:
                container.mux(packet)
                packet.pts, packet.dts = (packet.pts or 0) + length, (packet.dts or 0) + length
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def holds(file: Path) -> Iterator[int]:
    """Yields the workers that have this file open."""
    for worker in multiprocessing.active_children():
        try:
            links = [os.readlink(link) for link in Path(f"/proc/{worker.pid}/fd").iterdir()]
        except OSError:  # The worker has just ended, or closed a file.
            continue
        if str(file) in links and worker.pid:
            yield worker.pid
