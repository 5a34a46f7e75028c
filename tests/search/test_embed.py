"""An index has the features of every span, and only what is new or has changed is embedded."""

from __future__ import annotations

import fcntl
import os
import re
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cacl.checkpoints.encoders import EncoderWeights
from cacl.errors import CaclError, DataError, UsageError
from cacl.loaders.catalog.scan import scan
from cacl.loaders.clip_loader import ClipLoader
from cacl.loaders.sampling.sampler import evaluation_plans
from cacl.reporting.console import Console
from cacl.search import embed as embedding
from tests import forked
from tests.damage import truncated
from tests.search.conftest import VIDEOS, Embed, add_video, make_unreadable, other_weights, restore

Rows = dict[tuple[str, int], np.ndarray]
MakeVideo = Callable[..., Path]


def rows(index: Path) -> Rows:
    """Returns the features by path and first frame, as any reader of parquet finds them."""
    table = pq.read_table(index / "spans.parquet").to_pydict()
    features = [np.array(feature, np.float32) for feature in table["feature"]]
    keys = list(zip(table["path"], table["start_frame"], strict=True))
    assert keys == sorted(keys)
    return dict(zip(keys, features, strict=True))


def assert_equal(found: Rows, expected: Rows) -> None:
    """Batches of other sizes move the last bits."""
    assert list(found) == list(expected)
    for key, feature in found.items():
        np.testing.assert_allclose(feature, expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("which", ["cnn", "transformer"])
def test_a_row_is_the_feature_vector_of_a_clip(
    embed_videos: Embed, folder: Path, weights: EncoderWeights, which: str
) -> None:
    summary = embed_videos(encoder=which)
    found = rows(folder / "index")
    assert (summary.spans, summary.added, summary.kept) == (len(found), VIDEOS, 0)
    assert [start for path, start in found if path == "a/00.mp4"] == [0, 4, 6]  # of 10 frames
    assert [start for path, start in found if path == "b/03.mp4"] == [0, 4, 8]  # of 13
    config = replace(weights.config, data=replace(weights.config.data, root=str(folder / "videos")))
    catalog = scan(config.data)
    loader = ClipLoader.from_config(config, catalog=catalog, split=None)
    encoder = weights.build(which)
    for (path, start), feature in found.items():
        (video,) = (number for number, record in enumerate(catalog.videos) if record.path == path)
        (plan,) = evaluation_plans(catalog.videos, [video], 1, config.clip, config.augment)
        (batch,) = loader.backend.batches([[replace(plan, start=start)]])
        with torch.no_grad():
            expected = encoder(batch.views[0].float(), batch.order)[0].numpy()
        np.testing.assert_allclose(feature, expected, rtol=1e-4, atol=1e-6)


def test_times_are_those_of_the_frames(embed_videos: Embed, folder: Path) -> None:
    embed_videos(every_seconds=0.11)  # 2.75 frames, taken as 3
    table = pq.read_table(folder / "index/spans.parquet").to_pydict()
    assert [start for start, path in zip(table["start_frame"], table["path"], strict=True) if path == "a/00.mp4"] == [
        0,
        3,
        6,
    ]
    np.testing.assert_allclose(table["start_seconds"], np.array(table["start_frame"]) / 25)
    np.testing.assert_allclose(table["end_seconds"], np.array(table["start_frame"]) / 25 + 4 / 25)


def test_only_what_has_changed_is_read(embed_videos: Embed, folder: Path, make_video: MakeVideo) -> None:
    """Ten files are added, two are damaged, one is removed, one changes its content, and nobody can read the others."""
    for number in range(VIDEOS, 14):
        add_video(make_video, folder, number)
    assert embed_videos().added == 14
    before = rows(folder / "index")

    videos = folder / "videos"
    for number in range(14, 24):
        add_video(make_video, folder, number)
    damaged, removed, changed = [videos / "a/00.mp4", videos / "b/03.mp4"], videos / "b/01.mp4", videos / "a/02.mp4"
    for file in damaged:
        truncated(file)
    removed.unlink()
    make_video(changed, frames=12, size=(64, 48), gop=4, first=200)
    fresh = embed_videos(index="fresh")
    unchanged = [f"{'ab'[number % 2]}/{number:02}.mp4" for number in range(4, 14)]
    for path in unchanged:
        make_unreadable(videos / path)

    summary = embed_videos()
    found = rows(folder / "index")
    assert (summary.kept, summary.added, summary.changed, summary.removed) == (10, 10, 1, 1)
    assert [path for path, _ in summary.rejected] == ["a/00.mp4", "b/03.mp4"]
    assert all(reason for _, reason in summary.rejected)
    assert summary.spans == len(found) == fresh.spans
    for key, feature in found.items():
        if key[0] in unchanged:
            assert np.array_equal(feature, before[key])
    assert_equal(found, rows(folder / "fresh"))

    again = embed_videos()
    assert (again.kept, again.added, again.changed, again.removed) == (21, 0, 0, 0)
    assert again.rejected == summary.rejected


def test_an_index_that_is_up_to_date_is_not_written(embed_videos: Embed, folder: Path) -> None:
    embed_videos()
    before = {file.name: file.stat().st_mtime_ns for file in (folder / "index").iterdir()}
    embed_videos()
    assert {file.name: file.stat().st_mtime_ns for file in (folder / "index").iterdir()} == before
    assert before.keys() == {"encoder.safetensors", "spans.parquet", ".lock"}


# ---------------------------------------------------------------------------------------------------- what goes wrong


def killed(folder: str, weights_file: str) -> None:
    """Embeds, and is killed when the fourth of six videos is done: three of them have been saved."""
    embedding.SAVE_EVERY_SECONDS = 0.0

    def progress(self: Console, task: str, done: int, total: int, note: str = "") -> None:
        if task == "embedding" and done == 4:
            os.kill(os.getpid(), signal.SIGKILL)

    Console.progress = progress
    weights = EncoderWeights.read(Path(weights_file))
    config = embedding.settings_for_videos(weights.config, f"{folder}/videos", [])
    embedding.embed(weights, config, Path(folder, "index"))


def test_a_killed_process_goes_on(embed_videos: Embed, folder: Path, weights: EncoderWeights) -> None:
    """The videos that were saved cannot be read any more."""
    weights.save(folder / "weights.safetensors")
    embed_videos(index="fresh")
    ended = forked.run(killed, folder, folder / "weights.safetensors", environment=os.environ)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not (folder / "index/spans.parquet").exists()
    done = sorted((folder / "videos").rglob("*.mp4"))[:3]
    for file in done:
        make_unreadable(file)
    summary = embed_videos()
    assert (summary.kept, summary.added, summary.rejected) == (0, VIDEOS, ())
    assert_equal(rows(folder / "index"), rows(folder / "fresh"))
    assert not (folder / "index/parts").exists()


def test_a_part_that_was_deleted_is_made_anew(embed_videos: Embed, folder: Path, weights: EncoderWeights) -> None:
    weights.save(folder / "weights.safetensors")
    forked.run(killed, folder, folder / "weights.safetensors", environment=os.environ)
    parts = sorted((folder / "index/parts").iterdir())
    assert len(parts) == 3
    parts[1].unlink()
    assert embed_videos().added == VIDEOS
    embed_videos(index="fresh")
    assert_equal(rows(folder / "index"), rows(folder / "fresh"))


def test_what_another_process_is_at_work_on_is_left_alone(embed_videos: Embed, folder: Path) -> None:
    embed_videos()
    before = (folder / "index/spans.parquet").read_bytes()
    (folder / "videos/a/00.mp4").unlink()
    with (folder / "index/.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="index: another `cacl embed` is at work there"):
            embed_videos()
    assert (folder / "index/spans.parquet").read_bytes() == before
    assert embed_videos().removed == 1


def embed_small_files(folder: str, weights_file: str) -> None:
    """Embeds where no file can be larger than a kilobyte, and prints the error."""
    weights = EncoderWeights.read(Path(weights_file))
    config = embedding.settings_for_videos(weights.config, f"{folder}/videos", [])
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(CaclError) as raised:
        embedding.embed(weights, config, Path(folder, "index"))
    print(raised.value)


def test_what_cannot_be_written_is_named(embed_videos: Embed, folder: Path, weights: EncoderWeights) -> None:
    encoder, index = folder / "weights.safetensors", folder / "index"
    weights.save(encoder)
    ended = forked.run(embed_small_files, folder, encoder, environment=os.environ)
    assert re.search(r"--out .*index: cannot be written \(.*File too large.*\)", ended.stdout), ended
    embed_videos(index="fresh")
    (folder / "fresh/encoder.safetensors").rename(index / "encoder.safetensors")
    ended = forked.run(embed_small_files, folder, encoder, environment=os.environ)
    assert re.search(r"parts/000000.parquet: cannot be written \(.*File too large.*\); mend that", ended.stdout), ended
    assert embed_videos().added == VIDEOS


def test_a_video_that_fails_after_the_scan_is_named_and_tried_again(embed_videos: Embed, folder: Path) -> None:
    file = folder / "videos/a/02.mp4"
    embed_videos(index="scanned")  # The scan is cached, and goes by size and time.
    held = make_unreadable(file)
    summary = embed_videos()
    ((path, reason),) = summary.rejected
    assert path == "a/02.mp4"
    assert reason
    assert str(folder) not in reason
    assert summary.added == VIDEOS - 1
    restore(file, held)
    summary = embed_videos()
    assert (summary.kept, summary.added, summary.rejected) == (VIDEOS - 1, 1, ())
    assert_equal(rows(folder / "index"), rows(folder / "scanned"))


def test_an_encoder_that_is_damaged_or_another_is_written_again(
    embed_videos: Embed, folder: Path, weights: EncoderWeights
) -> None:
    embed_videos()
    encoder = folder / "index/encoder.safetensors"
    written = EncoderWeights.read(encoder).digest
    for spoil in (encoder.unlink, lambda: truncated(encoder), lambda: other_weights(weights).save(encoder)):
        spoil()
        assert embed_videos().kept == VIDEOS
        assert EncoderWeights.read(encoder).digest == written


def test_a_folder_that_was_moved_keeps_its_features(embed_videos: Embed, folder: Path) -> None:
    embed_videos()
    before = rows(folder / "index")
    (folder / "videos").rename(folder / "moved")
    summary = embed_videos(videos="moved")
    assert (summary.kept, summary.added, summary.root) == (VIDEOS, 0, str(folder / "moved"))
    found = rows(folder / "index")
    assert all(np.array_equal(found[key], before[key]) for key in before)
    assert embed_videos(videos="moved").kept == VIDEOS


def test_another_folder_is_refused(embed_videos: Embed, folder: Path, make_video: MakeVideo) -> None:
    embed_videos()
    make_video(folder / "other/x.mp4", first=100)
    with pytest.raises(
        UsageError, match=r"is an index of .*videos, and none of its videos is in .*other; make another"
    ):
        embed_videos(videos="other")
    assert embed_videos().kept == VIDEOS


@pytest.mark.parametrize(
    ("overrides", "options", "message"),
    [
        ([], {"encoder": "transformer"}, "--encoder is cnn in it and transformer here"),
        ([], {"every_seconds": 1.0}, "--every is not set in it and 1.0 here"),
        (["clip.stride=2"], {}, "clip.stride is 1 in it and 2 here"),
        (["augment.crop=[0.5, 1]", "clip.size=32"], {}, "clip.size is 16 in it and 32 here; augment.crop is 0.875"),
    ],
)
def test_other_settings_are_refused(
    embed_videos: Embed, folder: Path, overrides: list[str], options: dict[str, Any], message: str
) -> None:
    embed_videos()
    before = rows(folder / "index")
    with pytest.raises(UsageError, match=f"index: is an index with other settings: {message}.*; ask for the same, or"):
        embed_videos(*overrides, **options)
    assert rows(folder / "index").keys() == before.keys()


def test_other_weights_are_refused(embed_videos: Embed, weights: EncoderWeights) -> None:
    embed_videos()
    with pytest.raises(UsageError, match="its cnn has other weights; ask for the same, or make another index"):
        embed_videos(weights=other_weights(weights))


def test_weights_that_have_diverged_are_refused(embed_videos: Embed, weights: EncoderWeights) -> None:
    with pytest.raises(DataError, match="a feature is not finite: the weights of the encoder have diverged"):
        embed_videos(weights=other_weights(weights, float("nan")))


def test_a_folder_with_something_else_is_refused(embed_videos: Embed, folder: Path) -> None:
    (folder / "index").mkdir()
    (folder / "index/checkpoint.pt").touch()
    with pytest.raises(UsageError, match=r"--out .*index: is no index, and not empty \(checkpoint.pt\)"):
        embed_videos()
    with pytest.raises(UsageError, match=r"--out .*checkpoint.pt: is no folder, or cannot be read"):
        embed_videos(index="index/checkpoint.pt")


@pytest.mark.parametrize("other", ["data.root=elsewhere", 'data.roots=[{root="elsewhere"}]'])
def test_other_videos_than_those_that_are_named_are_refused(embed_videos: Embed, other: str) -> None:
    with pytest.raises(UsageError, match=r"--set data\.roots?: the videos are given as .*videos; leave one"):
        embed_videos(other)


@pytest.mark.parametrize("every", [0.0, -1.0, float("nan"), float("inf")])
def test_spans_need_a_distance(embed_videos: Embed, every: float) -> None:
    with pytest.raises(UsageError, match=r"--every .*: say a number of seconds above 0"):
        embed_videos(every_seconds=every)


def test_several_processes_are_refused(embed_videos: Embed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="cacl embed runs in a single process"):
        embed_videos()


def test_a_name_that_is_not_utf8_is_named(embed_videos: Embed, folder: Path) -> None:
    name = os.fsdecode(b"\xff.mp4")
    (folder / "videos/a/00.mp4").rename(folder / "videos" / name)
    summary = embed_videos()
    assert summary.rejected == ((name, "has a name that is not UTF-8; give it another one"),)
    assert summary.added == VIDEOS - 1


def test_a_folder_of_damaged_videos_is_an_error(embed_videos: Embed, folder: Path) -> None:
    for file in (folder / "videos").rglob("*.mp4"):
        file.write_bytes(b"nothing")
    with pytest.raises(DataError, match="no video can be used, of 6 found"):
        embed_videos()
