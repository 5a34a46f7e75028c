"""Files of an index that are damaged, or of another version, are told from others."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cacl.errors import DataError
from cacl.search.index import SpanFile
from tests.search.conftest import Embed


@pytest.fixture
def spans(embed_videos: Embed, folder: Path) -> Path:
    embed_videos()
    return folder / "index/spans.parquet"


def test_a_file_is_read_in_parts(spans: Path) -> None:
    file, table = SpanFile(spans), pq.read_table(spans)
    assert len(file) == table.num_rows
    assert file.table().equals(table)
    videos = list(file.videos())
    assert [path for path, _, _, _ in videos] == sorted(set(table["path"].to_pylist()))
    for path, content_hash, first, count in videos:
        own = table.slice(first, count)
        assert set(own["path"].to_pylist()) == {path}
        assert set(own["content_hash"].to_pylist()) == {content_hash}
    assert sum(count for *_, count in videos) == len(file)
    (block,) = file.features()
    assert block.tolist() == table["feature"].to_pylist()


def test_what_any_reader_of_parquet_sees(spans: Path) -> None:
    about = json.loads((pq.read_schema(spans).metadata or {})[b"cacl"])
    assert about["format"] == 1
    assert about["root"].endswith("/videos")
    assert about["backend"] == "cpu"
    assert about["settings"]["frames"] == 4


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_file_is_damaged(spans: Path, keep: int) -> None:
    spans.write_bytes(spans.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=r"spans.parquet: is damaged, or no index; delete it, and `cacl embed` makes it"
    ):
        SpanFile(spans)


def test_a_byte_that_has_changed_is_noticed(spans: Path) -> None:
    content = bytearray(spans.read_bytes())
    (block,) = SpanFile(spans).features()
    place = content.index(block[3].tobytes())
    content[place + 2] ^= 1
    spans.write_bytes(content)
    with pytest.raises(DataError, match=r"spans\.parquet: is damaged"):
        list(SpanFile(spans).features())


def test_another_version_or_another_table_is_no_index(spans: Path) -> None:
    table = pq.read_table(spans)
    about = json.loads(table.schema.metadata[b"cacl"])
    pq.write_table(table.replace_schema_metadata({"cacl": json.dumps(about | {"format": 2})}), spans)
    with pytest.raises(DataError, match="is of another version of cacl; delete it"):
        SpanFile(spans)
    others = [table.replace_schema_metadata({}), table.drop_columns("feature"), table.drop_columns("path")]
    others.append(table.set_column(3, "start_seconds", table["start_frame"]))
    for other in others:
        pq.write_table(other, spans)
        with pytest.raises(DataError, match="is damaged, or no index"):
            SpanFile(spans)


@pytest.mark.parametrize("name", [b"start_seconds", b"feature"])
def test_a_letter_of_the_name_of_a_column_that_has_changed_is_noticed(spans: Path, name: bytes) -> None:
    content = spans.read_bytes()
    for bit in (0x80, 0x01):  # The first makes of the name what is not UTF-8.
        changed = bytearray(content)
        changed[content.index(name)] ^= bit
        spans.write_bytes(changed)
        with pytest.raises(DataError, match="is damaged, or no index"):
            SpanFile(spans)
