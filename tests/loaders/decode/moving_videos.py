"""Videos of noise that moves, encoded in several ways."""

from __future__ import annotations

import zlib
from pathlib import Path

import av
import numpy as np
import torch
from av.video.stream import VideoStream

SIZES = [(64 + 16 * n, 48 + 2 * n) for n in range(4)]

ENCODERS = {"h264": ("libx264", "x264-params", "scenecut=0"), "hevc": ("libx265", "x265-params", "log-level=none")}
OPTIONS: dict[str, dict[str, dict[str, str]]] = {
    "h264": {
        "plain": {},
        "zerolatency": {"tune": "zerolatency"},
        "several references": {"params": "ref=5:weightp=2"},
        "baseline": {"profile": "baseline"},
        "main": {"profile": "main"},
        "slices": {"params": "slices=4"},
        "delimiters": {"params": "aud=1:repeat-headers=1"},
        "open groups": {"params": "open-gop=1"},
        "no deblocking": {"tune": "fastdecode"},
        "lossless": {"qp": "0"},
    },
    "hevc": {
        "plain": {},
        "zerolatency": {"tune": "zerolatency"},
        "several references": {"params": "ref=5"},
        "wavefronts": {"params": "ctu=16:pools=2"},
        "delimiters": {"params": "aud=1:repeat-headers=1"},
        "closed groups": {"params": "open-gop=0"},
        "no deblocking": {"tune": "fastdecode"},
        "lossless": {"params": "lossless=1"},
    },
}
"""By the codec and by what is special; `params` are those of the encoder itself. There are no B-frames."""


def moving(path: Path, codec: str, options: dict[str, str], frames: int = 30) -> None:
    """Soft noise that moves: what codecs predict from other frames, and what they cannot."""
    encoder, params, always = ENCODERS[codec]
    options = {"bf": "0", **options}
    options[params] = ":".join(filter(None, [always, options.pop("params", "")]))
    draw = np.random.default_rng(zlib.crc32(path.name.encode()))
    scene = torch.nn.functional.interpolate(torch.from_numpy(draw.uniform(0, 255, (1, 3, 12, 24))), (96, 192))[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=25, options=options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size = 7
        for t in range(frames):
            image = scene[:, t : t + 48, 3 * t : 3 * t + 64].permute(1, 2, 0).numpy().astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
