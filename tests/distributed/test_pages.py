"""Of two processes, the first one alone writes a page.

Run as a script, this file starts the launches below (see tests/launch.py). The tests judge what they leave in files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cacl.cli import main
from cacl.search.embed import embed, settings_for_videos
from tests import launch
from tests.tiny import tiny_weights


def look(folder: Path) -> int:
    settings = ["clip.frames=4", "clip.stride=1", "clip.size=16", "train.device=cpu", "loader.backend=cpu"]
    options = [part for setting in settings for part in ("--set", setting)]
    return call("data", "look", folder / "videos", "--out", folder / f"look.{os.environ['RANK']}", *options)


def search(folder: Path) -> int:
    return call(
        "search", folder / "index", folder / "videos/0.mp4", "--report", folder / f"search.{os.environ['RANK']}"
    )


def call(*arguments: object) -> int:
    """Runs a command, and returns its exit code."""
    sys.argv = ["cacl", *map(str, arguments)]  # of a process that ends afterwards
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code is None or isinstance(ended.value.code, int)
    return ended.value.code or 0


LAUNCHES: launch.Launches = {"look": (2, look), "search": (2, search)}


@pytest.fixture(scope="module")
def folder(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for number in range(3):
        make_video(folder / "videos" / f"{number}.mp4", frames=12, size=(32, 24), gop=4, first=7 * number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        weights = tiny_weights()
        embed(weights, settings_for_videos(weights.config, str(folder / "videos"), []), folder / "index")
        launch.run_script(__file__, folder)
    return folder


@pytest.mark.parametrize("name", LAUNCHES)
def test_the_first_process_alone_writes_a_page(folder: Path, name: str) -> None:
    assert launch.results_of(LAUNCHES, name, folder) == [0, 0]
    assert [file.name for file in (folder / f"{name}.0").iterdir()] == ["index.html"]
    assert [*(folder / f"{name}.1").iterdir()] == []
    assert (folder / f"{name}.1.out").read_text() == ""


if __name__ == "__main__":
    launch.main(LAUNCHES, Path(sys.argv[1]))
