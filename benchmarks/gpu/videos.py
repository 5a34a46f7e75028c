"""Makes the videos of the questions, on a machine that has none."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from cacl.benchmarks.gpu.environment import Answer, Environment
from cacl.benchmarks.scripts.make_corpus import FRAMES, HEIGHT, RATE, WIDTH
from cacl.benchmarks.scripts.make_corpus import encode as encode_corpus
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings

LONG_VIDEO_FRAMES = 1200
"""Frames of the video of which late frames are asked for."""


def textures(seed: int, frames: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Iterator[np.ndarray]:
    """Yields frames uint8 [H, W, 3] of soft noise that moves by a few pixels a frame, so that neighbours differ."""
    width, height = size
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((height, width, 1)) + 0.3 * rng.standard_normal(
        (height, width, 3)
    )  # There is little colour.
    y, x = np.fft.fftfreq(height)[:, None, None], np.fft.fftfreq(width)[:, None]
    soft = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * np.exp(-400 * (x**2 + y**2)), axes=(0, 1)).real
    image = np.clip(127 + 50 * soft / soft.std(), 0, 255).astype(np.uint8)
    for number in range(frames):
        yield np.roll(image, (2 * number, 3 * number), (0, 1))


def encode(
    file: Path, images: Iterator[np.ndarray], codec: str, gop: int, size: tuple[int, int] = (WIDTH, HEIGHT)
) -> None:
    """Encodes frames uint8 [H, W, 3] to a file, with key frames `gop` frames apart."""
    options = {
        "libx264": {"preset": "veryfast", "crf": "23", "sc_threshold": "0", "bf": "0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "crf": "24", "b": "0"},
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, RATE, options=options[codec])
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = gop, 1
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))


def videos(env: Environment) -> Answer:
    """The videos of the other questions."""
    count, frames = (3, 60) if env.quick else (2 * env.threads, FRAMES)
    few = 2 if env.quick else 6
    long = ("long.mp4", "libx264") if env.cuda else ("long.webm", "libvpx-vp9")
    with ThreadPoolExecutor(env.threads) as pool:
        jobs = [
            pool.submit(
                encode,
                env.folder / "long" / long[0],
                textures(0, 150 if env.quick else LONG_VIDEO_FRAMES),
                codec=long[1],
                gop=16,
            ),
            *(
                pool.submit(encode_corpus, env.folder / kind / f"{n}.{suffix}", textures(n, frames), kind)
                for kind, suffix, some in (("h264", "mp4", count), ("xvid", "avi", few))
                for n in range(some)
            ),
            *(
                pool.submit(encode, env.folder / "vp9" / f"{n}.webm", textures(n, frames), "libvpx-vp9", gop=30)
                for n in range(few)
            ),
        ]
        for job in jobs:
            job.result()
    source = replace(env.config.data, root=str(env.folder / "h264"))
    workers = 1 if env.quick else env.threads
    started = time.perf_counter()
    prepare(source, env.folder / "prepared", TranscodeSettings(), workers=workers, progress=lambda *_: None)
    seconds = time.perf_counter() - started
    # 192 x 144 where the others are 170 x 128: both sides are multiples of 16.
    prepare(source, env.folder / "larger", TranscodeSettings(short_side=144), workers=workers, progress=lambda *_: None)
    # NVDEC takes HEVC from 144 x 144 on.
    hevc = TranscodeSettings(short_side=144, codec="hevc")
    prepare(source, env.folder / "hevc", hevc, workers=workers, progress=lambda *_: None)
    about = {}
    for kind in ("h264", "prepared", "larger", "hevc", "xvid", "vp9", "long"):
        catalog = env.catalog(kind)
        catalog.check(0)
        video = catalog.videos[0]
        about[kind] = {
            "videos": len(catalog.videos),
            "frames": video.frames,
            "size": f"{video.width}x{video.height}",
            "codec": video.codec,
            "bytes": sum(os.stat(catalog.location(each)).st_size for each in catalog.videos),
        }
    return about | {"seconds_to_prepare": seconds}
