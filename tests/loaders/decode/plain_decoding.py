"""A second way to decode, which only ever starts at the first frame, and clips that are not as it decodes them."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import av.logging
import numpy as np
from av.video.frame import VideoFrame

from cacl.clips import VideoRecord
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.decode.raw import decode_frames


def alone(path: Path, stream: int = 0) -> list[np.ndarray]:
    """Returns the luma of all frames, int [H, W] each, decoded from the start of the file."""
    with av.open(str(path)) as container:
        return [grey(frame) for frame in container.decode(video=stream)]


def grey(frame: VideoFrame) -> np.ndarray:
    return frame.reformat(format="gray").to_ndarray().astype(int)


def wrong_clips(files: dict[Path, VideoRecord], *, threads: int, clips: int = 60, length: int = 5) -> list[str]:
    """Lists clips of all files, decoded in random order by several threads, that differ from the file decoded alone."""
    draw = random.Random(0)
    truth = {file: alone(file) for file in files}
    jobs = []
    for _ in range(clips):
        file = draw.choice(list(files))
        start = draw.randint(0, files[file].frames - length)
        jobs.append((file, range(start, start + length)))

    def look(job: tuple[Path, range]) -> str | None:
        file, numbers = job
        frames = [grey(frame) for frame in decode_frames(file, files[file], numbers)]
        same = all(np.array_equal(truth[file][n], frame) for n, frame in zip(numbers, frames, strict=True))
        return None if same else f"{file.name}: {numbers}"

    with ThreadPoolExecutor(threads) as pool:
        return [fault for fault in pool.map(look, jobs) if fault]


def of(catalog: Catalog) -> dict[Path, VideoRecord]:
    return {Path(catalog.location(video)): video for video in catalog.videos}
