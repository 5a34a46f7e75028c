"""The index of a prepared set is written whole or not at all."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from cacl.loaders.catalog.index_writer import IndexWriter
from cacl.loaders.catalog.prepared_files import INDEX_NAME
from tests.loaders.catalog.prepared_sets import ABOUT, MEMBERS, UNSPLIT, opened, write


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
