"""What a catalog holds and tells, of folders of real, small videos."""

import hashlib
import json
import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from cacl.clips import VideoRecord
from cacl.errors import DataError
from tests.loaders.catalog.scans import scan_folder


def test_json_has_every_file(root: Path) -> None:
    content = json.loads(json.dumps(scan_folder(root).to_json()))
    on_disk = sorted(str(path.relative_to(root)) for path in root.rglob("*.*"))
    assert sorted(file["path"] for file in content["videos"] + content["rejected"]) == on_disk
    assert {key: content[key] for key in ("root", "layout", "missing")} == {
        "root": str(root),
        "layout": "classes",
        "missing": [],
    }
    assert content["videos"][0] == {
        "path": "run/a.mp4",
        "frames": 30,
        "declared_frames": 30,
        "rate": 25.0,
        "width": 64,
        "height": 48,
        "codec": "h264",
        "mirrored": False,
        "rotation": 0,
        "undecodable_frames": 0,
        "incomplete_packets": 0,
        "video_streams": 1,
        "pixel_aspect": 1.0,
        "content_hash": hashlib.blake2b((root / "run/a.mp4").read_bytes(), digest_size=16).hexdigest(),
        "label": "run",
        "split": None,
        "attributes": {},
    }
    assert content["rejected"][2] == {"path": "walk/empty.mp4", "reason": "is empty (0 bytes)"}


def test_lists_reach_the_records(good: Path) -> None:
    (good / "list.csv").write_text(
        "path,label,split,who\nrun/a.mp4,run,train,Ann\nrun/b.avi,run,test,Bob\nx.avi,run,,\n"
    )
    found = scan_folder(good)
    assert [(v.path, v.label, v.split, v.attributes) for v in found.videos] == [
        ("run/a.mp4", "run", "train", {"who": "Ann"}),
        ("run/b.avi", "run", "test", {"who": "Bob"}),
        ("walk/c.webm", None, None, {}),
        ("walk/short.mp4", None, None, {}),
    ]
    assert found.missing == ("x.avi",)
    assert [v.path for v in found.of_split("test").videos] == ["run/b.avi"]
    assert found.notes == found.of_split("test").notes == ()
    assert found.location(found.of_split("test").videos[0]) == good / "run/b.avi"
    assert found.of_split("else").videos == ()


def test_one_split_is_without_what_is_not_of_it(root: Path) -> None:
    """Else its share of rejected files would be taken of too few."""
    (root / "list.csv").write_text("name,label,split\nrun/a.mp4,run,test\nRUN/b.avi,run,val\nx.avi,run,test\n")
    found = scan_folder(root)
    assert (len(found.rejected), found.missing, len(found.notes)) == (4, ("x.avi",), 2)
    assert found.to_json()["notes"] == list(found.notes)
    assert found.notes[0] == "list.csv: its column name is taken for the path"
    assert "such as RUN/b.avi for run/b.avi" in found.notes[1]
    for split, path in (("test", "run/a.mp4"), ("val", "run/b.avi")):
        chosen = found.of_split(split)
        assert [video.path for video in chosen.videos] == [path]
        assert (chosen.rejected, chosen.missing, chosen.notes) == ((), (), ())


def test_fingerprint(good: Path, tmp_path: Path) -> None:
    found = scan_folder(good)
    first, *others = found.videos
    assert scan_folder(shutil.copytree(good, tmp_path / "moved")).fingerprint == found.fingerprint
    assert found.of_split("none").fingerprint != found.fingerprint
    decides = {
        "path": "run/z.mp4",
        "frames": 31,
        "width": 63,
        "height": 63,
        "content_hash": "00" * 16,
        "mirrored": True,
        "rotation": 90,
        "label": "sit",
        "split": "train",
        "attributes": {"who": "Ann"},
        "seek_points": first.seek_points[1:],
    }
    does_not = {
        "declared_frames": 31,
        "rate": 10.0,
        "codec": "vp9",
        "undecodable_frames": 1,
        "incomplete_packets": 1,
        "video_streams": 2,
        "pixel_aspect": 2.0,
    }
    assert {*decides, *does_not} == {field.name for field in fields(VideoRecord)} - {"fragments"}
    for name, value in (decides | does_not).items():
        changed = replace(found, videos=(replace(first, **{name: value}), *others))  # pyright: ignore[reportArgumentType]
        assert (changed.fingerprint != found.fingerprint) == (name in decides), name
    columns = {"who": "Ann", "set": "1"}
    there, back = (replace(first, attributes=dict(order)) for order in (columns.items(), reversed(columns.items())))
    assert replace(found, videos=(there,)).fingerprint == replace(found, videos=(back,)).fingerprint


def test_limit_on_rejected_files(root: Path) -> None:
    found = scan_folder(root)
    found.check(0.5)
    with pytest.raises(DataError) as raised:
        found.check(0.1)
    assert str(raised.value) == (
        f"data.root = {root}: 4 of 8 videos cannot be used, more than data.max_rejected_share = 0.1 allows: "
        f"run/cut.mp4 {found.rejected[0].reason}; run/cut_behind_its_index.mp4 {found.rejected[1].reason}; "
        "walk/empty.mp4 is empty (0 bytes); and 1 more. Mend or remove them, or raise data.max_rejected_share"
    )


def test_nothing_left(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a.mp4").touch()
    with pytest.raises(DataError, match=r"no video can be used, of 1 found: a\.mp4 is empty \(0 bytes\)$"):
        scan_folder(tmp_path / "root").check(1.0)
