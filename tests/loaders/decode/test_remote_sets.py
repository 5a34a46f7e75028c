"""Prepared sets on a real HTTP server, with all its moods, and at other URLs: the right clips or a DataError."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
import torch

from cacl.clips import ClipBatch, ClipPlan, VideoRecord
from cacl.config import AugmentConfig, ClipConfig, DataConfig
from cacl.errors import DataError
from cacl.loaders.backends import cpu
from cacl.loaders.backends.thread_pool import ThreadPoolBackend
from cacl.loaders.catalog.catalog import Catalog
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.scan import scan
from cacl.loaders.decode import storage
from cacl.loaders.decode.raw import decode_frames
from cacl.loaders.decode.yuv import frame_checksum
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.transcode import TranscodeSettings, transcode
from cacl.loaders.sampling.sampler import ClipSampler
from tests.loaders.decode.web_server import Request, Server

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, make_video: MakeVideo) -> Path:
    location = tmp_path_factory.mktemp("original")
    for number, frames in enumerate((90, 40, 64)):
        make_video(location / f"source/{number}.mp4", frames=frames, size=(64 + 16 * number, 48), bframes=2)
    config = DataConfig(root=str(location / "source"))
    prepare(config, location / "set", TranscodeSettings(short_side=48), workers=1, progress=lambda *_: None)
    return location / "set"


@pytest.fixture
def local(original: Path, server: Server) -> Catalog:
    """The set that the server has, read from disk."""
    return scan(DataConfig(root=str(shutil.copytree(original, server.folder / "set"))))


def remote(server: Server, tmp_path: Path) -> Catalog:
    return scan(DataConfig(root=server.root, cache=str(tmp_path / "cache")))


def plans(catalog: Catalog, steps: int = 4) -> list[list[ClipPlan]]:
    clip = ClipConfig(frames=6, size=32)
    return list(ClipSampler(catalog.videos, clip, AugmentConfig(), seed=3).batches(0, steps, 4))


def batches(catalog: Catalog, wanted: list[list[ClipPlan]]) -> list[ClipBatch]:
    return list(ThreadPoolBackend(cpu.load_clip, catalog, size=32, threads=4, prefetch=2).batches(wanted))


def bounds(video: VideoRecord, numbers: range) -> tuple[int, int]:
    """Returns the range of bytes that these frames need."""
    assert video.fragments is not None
    first, offset = video.fragments.first_frames.tolist(), video.fragments.offsets.tolist()
    start = max(offset[g] for g in range(len(first)) if first[g] <= numbers[0])
    return start, min([*(offset[g] for g in range(len(first)) if first[g] > numbers[-1]), offset[-1]])


# --- All is well


def test_a_remote_set_is_the_local_one(local: Catalog, server: Server, tmp_path: Path) -> None:
    found = remote(server, tmp_path)
    assert list(found.videos) == list(local.videos)
    assert found.fingerprint == local.fingerprint
    assert found.location(found.videos[1]) == f"{server.root}/{local.videos[1].path}"
    for ours, theirs in zip(batches(found, plans(found)), batches(local, plans(local)), strict=True):
        assert len(ours) == 4
        assert not ours.failures
        assert ours.index.tolist() == theirs.index.tolist()
        assert all(torch.equal(a, b) for a, b in zip(ours.views, theirs.views, strict=True))


def test_one_request_per_clip_for_just_the_bytes_it_needs(local: Catalog, server: Server, tmp_path: Path) -> None:
    found = remote(server, tmp_path)
    wanted = plans(found)
    server.heard()
    batches(found, wanted)
    needed = []
    for plan in (plan for batch in wanted for plan in batch):
        video = found.videos[plan.video]
        start, end = bounds(video, plan.frame_numbers)
        needed.append(Request("GET", f"/set/{video.path}", f"bytes={start}-{end - 1}", end - start))
    assert sorted(server.heard()) == sorted(needed)
    sizes = [(server.folder / "set" / video.path).stat().st_size for video in local.videos]
    assert sum(request.sent for request in needed) < len(needed) * min(sizes), "the clips are of whole videos"


def test_the_index_is_fetched_once(local: Catalog, server: Server, tmp_path: Path) -> None:
    size = (server.folder / "set" / INDEX_NAME).stat().st_size
    remote(server, tmp_path)
    assert [r.sent for r in server.heard()].count(size) == 1
    (copy,) = (tmp_path / "cache").iterdir()
    for _ in range(3):
        remote(server, tmp_path)
        assert sum(request.sent for request in server.heard()) < size
    assert list((tmp_path / "cache").iterdir()) == [copy]


def test_an_index_that_changed_is_fetched_again(local: Catalog, server: Server, tmp_path: Path) -> None:
    """The new index is as long as the old one, and as old."""
    first = remote(server, tmp_path)
    videos = list(first.videos)
    sizes = set[int]()
    for some in (videos, videos[::-1], [videos[2], videos[0], videos[1]], videos):
        file = write(server.folder / "set", some)
        sizes.add(file.stat().st_size)
        os.utime(file, (1e9, 1e9))
        assert list(remote(server, tmp_path).videos) == some
    assert len(sizes) == 1
    assert list(first.videos) == videos, "whoever has opened the old one goes on with it"


def write(folder: Path, videos: list[VideoRecord]) -> Path:
    writer = IndexWriter(folder)
    for video in videos:
        entry = VideoEntry(video.path, None, None, {})
        writer.add(PreparedVideo(video=video, entry=entry, splits={1: None}, size=1, source="00" * 16))
    writer.save({"layout": "folder", "rejected": [], "missing": []})
    return folder / INDEX_NAME


NAMES = [
    "a b.mp4",
    "a#b.mp4",
    "100%.mp4",
    "%20%2F.mp4",
    "is it?.mp4",
    "a=b&c+d;e,f@g:h.mp4",
    "Büro/Türe.mp4",
    "逃げる.mp4",
    "it's [1]*{2}~.mp4",
    "chained::file.mp4",
    'back\\slash "quoted".mp4',
    os.fsdecode(b"caf\xe9.mp4"),
]


def test_names_of_all_kinds(server: Server, tmp_path: Path, make_video: MakeVideo) -> None:
    source = make_video(tmp_path / "source.avi", frames=20, codec="mpeg4")
    video = VideoRecord(path="", frames=20, declared_frames=20, rate=25, width=64, height=48, codec="mpeg4")
    file = tmp_path / "made.mp4"
    made = transcode(source, video, file, TranscodeSettings(short_side=48)).video
    for name in NAMES:
        path = server.folder / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, path)
    write(server.folder / "set", [replace(made, path=name) for name in NAMES])
    found = remote(server, tmp_path)
    assert [video.path for video in found.videos] == NAMES
    true = [frame_checksum(frame) for frame in decode_frames(file, made, range(5, 9))]
    for video in found.videos:
        frames = decode_frames(found.location(video), video, range(5, 9))
        assert [frame_checksum(frame) for frame in frames] == true


def test_a_server_that_is_gone(tmp_path: Path, original: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        address = f"http://127.0.0.1:{closed.server_port}/numbers"
    with pytest.raises(DataError, match=rf"^{address}: cannot be read, 5 attempts failed \(.*Connect call failed"):
        storage.read(address, 0, 10)
    with pytest.raises(DataError, match=rf"^{address}/index\.safetensors: cannot be read, 5 attempts failed \("):
        scan(DataConfig(root=address, cache=str(tmp_path)))


@pytest.mark.parametrize(
    ("moods", "failing"),
    [
        (["503", "drop"], 0),
        (["503"] * 4 * storage.MAX_ATTEMPTS, 4),
        (["no ranges"] * 4, 4),
        (["off by one"] * 4, 4),
        (["short"] * 3, 3),
        (["404"], 1),
    ],
    ids=lambda param: param[0] if isinstance(param, list) else "",
)
def test_clips_of_a_server_in_trouble(
    local: Catalog, server: Server, tmp_path: Path, moods: list[str], failing: int
) -> None:
    """Each clip is right, or a failure that names the file."""
    found = remote(server, tmp_path)
    ((good,), wanted) = batches(local, plans(local, 1)), plans(found, 1)
    server.moods.extend(moods)
    (batch,) = batches(found, wanted)
    assert [
        failure.reason.startswith(f"{found.location(found.videos[failure.video])}: ") for failure in batch.failures
    ] == [True] * failing
    kept = [slot for slot, index in enumerate(good.index) if index in batch.index]
    assert len(kept) == len(batch) == 4 - failing
    assert all(torch.equal(ours, theirs[kept]) for ours, theirs in zip(batch.views, good.views, strict=True))
    (batch,) = batches(found, wanted)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(batch.views, good.views, strict=True))


def test_a_video_that_is_gone_there(local: Catalog, server: Server, tmp_path: Path) -> None:
    found = remote(server, tmp_path)
    (server.folder / "set" / found.videos[0].path).unlink()
    (batch,) = batches(found, plans(found, 1))
    assert {failure.reason for failure in batch.failures} == {
        f"{found.location(found.videos[0])}: is not there, or may not be read"
    }
    assert len(batch) == sum(plan.video != 0 for plan in plans(found, 1)[0])


@pytest.mark.parametrize("request_number", [0, 1, 2])
def test_opening_a_set_of_a_server_in_trouble(
    local: Catalog, server: Server, tmp_path: Path, request_number: int
) -> None:
    for mood in ("503", "drop"):
        server.moods.extend([*[""] * request_number, mood, mood])
        assert list(remote(server, tmp_path / mood).videos) == list(local.videos)
        assert not server.moods
    (server.folder / "set" / INDEX_NAME).unlink()
    server.heard()
    with pytest.raises(DataError, match=rf"^{server.root}/index\.safetensors: is not there, or may not be read"):
        remote(server, tmp_path)
    assert len(server.heard()) == 1


def test_an_index_that_is_damaged_there(local: Catalog, server: Server, tmp_path: Path) -> None:
    file = server.folder / "set" / INDEX_NAME
    content = file.read_bytes()
    file.write_bytes(content[:-30] + b"\xff" * 10 + content[-20:])
    with pytest.raises(DataError, match=rf"^data\.root = {server.root}: its index\.safetensors cannot be used \(it is"):
        remote(server, tmp_path)
    file.write_bytes(b"<html>Please log in</html>")
    with pytest.raises(DataError, match=server.root):
        remote(server, tmp_path)
    file.write_bytes(content)
    assert list(remote(server, tmp_path).videos) == list(local.videos)


def test_a_copy_that_is_damaged_costs_time_and_nothing_else(local: Catalog, server: Server, tmp_path: Path) -> None:
    remote(server, tmp_path)
    (copy,) = (tmp_path / "cache").iterdir()
    content = copy.read_bytes()
    for damaged in (content[:-1], content[:-30] + b"\xff" * 30, b""):
        copy.write_bytes(damaged)
        assert list(remote(server, tmp_path).videos) == list(local.videos)
        assert copy.read_bytes() == content


def test_nowhere_to_keep_a_copy(local: Catalog, server: Server, tmp_path: Path) -> None:
    """The message does not blame the server for it."""
    (tmp_path / "file").touch()
    for folder in (f"{tmp_path}/file/cache", "/proc/self"):
        with pytest.raises(DataError, match=rf"cannot be kept in {folder} \(.*\); set data\.cache$"):
            scan(DataConfig(root=server.root, cache=folder))
    assert (tmp_path / "file").read_bytes() == b""


# --- Other places


def test_other_protocols(original: Path, tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for file in original.rglob("*.*"):
        if file.is_file():
            memory.pipe(f"/bucket/set/{file.relative_to(original)}", file.read_bytes())
    local = scan(DataConfig(root=str(original)))
    for root in ("memory://bucket/set/", f"file://{original}"):
        found = scan(DataConfig(root=root, cache=str(tmp_path / "cache")))
        assert list(found.videos) == list(local.videos)
        ((ours,), (theirs,)) = batches(found, plans(found, 1)), batches(local, plans(local, 1))
        assert torch.equal(ours.query, theirs.query)
        with pytest.raises(DataError, match=r"/nothing: is not there, or may not be read$"):
            storage.read(f"{root}/nothing", 0, 4)
    with pytest.raises(DataError, match=r"^nosuch://bucket/set/index\.safetensors: cannot be opened \(.*nosuch"):
        scan(DataConfig(root="nosuch://bucket/set", cache=str(tmp_path / "cache")))
