"""Targets that cannot be written, or do not go together with the source."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cacl.config import DataConfig
from cacl.errors import DataError, UsageError
from cacl.loaders.catalog.prepared_files import CONVERSION_LOG_NAME, INDEX_NAME
from cacl.loaders.prepared.prepare import prepare
from cacl.loaders.prepared.target import prepared_path
from cacl.loaders.prepared.transcode import TranscodeSettings
from tests.loaders.prepared.prepared_sets import GOOD, SETTINGS, files, run


@pytest.mark.parametrize("kibibytes", [4, 16, 32], ids=["conversion_log", "videos", "index"])
def test_the_disk_is_full(location: Path, tmp_path: Path, kibibytes: int) -> None:
    """The disk holds a few pages of 4 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", disk]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("file systems may not be mounted here")
    try:
        with pytest.raises(DataError, match=rf"^{disk}/target: cannot be written \(.*No space left .*\); mend that"):
            run(location / "source", disk / "target")
        assert not (disk / "target" / INDEX_NAME).exists()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        before = files(disk / "target")
        summary = run(location / "source", disk / "target")
        after = files(disk / "target")
        assert summary.kept == len(after.items() & before.items())
        assert set(after) == set(map(prepared_path, GOOD))
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # The index is still mapped.


def test_files_may_not_grow(location: Path) -> None:
    """The limit on file sizes acts as a quota does."""
    shutil.rmtree(location / "target")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(DataError, match=r"target: cannot be written \(File too large\); mend that"):
            run(location / "source", location / "target")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert run(location / "source", location / "target").converted


def test_a_target_that_cannot_be(location: Path) -> None:
    (location / "file").touch()
    with pytest.raises(DataError, match=rf"^{location}/file/target: cannot be written \(Not a directory\)"):
        run(location / "source", location / "file/target")
    with pytest.raises(DataError, match=rf"^{location}/file: cannot be written \(.*\)"):
        run(location / "source", location / "file")


def test_places_that_do_not_go_together(location: Path) -> None:
    source = location / "source"
    for target in (source, source / "run/target", location):
        with pytest.raises(UsageError, match=rf"^{target}: lies within {source}, or around it"):
            run(source, target)
    (location / "link").symlink_to(source)
    with pytest.raises(UsageError, match="lies within"):
        run(source, location / "link/target")
    with pytest.raises(UsageError, match=r"^.*target: is a prepared set; name the videos that it was made from$"):
        run(location / "target", location / "again")
    (location / "full").mkdir()
    (location / "full/thesis.tex").touch()
    with pytest.raises(UsageError, match=r"full: is not empty, and no prepared set"):
        run(source, location / "full")
    with pytest.raises(UsageError, match=r"^data\.test_share"):
        prepare(DataConfig(root=str(source), test_share=0.2), location / "new", SETTINGS, workers=1, progress=print)
    assert not (location / "new").exists()


def test_other_settings_and_other_sources(location: Path) -> None:
    target = location / "target"
    for settings, named in {
        TranscodeSettings(short_side=64): "short_side = 48, not 64",
        replace(SETTINGS, gop=8): "gop = 16, not 8",
        replace(SETTINGS, crf=25): "crf = 23, not 25",
        replace(SETTINGS, codec="hevc"): "codec = h264, not hevc",
    }.items():
        with pytest.raises(DataError, match=rf"^{target}: was begun with {named}; give the same again, or name"):
            run(location / "source", target, settings)
    (location / "source").rename(location / "other")
    with pytest.raises(DataError, match=rf"was begun with source = {location}/source, not {location}/other; "):
        run(location / "other", target)
    (target / CONVERSION_LOG_NAME).write_text("something else\n")
    with pytest.raises(DataError, match=r"its conversion_log.jsonl is damaged in the first line"):
        run(location / "other", target)


def test_one_at_a_time(location: Path) -> None:
    def again(done: int, total: int, path: str) -> None:
        with pytest.raises(DataError, match=rf"^{location}/target: another `cacl data prepare` is at work there$"):
            run(location / "source", location / "target")

    os.utime(location / "source/run/a.mp4")
    prepare(DataConfig(root=str(location / "source")), location / "target", SETTINGS, workers=1, progress=again)
    run(location / "source", location / "target")
