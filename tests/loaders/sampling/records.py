"""Records of videos that no file stands behind."""

from __future__ import annotations

from cacl.clips import VideoRecord


def record(frames: int = 90, width: int = 320, height: int = 240, path: str = "v") -> VideoRecord:
    return VideoRecord(
        path=path, frames=frames, declared_frames=frames, rate=25, width=width, height=height, codec="h264"
    )


VIDEOS = [record(16 + 7 * n, 161 + 10 * n, 120 + 3 * n, path=f"v{n}") for n in range(11)]
