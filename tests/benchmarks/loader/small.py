"""Videos and settings with which loaders are quickly measured."""

from collections.abc import Callable
from pathlib import Path

FRAMES = 24
SMALL = ["clip.frames=4", "clip.stride=2", "clip.size=32", "train.batch_size=2", "loader.threads=2"]


def make_videos(make_video: Callable[..., Path], root: Path) -> None:
    """Three videos; in the second one, as in UCF101, no seek can be trusted."""
    make_video(root / "a.mp4", frames=FRAMES, gop=8, bframes=2)
    make_video(root / "b/b.avi", frames=FRAMES, gop=8, codec="mpeg4", bframes=2)
    make_video(root / "b/c.mp4", frames=FRAMES, gop=8)
