"""How a list of videos is written: its encoding, its comments, its delimiter, and which column names the videos."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from cacl.loaders.catalog.layouts.suffixes import VIDEO_SUFFIXES

PATH_COLUMNS = (
    *("path", "video_path", "file_path", "filepath", "clip_path", "filename", "file_name", "file"),
    *("video", "video_name", "video_id", "clip", "clip_name"),
)
"""The usual names of the column that names the videos, in lower case."""
KINETICS_COLUMNS = {"youtube_id", "time_start", "time_end", "split"}
"""The columns of the official lists of Kinetics, which name videos by their id and times."""
DELIMITERS = "\t,;| "
"""What may stand between two cells of a line."""

_SUFFIXES = "|".join(VIDEO_SUFFIXES)
_VIDEO_NAME = re.compile(rf"(?P<quote>\"?)(?P<path>.+\.(?:{_SUFFIXES}))(?P=quote)(?:\s+(?P<rest>.*))?", re.I)
"""The name of a video, and what stands behind it after a blank."""
_VIDEO_MENTION = re.compile(rf"[^\s,;:|=\"'<>()\[\]]+\.(?:{_SUFFIXES})\b", re.I)
"""What may be the name of a video, in any text."""

VideoExists: TypeAlias = Callable[[str], bool]
"""A function that tells whether there is a video of this name."""
Row: TypeAlias = tuple[int, Sequence[str]]
"""The number of a line, from 1 on, and its cells."""


class ListFormat(NamedTuple):
    """How a list is written."""

    delimiter: str
    path_column: int | None
    """The number of the column that names the videos; None in lists of Kinetics, which name them otherwise."""
    has_header: bool


def decode_text(data: bytes, errors: str = "strict") -> str:
    """Decodes text in UTF-8 or UTF-16, with a byte order mark or without.

    Args:
        data: The bytes of a file, or its first ones.
        errors: What to do with bytes that are no text, as in `bytes.decode`.

    Raises:
        UnicodeDecodeError: The bytes are no such text, and `errors` is "strict".
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16", errors)
    if b"\0" in data[:2]:
        return data.decode("utf-16-le" if data[1:2] == b"\0" else "utf-16-be", errors)
    return data.decode("utf-8-sig", errors)


def blank_comments(text: str, video_exists: VideoExists) -> list[str]:
    """Returns the lines of a text, with an empty line for each comment so that the numbers of lines stay."""
    return ["\n" if _is_comment(line, video_exists) else line for line in io.StringIO(text, newline="")]


def _is_comment(line: str, video_exists: VideoExists) -> bool:
    """Tells whether a line is a comment. One by which a spreadsheet tells its delimiter counts as such."""
    if line.lstrip().startswith("#"):
        rows = [row for delimiter in DELIMITERS for row in split_rows([line], delimiter)[0]]
        return not any(video_exists(cells[0]) for _, cells in rows)
    return re.fullmatch(r"sep=.\s*", line) is not None


def split_rows(lines: Iterable[str], delimiter: str) -> tuple[list[Row], str]:
    """Cuts lines into cells.

    Args:
        lines: The lines of a list.
        delimiter: What stands between two cells.

    Returns:
        The lines that are not blank, and what is wrong with the line at which this ended too early, if there is one.
    """
    if delimiter == " ":
        return [(number, _split_at_blanks(line.strip())) for number, line in enumerate(lines, 1) if line.strip()], ""
    rows: list[Row] = []
    # Strict, or a quote that is never closed would take all the lines behind it into its cell.
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                rows.append((reader.line_num, stripped))
    except csv.Error as error:
        return rows, f"line {reader.line_num}: is not valid CSV ({error})"
    return rows, ""


def _split_at_blanks(line: str) -> list[str]:
    """Cuts a line at its blanks. A path may hold some: it ends where a suffix of videos does."""
    match = _VIDEO_NAME.fullmatch(line)
    return [match["path"], *(match["rest"] or "").split()] if match else line.split()


def detect_format(sample: Sequence[str], video_exists: VideoExists) -> ListFormat | None:
    """Finds out by its first lines how a list is written.

    Args:
        sample: The first lines of a file, without comments.
        video_exists: A function that tells whether there is a video of a name.

    Returns:
        The format, or None if these are not the lines of a list of videos.
    """
    cut = {delimiter: rows for delimiter in DELIMITERS if (rows := split_rows(sample, delimiter)[0])}
    headers = {delimiter: [cell.lower() for cell in rows[0][1]] for delimiter, rows in cut.items() if delimiter != " "}
    for delimiter, header in headers.items():
        if "path" in header:
            return ListFormat(delimiter, header.index("path"), True)
        if set(header) >= KINETICS_COLUMNS:
            return ListFormat(delimiter, None, True)
    return _by_video_names(cut, video_exists) or _by_usual_header(headers, cut, video_exists)


def _by_video_names(cut: dict[str, list[Row]], video_exists: VideoExists) -> ListFormat | None:
    """Finds a format in which at least half of the lines name a video in the same column.

    Of several, the best is the one whose names most often belong to videos that exist.

    Args:
        cut: The lines, cut into cells by each delimiter.
        video_exists: A function that tells whether there is a video of a name.
    """
    formats = []
    for delimiter, rows in cut.items():
        width = max(len(cells) for _, cells in rows)
        column = max(range(width), key=lambda column: _count(rows, column, is_video_name))
        count = _count(rows, column, is_video_name)
        if count and 2 * count >= len(rows):
            existing = _count(rows, column, lambda cell: is_video_name(cell) and video_exists(cell))
            usual_width, rows_of_it = Counter(len(cells) for _, cells in rows).most_common(1)[0]
            first = rows[0][1]
            has_header = len(first) > column and not is_video_name(first[column])
            formats.append((existing, count, rows_of_it, usual_width, ListFormat(delimiter, column, has_header)))
    return max(formats, key=lambda found: found[:-1])[-1] if formats else None


def _by_usual_header(
    headers: dict[str, list[str]], cut: dict[str, list[Row]], video_exists: VideoExists
) -> ListFormat | None:
    """Finds a column that is usually called so and names videos without their suffixes."""
    for delimiter, header in headers.items():
        rows = cut[delimiter][1:]
        for column in [header.index(name) for name in PATH_COLUMNS if name in header]:
            if 2 * _count(rows, column, video_exists) > len(rows):
                return ListFormat(delimiter, column, True)
    return None


def _count(rows: Sequence[Row], column: int, predicate: Callable[[str], bool]) -> int:
    """Counts the rows whose cell in this column fulfils the predicate."""
    return sum(len(cells) > column and predicate(cells[column]) for _, cells in rows)


def is_video_name(cell: str) -> bool:
    """Tells whether a cell ends in a suffix of videos."""
    return cell.lower().endswith(tuple(f".{suffix}" for suffix in VIDEO_SUFFIXES))


def mentions_videos(sample: Sequence[str], video_exists: VideoExists, *, in_half_of_the_lines: bool) -> bool:
    """Tells whether a text names videos that exist.

    Args:
        sample: The first lines of the text.
        video_exists: A function that tells whether there is a video of a name.
        in_half_of_the_lines: Whether it has to be about half of the lines that name a video, and not just one.
    """
    naming = [any(map(video_exists, _VIDEO_MENTION.findall(line))) for line in sample if line.strip()]
    return any(naming) and not (in_half_of_the_lines and 2 * sum(naming) < len(naming))
