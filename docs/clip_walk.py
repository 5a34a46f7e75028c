"""Prints the files of the package in which functions run while one clip goes from its file to the loss.

    python docs/clip_walk.py

It makes a few videos, scans them, and watches one batch: from its plans, over the `cpu` backend, to the losses. What
runs before (scan, configuration) and after (gradients, logging, saving) is not part of the walk. docs/architecture.md
describes the files, and tests/test_clip_walk.py holds it to this list.
"""

from __future__ import annotations

import functools
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import av
import numpy as np

from cacl.config import Config, from_dict
from cacl.loaders.clip_loader import ClipLoader
from cacl.method.cacl import CACL

ROOT = Path(__file__).resolve().parents[1]
PACKAGE_FOLDERS = ("cacl", "loaders", "kernels")
BATCH_SIZE = 2


def main() -> None:
    """Prints one path a line, in the order in which the files are entered first."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(BATCH_SIZE):
            _write_video(Path(folder) / "videos" / f"{number}.mp4", number)
        print(*files_entered(_configuration(Path(folder))), sep="\n")


def _write_video(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in np.random.default_rng(seed).integers(0, 256, (8, 48, 64, 3), np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode(None))


def files_entered(config: Config) -> list[str]:
    """Walks one batch and returns the files, relative to the repository, in the order in which they are entered."""
    loader = ClipLoader.from_config(config)
    model = CACL(config)
    entered: dict[str, None] = {}

    def watch(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code.co_name != "<module>" and (name := _name_of(frame.f_code.co_filename)):
            entered[name] = None

    def walk(step: int) -> None:
        (batch,) = loader.steps(step, step + 1)
        model(batch, step)

    walk(0)  # The first batch imports and compiles what is slow to watch.
    threading.setprofile(watch)
    sys.setprofile(watch)
    try:
        walk(1)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return list(entered)


@functools.cache
def _name_of(file: str) -> str:
    """Returns the path of a file of the package in the repository, and "" of any other."""
    path = Path(file)
    if path.is_absolute() and path.exists() and path.resolve().is_relative_to(ROOT):
        path = path.resolve().relative_to(ROOT)
        if path.parts[0] in PACKAGE_FOLDERS:
            return path.as_posix()
    return ""


def _configuration(folder: Path) -> Config:
    transformer = {"embedder": "light", "width": 16, "depth": 1, "heads": 2}
    return from_dict(
        {
            "data": {"root": str(folder / "videos"), "cache": str(folder / "cache")},
            "clip": {"frames": 4, "stride": 1, "size": 32},
            "loader": {"threads": 1},
            "model": {"cnn": "r3d10", "width": 0.0625, "embedding_dim": 8, "transformer": transformer},
            "contrast": {"queue_size": 16},
            "train": {"batch_size": BATCH_SIZE},
        }
    )


if __name__ == "__main__":
    main()
