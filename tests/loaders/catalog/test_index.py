"""The index of a prepared set: what goes in comes out, and nothing that is damaged, cut or half written is taken for
what went in. No video is needed for that: these are random, and their files do not exist."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from cacl.clips import Fragments, VideoRecord
from cacl.config import DataConfig
from cacl.errors import DataError
from cacl.loaders.catalog import index_reader
from cacl.loaders.catalog.index_format import FORMAT
from cacl.loaders.catalog.index_reader import PreparedIndex
from cacl.loaders.catalog.index_writer import IndexWriter, PreparedVideo
from cacl.loaders.catalog.layouts.hold_out import hold_out
from cacl.loaders.catalog.layouts.listing import VideoEntry
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from cacl.loaders.catalog.prepared_videos import PreparedVideos
from cacl.loaders.catalog.scan import scan

ABOUT = {
    "layout": "classes",
    "rejected": [["walk/bad.mp4", "is empty (0 bytes)"]],
    "missing": ["x.mp4"],
    "notes": ["a note"],
}
LATIN = os.fsdecode(b"caf\xe9")
"""Not UTF-8."""


def entry(path: str, label: str | None = None, **attributes: str) -> VideoEntry:
    return VideoEntry(path, label, None, attributes)


ENTRIES = [
    entry(f"run/{LATIN}.avi", "run"),
    entry("run/b.mp4", "run", who="Ann"),
    entry("run/c c.mp4", "run", who="Bob", **{"how.fast": ""}),
    entry("sit/d.mp4", LATIN, who="Ann"),
    entry("sit/e.mp4", None),
    entry("/elsewhere/f.mp4", "run", who=LATIN),
    entry("sit/" + "g" * 250 + ".mp4", "逃げる"),
]
SPLITS: list[dict[int, str | None]] = [
    {1: "train", 2: "train", 3: "test"},
    {1: "train", 2: "test", 3: "val"},
    {1: "test", 2: None, 3: None},
    {1: None, 2: "train", 3: "test"},
    {1: "test", 2: None, 3: "test"},
    {1: "train", 2: "train", 3: "test"},
    {1: "train", 2: "test", 3: None},
]


def prepared(number: int, entry: VideoEntry, splits: dict[int, str | None] | None = None) -> PreparedVideo:
    draw = np.random.default_rng(number)
    groups = [1, 4, 1, 30, 2][number % 5]
    init = [b"head", b"another head", b"head"][number % 3]
    lengths = draw.integers(1, 17, groups)
    fragments = Fragments(
        init=init,
        first=np.cumsum([0, *lengths[:-1]]),
        offset=len(init) + np.cumsum([0, *draw.integers(100, 2**33 if number == 3 else 9000, groups)]),
        checksum=draw.integers(0, 2**32, groups, np.uint32),
    )
    video = VideoRecord(
        path=f"videos/{entry.path}.mp4",
        frames=int(lengths.sum()),
        declared_frames=int(lengths.sum()),
        rate=[25.0, 30000 / 1001][number % 2],
        width=128 + 2 * number,
        height=128,
        codec="h264",
        content=draw.bytes(16).hex(),
        fragments=fragments,
    )
    size = int(fragments.offset[-1])
    return PreparedVideo(video=video, entry=entry, splits=splits or {1: None}, size=size, source=draw.bytes(16).hex())


MEMBERS = [prepared(number, entry, SPLITS[number]) for number, entry in enumerate(ENTRIES)]
UNSPLIT = [prepared(number, entry) for number, entry in enumerate(ENTRIES)]


def write(folder: Path, members: Sequence[PreparedVideo] = MEMBERS, about: dict[str, object] = ABOUT) -> Path:
    folder.mkdir(exist_ok=True)
    writer = IndexWriter(folder)
    for member in members:
        writer.add(member)
    writer.save(about)
    return folder


def opened(folder: Path, split: int = 1, test_share: float = 0.0) -> PreparedVideos:
    return PreparedVideos(PreparedIndex(folder / INDEX_NAME, "the set"), split, test_share)


def record(member: PreparedVideo, split: str | None) -> VideoRecord:
    return replace(member.video, label=member.entry.label, split=split, attributes=member.entry.attributes)


def facts(video: VideoRecord) -> tuple[object, ...]:
    """All of it, as values that compare exactly."""
    assert video.fragments is not None
    places = [values.tolist() for values in video.fragments[1:]]
    return replace(video, fragments=None), video.fragments.init, places


# --- What goes in comes out


@pytest.mark.parametrize("split", [1, 2, 3])
def test_every_record_comes_back(tmp_path: Path, split: int) -> None:
    found = opened(write(tmp_path), split)
    wanted = [record(member, splits[split]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(map(facts, found)) == list(map(facts, wanted))
    assert found.has_splits
    assert found.prepared_index.about == ABOUT
    assert found.prepared_index.folds == [1, 2, 3]
    with pytest.raises(DataError, match=r"^data\.fold = 4: the set was prepared with fold 1, 2, 3$"):
        opened(tmp_path, 4)


def test_sets_without_something(tmp_path: Path) -> None:
    """Without splits, without labels, of one video, and with as many tables as entries."""
    assert [video.split for video in opened(write(tmp_path, UNSPLIT))] == [None] * 7
    assert not opened(tmp_path).has_splits
    alone = [prepared(3, entry("a.mp4"))]
    assert list(map(facts, opened(write(tmp_path, alone)))) == [facts(alone[0].video)]
    many = [prepared(n, entry(f"{n}.mp4", f"class {n}", name=f"{n}")) for n in range(300)]
    assert list(map(facts, opened(write(tmp_path, many)))) == [facts(record(member, None)) for member in many]


def test_a_set_is_a_sequence(tmp_path: Path) -> None:
    found = opened(write(tmp_path))
    wanted = [record(member, splits[1]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert len(found) == 7
    assert [found[n] for n in range(-7, 7)] == wanted + wanted
    for which in (7, -8, 10**9):
        with pytest.raises(IndexError):
            found[which]
    assert list(reversed(found)) == wanted[::-1]
    assert wanted[3] in found
    assert found.index(wanted[4]) == 4
    for some in (slice(2, 5), slice(None, None, -1), slice(-3, None), slice(5, 2), slice(0, 100, 3)):
        assert list(found[some]) == wanted[some]
    assert list(found[2:6][1:3]) == wanted[3:5]
    with pytest.raises(IndexError):
        found[2:4][2]


def test_choices(tmp_path: Path) -> None:
    found = opened(write(tmp_path), split=2)
    wanted = [record(member, splits[2]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    for split in ("train", "test", "val"):
        assert list(found.of_split(split)) == [video for video in wanted if video.split == split]
    assert list(opened(write(tmp_path / "unsplit", UNSPLIT)).of_split("train")) == []
    for frames in sorted({0, 1, 10**6, *(video.frames for video in wanted)}):
        assert list(found.at_least(frames)) == [video for video in wanted if video.frames >= frames]
        assert list(found.shorter_than(frames)) == [video for video in wanted if video.frames < frames]
        together = found.at_least(frames).of_split("train")[::-1]
        assert list(together) == [v for v in wanted if v.frames >= frames and v.split == "train"][::-1]
        assert together.has_splits
    assert list(found) == wanted, "a choice leaves the whole alone"


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 1.0])
def test_held_out_as_from_the_sources(tmp_path: Path, share: float) -> None:
    members = UNSPLIT + [prepared(n, entry(f"run/{n}.mp4", "run")) for n in range(40)]
    wanted = hold_out([member.entry for member in members], share)
    found = opened(write(tmp_path, members), test_share=share)
    assert [(video.label, video.split) for video in found] == [(entry.label, entry.split) for entry in wanted]
    assert found.has_splits
    assert list(found.of_split("test")) == [video for video in found if video.split == "test"]
    # Lists that tell splits are not overruled.
    assert list(opened(write(tmp_path), test_share=share)) == list(opened(tmp_path))


def test_nothing_to_hold_out_of(tmp_path: Path) -> None:
    unlabelled = [prepared(n, entry(f"{n}.mp4")) for n in range(4)]
    with pytest.raises(DataError, match=r"^data\.test_share = 0\.2 holds out videos of each class, but the set tells"):
        opened(write(tmp_path, unlabelled), test_share=0.2)


# --- The fingerprint


CHANGES: list[Callable[[PreparedVideo], PreparedVideo]] = [
    lambda p: replace(p, video=replace(p.video, content="00" * 16)),
    lambda p: replace(p, video=replace(p.video, frames=p.video.frames + 1)),
    lambda p: replace(p, video=replace(p.video, width=2)),
    lambda p: replace(p, video=replace(p.video, path="videos/other.mp4")),
    lambda p: replace(p, entry=p.entry._replace(label="stand")),
    lambda p: replace(p, entry=p.entry._replace(label=None)),
    lambda p: replace(p, entry=p.entry._replace(attributes={"who": "Eve"})),
    lambda p: replace(p, entry=p.entry._replace(attributes={"whom": "Ann"})),
    lambda p: replace(p, splits={1: "test", 2: None, 3: None}),
    lambda p: replace(p, splits={1: "val", 2: None, 3: None}),
    lambda p: replace(p, splits={1: None, 2: None, 3: None}),
]


def test_the_fingerprint_tells_what_decides_samples(tmp_path: Path) -> None:
    first = prepared(1, entry("b.mp4", "run", who="Ann"), {1: "train", 2: None, 3: None})
    found = opened(write(tmp_path, [first]))
    seen = {found.fingerprint}
    for number, change in enumerate(CHANGES):
        seen.add(opened(write(tmp_path, [change(first)])).fingerprint)
        assert len(seen) == number + 2, number
    assert seen.isdisjoint({opened(write(tmp_path)).fingerprint})


def test_the_fingerprint_tells_which_were_chosen(tmp_path: Path) -> None:
    found = opened(write(tmp_path))
    shares = [opened(write(tmp_path / "unsplit", UNSPLIT), test_share=share) for share in (0.0, 0.1, 0.9)]
    choices = [found, opened(tmp_path, 2), *shares, found[1:], found[::-1], found.of_split("train"), found.at_least(20)]
    assert len({choice.fingerprint for choice in choices}) == len(choices)
    assert found.at_least(1).fingerprint == found[:].fingerprint == opened(tmp_path).fingerprint


def test_the_fingerprint_tells_nothing_else(tmp_path: Path) -> None:
    """Neither where the set lies, nor what is not in it."""
    found = opened(write(tmp_path / "a"))
    other: dict[str, object] = {**ABOUT, "rejected": [], "settings": {"crf": 20}}
    assert opened(write(tmp_path / "b", about=other)).fingerprint == found.fingerprint
    assert opened(shutil.copytree(tmp_path / "a", tmp_path / "c")).fingerprint == found.fingerprint


# --- Damage


def all_of(folder: Path) -> tuple[object, ...]:
    found = opened(folder)
    return (
        list(map(facts, found)),
        found.split_names,
        found.prepared_index.about,
        found.prepared_index.folds,
        found.fingerprint,
    )


def test_damage_is_never_taken_for_a_record(tmp_path: Path) -> None:
    """A byte between the parts may change unseen; nothing that is read from the file may."""
    file = write(tmp_path, MEMBERS[:2]) / INDEX_NAME
    content, true, noticed = file.read_bytes(), all_of(tmp_path), 0
    damages = np.random.default_rng(0).integers(1, 256, len(content)).tolist()
    with file.open("r+b", buffering=0) as open_file:
        for location, damage in enumerate(damages):
            os.pwrite(open_file.fileno(), bytes([content[location] ^ damage]), location)
            if is_refused(tmp_path):
                noticed += 1
            else:
                assert all_of(tmp_path) == true, location
            os.pwrite(open_file.fileno(), content[location : location + 1], location)
    assert noticed > 0.9 * len(content)
    assert all_of(tmp_path) == true


def is_refused(folder: Path) -> bool:
    try:
        opened(folder)
    except DataError as error:
        message = str(error)
        if message.startswith("the set: its index.safetensors cannot be used (") and message.endswith(
            "; prepare the set again"
        ):
            return True
        raise
    return False


def test_other_types_of_columns_are_damage(tmp_path: Path) -> None:
    file = write(tmp_path) / INDEX_NAME
    content = file.read_bytes()
    for a, b in [(b"I32", b"U32"), (b"U32", b"I32"), (b"F64", b"I64"), (b"I64", b"F64")]:
        before, after = (b'"dtype":"%s"' % kind for kind in (a, b))
        assert before in content
        file.write_bytes(content.replace(before, after, 1))
        assert is_refused(tmp_path)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    file = write(tmp_path, MEMBERS[:2]) / INDEX_NAME
    content = file.read_bytes()
    for length in [*range(64), *range(64, len(content), 9), len(content) - 1]:
        file.write_bytes(content[:length])
        assert is_refused(tmp_path), length


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"17",
        b"{}",
        b'"__metadata__"',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"cacl": []}}',
        b'{"__metadata__": null, "a": {}}',
        b'{"__metadata__": {"cacl": "[]"}}',
        b"\xff\xfe",
    ],
)
def test_headers_that_are_none(tmp_path: Path, header: bytes) -> None:
    for length in (len(header), len(header) + 1, 2**40, 2**63, 2**64 - 1):
        (tmp_path / INDEX_NAME).write_bytes(length.to_bytes(8, "little") + header)
        with pytest.raises(DataError, match=r"^the set: its index\.safetensors cannot be used \(.+\); prepare the set"):
            opened(tmp_path)


def test_other_files_in_its_place(tmp_path: Path) -> None:
    file = tmp_path / INDEX_NAME
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \(No such file or directory\)"):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file)
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \("):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file, {"cacl": json.dumps({"format": "cacl prepared set 99"})})
    with pytest.raises(DataError, match=r"\(its format is 'cacl prepared set 99', not 'cacl prepared set \d+'\)"):
        opened(tmp_path)
    save_file({"weight": np.zeros(3)}, file, {"cacl": json.dumps({"format": FORMAT})})
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \("):
        opened(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match=r"^the set: its index.* cannot be used \(Is a directory\)"):
        opened(tmp_path)


def test_a_set_in_use_is_prepared_again(tmp_path: Path) -> None:
    """Whoever has opened the old one goes on with it."""
    found = opened(write(tmp_path))
    before = list(map(facts, found))
    write(tmp_path, [prepared(n, entry(f"{n}.mp4")) for n in range(3)])
    assert list(map(facts, found)) == before
    assert len(opened(tmp_path)) == 3


def test_a_set_is_prepared_again_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is then the old one or the new one as a whole."""
    file, other = write(tmp_path / "a") / INDEX_NAME, write(tmp_path / "b", UNSPLIT[::-1]) / INDEX_NAME
    digest = index_reader.digest_columns

    def replacing(*given: Any) -> str:
        if other.exists():
            other.replace(file)
        return digest(*given)

    monkeypatch.setattr(index_reader, "digest_columns", replacing)
    wanted = [record(member, splits[1]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(map(facts, opened(tmp_path / "a"))) == list(map(facts, wanted))
    assert list(map(facts, opened(tmp_path / "a"))) == [facts(record(member, None)) for member in UNSPLIT[::-1]]


# --- Not written half


def test_the_old_one_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    content = (write(tmp_path) / INDEX_NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(tmp_path, UNSPLIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == [INDEX_NAME]
    assert (tmp_path / INDEX_NAME).read_bytes() == content
    assert list(opened(write(tmp_path, UNSPLIT)))


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "nowhere"):
        writer = IndexWriter(folder)
        writer.add(MEMBERS[0])
        with pytest.raises(OSError, match=r"No such file|Not a directory"):
            writer.save(ABOUT)
    (tmp_path / "full" / INDEX_NAME).mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        write(tmp_path / "full")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["file", "full", f"full/{INDEX_NAME}"]


# --- Through scan


def test_scan_opens_it(tmp_path: Path) -> None:
    write(tmp_path)
    found = scan(DataConfig(root=str(tmp_path), fold=3), min_frames=15)
    wanted = [record(member, splits[3]) for member, splits in zip(MEMBERS, SPLITS, strict=True)]
    assert list(found.videos) == [video for video in wanted if video.frames >= 15]
    short = [(video.path, f"has {video.frames} frames; a clip needs 15") for video in wanted if video.frames < 15]
    assert short
    assert list(found.rejected) == sorted([*short, ("walk/bad.mp4", "is empty (0 bytes)")])
    assert (found.layout, found.missing, found.root) == ("classes", ("x.mp4",), tmp_path)
    assert found.notes == ("a note",)
    assert found.only("test").notes == ()
    assert found.location(found.videos[0]) == tmp_path / found.videos[0].path
    assert list(found.only("test").videos) == [video for video in found.videos if video.split == "test"]
    assert json.loads(json.dumps(found.to_json()))["videos"][0]["path"] == found.videos[0].path
    val = scan(DataConfig(root=str(tmp_path), fold=3)).only("val").videos
    assert list(val) == [video for video in wanted if video.split == "val"] != []
    assert len(scan(DataConfig(root=str(tmp_path), layout="classes")).videos) == len(wanted)
    older = write(tmp_path / "older", about={name: value for name, value in ABOUT.items() if name != "notes"})
    assert scan(DataConfig(root=str(older))).notes == ()
    with pytest.raises(DataError, match=r"was prepared from layout classes; data\.layout = csv is not it"):
        scan(DataConfig(root=str(tmp_path), layout="csv"))
    with pytest.raises(
        DataError, match=r": every video is too short; the longest, .*, has \d+ frames, and a clip needs"
    ):
        scan(DataConfig(root=str(tmp_path)), min_frames=10**6)


GROWTH = """
import sys
from cacl.config import DataConfig
from cacl.loaders.catalog.scan import scan

def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

scan(DataConfig(root=sys.argv[1]))
before = resident()
found = scan(DataConfig(root=sys.argv[2]), min_frames=16)
train, one = found.only("train"), found.videos[16_000]
print(resident() - before, len(found.videos), len(train.videos), one.path, found.fingerprint and 1)
"""


def test_opening_many_videos_takes_little_memory(tmp_path: Path) -> None:
    """A mapped page counts as soon as it is touched."""
    draw, count, groups = np.random.default_rng(0), 20_000, 150
    fragments = Fragments(
        init=b"head" * 200,
        first=16 * np.arange(groups),
        offset=800 + 3000 * np.arange(groups + 1),
        checksum=draw.integers(0, 2**32, groups, np.uint32),
    )
    video = replace(MEMBERS[0].video, frames=16 * groups, fragments=fragments)
    member = replace(MEMBERS[0], video=video)
    writer = IndexWriter(tmp_path)
    for number in range(count):
        path, label = f"class {number % 400}/a name as long as names are {number}.mp4", f"class {number % 400}"
        splits = {1: "train" if number % 5 else "test"}
        named = replace(video, path=f"videos/{path}.mp4")
        writer.add(replace(member, video=named, entry=entry(path, label), splits=splits))
    writer.save(ABOUT)
    size = (tmp_path / INDEX_NAME).stat().st_size
    assert size > 50_000_000
    small = write(tmp_path / "small")
    run = subprocess.run([sys.executable, "-c", GROWTH, small, tmp_path], capture_output=True, text=True, check=True)
    growth, *rest = run.stdout.split(" ", 3)
    assert rest == ["20000", "16000", "videos/class 0/a name as long as names are 16000.mp4.mp4 1\n"]
    assert int(growth) < 10_000_000  # half a kilobyte for each video would be too much
