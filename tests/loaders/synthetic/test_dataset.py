"""The files of the synthetic set: the same settings give the same bytes, and other people's folders are left alone."""

import csv
import itertools
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.scan import scan
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.sampling.rng import RandomStream
from cacl.loaders.synthetic.dataset import RECIPE, encode, synthesise
from cacl.loaders.synthetic.render import MOTIONS, render
from cacl.loaders.synthetic.textures import TEXTURES
from tests.loaders.synthetic.measured_motion import measure_motion

APPEARANCES = list(TEXTURES)
SMALL = {"frames": 5, "size": (16, 24)}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    synthesise(root, videos_per_pair=(2, 1), **SMALL)
    return root


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set whose videos are large and long enough to measure their motion after they were encoded."""
    root = tmp_path_factory.mktemp("moving") / "set"
    synthesise(root, videos_per_pair=(1, 0), frames=13)
    return root


def read_list(root: Path) -> list[dict[str, str]]:
    with (root / "labels.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def decode(path: Path) -> np.ndarray:
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_list_names_every_video_and_is_balanced(made: Path):
    rows = read_list(made)
    assert list(rows[0]) == ["path", "motion", "axis", "direction", "speed", "appearance", "split"]
    assert {row["path"] for row in rows} == {f"videos/{path.name}" for path in (made / "videos").iterdir()}
    counts = Counter((row["motion"], row["appearance"], row["split"]) for row in rows)
    assert counts == {
        (motion, appearance, split): videos
        for motion, appearance in itertools.product(MOTIONS, APPEARANCES)
        for split, videos in (("train", 2), ("test", 1))
    }
    assert all(row["path"].startswith(f"videos/{row['motion']}_{row['appearance']}_") for row in rows)
    assert len(set(contents(made / "videos").values())) == len(rows) == 144


def test_the_videos_move_as_the_list_says(moving: Path):
    """The axis is the measured motion that is not nearly zero, the direction its sign, the speed its half."""
    axes = ("horizontal", "vertical", "rotation", "zoom")
    middles = np.array([1.75, 1.75, np.radians(3.75), 0.0225])
    decided = Counter()
    for row in read_list(moving):
        measured = measure_motion(decode(moving / row["path"])) / middles
        found = int(np.abs(measured).argmax())
        assert np.abs(np.delete(measured, found)).max() < 0.1
        assert row["axis"] == axes[found]
        assert row["direction"] == ("forwards" if measured[found] > 0 else "backwards")
        speed = abs(measured[found])
        if abs(speed - 1) > 0.03:  # beyond what encoding does
            assert row["speed"] == ("fast" if speed > 1 else "slow"), (row, speed)
            decided[row["speed"]] += 1
    assert min(decided.values()) > 15, decided


def test_scanned_and_prepared_videos_have_these_labels(moving: Path, tmp_path: Path):
    config = DataConfig(root=str(moving), cache=str(tmp_path / "cache"))
    prepare(config, tmp_path / "prepared", TranscodeSettings(short_side=48), workers=1, progress=lambda *_: None)
    listed = {Path(row.pop("path")).stem: row.pop("split") and row for row in read_list(moving)}
    for root in (moving, tmp_path / "prepared"):
        catalog = scan(DataConfig(root=str(root), cache=config.cache))
        found = {Path(video.path.removesuffix(".mp4")).stem: dict(video.attributes) for video in catalog.videos}
        assert found == listed


def test_the_same_setting_gives_the_same_bytes(made: Path, tmp_path: Path):
    synthesise(tmp_path, videos_per_pair=(2, 1), **SMALL)
    assert contents(tmp_path) == contents(made)


@pytest.mark.parametrize(
    ("motion", "appearance", "frames", "greens"),
    [
        ("left", "checkerboard", 5, [81, 226, 206, 149, 226, 81, 81, 226, 226, 81, 169, 81]),
        ("right", "dots", 5, [109, 150, 109, 109, 109, 119, 122, 156, 109, 109, 109, 137]),
        ("up", "waves", 5, [91, 153, 90, 137, 160, 87, 180, 93, 167, 96, 93, 175]),
        ("down", "noise", 5, [60, 42, 156, 87, 48, 53, 69, 143, 59, 88, 73, 77]),
        ("clockwise", "bricks", 5, [48, 58, 125, 143, 106, 41, 103, 100, 36, 143, 106, 82]),
        ("counter-clockwise", "cells", 5, [229, 229, 122, 141, 113, 212, 229, 229, 229, 229, 212, 229]),
        ("zoom-in", "checkerboard", 5, [195, 134, 195, 76, 15, 148, 195, 112, 195, 104, 15, 121]),
        ("zoom-out", "dots", 5, [140, 111, 118, 137, 111, 136, 116, 111, 111, 141, 111, 135]),
        ("zoom-in", "cells", 60, [149, 128, 136, 115, 176, 131, 160, 81, 91, 176, 76, 176]),
    ],
)
def test_the_first_recipe_stays_what_it_is(motion: str, appearance: str, frames: int, greens: list[int]):
    """Any other random number, or another order of them, gives other pixels, and would need another recipe."""
    number = list(MOTIONS).index(motion) if frames == 5 else 8
    video = render(motion, appearance, RandomStream(0, number), frames=frames, size=(16, 24))
    assert RECIPE == 1
    np.testing.assert_allclose(video[:: frames - 1, 3::8, 4::8, 1].ravel(), greens, atol=1)


def test_encoding_is_deterministic_at_the_default_size(tmp_path: Path):
    """With libx264's macroblock tree it was not, see `encode`."""
    video = render("clockwise", "bricks", RandomStream(0, 28, 0))
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        encode(path, video, rate=25)
    assert len({path.read_bytes() for path in paths}) == 1


def test_another_seed_gives_other_videos_and_more_of_them_change_none(made: Path, tmp_path: Path):
    synthesise(tmp_path / "other", videos_per_pair=(1, 0), seed=1, **SMALL)
    synthesise(tmp_path / "fewer", videos_per_pair=(1, 0), **SMALL)
    here, other, fewer = (contents(root / "videos") for root in (made, tmp_path / "other", tmp_path / "fewer"))
    assert all(here[name] != video for name, video in other.items())
    assert all(here[name] == video for name, video in fewer.items())


def test_validation_videos_change_no_others(made: Path, tmp_path: Path):
    synthesise(tmp_path, videos_per_pair=(2, 1, 1), **SMALL)
    here, there = contents(made / "videos"), contents(tmp_path / "videos")
    assert len(there) == len(here) + 48 == len(set(there.values()))
    assert here.items() <= there.items()
    splits: dict[str, set[str]] = {}
    for root in (made, tmp_path):
        for row in read_list(root):
            splits.setdefault(row["split"], set()).add(row["path"].removeprefix("videos/"))
    assert {split: len(names) for split, names in splits.items()} == {"train": 96, "test": 48, "val": 48}
    assert splits["val"] == there.keys() - here.keys()
    with pytest.raises(DataError, match=r"holds a set made with .*\[2, 1\].*, not .*\[2, 1, 1\]"):
        synthesise(made, videos_per_pair=(2, 1, 1), **SMALL)


def test_a_video_decodes_to_what_was_rendered(tmp_path: Path):
    path = tmp_path / "video.mp4"
    video = render("left", "cells", RandomStream(0))
    encode(path, video, rate=30)
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 30
        frames = list(container.decode(stream))
    assert {frame.format.name for frame in frames} == {"yuv420p"}
    assert [t for t, frame in enumerate(frames) if frame.key_frame] == [0, 12, 24, 36]
    decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
    assert decoded.shape == video.shape == (40, 80, 96, 3)
    luma = np.array([0.299, 0.587, 0.114])  # the colours lose half their resolution, the luma should lose little
    assert np.abs(decoded @ luma - video @ luma).mean() < 5


def test_an_unfinished_set_is_completed(made: Path, tmp_path: Path):
    """A killed run leaves no list, and no video under its final name that is not whole."""
    root = tmp_path / "set"
    shutil.copytree(made, root)
    (root / "labels.csv").unlink()
    lost = root / "videos" / "left_dots_01.mp4"
    lost.with_name(f".{lost.name}.writing").write_bytes(lost.read_bytes()[:100])
    lost.unlink()
    reports = []
    synthesise(root, videos_per_pair=(2, 1), progress=lambda *counts: reports.append(counts), **SMALL)
    assert reports == [(1, 1)]
    assert contents(root) == contents(made)


def test_a_list_without_the_columns_of_now_is_written_anew(made: Path, tmp_path: Path):
    """As an earlier version left it: the videos stay as they are, and none is made again."""
    root = shutil.copytree(made, tmp_path / "set")
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "motion", "appearance", "split"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(read_list(made))
    times = {path: path.stat().st_mtime_ns for path in (root / "videos").iterdir()}
    synthesise(root, videos_per_pair=(2, 1), **SMALL)
    assert contents(root) == contents(made)
    assert {path: path.stat().st_mtime_ns for path in (root / "videos").iterdir()} == times


def test_other_peoples_folders_are_left_alone(made: Path, tmp_path: Path):
    (tmp_path / "labels.csv").write_text("path,motion\n")
    with pytest.raises(DataError, match="is not empty"):
        synthesise(tmp_path, **SMALL)
    assert contents(tmp_path) == {"labels.csv": b"path,motion\n"}

    before = contents(made)
    with pytest.raises(DataError, match=r'"seed": 0.*not.*"seed": 1'):
        synthesise(made, videos_per_pair=(2, 1), seed=1, **SMALL)
    assert contents(made) == before

    with pytest.raises(DataError, match="cannot be written"):
        synthesise(tmp_path / "labels.csv", **SMALL)


@pytest.mark.parametrize(
    "setting",
    [
        {"videos_per_pair": (0, 0)},
        {"videos_per_pair": (1, 1, -1)},
        {"seed": -1},
        {"frames": 0},
        {"size": (80, 95)},
        {"rate": 0},
    ],
)
def test_settings_that_give_no_videos_are_refused(setting: dict, tmp_path: Path):
    with pytest.raises(UsageError, match=r"give|must"):
        synthesise(tmp_path / "set", **setting)
    assert not (tmp_path / "set").exists()
