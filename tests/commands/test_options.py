"""These options would be missed by no other test of a command. Each is seen in what the command makes."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import pytest

from cacl.reporting.console import Console
from tests.commands.finished import Run, result


@pytest.fixture(scope="module")
def source(make_video: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos that `data prepare` must encode."""
    root = tmp_path_factory.mktemp("source")
    for number in range(3):
        make_video(root / f"{number}.avi", frames=20, size=(96, 64), codec="mpeg4")
    return root


def described(target: Path) -> list[tuple[str, int, list[int], int]]:
    """Returns the codec and the height of each prepared video, the numbers of its key frames, and its size in bytes."""
    found = []
    for file in sorted((target / "videos").iterdir()):
        with av.open(str(file)) as container:
            stream = container.streams.video[0]
            keys = [number for number, packet in enumerate(container.demux(stream)) if packet.is_keyframe]
            found.append((stream.codec_context.name, stream.height, keys, file.stat().st_size))
    return found


@pytest.fixture(scope="module")
def as_usual(
    source: Path, interpreter: Run, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[str, int, list[int], int]]:
    target = tmp_path_factory.mktemp("usual") / "target"
    assert interpreter("data", "prepare", source, target, "--workers", 1).returncode == 0
    return described(target)


@pytest.mark.parametrize(("option", "value"), [("--short-side", 32), ("--gop", 5), ("--crf", 45), ("--codec", "hevc")])
def test_options_of_prepare_decide_the_files(
    cacl: Run,
    source: Path,
    as_usual: list[tuple[str, int, list[int], int]],
    tmp_path: Path,
    option: str,
    value: int | str,
) -> None:
    """Each option changes what it should, and nothing else."""
    target = tmp_path / "target"
    told = result(cacl("data", "prepare", source, target, "--workers", 1, option, value, "--json"))
    assert told["settings"][option.removeprefix("--").replace("-", "_")] == value
    assert len(as_usual) == 3
    for (codec, height, keys, size), (*usual, usual_size) in zip(described(target), as_usual, strict=True):
        assert usual == ["h264", 64, [0, 16]]
        assert codec == ("hevc" if option == "--codec" else "h264")
        assert height == (32 if option == "--short-side" else 64)
        assert keys == ([0, 5, 10, 15] if option == "--gop" else [0, 16])
        assert size < 0.7 * usual_size or option != "--crf"


@pytest.mark.parametrize("workers", [1, 2])
def test_prepare_has_as_many_workers_as_it_is_told(
    cacl: Run, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    seen = []
    progress = Console.progress

    def watched(self: Console, *arguments: Any) -> None:
        seen.append(len(multiprocessing.active_children()))
        progress(self, *arguments)

    monkeypatch.setattr(Console, "progress", watched)
    result(cacl("data", "prepare", source, tmp_path / "target", "--workers", workers, "--json"))
    assert max(seen) == workers


def test_bench_loader_reads_its_configuration(cacl: Run, source: Path, tmp_path: Path) -> None:
    finished = cacl("bench-loader", source, "--config", tmp_path / "nowhere.toml")
    assert finished.returncode == 2
    assert finished.stderr == f"cacl: {tmp_path / 'nowhere.toml'}: cannot be read (No such file or directory)\n"
