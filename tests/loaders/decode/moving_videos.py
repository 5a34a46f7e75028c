"""Videos of noise that moves, encoded in several ways."""

from __future__ import annotations

import zlib
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream

SIZES = [(64 + 16 * n, 48 + 2 * n) for n in range(4)]

OPTIONS: dict[str, dict[str, str]] = {
    "plain": {},
    "zerolatency": {"tune": "zerolatency"},
    "several references": {"refs": "5", "x264-params": "ref=5:weightp=2"},
    "baseline": {"profile": "baseline"},
    "main": {"profile": "main"},
    "slices": {"x264-params": "slices=4"},
    "delimiters": {"x264-params": "aud=1:repeat-headers=1"},
    "open groups": {"x264-params": "open-gop=1"},
    "no deblocking": {"tune": "fastdecode"},
    "lossless": {"qp": "0"},
}
"""Of x264; all of them without B-frames."""


def moving(path: Path, options: dict[str, str], frames: int = 30) -> None:
    """Soft noise that moves: what codecs predict from other frames, and what they cannot."""
    draw = np.random.default_rng(zlib.crc32(path.name.encode()))
    scene = torch.nn.functional.interpolate(torch.from_numpy(draw.uniform(0, 255, (1, 3, 12, 24))), (96, 192))[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0", "sc_threshold": "0", **options})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 7
        for t in range(frames):
            image = scene[:, t : t + 48, 3 * t : 3 * t + 64].permute(1, 2, 0).numpy().astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
