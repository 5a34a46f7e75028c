"""What tests of training share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.small_runs import VIDEOS


@pytest.fixture(scope="module")
def videos(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes videos of the training split, and one for validation."""
    root = tmp_path_factory.mktemp("videos")
    rows = ["path,label,split"]
    for number in range(VIDEOS + 1):
        make_video(root / f"{number}.mp4", frames=6, size=(32, 24), gop=3)
        rows.append(f"{number}.mp4,same,{'train' if number < VIDEOS else 'val'}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root
