"""A labelled set of short H.264 clips in which motion and appearance are independent labels.

A video is a procedural texture, seen through a similarity transform that changes steadily with time. Eight motions
times six textures; colours, texture and pose are drawn for each video.

One frame says nothing about the motion. Orientation and position are uniform in every frame of every motion. The scale
of a zoom has to change; a video that does not zoom stands still at the scale that a zoom has at a drawn moment. Hence
a frame taken at random from a video has exactly the same distribution under all motions, and the members of a pair
(left and right, ...) are each other's time reverse: only several frames in their order tell the motion. What does tell
a little is to know where in its video a frame lies, since a zoom-in starts small: take clips from all of the video.

Every texture shows every motion. A plain grating would hide the motion along its stripes, and rings around the centre
of the frame would hide a turn; each texture here has corners, or edges in many directions, wherever one looks.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from cacl.errors import DataError, UsageError
from cacl.loaders.sampling.augmentation import LUMA
from cacl.loaders.sampling.rng import RandomStream

MOTIONS: dict[str, tuple[int, int, int, int]] = {  # to the right, downwards, clockwise, growing: as seen on the screen
    "left": (-1, 0, 0, 0),
    "right": (1, 0, 0, 0),
    "up": (0, -1, 0, 0),
    "down": (0, 1, 0, 0),
    "clockwise": (0, 0, 1, 0),
    "counter-clockwise": (0, 0, -1, 0),
    "zoom-in": (0, 0, 0, 1),
    "zoom-out": (0, 0, 0, -1),
}

SPLITS = ("train", "test", "val")
"""In the order of their numbers in `videos_per_pair`."""

FRAMES = 40
SIZE = (80, 96)
RATE = 25
GOP = 12

# Lengths on the screen are in points: the short side of a frame has 80 of them, so a larger frame shows the same.
SHORT_SIDE = 80
SHIFT = (1.0, 2.5)  # points a frame
TURN = (math.radians(2.5), math.radians(5.0))  # radians a frame
ZOOM = (0.015, 0.03)  # growth of the logarithm of the scale a frame ...
ZOOM_FRAMES = 40  # ... less in longer videos, so that they sweep no wider range of scales
LOG_SCALE = (math.log(0.8), math.log(1.25))  # in the middle of a zoom
CELL = 18.0  # points at scale 1; so wide that the smallest pattern moves by less than half its period in two frames
DARK, LIGHT = 75, 180
PERIOD = 16  # cells after which a texture may repeat itself; a power of two

RECIPE = 1  # to be raised when the same setting begins to give other videos

Texture = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(u, v, pixels per cell) -> tone. u and v are places in the texture in cells, float32 [H, W]; the tone lies in [0, 1],
float32 [H, W]. Hard edges are smoothed over about one pixel, or they would jump from pixel to pixel."""


def synthesise(
    root: Path,
    *,
    videos_per_pair: tuple[int, int] | tuple[int, int, int] = (6, 2),
    seed: int = 0,
    frames: int = FRAMES,
    size: tuple[int, int] = SIZE,
    rate: int = RATE,
    report: Callable[[int, int], None] | None = None,
) -> Path:
    """Writes root/videos/<motion>_<appearance>_<number>.mp4 and a list of them, root/labels.csv.

    The list has the columns path (relative to root), motion, appearance and split. It is written last: a folder
    without it is unfinished, and the same call again makes what is missing. The same setting gives the same bytes as
    long as numpy and the encoder stay the same; a video depends on the setting and its own name, not on how many others
    there are. Works in one spawned process per core, so a script needs its `if __name__ == "__main__":`.

    Args:
        videos_per_pair: Training, test and, if wanted, validation videos for each of the 48 pairs of a motion and an
            appearance. They are numbered in this order, so that a third number changes no other video.
        size: Height and width in pixels, both even.
        rate: Frames per second.
        report: Called after each video with the number made and the number to make.

    Returns the path of the list. Raises UsageError for a setting that gives no videos, and DataError for a root that
    cannot be written or that holds other files or another setting.
    """
    _check(videos_per_pair, seed, frames, size, rate)
    clips = _clips(videos_per_pair)
    try:
        _claim(root, videos_per_pair=videos_per_pair, seed=seed, frames=frames, size=size, rate=rate)
        missing = [clip for clip in clips if not (root / clip.path).exists()]
        make = functools.partial(_make, root, seed=seed, frames=frames, size=size, rate=rate)
        # Threads would wait for each other: most of the time goes into small numpy operations that hold the lock.
        with ProcessPoolExecutor(_cores(), mp_context=multiprocessing.get_context("spawn")) as pool:
            for done, _ in enumerate(pool.map(make, missing, chunksize=4), start=1):
                if report is not None:
                    report(done, len(missing))
        return _list(root, clips)
    except OSError as error:
        raise DataError(f"{root}: cannot be written: {error}") from error


def render(
    motion: str, appearance: str, rng: RandomStream, *, frames: int = FRAMES, size: tuple[int, int] = SIZE
) -> np.ndarray:
    """One video before encoding: RGB, uint8 [F, H, W, 3].

    The same draws give the same texture, colours, orientation and place under every motion, and the videos of a pair of
    motions are each other's time reverse to the last bit.
    """
    height, width = size
    pixels_per_point = min(size) / SHORT_SIDE
    x = ((np.arange(width, dtype=np.float32) - (width - 1) / 2) / pixels_per_point)[None, :]
    y = ((np.arange(height, dtype=np.float32) - (height - 1) / 2) / pixels_per_point)[:, None]

    poses = _poses(motion, rng, frames)
    palette = _palette(rng)
    u0, v0 = rng.uniform(0, PERIOD), rng.uniform(0, PERIOD)
    texture = TEXTURES[appearance](rng)

    video = np.empty((frames, height, width, 3), dtype=np.uint8)
    for frame, pose in zip(video, poses, strict=True):
        points_per_cell = CELL * pose.scale
        cos, sin = math.cos(pose.angle) / points_per_cell, math.sin(pose.angle) / points_per_cell
        right, down = x - pose.right, y - pose.down
        tone = texture(u0 + cos * right + sin * down, v0 - sin * right + cos * down, points_per_cell * pixels_per_point)
        frame[:] = palette[(tone * 255 + 0.5).astype(np.uint8)]
    return video


class _Pose(NamedTuple):
    """Where the texture lies on the screen: turned clockwise about the middle, scaled, then shifted by so many points.

    y points down, so a positive angle is a clockwise turn.
    """

    right: float
    down: float
    angle: float
    scale: float


def _poses(motion: str, rng: RandomStream, frames: int) -> list[_Pose]:
    shift, turn = rng.uniform(*SHIFT), rng.uniform(*TURN)
    zoom = rng.uniform(*ZOOM) * min(1.0, ZOOM_FRAMES / frames)
    angle, log_scale = rng.uniform(0, 2 * math.pi), rng.uniform(*LOG_SCALE)
    times = [frame - (frames - 1) / 2 for frame in range(frames)]  # symmetrical, so that reversing a video negates them
    still = times[rng.integer(0, frames)]
    right, down, clockwise, growing = MOTIONS[motion]
    return [
        _Pose(
            right=right * shift * time,
            down=down * shift * time,
            angle=angle + clockwise * turn * time,
            scale=math.exp(log_scale + zoom * (growing * time if growing else still)),
        )
        for time in times
    ]


def _palette(rng: RandomStream) -> np.ndarray:
    """The colour of every tone, uint8 [256, 3]: from a dark random colour to a light one.

    Dark and light are the same brightness in all videos, or brightness would tell videos apart at no effort.
    """
    return np.round(np.linspace(_color(rng, DARK), _color(rng, LIGHT), 256)).astype(np.uint8)


def _color(rng: RandomStream, brightness: float) -> np.ndarray:
    """A random RGB colour in 0..255 of this brightness (ITU-R BT.601)."""
    while True:
        color = np.array([rng.uniform(0, 255) for _ in range(3)])
        color += brightness - LUMA @ color
        if color.min() >= 0 and color.max() <= 255:
            return color


# --- Textures. Each draws what is random in it and returns a function of the place.


def _checkerboard(rng: RandomStream) -> Texture:
    """Squares of one cell in two tones."""

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        return 0.5 + 2 * _stripes(u, sharpness) * _stripes(v, sharpness)

    return tone


def _stripes(u: np.ndarray, sharpness: float) -> np.ndarray:
    """-1/2 and 1/2 in turn, one cell each."""
    distance = np.abs(u - 2 * np.floor(u / 2) - 1) - 0.5  # to the nearest edge, signed
    return np.clip(distance * sharpness, -0.5, 0.5)


def _dots(rng: RandomStream) -> Texture:
    """A disc in every cell, of its own size and place."""
    radius = _table(rng, 0.18, 0.4)
    slack = 0.46 - radius  # a disc stays inside its cell, so that a place has to look at one disc only
    centre_u = 0.5 + slack * _table(rng, -1, 1)
    centre_v = 0.5 + slack * _table(rng, -1, 1)

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        column, row = np.floor(u), np.floor(v)
        cell = _cell(column, row)
        distance = radius[cell] - np.hypot(u - column - centre_u[cell], v - row - centre_v[cell])
        return _cover(distance, sharpness)

    return tone


def _waves(rng: RandomStream) -> Texture:
    """Stripes that swing so far from side to side that their edges point in all directions."""

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        swing = 0.45 * np.sin(math.pi * u)
        return 0.5 + 0.5 * np.sin(1.5 * math.pi * (v + swing))

    return tone


def _noise(rng: RandomStream) -> Texture:
    """A sum of cosines in all directions, of random wavelength and phase: soft blobs."""
    count = 9
    directions = [math.pi * (k + rng.uniform(0, 1)) / count for k in range(count)]
    waves = [(direction, rng.uniform(2.5, 6.0), rng.uniform(0, 2 * math.pi)) for direction in directions]

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        total = sum(np.cos(n * math.cos(d) * u + n * math.sin(d) * v + phase) for d, n, phase in waves)
        return np.clip(0.5 + 0.16 * total, 0, 1)

    return tone


def _bricks(rng: RandomStream) -> Texture:
    """A wall in running bond: bricks of two cells by one, each of its own tone, in mortar."""
    shade = _table(rng, 0.45, 1)

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        row = np.floor(v)
        along = u / 2 + row / 2  # every row starts half a brick further
        column = np.floor(along)
        inside = np.minimum(1 - np.abs(2 * (along - column) - 1), 0.5 - np.abs(v - row - 0.5))
        return shade[_cell(column, row)] * _cover(inside - 0.08, sharpness)

    return tone


def _cells(rng: RandomStream) -> Texture:
    """The cells of a Voronoi diagram, parted by gaps: a giraffe's coat."""
    site_u, site_v = _table(rng, 0.1, 0.9), _table(rng, 0.1, 0.9)

    def tone(u: np.ndarray, v: np.ndarray, sharpness: float) -> np.ndarray:
        column, row = np.floor(u), np.floor(v)
        nearest = second = np.full_like(u, np.inf)
        for right in (-1, 0, 1):
            for down in (-1, 0, 1):
                cell = _cell(column + right, row + down)
                squared = (u - column - right - site_u[cell]) ** 2 + (v - row - down - site_v[cell]) ** 2
                second = np.minimum(second, np.maximum(nearest, squared))
                nearest = np.minimum(nearest, squared)
        return _cover((np.sqrt(second) - np.sqrt(nearest)) / 2 - 0.06, sharpness)

    return tone


TEXTURES: dict[str, Callable[[RandomStream], Texture]] = {
    "checkerboard": _checkerboard,
    "dots": _dots,
    "waves": _waves,
    "noise": _noise,
    "bricks": _bricks,
    "cells": _cells,
}


def _table(rng: RandomStream, low: float, high: float) -> np.ndarray:
    """A random number for every cell of a period, float32 [PERIOD * PERIOD]."""
    return np.array([rng.uniform(low, high) for _ in range(PERIOD * PERIOD)], dtype=np.float32)


def _cell(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Positions in a `_table` of cells given by whole numbers of any size."""
    mask = PERIOD - 1
    return (row.astype(np.intp) & mask) * PERIOD + (column.astype(np.intp) & mask)


def _cover(distance: np.ndarray, sharpness: float) -> np.ndarray:
    """How much of a pixel a figure covers whose edge is so many cells away; inside, the distance is positive."""
    return np.clip(0.5 + distance * sharpness, 0, 1)


# --- Files


class _Clip(NamedTuple):
    motion: str
    appearance: str
    number: int
    split: str

    @property
    def path(self) -> str:
        return f"videos/{self.motion}_{self.appearance}_{self.number:02d}.mp4"


def _clips(videos_per_pair: tuple[int, ...]) -> list[_Clip]:
    splits = [split for split, count in zip(SPLITS, videos_per_pair, strict=False) for _ in range(count)]
    return [_Clip(m, a, n, split) for m in MOTIONS for a in TEXTURES for n, split in enumerate(splits)]


def _check(videos_per_pair: tuple[int, ...], seed: int, frames: int, size: tuple[int, int], rate: int) -> None:
    problems = [
        (min(videos_per_pair) < 0 or sum(videos_per_pair) < 1, f"videos per pair {videos_per_pair}: give at least one"),
        (not 0 <= seed < 2**63, f"seed {seed}: must lie between 0 and 2**63 - 1"),
        (frames < 1, f"{frames} frames: give at least one"),
        (min(size) < 16 or size[0] % 2 or size[1] % 2, f"size {size}: give even numbers of at least 16"),
        (rate < 1, f"{rate} frames a second: give at least one"),
    ]
    if wrong := [message for is_wrong, message in problems if is_wrong]:
        raise UsageError("; ".join(wrong))


def _claim(root: Path, **setting: object) -> None:
    """Marks an empty root with the setting; refuses one that holds anything but an earlier call with the same."""
    root.mkdir(parents=True, exist_ok=True)
    stamp = root / "synth.json"
    wanted = json.dumps({"recipe": RECIPE, **setting})
    if stamp.exists():
        found = stamp.read_text().strip()
        if found != wanted:
            raise DataError(f"{root}: holds a set made with {found}, not {wanted}; name another folder or delete it")
    elif any(root.iterdir()):
        raise DataError(f"{root}: is not empty, and this command did not make it; name a new or empty folder")
    else:
        stamp.write_text(wanted + "\n")
    (root / "videos").mkdir(exist_ok=True)


def _make(root: Path, clip: _Clip, *, seed: int, frames: int, size: tuple[int, int], rate: int) -> None:
    pair = list(MOTIONS).index(clip.motion) * len(TEXTURES) + list(TEXTURES).index(clip.appearance)
    video = render(clip.motion, clip.appearance, RandomStream(seed, pair, clip.number), frames=frames, size=size)
    path = root / clip.path
    unfinished = path.with_suffix(".part")
    _encode(unfinished, video, rate)
    unfinished.replace(path)  # a file with its final name is whole


def _encode(path: Path, video: np.ndarray, rate: int) -> None:
    """H.264 in MP4; `video` is RGB, uint8 [F, H, W, 3]."""
    # mbtree: with it, libx264 on AVX-512 gives other bytes from run to run.
    options = {"preset": "veryfast", "crf": "20", "g": str(GOP), "sc_threshold": "0", "mbtree": "0"}
    with av.open(path, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the bytes depend on the number of threads
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _list(root: Path, clips: list[_Clip]) -> Path:
    labels = root / "labels.csv"
    unfinished = labels.with_suffix(".part")
    with unfinished.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "motion", "appearance", "split"])
        writer.writerows([clip.path, clip.motion, clip.appearance, clip.split] for clip in clips)
    return unfinished.replace(labels)


def _cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
