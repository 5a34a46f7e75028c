"""What tests of training share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.small_runs import VIDEOS


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes videos that all belong to the training split."""
    root = tmp_path_factory.mktemp("videos")
    names = [f"{number}.mp4" for number in range(VIDEOS)]
    for name in names:
        make_video(root / name, frames=6, size=(32, 24), gop=3)
    (root / "labels.csv").write_text("\n".join(["path,split", *(f"{name},train" for name in names)]))
    return root
