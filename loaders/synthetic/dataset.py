"""Writes the synthetic set: its videos, and the list of their labels."""

from __future__ import annotations

import csv
import functools
import json
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from cacl.errors import DataError, UsageError
from cacl.files import atomic_write
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.render import DEFAULT_FRAMES, DEFAULT_SIZE, MOTIONS, MotionLabels, motion_labels, render
from cacl.loaders.synthetic.textures import TEXTURES

SPLITS = ("train", "test", "val")
"""The splits in the order of their numbers in `videos_per_pair`."""
DEFAULT_RATE = 25
"""Frames per second."""
KEY_FRAME_INTERVAL = 12
"""Frames from one key frame to the next."""
RECIPE = 1
"""The version of the generator, to be raised when the same settings begin to give other videos."""


def synthesise(
    root: Path,
    *,
    videos_per_pair: tuple[int, int] | tuple[int, int, int] = (6, 2),
    seed: int = 0,
    frames: int = DEFAULT_FRAMES,
    size: tuple[int, int] = DEFAULT_SIZE,
    rate: int = DEFAULT_RATE,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes root/videos/<motion>_<appearance>_<number>.mp4 and a list of them, root/labels.csv.

    The list has the columns path (relative to root), motion, axis, direction and speed (see `MotionLabels`), appearance
    and split. It is written last, and anew by each call: a folder without it is unfinished, and the same call again
    makes what is missing. The same settings give the same bytes as long as numpy and the encoder stay the same; a video
    depends on the settings and its own name, not on how many others there are. The work is done in one spawned process
    per core, so a script that calls this needs its `if __name__ == "__main__":`.

    Args:
        root: The folder to write to. It is new, empty, or left by an earlier call with the same settings.
        videos_per_pair: Training, test and, if wanted, validation videos for each of the 48 pairs of a motion and an
            appearance. They are numbered in this order, so that a third number changes no other video.
        seed: The seed of all random numbers.
        frames: The number of frames of a video.
        size: Height and width in pixels, both even.
        rate: Frames per second.
        progress: Called after each video with the number made and the number to make.

    Returns:
        The path of the list.

    Raises:
        UsageError: The settings give no videos.
        DataError: The root cannot be written, or holds other files or a set of other settings.
    """
    _check_settings(videos_per_pair, seed, frames, size, rate)
    videos = _list_videos(videos_per_pair)
    try:
        _start_or_resume(root, videos_per_pair=videos_per_pair, seed=seed, frames=frames, size=size, rate=rate)
        missing = [video for video in videos if not (root / video.path).exists()]
        make = functools.partial(_make_video, root, seed=seed, frames=frames, size=size, rate=rate)
        # Threads would wait for each other: most of the time goes into small numpy operations that hold the lock.
        with ProcessPoolExecutor(_available_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(make, missing, chunksize=4), start=1):
                if progress is not None:
                    progress(done, len(missing))
        return _write_labels(root, videos, seed)
    except OSError as error:
        raise DataError(f"{root}: cannot be written: {error}") from error


class _LabelledVideo(NamedTuple):
    motion: str
    appearance: str
    number: int
    split: str

    @property
    def path(self) -> str:
        return f"videos/{self.motion}_{self.appearance}_{self.number:02d}.mp4"

    def random_numbers(self, seed: int) -> RandomStream:
        pair = list(MOTIONS).index(self.motion) * len(TEXTURES) + list(TEXTURES).index(self.appearance)
        return RandomStream(seed, pair, self.number)


def _list_videos(videos_per_pair: tuple[int, ...]) -> list[_LabelledVideo]:
    splits = [split for split, count in zip(SPLITS, videos_per_pair, strict=False) for _ in range(count)]
    return [_LabelledVideo(m, a, n, split) for m in MOTIONS for a in TEXTURES for n, split in enumerate(splits)]


def _check_settings(videos_per_pair: tuple[int, ...], seed: int, frames: int, size: tuple[int, int], rate: int) -> None:
    problems = [
        (min(videos_per_pair) < 0 or sum(videos_per_pair) < 1, f"videos per pair {videos_per_pair}: give at least one"),
        (not 0 <= seed < 2**63, f"seed {seed}: must lie between 0 and 2**63 - 1"),
        (frames < 1, f"{frames} frames: give at least one"),
        (min(size) < 16 or size[0] % 2 or size[1] % 2, f"size {size}: give even numbers of at least 16"),
        (rate < 1, f"{rate} frames a second: give at least one"),
    ]
    if wrong := [message for is_wrong, message in problems if is_wrong]:
        raise UsageError("; ".join(wrong))


def _start_or_resume(root: Path, **settings: object) -> None:
    """Marks an empty root with the settings, and refuses one that holds anything but an earlier call with the same."""
    root.mkdir(parents=True, exist_ok=True)
    marker = root / "synth.json"
    wanted = json.dumps({"recipe": RECIPE, **settings})
    if marker.exists():
        found = marker.read_text().strip()
        if found != wanted:
            raise DataError(f"{root}: holds a set made with {found}, not {wanted}; name another folder or delete it")
    elif any(root.iterdir()):
        raise DataError(f"{root}: is not empty, and this command did not make it; name a new or empty folder")
    else:
        marker.write_text(wanted + "\n")
    (root / "videos").mkdir(exist_ok=True)


def _make_video(root: Path, video: _LabelledVideo, *, seed: int, frames: int, size: tuple[int, int], rate: int) -> None:
    rendered = render(video.motion, video.appearance, video.random_numbers(seed), frames=frames, size=size)
    with atomic_write(root / video.path) as unfinished:
        encode(unfinished, rendered, rate)


def encode(path: Path, video: np.ndarray, rate: int) -> None:
    """Encodes a video as H.264 in MP4. The same frames give the same bytes.

    Args:
        path: The file to write.
        video: RGB frames, uint8 [T, H, W, 3].
        rate: Frames per second.
    """
    # mbtree: with it, libx264 on AVX-512 gives other bytes from run to run.
    options = {"preset": "veryfast", "crf": "20", "g": str(KEY_FRAME_INTERVAL), "sc_threshold": "0", "mbtree": "0"}
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the bytes depend on the number of threads
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _write_labels(root: Path, videos: list[_LabelledVideo], seed: int) -> Path:
    labels = root / "labels.csv"
    with atomic_write(labels) as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "motion", *MotionLabels._fields, "appearance", "split"])
        for video in videos:
            of_motion = motion_labels(video.motion, video.random_numbers(seed))
            writer.writerow([video.path, video.motion, *of_motion, video.appearance, video.split])
    return labels


def _available_cores() -> int:
    """Returns the number of cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
