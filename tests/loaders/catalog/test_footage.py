"""Scanning real footage, where there is some."""

import csv
from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.loaders.catalog.layouts.discover import discover_videos
from cacl.loaders.catalog.scan import scan


def test_real_formats(footage: Path, tmp_path: Path) -> None:
    found = scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path)), min_frames=16)
    assert {video.path: video.frames for video in found.videos} == {
        "RATRACE_wave_f_nm_np1_fr_goo_37.avi": 72,
        "av1_video.mkv": 125,
        "fire2.mp4": 25,
        "hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi": 83,
        "nasa_13013.mp4": 390,
        "no_duration.webm": 74,
        "testsrc2_odd_height_and_width_vp9.mp4": 25,
        "v_SoccerJuggling_g23_c01.avi": 240,
    }
    reasons = dict(found.rejected)
    assert "28 of 50 frames" in reasons.pop("corrupted.mp4")
    assert reasons == {
        "result.webm": "is empty (0 bytes)",
        "test_non_zero_start.mp4": "has 12 frames; a clip needs 16",
        "unordered.mov": "has 4 frames; a clip needs 16",
        "video_90.mov": "has 3 frames; a clip needs 16",
    }
    upright = {
        video.path: video for video in scan(DataConfig(root=str(footage / "formats"), cache=str(tmp_path))).videos
    }
    assert (upright["fire2.mp4"].rotation, upright["video_90.mov"].rotation) == (180, 270)


@pytest.mark.parametrize("name", ["ut_interaction", "ut_interaction/labels.csv"])
def test_ut_interaction(footage: Path, tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    cache = tmp_path_factory.getbasetemp() / "ut_interaction_cache"  # shared by both: the folder is the same
    found = scan(DataConfig(root=str(footage / name), cache=str(cache)), min_frames=16)
    with (footage / "ut_interaction/labels.csv").open() as file:
        listed = {row["path"]: int(row["frames"]) for row in csv.DictReader(file)}
    assert {video.path: video.frames for video in found.videos} == listed
    assert (len(found.videos), len(found.of_split("train").videos), len(found.of_split("test").videos)) == (120, 83, 37)
    assert (found.layout, found.rejected, found.missing) == ("csv", (), ())
    assert len({video.label for video in found.videos}) == 6
    assert found.videos[0].attributes.keys() == {"set", "sequence", "width", "height", "frames", "fps"}


def test_ut_interaction_without_its_list(footage: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    for folder in (footage / "ut_interaction").iterdir():
        if folder.is_dir():
            (tmp_path / "root" / folder.name).symlink_to(folder)
    listing = discover_videos(DataConfig(root=str(tmp_path / "root"), test_share=0.3))
    assert listing.layout == "classes"
    assert {entry.label for entry in listing.entries} == {"handshake", "hug", "kick", "point", "punch", "push"}
    assert 24 <= sum(entry.split == "test" for entry in listing.entries) <= 48
