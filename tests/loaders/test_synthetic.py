"""The synthetic set: draws that never change, motions that are there, and frames that do not betray them."""

import csv
import functools
import itertools
import math
import shutil
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest

from cacl.errors import DataError, UsageError
from cacl.loaders import synthetic
from cacl.loaders.sampling.rng import RandomStream

OPPOSITES = [("left", "right"), ("up", "down"), ("clockwise", "counter-clockwise"), ("zoom-in", "zoom-out")]
APPEARANCES = list(synthetic.TEXTURES)
SMALL = {"frames": 5, "size": (16, 24)}


# --- Draws


def philox(key: list[int], counter: list[int]) -> list[int]:
    """Philox 4x64-10 as published (Salmon et al. 2011): four 64-bit words for a key and a counter."""
    word = 2**64
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * c0, 0xCA5A826395121157 * c2
        c0, c1, c2, c3 = (p1 // word) ^ c1 ^ k0, p1 % word, (p0 // word) ^ c3 ^ k1, p0 % word
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % word, (k1 + 0xBB67AE8584CAA73B) % word
    return [c0, c1, c2, c3]


def test_the_reference_gives_the_published_words():
    """Random123's known-answer file, philox4x64 10, all zeros and all ones."""
    ones = 2**64 - 1
    assert philox([0, 0], [0] * 4) == [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox([ones] * 2, [ones] * 4) == [
        0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0,
    ]  # fmt: skip


@pytest.mark.parametrize("key", [(0,), (0, 0), (1, 2, 3, 4), (2**63 - 1, 5, 2**63 - 1)])
def test_draws_are_philox_of_the_documented_key(key: tuple[int, ...]):
    words = [value + 1 for value in key] + [0] * (4 - len(key))
    expected = [philox(words[:2], [block, 0, *words[2:]]) for block in (1, 2)]  # the first block has the number 1
    rng = RandomStream(*key)
    assert [rng.integer(0, 2**53) for _ in range(8)] == [word >> 11 for block in expected for word in block]


def test_draws_are_what_they_have_always_been():
    rng = RandomStream(1, 2, 3, 4)
    assert [rng.integer(0, 2**53) for _ in range(5)] == [
        6333794035046546, 1182931628988289, 1336285769545159, 6398848272364929, 7083883808327599,
    ]  # fmt: skip
    rng = RandomStream(7)
    assert rng.uniform(-1, 3) == 2.982705343805335
    assert rng.integer(10, 20) == 14
    assert rng.chance(0.5) is False
    assert rng.permutation(8) == [1, 3, 0, 4, 6, 5, 7, 2]
    assert rng.uniform(0, 1) == 0.2952643751881724


def test_different_keys_are_different_streams():
    values = (0, 1, 2, 2**63 - 1)
    keys = [key for length in (1, 2, 3, 4) for key in itertools.product(values, repeat=length)]
    assert len({RandomStream(*key).integer(0, 2**53) for key in keys}) == len(keys)


@pytest.mark.parametrize("key", [(), (1, 2, 3, 4, 5), (-1,), (2**63,)])
def test_keys_that_could_collide_are_refused(key: tuple[int, ...]):
    with pytest.raises(AssertionError):
        RandomStream(*key)


def test_distributions():
    rng, n = RandomStream(3), 20_000
    uniform = np.array([rng.uniform(2, 5) for _ in range(n)])
    assert uniform.min() >= 2
    assert uniform.max() < 5
    assert uniform.mean() == pytest.approx(3.5, abs=4 * math.sqrt(9 / 12 / n))
    assert uniform.var() == pytest.approx(9 / 12, rel=0.05)

    counts = Counter(rng.integer(-3, 4) for _ in range(n))
    assert set(counts) == set(range(-3, 4))
    assert sum((count - n / 7) ** 2 / (n / 7) for count in counts.values()) < 22.5  # chi squared of 6, p = 0.001

    assert sum(rng.chance(0.3) for _ in range(n)) / n == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / n))
    assert not any(rng.chance(0) for _ in range(100))
    assert all(rng.chance(1) for _ in range(100))

    orders = Counter(tuple(rng.permutation(4)) for _ in range(n))
    assert set(orders) == set(itertools.permutations(range(4)))
    assert sum((count - n / 24) ** 2 / (n / 24) for count in orders.values()) < 49.7  # chi squared of 23, p = 0.001


def test_intervals_are_half_open_where_rounding_would_close_them():
    rng = RandomStream(0)
    high = math.nextafter(1.0, 2.0)
    assert all(rng.uniform(1.0, high) == 1.0 for _ in range(100))
    assert rng.uniform(0.875, 0.875) == 0.875
    assert rng.integer(5, 6) == 5
    assert rng.permutation(0) == []


# --- One frame says nothing


@pytest.mark.parametrize("appearance", APPEARANCES)
@pytest.mark.parametrize(("motion", "opposite"), OPPOSITES)
def test_the_videos_of_a_pair_are_each_others_time_reverse(motion: str, opposite: str, appearance: str):
    for number in range(3):
        forward = synthetic.render(motion, appearance, RandomStream(0, number), frames=8, size=(32, 40))
        backward = synthetic.render(opposite, appearance, RandomStream(0, number), frames=8, size=(32, 40))
        np.testing.assert_array_equal(forward[::-1], backward)


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_still_scales_are_the_scales_of_a_zoom(appearance: str):
    """With the same draws, all that do not zoom share their middle frame, and it is one of the frames of the zoom."""
    frames, seen = 5, set()
    for number in range(40):
        videos = {
            motion: synthetic.render(motion, appearance, RandomStream(1, number), frames=frames, size=(16, 24))
            for motion in synthetic.MOTIONS
        }
        middle = videos["left"][frames // 2]
        for motion in ("right", "up", "down", "clockwise", "counter-clockwise"):
            np.testing.assert_array_equal(videos[motion][frames // 2], middle)
        seen.add(next(t for t in range(frames) if np.array_equal(videos["zoom-in"][t], middle)))
    assert seen == set(range(frames))


# --- Every motion is there


@functools.cache
def origins(motion: str, amount: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the content of each pixel was one frame ago (column, row), from the definition of a motion.

    The amount is in points, degrees or growth; y points down.
    """
    height, width = synthetic.SIZE
    x = np.arange(width)[None, :] - (width - 1) / 2 + np.zeros((height, 1))
    y = np.arange(height)[:, None] - (height - 1) / 2 + np.zeros((1, width))
    cos, sin, grown = math.cos(math.radians(amount)), math.sin(math.radians(amount)), math.exp(amount)
    from_x, from_y = {
        "left": (x + amount, y),
        "right": (x - amount, y),
        "up": (x, y + amount),
        "down": (x, y - amount),
        "clockwise": (cos * x + sin * y, -sin * x + cos * y),
        "counter-clockwise": (cos * x - sin * y, sin * x + cos * y),
        "zoom-in": (x / grown, y / grown),
        "zoom-out": (x * grown, y * grown),
    }[motion]
    return (from_x + (width - 1) / 2)[INNER], (from_y + (height - 1) / 2)[INNER]


def sample(images: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Bilinear: [N, H, W] at places [h, w] -> [N, h, w]."""
    left, top = np.floor(column).astype(int), np.floor(row).astype(int)
    right_share, lower_share = (column - left).astype(np.float32), (row - top).astype(np.float32)
    upper = images[:, top, left] * (1 - right_share) + images[:, top, left + 1] * right_share
    lower = images[:, top + 1, left] * (1 - right_share) + images[:, top + 1, left + 1] * right_share
    return upper * (1 - lower_share) + lower * lower_share


INNER = np.s_[8:-8, 8:-8]
AMOUNTS = {
    **dict.fromkeys(("left", "right", "up", "down"), (1.0, 1.5, 2.0, 2.5)),
    **dict.fromkeys(("clockwise", "counter-clockwise"), (2.5, 3.3, 4.2, 5.0)),
    **dict.fromkeys(("zoom-in", "zoom-out"), (0.015, 0.02, 0.025, 0.03)),
}


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_each_motion_explains_its_own_videos_best(appearance: str):
    for motion, number in itertools.product(synthetic.MOTIONS, range(2)):
        video = synthetic.render(motion, appearance, RandomStream(2, number)).mean(axis=-1, dtype=np.float32)
        before, after = video[3:-1:12], video[4::12, *INNER]
        errors = {
            guess: min(np.square(sample(before, *origins(guess, amount)) - after).mean() for amount in amounts)
            for guess, amounts in AMOUNTS.items()
        }
        best, second = sorted(errors, key=errors.__getitem__)[:2]
        assert best == motion, (number, errors)
        assert errors[best] < errors[second] / 2, (motion, number, errors)


# --- What is drawn


@pytest.mark.parametrize("appearance", APPEARANCES)
def test_colours_contrast_and_differ_between_videos(appearance: str):
    videos = [synthetic.render("left", appearance, RandomStream(4, number), frames=1) for number in range(8)]
    lumas = [video @ np.array([0.299, 0.587, 0.114]) for video in videos]
    assert all(np.ptp(luma) > 60 for luma in lumas)
    means = np.array([video.mean(axis=(0, 1, 2)) for video in videos])
    assert means.std(axis=0).mean() > 20


def test_a_larger_frame_shows_the_same():
    small = synthetic.render("clockwise", "noise", RandomStream(5), frames=3, size=(80, 96))
    large = synthetic.render("clockwise", "noise", RandomStream(5), frames=3, size=(240, 288))
    np.testing.assert_allclose(large[:, 1::3, 1::3].astype(int), small, atol=1)


# --- Files


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made") / "set"
    synthetic.synthesise(root, videos_per_pair=(2, 1), **SMALL)
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_list_names_every_video_and_is_balanced(made: Path):
    with (made / "labels.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == ["path", "motion", "appearance", "split"]
    assert {row["path"] for row in rows} == {f"videos/{path.name}" for path in (made / "videos").iterdir()}
    counts = Counter((row["motion"], row["appearance"], row["split"]) for row in rows)
    assert counts == {
        (motion, appearance, split): videos
        for motion, appearance in itertools.product(synthetic.MOTIONS, APPEARANCES)
        for split, videos in (("train", 2), ("test", 1))
    }
    assert all(row["path"].startswith(f"videos/{row['motion']}_{row['appearance']}_") for row in rows)
    assert len(set(contents(made / "videos").values())) == len(rows) == 144


def test_the_same_setting_gives_the_same_bytes(made: Path, tmp_path: Path):
    synthetic.synthesise(tmp_path, videos_per_pair=(2, 1), **SMALL)
    assert contents(tmp_path) == contents(made)


def test_encoding_is_deterministic_at_the_default_size(tmp_path: Path):
    """libx264's macroblock tree was not: see `_encode`."""
    video = synthetic.render("clockwise", "bricks", RandomStream(0, 28, 0))
    paths = [tmp_path / f"{number}.mp4" for number in range(20)]
    for path in paths:
        synthetic._encode(path, video, rate=25)
    assert len({path.read_bytes() for path in paths}) == 1


def test_another_seed_gives_other_videos_and_more_of_them_change_none(made: Path, tmp_path: Path):
    synthetic.synthesise(tmp_path / "other", videos_per_pair=(1, 0), seed=1, **SMALL)
    synthetic.synthesise(tmp_path / "fewer", videos_per_pair=(1, 0), **SMALL)
    here, other, fewer = (contents(root / "videos") for root in (made, tmp_path / "other", tmp_path / "fewer"))
    assert all(here[name] != video for name, video in other.items())
    assert all(here[name] == video for name, video in fewer.items())


def test_validation_videos_change_no_others(made: Path, tmp_path: Path):
    synthetic.synthesise(tmp_path, videos_per_pair=(2, 1, 1), **SMALL)
    here, there = contents(made / "videos"), contents(tmp_path / "videos")
    assert len(there) == len(here) + 48 == len(set(there.values()))
    assert here.items() <= there.items()
    splits: dict[str, set[str]] = {}
    for root in (made, tmp_path):
        with (root / "labels.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                splits.setdefault(row["split"], set()).add(row["path"].removeprefix("videos/"))
    assert {split: len(names) for split, names in splits.items()} == {"train": 96, "test": 48, "val": 48}
    assert splits["val"] == there.keys() - here.keys()
    with pytest.raises(DataError, match=r"holds a set made with .*\[2, 1\].*, not .*\[2, 1, 1\]"):
        synthetic.synthesise(made, videos_per_pair=(2, 1, 1), **SMALL)


def test_a_video_decodes_to_what_was_rendered(tmp_path: Path):
    path = tmp_path / "video.mp4"
    video = synthetic.render("left", "cells", RandomStream(0))
    synthetic._encode(path, video, rate=30)
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
    lost.with_suffix(".part").write_bytes(lost.read_bytes()[:100])
    lost.unlink()
    reports = []
    synthetic.synthesise(root, videos_per_pair=(2, 1), report=lambda *counts: reports.append(counts), **SMALL)
    assert reports == [(1, 1)]
    assert contents(root) == contents(made)


def test_other_peoples_folders_are_left_alone(made: Path, tmp_path: Path):
    (tmp_path / "labels.csv").write_text("path,motion\n")
    with pytest.raises(DataError, match="is not empty"):
        synthetic.synthesise(tmp_path, **SMALL)
    assert contents(tmp_path) == {"labels.csv": b"path,motion\n"}

    before = contents(made)
    with pytest.raises(DataError, match=r'"seed": 0.*not.*"seed": 1'):
        synthetic.synthesise(made, videos_per_pair=(2, 1), seed=1, **SMALL)
    assert contents(made) == before

    with pytest.raises(DataError, match="cannot be written"):
        synthetic.synthesise(tmp_path / "labels.csv", **SMALL)


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
        synthetic.synthesise(tmp_path / "set", **setting)
    assert not (tmp_path / "set").exists()
