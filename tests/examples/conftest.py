"""Videos that the examples run on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty training and four test videos of two classes, which differ in what they show."""
    folder = tmp_path_factory.mktemp("examples") / "videos"
    for number in range(24):
        split, label = "test" if number % 6 == 5 else "train", "ab"[number % 2]
        make_video(folder / split / label / f"{number}.mp4", size=(64, 48), first=64 * (number % 2))
    return folder
