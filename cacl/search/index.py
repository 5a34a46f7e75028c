"""An index of videos: a folder with an encoder and, for every span of every video, a row with its feature.

`spans.parquet` has the rows, sorted by path and time, and `encoder.safetensors` the encoder with its configuration: the
folder can be searched wherever it is copied to. While an index is made or brought up to date, finished videos are in
`parts/`. The settings that decide the features are in the metadata of each of these files, so that none is taken for
what it is not.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cacl.config import Config
from cacl.errors import DataError, UsageError, reason_of
from cacl.files import atomic_write

ENCODER_NAME, SPANS_NAME, PARTS_NAME, LOCK_NAME = "encoder.safetensors", "spans.parquet", "parts", ".lock"
"""The names of what is in the folder of an index. The lock is held by a process that writes there."""
FORMAT = 1
"""Raise this when the columns or their meaning change."""
METADATA_KEY = b"cacl"
"""The key of the metadata of a file, under which the header of its index is, as JSON."""
WAY_OUT = "delete it, and `cacl embed` makes it anew"
"""What to do about a file that cannot be used."""
ROWS_PER_GROUP = 8192
"""The number of rows that are read at once in a search, 16 MB of 512 dimensions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Everything that decides the features of a video."""

    encoder: str
    """`cnn` or `transformer`."""
    weights: str
    """The digest of the weights of this encoder."""
    every_seconds: float | None
    """The time from the start of a span to that of the next. None: spans follow one another."""
    frames: int
    """T, the number of frames in a clip."""
    stride: int
    """The number of frames of the video from one frame of a clip to the next."""
    size: int
    """The height and the width of a view, in pixels."""
    crop: float
    """The side of the centre crop, as a share of the short side of the frame."""
    resize: list[int]
    """The height and the width that frames are resized to before the crop, or zeros."""

    @staticmethod
    def of(config: Config, encoder: str, weights: str, every_seconds: float | None) -> IndexSettings:
        """Takes out of a configuration what decides the features.

        Args:
            config: The configuration.
            encoder: `cnn` or `transformer`.
            weights: The digest of the weights of this encoder.
            every_seconds: The time between the starts of spans, or None.
        """
        clip, augment = config.clip, config.augment
        return IndexSettings(
            encoder=encoder,
            weights=weights,
            every_seconds=every_seconds,
            frames=clip.frames,
            stride=clip.stride,
            size=clip.size,
            crop=augment.crop[1],
            resize=list(augment.resize),
        )

    def differences(self, asked: IndexSettings) -> list[str]:
        """Says which settings differ from those that are asked for, in words.

        Args:
            asked: The other settings.
        """
        found = []
        for name, option in OPTIONS.items():
            own, other = (
                "not set" if value is None else value for value in (getattr(self, name), getattr(asked, name))
            )
            if own != other:
                found.append(f"{option} is {own} in it and {other} here")
        if self.encoder == asked.encoder and self.weights != asked.weights:
            found.append(f"its {self.encoder} has other weights")
        return found


OPTIONS = {
    "encoder": "--encoder",
    "every_seconds": "--every",
    "frames": "clip.frames",
    "stride": "clip.stride",
    "size": "clip.size",
    "crop": "augment.crop",
    "resize": "augment.resize",
}
"""What sets each of the settings but the weights: an option of `cacl embed`, or a key of the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexHeader:
    """What is said of an index in each of its files."""

    root: str
    """The folder or address that paths start from."""
    settings: IndexSettings
    """What decides the features."""
    backend: str
    """What made the views of the clips when the index was begun."""

    def schema(self, dimensions: int) -> pa.Schema:
        """Returns the columns of the files.

        Args:
            dimensions: F, the number of entries of a feature.
        """
        columns = {
            "path": pa.string(),
            "content_hash": pa.string(),
            "start_frame": pa.int32(),
            "start_seconds": pa.float64(),
            "end_seconds": pa.float64(),
            "feature": pa.list_(pa.field("element", pa.float32(), nullable=False), dimensions),
        }
        about = json.dumps({"format": FORMAT, **asdict(self)}).encode()
        fields = [pa.field(name, kind, nullable=False) for name, kind in columns.items()]
        return pa.schema(fields, metadata={METADATA_KEY: about})


class SpanFile:
    """A file with the spans of some videos, of which only what is asked for is read.

    Args:
        file: The file.

    Raises:
        DataError: The file is missing or damaged, or another version wrote it.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        with self._opened() as parquet:
            try:
                about = json.loads((parquet.schema_arrow.metadata or {})[METADATA_KEY])
                if about.pop("format") != FORMAT:
                    raise DataError(f"{file}: is of another version of cacl; {WAY_OUT}")
                self.header = IndexHeader(**about | {"settings": IndexSettings(**about["settings"])})
                schema = parquet.schema_arrow
                if not schema.equals(self.header.schema(schema.field("feature").type.list_size)):
                    raise self._damaged()
            except (AttributeError, KeyError, TypeError, ValueError):
                raise self._damaged() from None
            self._rows = parquet.metadata.num_rows

    def __len__(self) -> int:
        """Returns the number of spans."""
        return self._rows

    def videos(self) -> Iterator[tuple[str, str, int, int]]:
        """Finds the videos.

        Yields:
            The path of each video, the digest of the bytes of its file, the position of its first row, and the number
            of its rows.
        """
        table, first = self.table(["path", "content_hash"]), 0
        for (path, content_hash), rows in groupby(zip(*(c.to_pylist() for c in table.columns), strict=True)):
            count = sum(1 for _ in rows)
            yield path, content_hash, first, count
            first += count

    def contents(self) -> dict[str, str]:
        """Returns the digest of the bytes of each video, by its path."""
        return {path: content_hash for path, content_hash, _, _ in self.videos()}

    def features(self) -> Iterator[np.ndarray]:
        """Reads the features block by block.

        Yields:
            float32 [at most `ROWS_PER_GROUP`, F], in the order of the rows.
        """
        with self._opened() as parquet:
            for batch in parquet.iter_batches(ROWS_PER_GROUP, columns=["feature"]):
                column = batch.column(0)
                yield column.flatten().to_numpy().reshape(len(column), -1)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads some columns.

        Args:
            columns: Their names; None reads everything.
        """
        with self._opened() as parquet:
            return parquet.read(columns)

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Opens the file, until the block ends. What is wrong with it is told in one line."""
        try:
            with pq.ParquetFile(self.file, memory_map=True, page_checksum_verification=True) as parquet:
                yield parquet
        except (OSError, UnicodeDecodeError, pa.ArrowException):
            raise self._damaged() from None

    def _damaged(self) -> DataError:
        return DataError(f"{self.file}: is damaged, or no index; {WAY_OUT}")


class IndexFolder:
    """The files of an index, which need not be there yet.

    Args:
        folder: The folder.

    Raises:
        DataError: A file is damaged, or another version wrote it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        whole = folder / SPANS_NAME
        self.whole = SpanFile(whole) if whole.exists() else None
        """The finished index, or None."""
        self.parts = [SpanFile(file) for file in sorted((folder / PARTS_NAME).glob("*.parquet"))]
        """What a process that was stopped left behind."""

    @property
    def files(self) -> list[SpanFile]:
        """The index and its parts. What a later one has of a video takes the place of what an earlier one has."""
        return [*([self.whole] if self.whole else []), *self.parts]

    def check_settings(self, asked: IndexSettings) -> None:
        """Checks that the index was made with the settings that are asked for.

        Args:
            asked: The settings.

        Raises:
            UsageError: It has others.
        """
        for file in self.files:
            if found := file.header.settings.differences(asked):
                raise UsageError(
                    f"{self.folder}: is an index with other settings: {'; '.join(found)}; ask for the same, or make "
                    "another index"
                )

    def contents(self) -> dict[str, str]:
        """Returns the digest of the bytes of each video in the index or its parts, by its path."""
        return {path: content_hash for file in self.files for path, content_hash in file.contents().items()}

    def add_part(self, table: pa.Table) -> None:
        """Writes the spans of some videos into a new part.

        Args:
            table: The spans.

        Raises:
            DataError: The part cannot be written.
        """
        number = int(self.parts[-1].file.stem) + 1 if self.parts else 0  # An earlier part may have been deleted.
        file = self.folder / PARTS_NAME / f"{number:06}.parquet"
        _write(file, table)
        self.parts.append(SpanFile(file))

    def finish(self, header: IndexHeader, contents: Mapping[str, str]) -> SpanFile:
        """Makes one index of the index and its parts, and deletes the parts.

        Args:
            header: What is said of the index.
            contents: The digest of the bytes of each video that the index shall have, by its path.

        Returns:
            The index.

        Raises:
            DataError: The index cannot be written.
        """
        if self.whole and not self.parts and (self.whole.header, self.whole.contents()) == (header, contents):
            return self.whole
        tables: dict[str, pa.Table] = {}
        for file in self.files:
            everything = file.table()
            for path, content_hash, first, count in file.videos():
                if contents.get(path) == content_hash:
                    tables[path] = everything.slice(first, count)
        table = pa.concat_tables(tables[path] for path in sorted(contents))
        dimensions = table.schema.field("feature").type.list_size
        _write(self.folder / SPANS_NAME, table.replace_schema_metadata(header.schema(dimensions).metadata))
        shutil.rmtree(self.folder / PARTS_NAME, ignore_errors=True)
        self.whole, self.parts = SpanFile(self.folder / SPANS_NAME), []
        return self.whole


def _write(file: Path, table: pa.Table) -> None:
    """Writes a file of spans, whole or not at all.

    Nothing is compressed: features would hardly become smaller, and take longer to read.
    """
    try:
        file.parent.mkdir(exist_ok=True)
        with atomic_write(file) as temporary:
            pq.write_table(
                table,
                temporary,
                compression="none",
                use_dictionary=["path", "content_hash"],  # pyright: ignore[reportArgumentType] - or names of columns
                row_group_size=ROWS_PER_GROUP,
                write_page_checksum=True,
            )
    except OSError as error:
        raise DataError(
            f"{file}: cannot be written ({reason_of(error)}); mend that, and the same command goes on from here"
        ) from None
