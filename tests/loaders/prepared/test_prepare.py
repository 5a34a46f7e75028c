"""Preparing whole folders: everything is in the index or rejected by name, and any interruption can be gone on from."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.target import prepared_path
from cacl.loaders.prepared.transcode import TranscodeSettings
from cacl.loaders.prepared.verify import verify
from tests.loaders.prepared.prepared_sets import BAD, GOOD, SETTINGS, files, indexed, opened, run

MakeVideo = Callable[..., Path]


def test_every_source_is_there_or_rejected(whole: Path) -> None:
    found = opened(whole / "target")
    assert [(v.path, v.label, v.frames, v.width, v.height, v.rate) for v in found.videos] == [
        ("videos/run/a.mp4.mp4", "run", 30, 60, 48, 25.0),
        ("videos/run/b.avi.mp4", "run", 20, 58, 48, 10.0),
        ("videos/walk/a.mp4.mp4", "walk", 18, 64, 48, 25.0),
        ("videos/walk/c.webm.mp4", "walk", 25, 48, 58, 25.0),
    ]
    scanned = scan(DataConfig(root=str(whole / "source"), cache=str(whole / "cache")))
    assert found.rejected == scanned.rejected
    assert [path for path, _ in found.rejected] == BAD
    assert found.layout == "classes"
    assert set(files(whole / "target")) == {video.path for video in found.videos}
    for video in found.videos:
        file = whole / "target" / video.path
        assert video.content_hash == hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        frames = list(decode_frames(found.location(video), video, range(video.frames)))
        assert [frame_checksum(frame) for frame in frames] == [
            frame_checksum(frame) for frame in decode_frames(file, replace(video, fragments=None), range(video.frames))
        ]


def test_what_is_told(location: Path) -> None:
    calls: list[tuple[int, int, str]] = []
    config = DataConfig(root=str(location / "source"))

    def record(done: int, total: int, path: str) -> None:
        calls.append((done, total, path))

    summary = prepare(config, location / "new", SETTINGS, workers=2, progress=record)
    assert [call[:2] for call in calls] == [(done, 6) for done in range(1, 7)]
    assert sorted(path for *_, path in calls) == sorted(GOOD + BAD)
    told = json.loads(json.dumps(summary.to_json()))
    assert told == {
        "source": str(location / "source"),
        "target": str(location / "new"),
        "layout": "classes",
        "settings": {"short_side": 48, "gop": 16, "crf": 23, "codec": "h264"},
        "videos": 4,
        "copied": 1,
        "encoded": 3,
        "kept": 0,
        "source_bytes": sum((location / "source" / path).stat().st_size for path in GOOD),
        "prepared_bytes": sum((location / "new" / prepared_path(path)).stat().st_size for path in GOOD),
        "rejected": [{"path": path, "reason": dict(summary.catalog.rejected)[path]} for path in BAD],
        "missing": [],
        "notes": [],
    }
    calls.clear()
    again = prepare(config, location / "new", SETTINGS, workers=2, progress=record)
    assert calls == []
    assert again.to_json() == told | {"kept": 4}


@pytest.mark.parametrize("workers", [3, 0])
def test_the_same_bytes_with_any_number_of_workers(location: Path, workers: int) -> None:
    shutil.rmtree(location / "target")
    at_work: list[int] = []

    def count(done: int, total: int, path: str) -> None:
        at_work.append(len(multiprocessing.active_children()))

    prepare(DataConfig(root=str(location / "source")), location / "target", SETTINGS, workers=workers, progress=count)
    assert max(at_work) == min(len(GOOD + BAD), workers or len(os.sched_getaffinity(0)))
    for name in map(prepared_path, GOOD):
        assert (location / "target" / name).read_bytes() == (
            location.with_name("kept") / "target" / name
        ).read_bytes(), name
    assert indexed(location / "target") == indexed(location.with_name("kept") / "target")


def test_too_many_rejected(whole: Path) -> None:
    summary = run(whole / "source", whole / "target")
    summary.check(0.5)
    with pytest.raises(DataError, match=rf"^data\.root = {whole / 'source'}: 2 of 6 videos cannot be used, more than"):
        summary.check(0.1)


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.mp4").touch()
    with pytest.raises(DataError, match=r"no video can be used, of 1 found: a\.mp4 is empty \(0 bytes\)$"):
        run(tmp_path / "source", tmp_path / "target")
    assert not (tmp_path / "target" / INDEX_NAME).exists()


# --- Names and lists


def test_three_splits(tmp_path: Path, make_video: MakeVideo) -> None:
    root = tmp_path / "source"
    names = ["Run/a.avi", "Run/b.avi", "Walk/c.avi", "Walk/d.avi"]
    for name in names:
        make_video(root / name, frames=4, codec="mpeg4")
    for split, test in {1: names[:1], 3: names[1:3]}.items():
        (root / f"testlist0{split}.txt").write_text("\n".join(test))
        train = [name for name in names[: split + 1] if name not in test]
        (root / f"trainlist0{split}.txt").write_text("\n".join(f"{name} 1" for name in [*train, names[3]]))
    run(root, tmp_path / "target")
    for split, expected in {1: ["test", "train", None, "train"], 3: ["train", "test", "test", "train"]}.items():
        found = opened(tmp_path / "target", split=split)
        assert [video.split for video in found.videos] == expected
        assert [video.label for video in found.videos] == ["Run", "Run", "Walk", "Walk"]
        assert found.layout == "ucf101"
    with pytest.raises(DataError, match=r"^data\.fold = 2: "):
        opened(tmp_path / "target", split=2)


def test_a_list_that_is_damaged_is_not_taken_for_absent(tmp_path: Path, make_video: MakeVideo) -> None:
    make_video(tmp_path / "source/Run/a.avi", frames=4, codec="mpeg4")
    for split, line in {1: "Run/a.avi 1", 2: "what is this"}.items():
        (tmp_path / f"source/trainlist0{split}.txt").write_text(line)
        (tmp_path / f"source/testlist0{split}.txt").write_text("")
    with pytest.raises(DataError, match=r"trainlist02\.txt line 1: 'what is this' is not"):
        run(tmp_path / "source", tmp_path / "target")


def test_labels_are_read_anew(location: Path) -> None:
    before = files(location / "target")
    (location / "source/list.csv").write_text("path,label,split,who\nrun/a.mp4,sit,train,Ann\nx.mp4,sit,test,Bob\n")
    assert run(location / "source", location / "target").kept == 4
    found = opened(location / "target")
    assert files(location / "target") == before
    assert (found.videos[0].label, found.videos[0].split, found.videos[0].attributes) == (
        "sit",
        "train",
        {"who": "Ann"},
    )
    assert found.missing == ("x.mp4",)


def test_odd_names(tmp_path: Path, make_video: MakeVideo) -> None:
    root, elsewhere = tmp_path / "source", tmp_path / "elsewhere"
    for name in ("a.avi", "b.avi"):
        make_video(elsewhere / name, frames=4, codec="mpeg4")
    for name in ("a.avi", ".hidden.avi"):
        make_video(root / name, frames=5, codec="mpeg4")
    make_video(root / f"{'b' * 250}.avi", frames=6, codec="mpeg4")
    latin = root / os.fsdecode(b"caf\xe9.avi")
    make_video(root / "c.avi", frames=7, codec="mpeg4").rename(latin)
    listed = [str(elsewhere / "a.avi"), "../elsewhere/b.avi", ".hidden.avi"]
    (root / "list.csv").write_text("path\n" + "\n".join(listed))
    found = run(root, tmp_path / "target").catalog
    assert {video.frames: Path(video.path).parent.as_posix() for video in found.videos} == {
        4: "videos/_elsewhere",
        5: "videos",
        6: "videos/_elsewhere",
        7: "videos",
    }
    assert len({video.path for video in found.videos}) == 6
    for video in found.videos:
        assert found.location(video).is_file()  # pyright: ignore[reportAttributeAccessIssue]


def test_files_that_are_no_files(location: Path) -> None:
    (location / "source/run/dangling.mp4").symlink_to("nowhere")
    os.mkfifo(location / "source/run/pipe.mp4")
    assert dict(run(location / "source", location / "target").catalog.rejected[:2]) == {
        "run/dangling.mp4": "cannot be read (No such file or directory)",
        "run/pipe.mp4": "is not a regular file",
    }


# --- Real footage


def test_real_formats(footage: Path, tmp_path: Path) -> None:
    summary = run(footage / "formats", tmp_path / "target", TranscodeSettings(), workers=2)
    scanned = scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path / "cache")))
    assert summary.catalog.rejected == scanned.rejected
    assert {Path(video.path).stem: video.frames for video in summary.catalog.videos} == {
        video.path: video.frames for video in scanned.videos
    }
    verified = verify(summary, 11, progress=lambda *_: None)
    assert (verified.lowest_psnr_db or 0) > 32
